"""A live run on recorded quotes trades as the backtest of its model, to the cent, and resumes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from market_cases import random_walk
from trademl.backtest.compiled import run_compiled
from trademl.backtest.live_risk import AccountRisk
from trademl.backtest.settings import BacktestConfig
from trademl.backtest.signals import Signals
from trademl.backtest.sizing import sized
from trademl.errors import ClashError, ConfigError, LeaseError, ServeError
from trademl.etl.features import feature_matrix, usable_rows
from trademl.etl.recipe import FeatureRecipe, Lags
from trademl.ingest.order_bot import OrderBotConfig, place_orders
from trademl.ledger import Ledger
from trademl.ledger.live_tables import BrokerFilled, BrokerOrder, Lease, LiveDecision, LiveRun
from trademl.live.asking import Opinion
from trademl.live.journal import Journal
from trademl.live.lease import LeaseHolder
from trademl.live.paper_broker import PaperBroker
from trademl.live.positions import positions
from trademl.live.sender import Sender
from trademl.live.trader import LivePlan, Trader
from trademl.market.costs import Costs
from trademl.market.health import HealthConfig
from trademl.market.orders import ExitReason, Side
from trademl.market.quotes import QuoteFlag, ticks_of

COSTS = Costs(
    latency_ms=300, quote_delay_ms=200, slippage_spreads=0.1, fee_per_unit=0.02, fee_bps=0.1
)
BOT = OrderBotConfig(
    interval_s=5, take_profit=0.8, stop_loss=0.8, volatility_window_s=60, min_spreads=3.0,
    time_limit_s=90,
)  # fmt: skip
RECIPE = FeatureRecipe(lags=(Lags(40), Lags(5, 20)), spread=True)
LIMITED = BacktestConfig(reject_share=0.1, daily_loss=25.0, units=2.0, max_units=1.5)


def score_of(features_D):
    return float(np.float32(0.5 + np.tanh(-features_D[7:20].sum() / 40) / 2))


class Oracle:
    """Scores by hand, and counts how often it is asked."""

    def __init__(self, threshold=0.55):
        self.n_asked, self._threshold = 0, threshold

    def ask(self, features_D, spread):
        self.n_asked += 1
        score = score_of(features_D)
        return Opinion(score, score >= self._threshold, "biggest", "model-1", "live", "normal")


class Killed(BaseException):
    pass


def make_trader(
    ledger,
    *,
    costs=COSTS,
    config=LIMITED,
    trades=True,
    health=None,
    adviser=None,
    bot=BOT,
    threshold=0.55,
    fence=None,
):
    plan = LivePlan("live-1", "s", "TEST", RECIPE, bot, costs, health or HealthConfig(), trades)
    run = LiveRun(
        id="live-1", strategy="s", model_id="model-1", feed="test", mode="paper",
        status="running", n_quotes=0, last_ns=0, summary={},
    )  # fmt: skip
    broker = PaperBroker(costs, "paper-live-1")
    return Trader(
        plan,
        adviser or Oracle(threshold),
        AccountRisk(config, costs, Side.BUY, seed=7),
        broker,
        Journal(ledger, run, fence),
        Sender(ledger, broker, "s"),
    )


def recording(seed=4, n=3_000):
    quotes = random_walk(n, seed=seed, per_s=2.0)
    rng = np.random.default_rng(seed)
    flags = rng.choice([0, QuoteFlag.CLOSED], n, p=[0.95, 0.05]).astype(np.uint8)
    sizes = {name: rng.integers(0, 3, n).astype(float) for name in ("bid_size", "ask_size")}
    return replace(quotes, flags=flags, **sizes)


def backtested(quotes, costs=COSTS, config=LIMITED, bot=BOT, threshold=0.55):
    orders = place_orders(quotes, bot)
    orders = orders.take(usable_rows(quotes, orders.quote_index, RECIPE))
    features_ND = feature_matrix(quotes, orders.quote_index, RECIPE)
    score = np.array([score_of(row_D) for row_D in features_ND])
    signals = Signals(orders, orders.quote_index, score).flagged(threshold)
    signals = sized(quotes, signals, costs, config)
    return run_compiled(quotes, signals, costs, limits=config.limits(7))


def run_all(trader, quotes):
    for tick in ticks_of(quotes):
        trader.on_quote(tick)
    trader.finish("finished", {})
    return trader.tally.trips


def assert_same_trades(trips, trades, quotes):
    assert len(trips) == len(trades) > 5
    columns = [np.array(column) for column in zip(*trips, strict=True)]
    index, _, entry_ns, entry, exit_ns, leaving, reason, units, pnl, score = columns
    np.testing.assert_array_equal(index, trades.order_id)
    np.testing.assert_array_equal(entry_ns, quotes.ts_event[trades.entry_index])
    np.testing.assert_array_equal(exit_ns, quotes.ts_event[trades.exit_index])
    np.testing.assert_array_equal(entry, trades.entry_price)
    np.testing.assert_array_equal(leaving, trades.exit_price)
    assert reason.tolist() == [ExitReason(why).name.lower() for why in trades.reason]
    np.testing.assert_array_equal(units, trades.size)
    np.testing.assert_array_equal(score, trades.score)
    np.testing.assert_allclose(pnl, trades.pnl, atol=1e-9)


@pytest.fixture
def ledger(tmp_path):
    opened = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    with opened.engine.connect():  # as `trade_live` does: a write costs a tenth then
        yield opened
    opened.close()


@pytest.mark.parametrize("seed", [4, 5])
@pytest.mark.parametrize(
    "config", [LIMITED, BacktestConfig(sizing="kelly", capital=1_000.0, kelly_fraction=0.5)]
)
def test_live_trades_are_those_of_the_backtest(ledger, seed, config):
    quotes = recording(seed)
    trips = run_all(make_trader(ledger, config=config), quotes)
    assert_same_trades(trips, backtested(quotes, config=config), quotes)


def test_a_quote_that_ends_a_trade_may_begin_another_as_in_the_backtest(ledger):
    quotes = recording(n=1_200)
    every = {"bot": replace(BOT, interval_s=0.001), "threshold": 0.0, "costs": Costs()}
    trips = run_all(make_trader(ledger, **every), quotes)
    assert_same_trades(trips, backtested(quotes, **every), quotes)
    assert {trip.exit_ns for trip in trips} & {trip.entry_ns for trip in trips}


def test_fills_in_the_ledger_are_what_the_trades_earned(ledger):
    trips = run_all(make_trader(ledger), recording())
    held = positions(ledger, "s")["TEST"]
    assert held.quantity == 0
    assert np.isclose(held.cash - held.fees, sum(trip.pnl for trip in trips))


def test_a_killed_run_goes_on_without_asking_or_ordering_twice(ledger, tmp_path):
    quotes = recording()
    whole = Ledger(f"sqlite:///{tmp_path / 'whole.db'}")
    unbroken = run_all(make_trader(whole), quotes)
    cut = unbroken[3].entry_ns  # a position is open there
    killed = make_trader(ledger)
    for tick in ticks_of(quotes):
        if tick.ts_event > cut:
            break
        killed.on_quote(tick)
    n_kept = len(ledger.rows(LiveDecision))
    assert killed.open_position()["stage"] == "held"

    adviser = Oracle()
    resumed = make_trader(ledger, adviser=adviser)
    assert run_all(resumed, quotes) == unbroken
    for table in (BrokerOrder, BrokerFilled):
        assert len(ledger.rows(table)) == len(whole.rows(table))
    same = [(d.quote_index, d.outcome, d.score) for d in ledger.rows(LiveDecision)]
    assert same == [(d.quote_index, d.outcome, d.score) for d in whole.rows(LiveDecision)]
    assert resumed.tally.n_resumed == n_kept > 0
    whole.close()


def test_a_run_killed_between_order_and_sending_sends_it_when_it_goes_on(ledger, monkeypatch):
    quotes = recording()

    def die(self):
        raise Killed

    killed = make_trader(ledger)
    with monkeypatch.context() as patch:
        patch.setattr(Sender, "work", die)
        with pytest.raises(Killed):
            run_all(killed, quotes)
    assert [row.status for row in ledger.rows(BrokerOrder)] == ["queued", "queued"]
    trips = run_all(make_trader(ledger), quotes)
    assert_same_trades(trips, backtested(quotes), quotes)


def test_a_shadow_run_decides_and_orders_nothing(ledger):
    trader = make_trader(ledger, trades=False)
    assert run_all(trader, recording()) == []
    assert trader.tally.outcomes["shadow"] > 5
    assert ledger.rows(BrokerOrder) == []


def test_an_unhealthy_feed_is_not_decided_on_where_the_policy_drops(ledger):
    health = HealthConfig(policy="drop", gap_s=0.5)
    trader = make_trader(ledger, health=health)
    run_all(trader, recording(n=600))
    assert set(trader.tally.outcomes) == {"abstained"}
    reasons = {row.reason for row in ledger.rows(LiveDecision)}
    assert any(reason.startswith("the feed is unhealthy") for reason in reasons)


def test_a_server_that_is_gone_is_an_abstention_with_its_reason(ledger):
    class Gone:
        def ask(self, features_D, spread):
            raise ServeError("nothing answers at http://there")

    trader = make_trader(ledger, adviser=Gone())
    assert run_all(trader, recording(n=600)) == []
    assert "nothing answers at http://there" in {d.reason for d in ledger.rows(LiveDecision)}


def test_every_decision_is_in_the_ledger_with_tier_and_model(ledger):
    trader = make_trader(ledger)
    run_all(trader, recording(n=600))
    rows = ledger.rows(LiveDecision)
    assert len(rows) == sum(trader.tally.outcomes.values())
    scored = [row for row in rows if row.score is not None]
    assert {(row.tier, row.model_id) for row in scored} == {("biggest", "model-1")}


def test_costs_that_the_paper_broker_does_not_charge_are_refused(ledger):
    with pytest.raises(ConfigError, match="has financing, which the paper broker"):
        make_trader(ledger, costs=Costs(financing_short_pct=3.0))


def region(ledger, name):
    return LeaseHolder(
        ledger, "s", home="hk", region=name, holder=name, trades=True, ttl_ms=600_000
    )


def lose(ledger):
    """Let the lease end, as when its holder was cut off."""
    row = ledger.get(Lease, "s")
    row.expires_at_ms = 1
    ledger.record(row)


def test_a_region_goes_on_with_the_run_of_one_that_was_lost(ledger, tmp_path):
    quotes = recording(n=1_500)
    whole = Ledger(f"sqlite:///{tmp_path / 'whole.db'}")
    with whole.engine.connect():
        unbroken = run_all(make_trader(whole), quotes)
    cut = int(np.searchsorted(quotes.ts_event, unbroken[3].entry_ns, "right"))  # a position is open
    ticks = list(ticks_of(quotes))
    lost = make_trader(ledger, fence=region(ledger, "hk").acquire())
    for tick in ticks[:cut]:
        lost.on_quote(tick)
    assert region(ledger, "us").acquire() is None
    lose(ledger)

    adviser = Oracle()
    taken_up = make_trader(ledger, adviser=adviser, fence=region(ledger, "us").acquire())
    assert run_all(taken_up, quotes) == unbroken
    assert taken_up.tally.n_resumed > 0
    for table in (BrokerOrder, BrokerFilled):
        assert len(ledger.rows(table)) == len(whole.rows(table))
    assert {row.token for row in ledger.rows(BrokerOrder)} == {1, 2}
    n_decisions = len(ledger.rows(LiveDecision))
    with pytest.raises(LeaseError, match="token 1 of lease s no longer holds"):
        for tick in ticks[cut:]:
            lost.on_quote(tick)
    assert len(ledger.rows(LiveDecision)) == n_decisions
    whole.close()


def test_an_order_not_sent_when_its_region_was_lost_never_goes_out(ledger, monkeypatch):
    quotes = recording(n=1_500)

    def die(self):
        raise Killed

    killed = make_trader(ledger, fence=region(ledger, "hk").acquire())
    with monkeypatch.context() as patch:
        patch.setattr(Sender, "work", die)
        with pytest.raises(Killed):
            run_all(killed, quotes)
    keys = [row.key for row in ledger.rows(BrokerOrder)]
    lose(ledger)

    trips = run_all(make_trader(ledger, fence=region(ledger, "us").acquire()), quotes)

    assert [ledger.get(BrokerOrder, key).status for key in keys] == ["cancelled", "cancelled"]
    assert not {row.order_key for row in ledger.rows(BrokerFilled)} & set(keys)
    assert len(trips) > 2


def test_a_trader_that_may_trade_no_more_stops_before_the_quote(ledger):
    trader = make_trader(ledger)
    trader._may_trade = lambda: False
    with pytest.raises(LeaseError, match="another region may trade"):
        run_all(trader, recording(n=10))
    assert trader.tally.n_quotes == 0


def test_the_model_that_answers_decides_by_its_own_threshold(ledger):
    class Bold:
        def ask(self, features_D, spread):
            return Opinion(0.01, is_yes=True, tier="smallest", model_id="model-2", mode="live")

    assert run_all(make_trader(ledger, adviser=Bold()), recording())


def test_of_two_that_trade_one_run_the_slower_is_told_and_nothing_is_booked_twice(ledger):
    quotes = recording()
    first, second = make_trader(ledger), make_trader(ledger)
    trips = run_all(first, quotes)
    with pytest.raises(ClashError, match="another process trades run live-1 .* --region NAME"):
        run_all(second, quotes)
    with ledger.session() as session:
        entries = session.query(BrokerOrder).filter_by(kind="entry").count()
        decisions = session.query(LiveDecision).filter_by(outcome="order").count()
    assert entries == decisions >= len(trips) > 5
