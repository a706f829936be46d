"""The engines agree with each other and with a slow reading of the rules, whatever happens."""

from __future__ import annotations

import numpy as np
from backtest_cases import quotes_of, signal, signals_of
from hypothesis import given, settings
from hypothesis import strategies as st

from trademl.backtest.backtrader_engine import run_backtrader
from trademl.backtest.compiled import run_compiled
from trademl.backtest.parity import check_parity
from trademl.backtest.trades import OpenPosition, Trades
from trademl.market.costs import Costs
from trademl.market.orders import ExitReason

TICK = 0.25
ticks = st.integers(1, 12).map(lambda n: n * TICK)


@st.composite
def recordings(draw):
    """A few quotes that jump by ticks, repeat times and are flagged now and then."""
    n = draw(st.integers(1, 40))
    bid = 100 + TICK * np.cumsum(draw(st.lists(st.integers(-6, 6), min_size=n, max_size=n)))
    spread = TICK * np.array(draw(st.lists(st.integers(-1, 3), min_size=n, max_size=n)))
    absent = np.array(draw(st.lists(st.integers(0, 7), min_size=n, max_size=n))) == 0
    gaps = draw(st.lists(st.sampled_from([0, 0, 1e-9, 1, 2, 60]), min_size=n, max_size=n))
    rows = zip(np.where(absent, np.nan, bid), bid + spread, strict=True)
    return quotes_of(*rows, at_s=np.cumsum(gaps).tolist())


@st.composite
def cases(draw):
    quotes = draw(recordings())
    row = st.builds(
        signal,
        quote_index=st.integers(0, len(quotes) - 1),
        side=st.sampled_from([1, -1]),
        take_profit=ticks,
        stop_loss=ticks,
        time_limit_s=st.sampled_from([0, 1, 2, 5, 100]),
        score=st.floats(0, 1),
    )
    costs = st.builds(
        Costs,
        fee_bps=st.sampled_from([0, 1.5]),
        fee_per_unit=st.sampled_from([0, 0.1]),
        slippage=st.sampled_from([0, 0.1, 0.25]),
        latency_ms=st.sampled_from([0, 0, 1e-6, 1_000, 1_500, 60_000]),
        take_profit_is_market=st.booleans(),
    )
    return quotes, signals_of(*sorted(draw(st.lists(row, max_size=20)))), draw(costs)


@settings(max_examples=200, deadline=None)
@given(case=cases())
def test_engines_agree_trade_by_trade(case):
    compiled, backtrader, by_hand = run_compiled(*case), run_backtrader(*case), trade_by_hand(*case)

    check_parity(compiled, by_hand, names=("compiled", "by hand"))
    check_parity(compiled, backtrader, names=("compiled", "backtrader"))


@settings(max_examples=50, deadline=None)
@given(case=cases())
def test_every_signal_is_accounted_for(case):
    trades = run_compiled(*case)

    rest = trades.skipped_while_in_position + trades.unfilled + (trades.open_at_end is not None)
    assert len(trades) + rest == len(case[1])


def trade_by_hand(quotes, signals, costs) -> Trades:
    """Walk the quotes one by one, as the rules read."""
    late_ns = round(costs.latency_ms * 1_000_000)
    wanted, position, sent, done, skipped = None, None, None, [], 0
    for k in range(len(quotes)):
        bid, ask, now = quotes.bid[k], quotes.ask[k], quotes.ts_event[k]
        can_trade = bid <= ask
        if can_trade and position:
            sent, left = leave(signals, position, sent, bid, ask, now, costs)
            if left:
                done.append((*position, k, *left))
                position = sent = None
        for row in np.flatnonzero(signals.orders.quote_index == k):
            if position or wanted is not None:
                skipped += 1
            else:
                wanted, arrives_at = row, now + late_ns
        if can_trade and wanted is not None and now >= arrives_at:
            paid = ask + costs.slippage if signals.orders.side[wanted] > 0 else bid - costs.slippage
            position, wanted = (wanted, k, paid, now), None
    return as_trades(signals, costs, done, skipped, int(wanted is not None), position)


def leave(signals, position, sent, bid, ask, now, costs):
    """Return the barrier's order on its way (reason, arrival), and the exit (price, reason)."""
    row, _, paid, entered_at = position
    orders, late_ns = signals.orders, round(costs.latency_ms * 1_000_000)
    is_long = orders.side[row] > 0
    gain = bid - paid if is_long else paid - ask  # at the touch
    target, risk = orders.take_profit[row], orders.stop_loss[row]
    slipped = bid - costs.slippage if is_long else ask + costs.slippage
    if sent is None and gain >= target - 1e-9:
        if not costs.take_profit_is_market:
            return None, ((paid + target if is_long else paid - target), ExitReason.TAKE_PROFIT)
        sent = ExitReason.TAKE_PROFIT, now + late_ns
    elif sent is None and gain <= -risk + 1e-9:
        sent = ExitReason.STOP_LOSS, now + late_ns
    if sent and now >= sent[1]:
        return sent, (slipped, sent[0])
    if now >= entered_at + orders.time_limit_ns[row] + late_ns:
        return sent, (slipped, sent[0] if sent else ExitReason.TIME)
    return sent, None


def as_trades(signals, costs, done, skipped, unfilled, position) -> Trades:
    rows = np.array([trade[0] for trade in done], np.int64)
    side = signals.orders.side[rows]
    paid, got = (np.array([trade[n] for trade in done], float) for n in (2, 5))
    entry_fees = costs.fee_bps / 10_000 * paid + costs.fee_per_unit
    fees = entry_fees + costs.fee_bps / 10_000 * got + costs.fee_per_unit
    still = None
    if position:
        row, k, price, _ = position
        fee = costs.fee(price)
        order_id, side_ = signals.order_id[row], signals.orders.side[row]
        still = OpenPosition(order_id, side_, k, price, fee, signals.score[row])
    return Trades(
        order_id=signals.order_id[rows],
        side=side,
        entry_index=np.array([trade[1] for trade in done], np.int64),
        entry_price=paid,
        exit_index=np.array([trade[4] for trade in done], np.int64),
        exit_price=got,
        reason=np.array([trade[6] for trade in done], np.int8),
        entry_fees=entry_fees,
        fees=fees,
        pnl=side * (got - paid) - fees,
        score=signals.score[rows],
        skipped_while_in_position=skipped,
        unfilled=unfilled,
        open_at_end=still,
    )
