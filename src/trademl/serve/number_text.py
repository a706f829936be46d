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

Shape letters: N rows, D feature columns, B bytes of the body and a zero behind, T bytes of a fixed
text. The zero is no mark of any text or number: whoever reads on only behind a byte that it knows
stays within the body, and needs no look at its length.
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
_TEN, _NINE, _ZERO = np.uint64(10), np.uint64(9), np.uint64(ord("0"))


def _text(characters: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(characters, np.uint8)


_FIRST = _text(b'{"instances":[{"features":[')
_NEXT = _text(b']},{"features":[')
_LAST = _text(b"]}]}")


def plain_json_rows(body: bytes, feature_dim: int, most_rows: int) -> Features | None:
    """Return the rows of a plain JSON body, finite, of shape (N, D), N >= 1; None for others."""
    return _filled(_fill_json, body, feature_dim, most_rows)


def plain_csv_rows(body: bytes, feature_dim: int, most_rows: int) -> Features | None:
    r"""Return the rows of a plain CSV body, finite, of shape (N, D), N >= 1; None for others.

    Examples
    --------
    >>> plain_csv_rows(b"1,2.5\n3,-4e-1\n", 2, 100).tolist()
    [[1.0, 2.5], [3.0, -0.4000000059604645]]
    >>> plain_csv_rows(b"1,nan\n", 2, 100)
    """
    return _filled(_fill_csv, body, feature_dim, most_rows)


def read_json_row(body: bytes, room_1D: Features) -> bool:
    """Read a plain JSON body of one row into the room given; return whether it is one."""
    n_rows: int = _fill_json(np.frombuffer(body + b"\0", np.uint8), room_1D)
    return n_rows == 1


def read_csv_row(body: bytes, room_1D: Features) -> bool:
    """Read a plain CSV body of one row into the room given; return whether it is one."""
    n_rows: int = _fill_csv(np.frombuffer(body + b"\0", np.uint8), room_1D)
    return n_rows == 1


def warm_up() -> None:
    """Compile, or load what was compiled before, so that no request waits for it."""
    plain_json_rows(b'{"instances":[{"features":[1]}]}', 1, 1)
    plain_csv_rows(b"1\n", 1, 1)


def _filled(
    fill: Callable[[NDArray[np.uint8], Features], int],
    body: bytes,
    feature_dim: int,
    most_rows: int,
) -> Features | None:
    # a number and the comma behind it take two bytes: a small body gets no large matrix, and what
    # a long-winded one does not fill of its own is never touched
    at_most = min(most_rows, (len(body) + 1) // (2 * feature_dim))
    rows_ND = np.empty((at_most, feature_dim), np.float32)
    n_rows = fill(np.frombuffer(body + b"\0", np.uint8), rows_ND)
    return rows_ND[:n_rows] if n_rows > 0 else None


@njit(cache=True)
def _fill_json(body_B: Any, rows_ND: Any) -> int:
    """Return how many rows were read, or -1."""
    at = _after(body_B, 0, _FIRST)
    for n in range(len(rows_ND)):
        at = _fill_row(body_B, at, rows_ND[n])
        end = _after(body_B, at, _LAST)
        if end >= 0:
            is_whole = _after_spaces(body_B, end) == len(body_B) - 1
            return n + 1 if is_whole else _NOT_PLAIN
        at = _after(body_B, at, _NEXT)
    return _NOT_PLAIN


@njit(cache=True)
def _fill_csv(body_B: Any, rows_ND: Any) -> int:
    """Return how many rows were read, or -1."""
    at = 0
    for n in range(len(rows_ND)):
        at = _fill_row(body_B, at, rows_ND[n])
        if at < 0:
            return _NOT_PLAIN
        if body_B[at] == ord("\r"):
            at += 1
        if body_B[at] == ord("\n"):
            at += 1
        elif at < len(body_B) - 1:
            return _NOT_PLAIN
        if at == len(body_B) - 1:
            return n + 1
    return _NOT_PLAIN


@njit(cache=True)
def _fill_row(body_B: Any, at: int, row_D: Any) -> int:
    """Read numbers with commas between; return where the last one ends, or -1."""
    if at < 0:
        return _NOT_PLAIN
    for d in range(len(row_D)):
        if d > 0:
            if body_B[at] != ord(","):
                return _NOT_PLAIN
            at += 1
        while body_B[at] == ord(" "):
            at += 1
        at, value = _number(body_B, at)
        if at < 0:
            return _NOT_PLAIN
        row_D[d] = value
    return at


@njit(cache=True, inline="always")
def _number(body_B: Any, at: int) -> tuple[int, float]:
    """Read one JSON number; return where it ends, or -1, and its value."""
    is_negative = body_B[at] == ord("-")
    if is_negative:
        at += 1
    first = at
    at, digits = _digits(body_B, at, np.uint64(0))
    n_digits = at - first
    is_zero_led = body_B[first] == ord("0")
    is_plain = n_digits == 1 or (n_digits > 1 and not is_zero_led)
    n_digits -= is_zero_led  # it takes no room in 64 bits
    power = 0
    if body_B[at] == ord("."):
        first = at + 1
        at, digits = _digits(body_B, first, digits)
        power = first - at
        n_digits -= power
        is_plain = is_plain and power < 0
        if n_digits > _MOST_DIGITS and is_zero_led:
            n_digits -= _zeros(body_B, first)
    if body_B[at] == ord("e") or body_B[at] == ord("E"):
        at, written = _exponent(body_B, at + 1)
        power += written
    if not is_plain or n_digits > _MOST_DIGITS:
        return _NOT_PLAIN, 0.0
    if digits <= _EXACT_DIGITS and -_EXACT_POWER <= power <= 0:
        value = np.float64(digits) / _POWERS[-power]  # exact: the usual case
    else:
        value = _rounded(digits, power)
    return (at if value >= 0 else _NOT_PLAIN), (-value if is_negative else value)


@njit(cache=True, inline="always")
def _digits(body_B: Any, at: int, digits: Any) -> tuple[int, Any]:
    """Return where digits end, and what they say behind those before; too many wrap around."""
    digit = np.uint64(body_B[at]) - _ZERO  # of another byte more than 9, below zero very large
    while digit <= _NINE:
        digits = digits * _TEN + digit
        at += 1
        digit = np.uint64(body_B[at]) - _ZERO
    return at, digits


@njit(cache=True)
def _zeros(body_B: Any, at: int) -> int:
    """Return how many zeros stand there."""
    n = 0
    while body_B[at + n] == ord("0"):
        n += 1
    return n


@njit(cache=True)
def _exponent(body_B: Any, at: int) -> tuple[int, int]:
    """Read the digits after an E; return where they end, or -1, and what they say."""
    is_negative = body_B[at] == ord("-")
    if body_B[at] == ord("-") or body_B[at] == ord("+"):
        at += 1
    first, power = at, 0
    while ord("0") <= body_B[at] <= ord("9") and at - first < 4:
        power = power * 10 + int(body_B[at] - ord("0"))
        at += 1
    if at == first:
        return _NOT_PLAIN, 0
    return at, -power if is_negative else power


@njit(cache=True)
def _rounded(digits: Any, power: int) -> float:
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
    low_bits = np.float64(value).view(np.uint64) & _LOW_BITS
    return value if abs(np.int64(low_bits) - _MIDDLE) > _DOUBT else -1.0


@njit(cache=True)
def _after(body_B: Any, at: int, text_T: Any) -> int:
    """Return where a fixed text ends that may have spaces between its marks, or -1."""
    if at < 0:
        return _NOT_PLAIN
    is_word = False
    for character in text_T:
        if not is_word:
            at = _after_spaces(body_B, at)
        if body_B[at] != character:
            return _NOT_PLAIN
        at += 1
        if character == ord('"'):
            is_word = not is_word
    return at


@njit(cache=True)
def _after_spaces(body_B: Any, at: int) -> int:
    while body_B[at] in (ord(" "), ord("\t"), ord("\r"), ord("\n")):
        at += 1
    return at


KERNELS = (_fill_json, _fill_csv)  # that `warm_up` has compiled
