"""TA-Lib indicators on whole bars of mid prices, each value from its own fixed window.

Shape letters: P quotes, N rows, M bars, W bars of a window, K outputs.
"""

from __future__ import annotations

import difflib
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from trademl.errors import ConfigError
from trademl.market.quotes import NS_PER_S, Quotes

if TYPE_CHECKING:
    from trademl.etl.recipe import Indicator

_MEMORY = 4  # windows of a function that never forgets, in multiples of its lookback
_PRICES = ("open", "high", "low", "close")
_SAME_SCALE = "Output scale same as input"
_UNSTABLE = "Function has an unstable period"


def output_names(indicator: Indicator) -> list[tuple[str, bool]]:
    """Return (column name, whether it is a price) of each output.

    Raises
    ------
    ConfigError
        If TA-Lib is not installed, has no such function or parameter, or the function needs volume.
    """
    function = talib_function(indicator)
    is_price = _SAME_SCALE in (function.info["function_flags"] or ())
    values = "_".join(f"{v:g}" for v in indicator.parameters.values())
    bars = f"{indicator.bar_s}s" if indicator.of == "clock" else "bars"
    stem = "_".join(filter(None, [indicator.name.lower(), values, bars]))
    outputs = list(function.info["output_names"])
    if len(outputs) == 1:
        return [(stem, is_price)]
    return [(f"{stem}_{output}", is_price) for output in outputs]


def window_bars(indicator: Indicator) -> int:
    """Return the whole bars that a value is computed from, W."""
    function = talib_function(indicator)
    least = int(function.lookback) + 1
    if indicator.bars == 0:
        is_unstable = _UNSTABLE in (function.info["function_flags"] or ())
        return _MEMORY * least if is_unstable else least
    if indicator.bars < least:
        raise ConfigError(
            f"indicator {indicator.name} is given {indicator.bars} bars, it needs at least {least}"
        )
    return indicator.bars


def window_s(indicator: Indicator) -> int:
    """Return the seconds before the as-of second that a value's bars and the one before cover."""
    return (window_bars(indicator) + 2 * (indicator.of == "clock")) * indicator.bar_s


def longest_silence(indicator: Indicator, max_gap_s: int) -> int:
    """Return for how many bars without a tick the close before them is repeated."""
    return max(max_gap_s // indicator.bar_s, 1)


def indicator_values(
    quotes: Quotes, as_of_ns_N: NDArray[np.int64], indicator: Indicator, max_gap_s: int
) -> NDArray[np.float64]:
    """Return an indicator's outputs for each row, shape (N, K); NaN where its window is not full.

    A bar without a tick repeats the close before it, for at most ``max_gap_s`` or one bar,
    whichever is longer.

    Notes
    -----
    Causal: row ``n`` reads whole bars that ended at or before the beginning of its as-of second.
    """
    width_ns = indicator.bar_s * NS_PER_S
    n_window = window_bars(indicator)
    max_stale = longest_silence(indicator, max_gap_s)
    first = int(quotes.ts_event[0] // width_ns)
    bars_4M, age_M = _bars(quotes, first, width_ns)
    second_ns_N = as_of_ns_N // NS_PER_S * NS_PER_S
    last_N = second_ns_N // width_ns - 1 - first
    distinct, row_N = np.unique(last_N, return_inverse=True)
    names = [name for name, _ in output_names(indicator)]
    values = np.full((len(distinct), len(names)), np.nan)
    function = talib_function(indicator)
    for at, last in enumerate(distinct):
        window = slice(int(last) - n_window + 1, int(last) + 1)
        # the bar before the window too: the first bar of a recording may be cut
        if window.start >= 1 and (age_M[window.start - 1 : window.stop] <= max_stale).all():
            values[at] = last_outputs(function, bars_4M[:, window])
    return values[row_N]


def recorded_bar_values(
    quotes: Quotes, as_of_index_N: NDArray[np.int64], indicator: Indicator
) -> NDArray[np.float64]:
    """Return an indicator's outputs on the bars that quotes close, shape (N, K).

    NaN where the window and the bar before it are not there, or took longer than ``bar_s`` a bar.

    Raises
    ------
    ConfigError
        If the quotes are not the closes of bars.

    Notes
    -----
    Causal: row ``n`` reads bars that ended at or before quote ``as_of_index_N[n]``.
    """
    if quotes.bar_P3 is None:
        raise ConfigError(
            f"indicator {indicator.name} is of the recording's own bars, and the recording holds "
            "quotes: set [bars] by, or take of = 'clock'"
        )
    n_window = window_bars(indicator)
    bars_4P = np.vstack([quotes.bar_P3.T + quotes.spread / 2, quotes.mid])
    before_N = as_of_index_N - n_window  # the window's first bar begins after this one's end
    took_ns_N = quotes.ts_event[as_of_index_N] - quotes.ts_event[before_N]
    is_full_N = (before_N >= 0) & (took_ns_N <= n_window * indicator.bar_s * NS_PER_S)
    values = np.full((len(as_of_index_N), len(output_names(indicator))), np.nan)
    function = talib_function(indicator)
    for n in np.flatnonzero(is_full_N):
        window = slice(int(before_N[n]) + 1, int(as_of_index_N[n]) + 1)
        values[n] = last_outputs(function, bars_4P[:, window])
    return values


def _bars(
    quotes: Quotes, first: int, width_ns: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    n_bars = int(quotes.ts_event[-1] // width_ns) - first + 1
    bars_4M, age_M = np.full((4, n_bars), np.nan), np.full(n_bars, np.iinfo(np.int64).max // 2)
    _fill_bars(
        quotes.ts_event, quotes.bid, quotes.ask, quotes.flags, first, width_ns, bars_4M, age_M
    )
    return bars_4M, age_M


@njit(cache=True, nogil=True)
def _fill_bars(ts_event, bid, ask, flags, first, width_ns, bars, age):  # type: ignore[no-untyped-def]
    k = 0
    for m in range(bars.shape[1]):
        is_empty = True
        end_ns = (first + m + 1) * width_ns
        while k < len(ts_event) and ts_event[k] < end_ns:
            if flags[k] == 0:
                mid = (bid[k] + ask[k]) / 2
                if is_empty:
                    bars[:, m] = mid
                    is_empty = False
                bars[1, m] = max(bars[1, m], mid)
                bars[2, m] = min(bars[2, m], mid)
                bars[3, m] = mid
            k += 1
        if not is_empty:
            age[m] = 0
        elif m > 0:
            bars[:, m] = bars[3, m - 1]
            age[m] = age[m - 1] + 1


def last_outputs(function: Any, bars_4W: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the outputs of a TA-Lib function on the last of some bars, shape (K,)."""
    inputs = {name: np.ascontiguousarray(bars_4W[i]) for i, name in enumerate(_PRICES)}
    found = function.run(inputs)
    outputs = found if isinstance(found, list | tuple) else [found]
    return np.array([output[-1] for output in outputs], np.float64)


def talib_function(indicator: Indicator) -> Any:
    """Return the indicator's function with its parameters set, loaded once.

    Raises
    ------
    ConfigError
        See `output_names`.
    """
    return _load(indicator.name, tuple(sorted(indicator.parameters.items())))


@lru_cache(maxsize=64)
def _load(name: str, parameters: tuple[tuple[str, float], ...]) -> Any:
    try:
        import talib.abstract
    except ImportError as error:
        raise ConfigError(
            f"indicator {name} needs TA-Lib: pip install 'trademl[indicators]'"
        ) from error
    functions: list[str] = talib.get_functions()  # type: ignore[no-untyped-call]
    if name not in functions:
        close = ", ".join(difflib.get_close_matches(name.upper(), functions)) or "see its list"
        raise ConfigError(f"TA-Lib has no function {name}: {close}")
    function: Any = talib.abstract.Function(name)  # type: ignore[attr-defined]
    known = function.info["parameters"]
    for key, value in parameters:
        if key not in known:
            raise ConfigError(f"indicator {name} has no parameter {key}; it has {', '.join(known)}")
        kind = type(known[key])
        function.parameters = {key: kind(value)}
    if re.search("volume", str(function.info["input_names"])):
        raise ConfigError(f"indicator {name} needs volume, which quotes do not have")
    return function
