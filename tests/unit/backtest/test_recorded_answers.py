"""Recorded decisions of live runs: as answers to replay, and as trades to compare."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from backtest_cases import START_NS, bids, signal, signals_of

from trademl.backtest.histories import History
from trademl.backtest.live_rows import live_rows
from trademl.backtest.recorded_answers import live_record
from trademl.backtest.run import DEFAULT
from trademl.backtest.serving_costs import Served, serving_costs
from trademl.errors import DataError, StoreError
from trademl.ledger import Ledger
from trademl.ledger.live_tables import BrokerFilled, BrokerOrder, LiveDecision, LiveRun
from trademl.market.costs import Costs

S = 1_000_000_000
AS_OF = START_NS + np.arange(0, 40, 10) * S


@pytest.fixture
def ledger(tmp_path):
    opened = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    yield opened
    opened.close()


def add_run(ledger, identity="live-1", *, mode="paper", strategy="s"):
    ledger.record(
        LiveRun(
            id=identity, strategy=strategy, model_id="big", feed="recording-1", mode=mode,
            status="finished", n_quotes=9, last_ns=0, summary={},
        )
    )  # fmt: skip


def decide(ledger, second, outcome="order", *, run="live-1", score=0.9, tier="biggest", **more):
    told = {
        "model_id": "big",
        "age_ms": 0.0,
        "latency_us": 1_500.0,
        "reason": "",
        "order_key": None,
    }
    ledger.record(
        LiveDecision(
            run_id=run, quote_index=second, as_of_ns=START_NS + second * S, outcome=outcome,
            score=score, tier=tier, **told | more,
        )
    )  # fmt: skip


def test_a_decision_is_an_answer_with_its_tier_latency_and_age(ledger):
    add_run(ledger)
    decide(ledger, 0)
    decide(ledger, 10, "below", score=0.2, tier="smallest", model_id="small")
    decide(ledger, 20, tier="cached", age_ms=250.0)
    decide(ledger, 30, "abstained", score=None, tier="abstain", model_id="")

    record = live_record(ledger, "s", AS_OF)

    found = record.answers
    assert (record.model_id, record.smaller) == ("big", ("small",))
    assert found.tiers.tolist() == ["biggest", "smallest", "cached", "abstain"]
    assert found.model.tolist() == [0, 1, 0, -1]
    assert found.latency_ns.tolist() == [1_500_000] * 4
    assert found.age_ns.tolist() == [0, 0, 250_000_000, 0]
    assert found.took.tolist() == [True, False, True, False]


def test_orders_outside_of_the_run_are_not_its_own(ledger):
    add_run(ledger)
    decide(ledger, 10)
    decide(ledger, 20)

    record = live_record(ledger, "s", AS_OF)

    assert record.covers(AS_OF).tolist() == [False, True, True, False]
    assert len(record.take(record.covers(AS_OF)).answers) == 2


def test_an_order_within_the_run_that_it_did_not_decide_is_an_abstention(ledger):
    add_run(ledger)
    decide(ledger, 0)
    decide(ledger, 20)

    assert live_record(ledger, "s", AS_OF).answers.is_abstention.tolist() == [
        False, True, False, True,
    ]  # fmt: skip


def test_the_run_that_decided_most_is_taken_and_paper_before_shadow(ledger):
    for name, mode in (("live-1", "paper"), ("live-2", "shadow"), ("live-3", "shadow")):
        add_run(ledger, name, mode=mode)
    for second in (0, 10):
        decide(ledger, second, run="live-1")
        decide(ledger, second, run="live-2")
    decide(ledger, 0, run="live-3")

    assert live_record(ledger, "s", AS_OF).run_id == "live-1"


def test_two_runs_that_decided_as_many_must_be_named(ledger):
    for name in ("live-1", "live-2"):
        add_run(ledger, name)
        decide(ledger, 0, run=name)

    with pytest.raises(DataError, match="name one of them with --live: live-1, live-2"):
        live_record(ledger, "s", AS_OF)
    assert live_record(ledger, "s", AS_OF, run_id="live-2").run_id == "live-2"


def test_a_run_that_is_unknown_or_of_another_time_is_named(ledger):
    add_run(ledger)

    assert live_record(ledger, "s", AS_OF) is None
    with pytest.raises(StoreError, match="no live run live-9"):
        live_record(ledger, "s", AS_OF, run_id="live-9")
    with pytest.raises(DataError, match="live-1 decided none of these orders"):
        live_record(ledger, "s", AS_OF, run_id="live-1")


def test_what_was_taken_for_a_yes_stays_one_whatever_the_threshold(ledger):
    # the price rises by 1 a second and each trade earns 5: live said yes to 0.3 and no to 0.9
    add_run(ledger)
    decide(ledger, 0, score=0.3, latency_us=0.0)
    decide(ledger, 10, "below", score=0.9, latency_us=0.0)
    answers = live_record(ledger, "s", AS_OF[:2]).answers
    ones, cuts = np.array([0.9, 0.9]), np.full(2, 0.5)
    serving = Served(answers, ones, ones, np.zeros((0, 2)), 0.5, cuts, np.zeros(0))
    two = signals_of(signal(0, time_limit_s=5), signal(10, time_limit_s=5))

    told = serving_costs(
        bids(*np.arange(10.0, 40.0), spread=0.0), two, serving, Costs(), DEFAULT, 7
    )

    assert (told["ideal"], told["served"]) == (10.0, 5.0)


def test_each_tier_has_its_answers_trades_profit_and_cost(ledger):
    # the price rises until second 13 and stays: the small model's answer is 2 s late, and costs 2
    add_run(ledger)
    decide(ledger, 0, latency_us=0.0)
    decide(ledger, 10, tier="smallest", model_id="small", latency_us=2e6)
    answers = live_record(ledger, "s", AS_OF[:2]).answers
    ones, cuts = np.array([0.9, 0.9]), np.full(2, 0.5)
    serving = Served(answers, ones, ones, ones[None], 0.5, cuts, np.array([0.5]))
    two = signals_of(signal(0, time_limit_s=5), signal(10, time_limit_s=5))
    quotes = bids(*np.minimum(np.arange(10.0, 40.0), 23.0), spread=0.0)

    tiers = serving_costs(quotes, two, serving, Costs(), DEFAULT, 7)["tiers"]

    assert tiers == [
        {"tier": "biggest", "n_answers": 1, "n_trades": 1, "net_pnl": 5.0, "cost": 0.0},
        {"tier": "smallest", "n_answers": 1, "n_trades": 1, "net_pnl": 1.0, "cost": 2.0},
    ]


def fill(ledger, key, number, second, units, price, fees=0.5):
    ledger.record(
        BrokerFilled(
            order_key=key, number=number, ts_event_ns=START_NS + second * S, quantity=units,
            price=price, fees=fees,
        )
    )  # fmt: skip


def order(ledger, key, kind, side, payload, reason=""):
    ledger.record(
        BrokerOrder(
            key=key, strategy="s", instrument="ES", side=side, kind=kind, quantity=2.0,
            limit_price=None, status="filled", created_at_ns=START_NS, sent_at_ns=None, lease=None,
            token=None, reason=reason, payload=payload,
        )
    )  # fmt: skip


def test_a_live_trade_is_put_together_from_its_fills_and_its_decision(ledger):
    add_run(ledger)
    order(ledger, "in", "entry", "sell", {"exit_key": "out", "multiplier": 10.0})
    order(ledger, "out", "exit", "buy", {}, reason="stop_loss")
    decide(ledger, 0, tier="cached", order_key="in")
    fill(ledger, "in", 1, 1, 2.0, 100.0)
    fill(ledger, "out", 1, 5, 1.0, 101.0)
    fill(ledger, "out", 2, 6, 1.0, 103.0)

    (row,) = live_rows(ledger, "live-1").trades

    assert (row.entry_price, row.exit_price, row.size, row.side) == (100.0, 102.0, 2.0, -1)
    assert row.pnl == -2 * 2.0 * 10 - 3 * 0.5
    assert (row.tier, row.latency_ms, row.exit_reason) == ("cached", 1.5, "stop_loss")
    assert (row.closed_at_ns, row.decided_at_ns) == (START_NS + 6 * S, START_NS)


def test_a_position_that_is_still_held_is_no_trade(ledger):
    add_run(ledger)
    order(ledger, "in", "entry", "buy", {"exit_key": "out"})
    decide(ledger, 0, order_key="in")
    fill(ledger, "in", 1, 1, 2.0, 100.0)

    found = live_rows(ledger, "live-1")

    assert found.trades == []
    assert found.decided[START_NS].outcome == "order"


def test_a_history_knows_the_tier_of_a_model_that_is_asked_directly():
    row = SimpleNamespace(tier=None)

    assert History("backtest", [], {"costs": {}}).tier(row) == "biggest"
    assert History("file", []).tier(row) is None
