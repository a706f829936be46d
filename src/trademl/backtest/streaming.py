"""A score rule over a Parquet file of any length, a block of rows at a time.

What a block leaves open goes into the next with the quotes since its decision, so that the trades
are those of the whole file at once, and memory holds a block and the longest trade.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trademl.backtest.compiled import NO_LIMITS
from trademl.backtest.limits import Limits, new_account
from trademl.backtest.score_rule import ScoreRule, scores_in_turn
from trademl.backtest.trades import Trades, Trips
from trademl.errors import DataError
from trademl.market.adjustments import payments
from trademl.market.costs import Costs
from trademl.market.friction import MINUTES_BACK, NS_PER_MINUTE, friction_of, tape_of
from trademl.market.quotes import Quotes, flag_quotes

COLUMNS = ("ts_event", "bid", "ask", "score")
ROWS = 1_000_000
HISTORY_NS = (MINUTES_BACK + 2) * NS_PER_MINUTE  # what volatility reads
Columns = dict[str, NDArray[Any]]


def trade_scores_of_file(
    path: Path, rule: ScoreRule, costs: Costs, *, limits: Limits = NO_LIMITS, rows: int = ROWS
) -> Trades:
    """Trade the column ``score`` of a Parquet file with ``ts_event``, ``bid`` and ``ask``.

    Parameters
    ----------
    rows : int
        Rows of a block.

    Returns
    -------
    Trades
        As `trade_scores` makes of the whole file; indices are rows of the file.

    Raises
    ------
    DataError
        If the file is empty, lacks a column, or its times go backwards.
    """
    account, parts = new_account(), []
    held: Columns = {}
    last_ns = 0
    first, start, open_skipped = (
        0,
        0,
        0,
    )  # the row of the file that is held first; where to go on in what is held
    for block in _blocks(path, rows):
        _check_times(path, block["ts_event"], last_ns, first + len(held.get("ts_event", ())))
        last_ns = int(block["ts_event"][-1])
        held = {n: np.concatenate([held[n], block[n]]) for n in COLUMNS} if held else block
        made, (at, open_skipped) = _trade_block(held, first, start, rule, costs, limits, account)
        parts.append(made)
        cut = _history_from(held["ts_event"], at, costs)
        held = {name: column[cut:] for name, column in held.items()}
        first, start = first + cut, at - cut
    if not parts:
        raise DataError(f"{path}: holds no rows; expected {', '.join(COLUMNS)}")
    return _joined(parts, open_skipped)


def _blocks(path: Path, rows: int) -> Iterator[Columns]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, pre_buffer=False) as file:  # True keeps all bytes ever read
            if missing := [n for n in COLUMNS if n not in file.schema_arrow.names]:
                raise DataError(
                    f"{path}: has no column {missing[0]}; expected {', '.join(COLUMNS)}"
                )
            for block in file.iter_batches(rows, columns=list(COLUMNS)):
                yield {name: np.asarray(block.column(name)) for name in COLUMNS}
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path}: cannot be read: {str(error).splitlines()[0]}") from error


def _check_times(path: Path, ts: NDArray[np.int64], before_ns: int, first: int) -> None:
    if (back := np.diff(ts, prepend=before_ns) < 0).any():
        row = first + int(np.flatnonzero(back)[0])
        raise DataError(f"{path}: row {row + 1} is before the row above it: sort by ts_event")


def _trade_block(
    held: Columns,
    first: int,
    start: int,
    rule: ScoreRule,
    costs: Costs,
    limits: Limits,
    account: NDArray[np.float64],
) -> tuple[Trades, tuple[int, int]]:
    """Return the block's trades, where to go on, and the wishes skipped for an open trade."""
    bid, ask, score = held["bid"], held["ask"], held["score"]
    quotes = Quotes(held["ts_event"], bid, ask, bid, bid, bid, flag_quotes(bid, ask))
    carry = payments(quotes, costs)
    decided, index, price, reason, units, counts = scores_in_turn(
        *tape_of(quotes, costs),
        friction_of(costs),
        carry,
        limits.numbers,
        account,
        score,
        rule.numbers,
        start,
    )
    skipped, rejected, halted, go_on, open_skipped = counts
    side = np.full(len(decided), rule.side, np.int8)
    trips = Trips(decided + first, side, index, price, reason, units, score[decided], decided)
    made = trips.trades(
        quotes.ts_event,
        costs,
        carry,
        skipped_while_in_position=skipped,
        rejected=rejected,
        halted=halted,
    )
    still = made.open_at_end
    moved = replace(
        made,
        entry_index=made.entry_index + first,
        decided_index=decided[: len(made)] + first,
        exit_index=made.exit_index + first,
        open_at_end=still and replace(still, entry_index=still.entry_index + first),
    )
    is_open = len(decided) > 0 and index[-1, 1] < 0
    return moved, (int(decided[-1]) if is_open else go_on, open_skipped)


def _history_from(ts_event: NDArray[np.int64], at: int, costs: Costs) -> int:
    """Return the first row that what begins at row ``at`` still needs."""
    if not costs.needs_volatility:
        return min(at, len(ts_event))
    moment = ts_event[min(at, len(ts_event) - 1)] - HISTORY_NS
    return int(np.searchsorted(ts_event, moment))


def _joined(parts: list[Trades], open_skipped: int) -> Trades:
    """Return the trades of all blocks; only the last says what is open."""
    last = parts[-1]
    columns: dict[str, Any] = {
        field.name: np.concatenate([getattr(part, field.name) for part in parts])
        for field in fields(Trades)
        if isinstance(getattr(last, field.name), np.ndarray)
    }
    skipped = sum(part.skipped_while_in_position for part in parts) + open_skipped
    return replace(
        last,
        **columns,
        skipped_while_in_position=skipped,
        rejected=sum(part.rejected for part in parts),
        halted=sum(part.halted for part in parts),
    )
