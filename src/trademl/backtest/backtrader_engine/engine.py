"""Run signals, targets or a user's own strategy through backtrader."""

from __future__ import annotations

import traceback
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import backtrader as bt
import numpy as np

from trademl.backtest.backtrader_engine.broker import QuoteBroker
from trademl.backtest.backtrader_engine.feed import QuoteFeed
from trademl.backtest.backtrader_engine.strategies import (
    BarrierStrategy,
    Bracket,
    RoundTrip,
    TargetStrategy,
    side_of,
)
from trademl.backtest.compiled import NO_LIMITS
from trademl.backtest.limits import Limits
from trademl.backtest.signals import Signals, check_signals
from trademl.backtest.targets import Targets, check_targets, trades_of_fills
from trademl.backtest.trades import Fills, OpenPosition, Trades
from trademl.market.adjustments import payments
from trademl.market.carry import Carry, carried_each
from trademl.market.costs import Costs
from trademl.market.friction import as_traded
from trademl.market.quotes import NS_PER_S, Quotes

PLENTY = 1e12  # cash with which no order is too large


def run_backtrader(
    quotes: Quotes,
    signals: Signals,
    costs: Costs,
    *,
    limits: Limits = NO_LIMITS,
    carry: Carry | None = None,
) -> Trades:
    """Trade the signals through backtrader, one position at a time, and return the trades.

    Parameters
    ----------
    quotes : Quotes
        The recording, P quotes; those before the first signal are not fed.
    signals : Signals
        S entries that the model wants, in the order of their decisions.
    costs : Costs
        What trading costs.
    limits : Limits
        Which entries are not made.
    carry : Carry, optional
        What holding earns; the financing of ``costs`` where left out.

    Raises
    ------
    DataError
        If the signals cannot be traded on the recording.
    """
    check_signals(quotes, signals)
    carry = payments(quotes, costs) if carry is None else carry
    first = int(signals.orders.quote_index[0]) if len(signals) else len(quotes)
    cerebro = _cerebro(quotes, costs, carry, first=first)
    cerebro.addstrategy(BarrierStrategy, signals=signals, limits=limits)
    (strategy,) = cerebro.run()
    return _trades(strategy, quotes, signals, carry)


def run_targets(
    quotes: Quotes,
    targets: Targets,
    costs: Costs,
    *,
    limits: Limits = NO_LIMITS,
    carry: Carry | None = None,
) -> Trades:
    """Hold what the targets say through backtrader, and return the trades.

    Raises
    ------
    DataError
        If the targets cannot be followed on the recording.
    """
    check_targets(quotes, targets)
    carry = payments(quotes, costs) if carry is None else carry
    cerebro = _cerebro(quotes, costs, carry)
    cerebro.addstrategy(TargetStrategy, targets=targets, limits=limits)
    (strategy,) = cerebro.run()
    made = trades_of_fills(quotes, _fills(cerebro.broker), costs, carry)
    return replace(made, halted=strategy.halted)


def run_strategy(
    quotes: Quotes,
    strategy: type,
    costs: Costs,
    *,
    limits: Limits = NO_LIMITS,
    carry: Carry | None = None,
    cash: float = PLENTY,
    **parameters: Any,
) -> Trades:
    """Run a user's ``bt.Strategy`` class on the one fill model, and return its trades.

    Parameters
    ----------
    strategy : type
        Subclass of ``backtrader.Strategy``; ``parameters`` are its params. Its data is a
        `QuoteFeed`; orders without a size are of one unit.
    limits : Limits
        Of these, the share of orders that the venue rejects, and the largest order.

    Returns
    -------
    Trades
        From flat to flat. Where the strategy raised, those that had ended, with ``stopped`` saying
        what and where.
    """
    carry = payments(quotes, costs) if carry is None else carry
    cerebro = _cerebro(quotes, costs, carry, cash=cash, limits=limits)
    cerebro.addsizer(UnitSizer, most=limits.max_units)
    cerebro.addstrategy(strategy, **parameters)
    stopped = None
    try:
        cerebro.run()
    except Exception as error:  # the user's code: whatever it raises ends the run, and is kept
        stopped = _where(error, quotes, cerebro.datas[0])
    return replace(trades_of_fills(quotes, _fills(cerebro.broker), costs, carry), stopped=stopped)


class UnitSizer(bt.Sizer):  # type: ignore[misc]
    """One unit, or the largest position that limits allow."""

    params = (("most", float("inf")),)

    def _getsizing(self, comminfo: Any, cash: float, data: Any, isbuy: bool) -> float:  # noqa: ARG002
        return float(min(1.0, self.p.most))


def _cerebro(
    quotes: Quotes,
    costs: Costs,
    carry: Carry,
    *,
    first: int = 0,
    cash: float = 0.0,
    limits: Limits | None = None,
) -> Any:
    fed, rest = as_traded(quotes, costs)
    cerebro = bt.Cerebro(stdstats=False)
    cerebro.setbroker(QuoteBroker(costs=rest, carry=carry, cash=cash, limits=limits))
    cerebro.adddata(QuoteFeed(quotes=fed, first=first))
    return cerebro


def _fills(broker: QuoteBroker) -> Fills:
    index, units, price = zip(*broker.fills, strict=True) if broker.fills else ((), (), ())
    return Fills(np.array(index, np.int64), np.array(units, float), np.array(price, float))


def _where(error: Exception, quotes: Quotes, feed: QuoteFeed) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    told = f"the strategy raised {type(error).__name__}: {error} ({frame.filename}, line "
    if not len(feed):
        return f"{told}{frame.lineno}) before the first quote"
    at_ns = int(quotes.ts_event[feed.at])
    at = datetime.fromtimestamp(at_ns / NS_PER_S, UTC).isoformat(timespec="milliseconds")
    return f"{told}{frame.lineno}) on quote {feed.at} of {at}"


def _trades(strategy: BarrierStrategy, quotes: Quotes, signals: Signals, carry: Carry) -> Trades:
    done: list[RoundTrip] = strategy.round_trips
    rows = np.array([trip.row for trip in done], np.int64)
    entries, exits = [trip.entry for trip in done], [trip.exit for trip in done]
    entered = np.array([order.info.quote_index for order in entries], np.int64)
    left = np.array([order.info.quote_index for order in exits], np.int64)
    entry_fees = np.array([order.executed.comm for order in entries])
    fees = entry_fees + np.array([order.executed.comm for order in exits])
    side = np.array([side_of(order) for order in entries], np.int8)
    size = np.array([abs(order.executed.size) for order in entries], float)
    held = size * carried_each(carry, side, quotes.ts_event[entered], quotes.ts_event[left])
    open_ = strategy.bracket
    return Trades(
        order_id=signals.order_id[rows],
        side=side,
        entry_index=entered,
        entry_price=np.array([order.executed.price for order in entries]),
        exit_index=left,
        exit_price=np.array([order.executed.price for order in exits]),
        reason=np.array([trip.reason for trip in done], np.int8),
        entry_fees=entry_fees,
        fees=fees,
        pnl=np.array([order.executed.pnl for order in exits]) - fees + held,
        score=signals.score[rows],
        size=size,
        carry=held,
        skipped_while_in_position=strategy.skipped,
        unfilled=int(open_ is not None and not open_.has_position),
        open_at_end=_open_at_end(open_, signals),
        rejected=strategy.rejected,
        halted=strategy.halted,
        decided_index=signals.orders.quote_index[rows],
    )


def _open_at_end(left: Bracket | None, signals: Signals) -> OpenPosition | None:
    if left is None or not left.has_position:
        return None
    return OpenPosition(
        order_id=int(signals.order_id[left.row]),
        side=side_of(left.entry),
        entry_index=int(left.entry.info.quote_index),
        entry_price=left.entry.executed.price,
        entry_fee=left.entry.executed.comm,
        score=float(signals.score[left.row]),
        size=abs(left.entry.executed.size),
    )
