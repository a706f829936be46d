"""The two sides of a comparison: a backtest, a live run, or the fills of a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from trademl.backtest.live_rows import Decided, live_rows
from trademl.backtest.recordings import recording_of
from trademl.backtest.trade_rows import TradeRow, rows_of_file, rows_of_ledger
from trademl.ingest.tick_store import TickStore
from trademl.ledger import Ledger, tables
from trademl.ledger.live_tables import LiveRun
from trademl.market.quotes import Quotes
from trademl.store.artifacts import ArtifactStore

BEST = "biggest"  # the tier of a model that is asked directly


@dataclass(frozen=True, slots=True)
class History:
    """One side of a comparison.

    Parameters
    ----------
    name : str
        Id of a backtest, or path of a file.
    trades : list of TradeRow
        In order of their entries.
    settings : mapping
        The parameters of the backtest; empty where not known.
    quotes : Quotes, optional
        What was traded on, where it is known.
    window : tuple of int, optional
        First and last moment of a decision, UTC nanoseconds.
    decided : mapping
        The decisions of a live run by the time of their quote; empty for any other.
    """

    name: str
    trades: Sequence[TradeRow]
    settings: Mapping[str, Any] = field(default_factory=dict)
    quotes: Quotes | None = None
    window: tuple[int, int] | None = None
    decided: Mapping[int, Decided] = field(default_factory=dict)

    def tier(self, row: TradeRow) -> str | None:
        """Return the tier that a trade was decided on; a backtest's model is asked directly."""
        return row.tier or (BEST if self.settings else None)

    def within(self, window: tuple[int, int]) -> History:
        """Return it with the trades that were decided in a window."""
        first, last = window
        return replace(self, trades=[t for t in self.trades if first <= t.seen_ns <= last])

    def costs(self, names: Sequence[str]) -> list[float] | None:
        """Return some of the costs; None where they are not known."""
        known = self.settings.get("costs")
        return None if known is None else [known[name] for name in names]

    def tick(self, at_ns: int) -> tuple[float, float] | None:
        """Return bid and ask of the last quote of exactly that time, or None."""
        if self.quotes is None:
            return None
        k = int(np.searchsorted(self.quotes.ts_event, at_ns, side="right")) - 1
        if k < 0 or self.quotes.ts_event[k] != at_ns:
            return None
        return float(self.quotes.bid[k]), float(self.quotes.ask[k])

    def touch(self, at_ns: int, side: int) -> float | None:
        """Return the price at which an order of ``side`` would have filled at a time, or None."""
        if self.quotes is None:
            return None
        k = int(np.searchsorted(self.quotes.ts_event, at_ns, side="right")) - 1
        price = np.nan if k < 0 else (self.quotes.ask if side > 0 else self.quotes.bid)[k]
        return None if np.isnan(price) else float(price)


def read_histories(
    one: str, other: str, store: ArtifactStore, ledger: Ledger, ticks: TickStore | None
) -> tuple[History, History]:
    """Return what two names stand for: backtests, live runs, or files of round trips.

    Raises
    ------
    StoreError
        If the ledger has no such backtest.
    DataError
        If a file cannot be read as trades.
    """
    known = [_backtest(name, store, ledger) for name in (one, other)]
    costs = next((side.settings.get("costs") for side in known if side and side.settings), None)
    multiplier = float((costs or {}).get("multiplier", 1.0))
    first, second = (
        side or _traded(name, ledger, ticks, multiplier)
        for name, side in zip((one, other), known, strict=True)
    )
    return first, second


def _backtest(name: str, store: ArtifactStore, ledger: Ledger) -> History | None:
    """Return a backtest of the ledger; None for a file and for a live run."""
    if Path(name).is_file() or ledger.get(LiveRun, name) is not None:
        return None
    trades = rows_of_ledger(ledger, name)
    artifact = store.find(name)
    if artifact is None:
        return History(name, trades)
    row = ledger.get(tables.Backtest, name)
    span = row.metrics.get("decided_ns") if row else None
    return History(
        name,
        trades,
        artifact.manifest["parameters"],
        recording_of(artifact, store),
        tuple(span) if span else None,
    )


def _traded(name: str, ledger: Ledger, ticks: TickStore | None, multiplier: float) -> History:
    """Return what was really traded: the fills of a file, or a live run."""
    run = None if Path(name).is_file() else ledger.get(LiveRun, name)
    if run is None:
        return History(name, rows_of_file(Path(name), multiplier=multiplier))
    found = live_rows(ledger, name, multiplier=multiplier)
    has_quotes = ticks is not None and ticks.find(run.feed) is not None
    quotes = ticks.load(run.feed) if ticks is not None and has_quotes else None
    window = (min(found.decided), max(found.decided)) if found.decided else None
    return History(name, found.trades, {}, quotes, window, found.decided)


def in_common(one: History, other: History) -> tuple[History, History]:
    """Return both with the trades of the time that both cover, where one of them is a live run."""
    if one.window is None or other.window is None or not (one.decided or other.decided):
        return one, other
    window = max(one.window[0], other.window[0]), min(one.window[1], other.window[1])
    return one.within(window), other.within(window)
