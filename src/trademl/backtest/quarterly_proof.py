"""The leak proof of an allocation: rows of days made again from bars cut off at a decision."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from trademl.backtest.quarterly import Rows, day_rows, quarter_decisions
from trademl.backtest.quarterly_settings import QuarterlyConfig
from trademl.etl.verify import Evidence
from trademl.market.bars import Bars
from trademl.market.snapshots import Factor, align


def prove_rows(
    assets: Mapping[str, Bars],
    factors: Mapping[str, list[Factor]],
    config: QuarterlyConfig,
) -> Evidence:
    """Compare every cell known at a decision with the one made of what was recorded by then.

    Two decisions are looked at, the one in the middle and the last. Targets that had ended by then
    are compared too.
    """
    whole = align(assets, factors)
    at_I, rows = day_rows(whole, config)
    decisions = quarter_decisions(whole, at_I, config.first_years)
    evidence = Evidence()
    for i in sorted({decisions[len(decisions) // 2], decisions[-1]} if decisions else set()):
        cut_ns = int(whole.ts_T[at_I[i]])
        recorded = {s: _until(bars, cut_ns) for s, bars in assets.items()}
        recorded = {symbol: bars for symbol, bars in recorded.items() if len(bars)}
        kept = {symbol: found for symbol, found in factors.items() if symbol in recorded}
        _, again = day_rows(align(recorded, kept), config)
        for a, symbol in enumerate(recorded):
            of_whole = list(assets).index(symbol)
            _compare(rows, of_whole, again, a, i, cut_ns, symbol, evidence)
    return evidence


def _until(bars: Bars, cut_ns: int) -> Bars:
    return bars.slice(0, int(np.searchsorted(bars.ts_close, cut_ns, side="right")))


def _compare(
    rows: Rows,
    of_whole: int,
    again: Rows,
    of_again: int,
    day: int,
    cut_ns: int,
    symbol: str,
    evidence: Evidence,
) -> None:
    one = np.flatnonzero((rows.asset_N == of_whole) & (rows.day_N <= day))
    two = np.flatnonzero(again.asset_N == of_again)
    if not np.array_equal(rows.day_N[one], again.day_N[two]):
        evidence.n_wrong_cells += rows.features_NK.shape[1] * abs(len(one) - len(two)) or 1
        evidence.fault(f"{symbol}: other days have rows when bars end at {cut_ns} ns")
        return
    wrong = rows.features_NK[one] != again.features_NK[two]
    evidence.n_rows += len(one)
    evidence.n_cells += wrong.size
    evidence.n_wrong_cells += int(wrong.sum())
    if wrong.any():
        row, column = (int(k) for k in np.argwhere(wrong)[0])
        evidence.fault(
            f"{symbol}: {rows.columns[column]} of day {rows.day_N[one][row]} is another number "
            f"when bars end at {cut_ns} ns"
        )
    ended = rows.ends_ns_N[one] <= cut_ns
    is_other = ~np.isclose(
        rows.target_N[one][ended], again.target_N[two][ended], rtol=0, atol=0, equal_nan=True
    )
    evidence.n_wrong_labels += int(is_other.sum())
    if is_other.any():
        evidence.fault(f"{symbol}: a target that had ended by {cut_ns} ns is another number")
