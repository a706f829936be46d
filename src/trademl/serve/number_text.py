"""Numbers in JSON and CSV bodies straight into float32: compiled, without Python floats between.

Only plain bodies are understood: ``{"instances":[{"features":[1, -2.5e-3]}]}`` and rows of CSV. For
anything else, and for a number whose last bit is in doubt, there is no result, and the reader that
understands all forms takes over. So both give the same bits, or an error in its words.

A number is ``digits * 10**power``. Of up to 19 digits and 44 powers, float64 holds it to 4 units in
its last place after three roundings, and exactly where digits and power are small (Clinger, "How to
read floating point numbers accurately", 1990). As float32 it is therefore the correctly rounded
float64 rounded to float32, unless it lies beside the middle of two float32.

The kernels keep Python's lock: they take microseconds, and a thread that computes would give the
lock back after milliseconds only.

Shape letters: N rows, D feature columns, B bytes of the body, T bytes of a fixed text.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

Features = NDArray[np.float32]
PlainReader = Callable[[bytes, int, int], Features | None]

_MOST_DIGITS = 19  # any such number fits 64 bits
_EXACT_POWER = 22  # 10**22 is the largest power of ten that float64 holds exactly
_MOST_POWER = 2 * _EXACT_POWER
_POWERS = 10.0 ** np.arange(_EXACT_POWER + 1)
_EXACT_DIGITS = np.uint64(2**53)
_LARGEST = 3.4028234e38  # beyond it a float32 may be infinite
_SMALLEST = 1.2e-38  # below it a float32 has fewer digits, and other middles
_LOW_BITS = np.uint64(2**29 - 1)  # of a float64, those that a float32 has no room for
_MIDDLE = np.int64(2**28)
_DOUBT = 8  # twice the 4 units in the last place
_NOT_PLAIN = -1


def _text(characters: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(characters, np.uint8)


_FIRST = _text(b'{"instances":[{"features":[')
_NEXT = _text(b']},{"features":[')
_LAST = _text(b"]}]}")


def plain_json_rows(body: bytes, feature_dim: int, most_rows: int) -> Features | None:
    """Return the rows of a plain JSON body, finite, of shape (N, D), N >= 1; None for others."""
    return _filled(_fill_json, body, feature_dim, most_rows, body.count(b"]") - 1)


def plain_csv_rows(body: bytes, feature_dim: int, most_rows: int) -> Features | None:
    r"""Return the rows of a plain CSV body, finite, of shape (N, D), N >= 1; None for others.

    Examples
    --------
    >>> plain_csv_rows(b"1,2.5\n3,-4e-1\n", 2, 100).tolist()
    [[1.0, 2.5], [3.0, -0.4000000059604645]]
    >>> plain_csv_rows(b"1,nan\n", 2, 100)
    """
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
) -> Features | None:
    # two bytes at least stand for a number: a small body gets no large matrix
    if not 0 < n_rows <= most_rows or 2 * n_rows * feature_dim > len(body) + 1:
        return None
    rows_ND = np.empty((n_rows, feature_dim), np.float32)
    return rows_ND if fill(np.frombuffer(body, np.uint8), rows_ND) else None


@njit(cache=True)
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


@njit(cache=True)
def _fill_csv(body_B: Any, rows_ND: Any) -> bool:
    end, at = len(body_B), 0
    for n in range(len(rows_ND)):
        at = _fill_row(body_B, at, rows_ND[n])
        if at < 0:
            return False
        if at < end and body_B[at] == ord("\r"):
            at += 1
        if at < end:
            if body_B[at] != ord("\n"):
                return False
            at += 1
    return at == end


@njit(cache=True)
def _fill_row(body_B: Any, at: int, row_D: Any) -> int:
    """Read numbers with commas between; return where the last one ends, or -1."""
    for d in range(len(row_D)):
        if d > 0:
            if at >= len(body_B) or body_B[at] != ord(","):
                return _NOT_PLAIN
            at += 1
        if at < 0:
            return _NOT_PLAIN
        while at < len(body_B) and body_B[at] == ord(" "):
            at += 1
        at, row_D[d] = _number(body_B, at)
        if at < 0:
            return _NOT_PLAIN
    return at


@njit(cache=True)
def _number(body_B: Any, at: int) -> tuple[int, float]:
    """Read one JSON number; return where it ends, or -1, and its value."""
    end = len(body_B)
    is_negative = at < end and body_B[at] == ord("-")
    if is_negative:
        at += 1
    first = at
    at, digits = _digits(body_B, first, np.uint64(0))
    n_digits, power = at - first, 0
    if n_digits == 0 or (n_digits > 1 and body_B[first] == ord("0")):
        return _NOT_PLAIN, 0.0
    if body_B[first] == ord("0"):
        n_digits = 0  # a zero in front takes no room
    if at < end and body_B[at] == ord("."):
        first = at + 1
        at = first
        while n_digits == 0 and at < end and body_B[at] == ord("0"):
            at += 1
        n_digits -= at
        at, digits = _digits(body_B, at, digits)
        n_digits += at
        power = first - at
        if power == 0:
            return _NOT_PLAIN, 0.0
    if n_digits > _MOST_DIGITS:
        return _NOT_PLAIN, 0.0
    if at < end and (body_B[at] == ord("e") or body_B[at] == ord("E")):
        at, written = _exponent(body_B, at + 1)
        power += written
    value = _value(digits, power)
    if value < 0:
        return _NOT_PLAIN, 0.0
    return at, -value if is_negative else value


@njit(cache=True)
def _digits(body_B: Any, at: int, digits: Any) -> tuple[int, Any]:
    """Return where digits end, and what they say behind those before; too many wrap around."""
    while at < len(body_B) and ord("0") <= body_B[at] <= ord("9"):
        digits = digits * np.uint64(10) + np.uint64(body_B[at] - ord("0"))
        at += 1
    return at, digits


@njit(cache=True)
def _exponent(body_B: Any, at: int) -> tuple[int, int]:
    """Read the digits after an E; return where they end, or -1, and what they say."""
    end, power = len(body_B), 0
    is_negative = at < end and body_B[at] == ord("-")
    if at < end and (body_B[at] == ord("-") or body_B[at] == ord("+")):
        at += 1
    first = at
    while at < end and ord("0") <= body_B[at] <= ord("9") and at - first < 4:
        power = power * 10 + np.int64(body_B[at] - ord("0"))
        at += 1
    if at == first:
        return _NOT_PLAIN, 0
    return at, -power if is_negative else power


@njit(cache=True)
def _value(digits: Any, power: int) -> float:
    """Return ``digits * 10**power``, or -1 where float32 of it may not be the right one."""
    if digits == 0:
        return 0.0
    if not -_MOST_POWER <= power <= _MOST_POWER:
        return -1.0
    value = np.float64(digits)
    step = min(abs(power), _EXACT_POWER)
    if power < 0:
        value = value / _POWERS[step] / _POWERS[-power - step]
    else:
        value = value * _POWERS[step] * _POWERS[power - step]
    if not _SMALLEST < value < _LARGEST:
        return -1.0
    if digits <= _EXACT_DIGITS and step == abs(power):
        return value
    return value if abs(_low_bits(value) - _MIDDLE) > _DOUBT else -1.0


@njit(cache=True)
def _low_bits(value: float) -> int:
    return np.int64(np.float64(value).view(np.uint64) & _LOW_BITS)


@njit(cache=True)
def _after(body_B: Any, at: int, text_T: Any) -> int:
    """Return where a fixed text ends that may have spaces between its marks, or -1."""
    if at < 0:
        return _NOT_PLAIN
    is_word = False
    for character in text_T:
        if not is_word:
            at = _after_spaces(body_B, at)
        if at >= len(body_B) or body_B[at] != character:
            return _NOT_PLAIN
        at += 1
        if character == ord('"'):
            is_word = not is_word
    return at


@njit(cache=True)
def _after_spaces(body_B: Any, at: int) -> int:
    while at < len(body_B) and body_B[at] in (ord(" "), ord("\t"), ord("\r"), ord("\n")):
        at += 1
    return at
