"""Numbers in JSON and CSV bodies straight into float32: compiled, without Python floats between.

Only plain bodies are understood: ``{"instances":[{"features":[1, -2.5e-3]}]}`` and rows of CSV. For
anything else, and for every number whose last bit is in doubt, `NotPlainError` is raised, and the
reader that understands all forms takes over. So both give the same bits, or an error in its words.

A number of up to 19 digits is ``digits * 10**e``, which float64 holds to 2 units in its last place
(Clinger, "How to read floating point numbers accurately", 1990). Rounded to float32 that is the
correctly rounded float64 rounded to float32, unless it lies beside the middle of two float32.

Shape letters: N rows, D feature columns, B bytes of the body, T bytes of a fixed text.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

Features = NDArray[np.float32]

_MOST_DIGITS = 19
_MOST_POWER = 22  # 10**22 is the largest power of ten that float64 holds exactly
_POWERS = 10.0 ** np.arange(_MOST_POWER + 1)
_EXACT_BELOW = np.uint64(2**53)
_LARGEST = 3.4028234e38  # beyond it a float32 may be infinite
_SMALLEST = 1.2e-38  # below it a float32 has fewer digits, and other middles
_LOW_BITS = np.uint64(2**29 - 1)  # of a float64, those that a float32 has no room for
_MIDDLE = np.int64(2**28)
_DOUBT = 4  # twice the 2 units in the last place


def _text(characters: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(characters, np.uint8)


_FIRST = _text(b'{"instances":[{"features":[')
_NEXT = _text(b']},{"features":[')
_LAST = _text(b"]}]}")


class NotPlainError(ValueError):
    """The body is not of the plain form, or holds a number that needs the slower reader."""


def plain_json_rows(body: bytes, feature_dim: int, most_rows: int) -> Features:
    """Return the rows of a plain JSON body: finite float32 of shape (N, D), N >= 1."""
    return _filled(_fill_json, body, feature_dim, most_rows, body.count(b"]") - 1)


def plain_csv_rows(body: bytes, feature_dim: int, most_rows: int) -> Features:
    """Return the rows of a plain CSV body: finite float32 of shape (N, D), N >= 1."""
    return _filled(_fill_csv, body, feature_dim, most_rows, body.count(b"\n", 0, -1) + 1)


def warm_up() -> None:
    """Compile, or load what was compiled before, so that no request waits for it."""
    plain_json_rows(b'{"instances":[{"features":[1]}]}', 1, 1)
    plain_csv_rows(b"1\n", 1, 1)


def _filled(
    fill: Callable[[NDArray[np.uint8], Features], bool],
    body: bytes,
    feature_dim: int,
    most_rows: int,
    n_rows: int,
) -> Features:
    # two bytes at least stand for a number: a small body gets no large matrix
    if not 0 < n_rows <= most_rows or 2 * n_rows * feature_dim > len(body) + 1:
        raise NotPlainError
    rows_ND = np.empty((n_rows, feature_dim), np.float32)
    if not fill(np.frombuffer(body, np.uint8), rows_ND):
        raise NotPlainError
    return rows_ND


@njit(cache=True, nogil=True)
def _fill_json(body_B: Any, rows_ND: Any) -> bool:
    at = _after(body_B, 0, _FIRST)
    for n in range(len(rows_ND)):
        if n > 0:
            at = _after(body_B, at, _NEXT)
        at = _fill_row(body_B, at, rows_ND[n])
        if at < 0:
            return False
    at = _after(body_B, at, _LAST)
    return at >= 0 and _after_spaces(body_B, at) == len(body_B)


@njit(cache=True, nogil=True)
def _fill_csv(body_B: Any, rows_ND: Any) -> bool:
    at = 0
    for n in range(len(rows_ND)):
        at = _fill_row(body_B, at, rows_ND[n])
        if at < 0:
            return False
        if at < len(body_B) and body_B[at] == 13:
            at += 1
        if at < len(body_B):
            if body_B[at] != 10:
                return False
            at += 1
    return at == len(body_B)


@njit(cache=True, nogil=True)
def _fill_row(body_B: Any, at: int, row_D: Any) -> int:
    """Read numbers with commas between; return where the last one ends, or -1."""
    for d in range(len(row_D)):
        if d > 0:
            if at >= len(body_B) or body_B[at] != 44:
                return -1
            at += 1
        if at < 0:
            return -1
        while at < len(body_B) and body_B[at] == 32:
            at += 1
        at, row_D[d] = _number(body_B, at)
        if at < 0:
            return -1
    return at


@njit(cache=True, nogil=True)
def _number(body_B: Any, at: int) -> tuple[int, float]:
    """Read one JSON number; return where it ends, or -1, and its value."""
    end = len(body_B)
    is_negative = at < end and body_B[at] == 45
    if is_negative:
        at += 1
    first, digits, power = at, np.uint64(0), 0
    while at < end and 48 <= body_B[at] <= 57:
        digits = digits * np.uint64(10) + np.uint64(body_B[at] - 48)
        at += 1
    n_digits = at - first
    if n_digits == 0 or (n_digits > 1 and body_B[first] == 48):
        return -1, 0.0
    if digits == 0:
        n_digits = 0  # zeros in front take no room
    if at < end and body_B[at] == 46:
        at += 1
        first = at
        if digits == 0:
            while at < end and body_B[at] == 48:
                at += 1
        n_digits -= at
        while at < end and 48 <= body_B[at] <= 57:
            digits = digits * np.uint64(10) + np.uint64(body_B[at] - 48)
            at += 1
        n_digits += at
        power = first - at
        if power == 0:
            return -1, 0.0
    if n_digits > _MOST_DIGITS:
        return -1, 0.0
    if at < end and (body_B[at] == 101 or body_B[at] == 69):
        at, written = _exponent(body_B, at + 1)
        power += written
        if at < 0:
            return -1, 0.0
    value, is_sure = _value(digits, power)
    if not is_sure:
        return -1, 0.0
    if is_negative:
        value = -value
    return at, value


@njit(cache=True, nogil=True)
def _exponent(body_B: Any, at: int) -> tuple[int, int]:
    """Read the digits after an E; return where they end, or -1, and what they say."""
    end, power = len(body_B), 0
    is_negative = at < end and body_B[at] == 45
    if at < end and (body_B[at] == 45 or body_B[at] == 43):
        at += 1
    first = at
    while at < end and 48 <= body_B[at] <= 57 and at - first < 4:
        power = power * 10 + np.int64(body_B[at] - 48)
        at += 1
    if at == first:
        return -1, 0
    if is_negative:
        power = -power
    return at, power


@njit(cache=True, nogil=True)
def _value(digits: Any, power: int) -> tuple[float, bool]:
    """Return ``digits * 10**power``, and whether float32 of it is certainly right."""
    if digits == 0:
        return 0.0, True
    if not -_MOST_POWER <= power <= _MOST_POWER:
        return 0.0, False
    value = np.float64(digits)
    if power < 0:
        value = value / _POWERS[-power]
    else:
        value = value * _POWERS[power]
    if not _SMALLEST < value < _LARGEST:
        return 0.0, False
    if digits <= _EXACT_BELOW:
        return value, True
    return value, abs(_low_bits(value) - _MIDDLE) > _DOUBT


@njit(cache=True, nogil=True)
def _low_bits(value: float) -> int:
    return np.int64(np.float64(value).view(np.uint64) & _LOW_BITS)


@njit(cache=True, nogil=True)
def _after(body_B: Any, at: int, text_T: Any) -> int:
    """Return where a fixed text ends that may have spaces between its marks, or -1."""
    if at < 0:
        return -1
    is_word = False
    for character in text_T:
        if not is_word:
            at = _after_spaces(body_B, at)
        if at >= len(body_B) or body_B[at] != character:
            return -1
        at += 1
        if character == 34:
            is_word = not is_word
    return at


@njit(cache=True, nogil=True)
def _after_spaces(body_B: Any, at: int) -> int:
    while at < len(body_B) and (body_B[at] == 32 or body_B[at] == 10 or body_B[at] == 13):
        at += 1
    return at
