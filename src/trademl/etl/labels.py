"""Labels of a batch's orders: as they were recorded, or made again by the fill model.

Shape letter: N orders.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numba import njit
from numpy.typing import NDArray

from trademl.ingest.batch import Batch
from trademl.market.bars import settle_on_bars
from trademl.market.costs import Costs
from trademl.market.fills import market_exit_price, round_trip_fees, settle
from trademl.market.friction import friction_of, slippage_on, tape_of
from trademl.market.orders import ExitReason, Orders, Side, Transactions
from trademl.market.quotes import Quotes

if TYPE_CHECKING:
    import pyarrow as pa

LabelSource = Literal["recorded", "recomputed"]


@dataclass(frozen=True, slots=True)
class Labelling:
    """Where labels come from.

    Parameters
    ----------
    source : str
        ``recorded``: labels, exits and PnL stand as the transactions say; what they do not say
        comes from the fill model. ``recomputed``: the fill model says everything.
    costs : Costs
        Fees and slippage with which the fill model settles the orders.
    """

    source: LabelSource = "recorded"
    costs: Costs = Costs()  # noqa: RUF009 - frozen

    def __post_init__(self) -> None:
        if self.source not in (known := get_args(LabelSource)):
            raise ValueError(f"labels are {self.source!r}, expected {' or '.join(known)}")


@dataclass(frozen=True, slots=True)
class Labels:
    """What became of each order, in the order of the batch; arrays of shape (N,).

    Parameters
    ----------
    done : Transactions
        Round trips; censored orders are kept, without an exit.
    label_N : ndarray of float32
        1 where the order earned money after costs, else 0; NaN where nothing says.
    pnl_N : ndarray of float64
        Realised profit after costs; where only a label is recorded and the prices end before an
        exit, the profit marked at the last executable touch; NaN where there is no label either.
    exit_ns_N : ndarray of int64
        When label and profit were both known, UTC ns; the end of the prices where they never were.
    marked_pnl_N : ndarray of float64
        ``pnl_N``; of a censored order, what leaving on the last executable quote would have paid.
    recorded_N, recomputed_N : ndarray of float32
        The labels by each source; NaN where it has none.
    is_ambiguous_N : ndarray of bool, optional
        Of orders on bars: whether the bar that reached a barrier held both.
    """

    source: LabelSource
    done: Transactions
    label_N: NDArray[np.float32]
    pnl_N: NDArray[np.float64]
    exit_ns_N: NDArray[np.int64]
    marked_pnl_N: NDArray[np.float64]
    recorded_N: NDArray[np.float32]
    recomputed_N: NDArray[np.float32]
    is_ambiguous_N: NDArray[np.bool_] | None = None

    @property
    def figures(self) -> LabelFigures:
        """What facts are made from."""
        return LabelFigures(
            self.source,
            self.label_N,
            self.pnl_N,
            self.marked_pnl_N,
            self.done.reason,
            self.recorded_N,
            self.recomputed_N,
            self.is_ambiguous_N,
        )

    @property
    def is_labelled(self) -> NDArray[np.bool_]:
        """Whether an order can be a row of a dataset."""
        return self.figures.is_labelled


@dataclass(frozen=True, slots=True)
class LabelFigures:
    """The part of `Labels` that facts are made from: little enough to hold for all orders."""

    source: LabelSource
    label_N: NDArray[np.float32]
    pnl_N: NDArray[np.float64]
    marked_pnl_N: NDArray[np.float64]
    reason_N: NDArray[np.int8]
    recorded_N: NDArray[np.float32]
    recomputed_N: NDArray[np.float32]
    is_ambiguous_N: NDArray[np.bool_] | None = None

    @property
    def is_labelled(self) -> NDArray[np.bool_]:
        """Whether an order can be a row of a dataset."""
        labelled: NDArray[np.bool_] = ~(np.isnan(self.label_N) | np.isnan(self.pnl_N))
        return labelled


def label_batch(batch: Batch, labelling: Labelling) -> Labels:
    """Return the labels of a batch's orders.

    Notes
    -----
    Causal: a label reads quotes from its order's decision to its exit. A mark reads the last
    quote of the recording and never is a label.
    """
    again, is_ambiguous_N = _settled(batch, labelling.costs)
    recorded_N = batch.recorded_labels
    if labelling.source == "recomputed":
        done, label_N = again, again.label
        known_ns_N = _exit_ns(batch.quotes, done)
    else:
        label_N = recorded_N
        lacks_exit_N = (batch.transactions.exit_index < 0) & ~np.isnan(label_N)
        done = _where(lacks_exit_N, again, batch.transactions)
        reached_ns_N = _reached_ns(batch, lacks_exit_N)
        known_ns_N = np.maximum(_exit_ns(batch.quotes, done), reached_ns_N)
    marked_N = np.where(
        np.isnan(done.pnl), mark_at_end(batch.quotes, batch.orders, done, labelling.costs), done.pnl
    )
    pnl_N = np.where(np.isnan(label_N), np.nan, marked_N)
    return Labels(
        labelling.source,
        done,
        label_N,
        pnl_N,
        known_ns_N,
        marked_N,
        recorded_N,
        again.label,
        is_ambiguous_N,
    )


def _settled(batch: Batch, costs: Costs) -> tuple[Transactions, NDArray[np.bool_] | None]:
    """Return the round trips by the fill model, and which of them bars leave in doubt."""
    if batch.bars is None:
        return settle(batch.quotes, batch.orders, costs), None
    on_bars = settle_on_bars(batch.bars, batch.orders, costs)
    return on_bars.transactions, on_bars.is_ambiguous


def mark_at_end(
    quotes: Quotes, orders: Orders, done: Transactions, costs: Costs
) -> NDArray[np.float64]:
    """Return what each order would have earned, left on the recording's last executable quote.

    Returns
    -------
    ndarray of float64, shape (N,)
        After slippage and fees; NaN where an order never entered.
    """
    mark_N = np.full(len(orders), np.nan)
    if not (executable := np.flatnonzero(quotes.is_executable)).size:
        return mark_N
    last = executable[-1]
    tape, friction = tape_of(quotes, costs), friction_of(costs)
    worse = slippage_on(tape.bid, tape.ask, tape.book, friction, last, 1.0)
    for side in Side:
        of = orders.side == side
        left_at = market_exit_price(side, tape.bid[last], tape.ask[last], worse)
        exit_N = np.full(int(of.sum()), left_at)
        fees_N = round_trip_fees(done.entry_price[of], exit_N, costs)
        mark_N[of] = (exit_N - done.entry_price[of]) * side * costs.multiplier - fees_N
    return mark_N


def label_facts(labels: LabelFigures) -> dict[str, Any]:
    """Return how labels came out: exits, disagreement of the two sources, bias of censoring."""
    both_N = ~(np.isnan(labels.recorded_N) | np.isnan(labels.recomputed_N))
    recorded_N, recomputed_N = labels.recorded_N[both_N], labels.recomputed_N[both_N]
    n_disagree = int((recorded_N != recomputed_N).sum())
    return {
        "source": labels.source,
        "n_compared": int(both_N.sum()),
        "n_disagree": n_disagree,
        "disagree_share": n_disagree / both_N.sum() if both_N.any() else None,
        "n_only_recorded_earned": int((recorded_N > recomputed_N).sum()),
        "n_only_recomputed_earned": int((recorded_N < recomputed_N).sum()),
        "exits": {r.name.lower(): int((labels.reason_N == r).sum()) for r in ExitReason},
        "censored": censoring_bias(labels),
        **_doubt(labels),
    }


def _doubt(labels: LabelFigures) -> dict[str, Any]:
    """Return how many orders ended on a bar that held both barriers, and count as stopped."""
    if labels.is_ambiguous_N is None:
        return {}
    has_ended_N = labels.reason_N != ExitReason.CENSORED
    n_doubtful, n_ended = int((labels.is_ambiguous_N & has_ended_N).sum()), int(has_ended_N.sum())
    share = n_doubtful / n_ended if n_ended else None
    return {"bars": {"n_doubtful": n_doubtful, "doubtful_share": share}}


def censoring_bias(labels: LabelFigures) -> dict[str, Any]:
    """Return how many orders are censored, and what leaving them out does to the figures.

    ``with`` counts a censored order as if it had been left on the last executable quote;
    ``without`` leaves it out. The bias is the second minus the first.
    """
    censored_N = labels.reason_N == ExitReason.CENSORED
    with_N = ~np.isnan(labels.marked_pnl_N)
    pnl = {"without": labels.marked_pnl_N[~censored_N], "with": labels.marked_pnl_N[with_N]}
    facts: dict[str, Any] = {"n": int(censored_N.sum())}
    for name, figure in (("label_rate", _share_above_0), ("mean_pnl", _mean)):
        without, with_ = figure(pnl["without"]), figure(pnl["with"])
        facts[f"{name}_without"], facts[f"{name}_with"] = without, with_
        facts[f"{name}_bias"] = None if without is None or with_ is None else without - with_
    return facts


def label_columns(batch: Batch, labels: Labels) -> dict[str, NDArray[Any]]:
    """Return what became of each order as columns of numbers; side and reason are codes."""
    columns: dict[str, NDArray[Any]] = {
        "order_id": batch.order_id,
        "side": batch.orders.side,
        "entry_price": labels.done.entry_price,
        "exit_ns": labels.exit_ns_N,
        "exit_price": labels.done.exit_price,
        "exit_reason": labels.done.reason,
        "fees": labels.done.fees,
        "pnl": labels.pnl_N,
        "marked_pnl": labels.marked_pnl_N,
        "label": labels.label_N,
        "recorded_label": labels.recorded_N,
        "recomputed_label": labels.recomputed_N,
    }
    if labels.is_ambiguous_N is not None:
        columns["is_ambiguous"] = labels.is_ambiguous_N
    return columns


def labels_table(columns: Mapping[str, NDArray[Any]], names: Sequence[str]) -> pa.Table:
    """Return the chosen columns as ``labels.parquet`` has them: codes as words, NaN as null."""
    import pyarrow as pa

    words = {"side": Side, "exit_reason": ExitReason}
    return pa.table(
        {
            name: words_of(words[name], columns[name])
            if name in words
            else pa.array(columns[name], from_pandas=True)
            for name in names
        }
    )


def words_of(kind: type[IntEnum], code_N: NDArray[np.int8]) -> pa.Array:
    """Return the name of each code in lower case."""
    import pyarrow as pa

    known = sorted(kind)
    index_N = np.searchsorted(np.array(known, np.int8), code_N)
    return pa.array([member.name.lower() for member in known]).take(pa.array(index_N))


def _mean(values: NDArray[Any]) -> float | None:
    return float(values.mean()) if len(values) else None


def _share_above_0(values: NDArray[Any]) -> float | None:
    return _mean(values > 0)


def _where(rows_N: NDArray[np.bool_], one: Transactions, other: Transactions) -> Transactions:
    pairs = ((getattr(one, f.name), getattr(other, f.name)) for f in fields(Transactions))
    return Transactions(*(np.where(rows_N, a, b) for a, b in pairs))


def _exit_ns(quotes: Quotes, done: Transactions) -> NDArray[np.int64]:
    return quotes.ts_event[np.where(done.exit_index < 0, len(quotes) - 1, done.exit_index)]


def _reached_ns(batch: Batch, rows_N: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return when the barrier that a recorded label names had been reached on both sides.

    Whoever recorded the label without its time may have watched bid or ask: the later of the two
    is taken, and the end of the prices where it is not seen. 0 for other rows.
    """
    orders, entry = batch.orders, batch.transactions.entry_price
    won_N = (batch.recorded_label_N == 1) if batch.recorded_label_N is not None else rows_N
    is_up_N = won_N == (orders.side > 0)
    distance_N = np.where(won_N, orders.take_profit, orders.stop_loss)
    level_N = entry + np.where(is_up_N, distance_N, -distance_N)
    first_N = np.maximum(batch.transactions.entry_index, 0)
    quotes = batch.quotes
    reached_N = _first_beyond(quotes.bid, quotes.ask, first_N, level_N, is_up_N, rows_N)
    return np.where(rows_N, quotes.ts_event[reached_N], 0)


@njit(cache=True, nogil=True)
def _first_beyond(bid, ask, first_N, level_N, is_up_N, rows_N):  # type: ignore[no-untyped-def]
    reached_N = np.full(len(first_N), len(bid) - 1)
    for n in np.flatnonzero(rows_N):
        for k in range(first_N[n] + 1, len(bid)):
            if (bid[k] >= level_N[n]) if is_up_N[n] else (ask[k] <= level_N[n]):
                reached_N[n] = k
                break
    return reached_N
