"""Replay of serving: late answers fill late, and each degradation is told by itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from backtest_cases import bids, signal, signals_of
from hypothesis import given, settings
from hypothesis import strategies as st

from trademl.backtest.compiled import run_compiled
from trademl.backtest.late import delayed
from trademl.backtest.live_history import Live, live_at, live_history
from trademl.backtest.run import DEFAULT
from trademl.backtest.served_answers import Answers, ReplayConfig, modelled_answers
from trademl.backtest.serving_costs import Served, serving_costs
from trademl.errors import ConfigError
from trademl.ledger import Ledger
from trademl.market.costs import Costs
from trademl.market.quotes import NS_PER_S
from trademl.serve.ladder import LadderPolicy

MS = 1_000_000


class Model:
    """What the cache knows a model by."""

    def __init__(self, name):
        self.id = name


def modelled(n=200, n_models=2, policy=None, seed=7, **load):
    at = np.arange(n) * NS_PER_S
    features = np.arange(n, dtype=np.float32)[:, None]
    score = np.arange(n_models)[:, None] + np.linspace(0, 0.5, n)
    models = [Model(str(k)) for k in range(n_models)]
    return modelled_answers(
        at, features, score, models, policy or LadderPolicy(), ReplayConfig(**load), seed=seed
    )


def test_an_answer_that_is_late_fills_on_the_first_quote_after_it():
    quotes = bids(10.0, 11.0, 12.0, 13.0, 14.0, spread=0.0)
    one = signals_of(signal(0, time_limit_s=1))
    late, taken = delayed(quotes, one, np.array([1_500 * MS]))
    trades = run_compiled(late, taken, Costs())
    assert trades.entry_price.tolist() == [12.0]


def test_an_answer_at_the_moment_of_a_quote_may_fill_on_it():
    quotes = bids(10.0, 11.0, 12.0, 13.0, spread=0.0)
    late, taken = delayed(quotes, signals_of(signal(0, time_limit_s=1)), np.array([NS_PER_S]))
    assert run_compiled(late, taken, Costs()).entry_price.tolist() == [11.0]


def test_an_answer_without_latency_changes_nothing():
    quotes = bids(10.0, 11.0, 12.0)
    one = signals_of(signal(1, time_limit_s=1))
    same, taken = delayed(quotes, one, np.zeros(1, np.int64))
    np.testing.assert_array_equal(same.ts_event, quotes.ts_event)
    assert taken.orders.quote_index.tolist() == [1]


def test_a_later_order_with_a_quicker_answer_comes_first():
    quotes = bids(*np.arange(10.0, 20.0), spread=0.0)
    two = signals_of(signal(0), signal(1))
    _, taken = delayed(quotes, two, np.array([5_000 * MS, 1 * MS]))
    assert taken.order_id.tolist() == [11, 10]


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**31))
def test_a_constant_latency_is_the_latency_of_the_costs(seed):
    rng = np.random.default_rng(seed)
    gaps = rng.choice([0.0, 0.3, 1.0, 5.0], 80)
    quotes = bids(*(50 + np.cumsum(rng.normal(0, 0.3, 80))), at_s=np.cumsum(gaps))
    at = np.sort(rng.choice(70, 12, replace=False))
    rows = [
        signal(k, rng.choice([-1, 1]), rng.uniform(0.2, 1), rng.uniform(0.2, 1), rng.integers(1, 9))
        for k in at
    ]
    ms = int(rng.choice([1, 300, 1_000, 2_700]))
    for row in rows:  # one at a time: a stop's own latency is not that of an answer
        wanted = signals_of((*row[:2], 1_000.0, 1_000.0, row[4], row[5]))
        late, taken = delayed(quotes, wanted, np.array([ms * MS]))
        found = run_compiled(late, taken, Costs())
        by_costs = run_compiled(quotes, wanted, Costs(quote_delay_ms=ms))
        np.testing.assert_array_equal(found.entry_price, by_costs.entry_price)
        np.testing.assert_array_equal(found.pnl, by_costs.pnl)


def test_a_constant_latency_is_the_same_for_each_order():
    answers = modelled(latency_ms=30.0, latency_sigma=0.0, queue_ms=0.0)
    assert set(answers.latency_ns.tolist()) == {30 * MS}
    assert (answers.model == 0).all()


def test_the_same_seed_gives_the_same_latencies():
    np.testing.assert_array_equal(modelled(seed=3).latency_ns, modelled(seed=3).latency_ns)
    assert (modelled(seed=3).latency_ns != modelled(seed=4).latency_ns).any()


def test_a_model_that_is_too_busy_leaves_its_answers_to_the_smaller_one():
    answers = modelled(utilisation=1.5)  # the smaller one would be busy for 0.3
    assert (answers.model[1:] == 1).all()  # it takes a moment to step down
    np.testing.assert_allclose(answers.score[1:], 1 + np.linspace(0, 0.5, 200)[1:])


def test_an_answer_that_cannot_come_in_time_is_an_abstention():
    policy = LadderPolicy(deadline_ms=10.0)
    answers = modelled(latency_ms=500.0, latency_sigma=0.0, policy=policy)
    assert answers.is_abstention.all()
    assert np.isnan(answers.score).all()


def test_a_question_asked_before_is_answered_from_the_cache_when_the_queue_is_long():
    policy = LadderPolicy(cache_step=1000.0, cache_max_age_s=50.0, patience_ms=5.0)
    answers = modelled(n_models=1, policy=policy, queue_ms=5.0, queue_sigma=1.0)
    cached = np.flatnonzero(answers.is_cached)
    assert len(cached)
    fresh = np.linspace(0, 0.5, 200)
    for k in cached:
        source = int(np.argmin(np.abs(fresh - answers.score[k])))
        assert source < k  # an answer of an earlier order, as old as it says
        np.testing.assert_allclose(answers.score[k], fresh[source], atol=1e-6)
        assert 0 < answers.age_ns[k] <= (k - source) * NS_PER_S


def test_what_an_order_is_answered_does_not_depend_on_later_ones():
    few, many = modelled(n=50, seed=1), modelled(n=90, seed=1)
    np.testing.assert_array_equal(few.latency_ns, many.latency_ns[:50])
    np.testing.assert_array_equal(few.model, many.model[:50])


def served(answers, given, live=None, smaller=None) -> Served:
    live = given if live is None else live
    smaller = np.zeros((0, len(given))) if smaller is None else smaller
    return Served(
        answers, given, live, smaller, 0.5, np.full(len(given), 0.5), np.full(len(smaller), 0.5)
    )


def answers_of(score, model, latency_ms, age_ms=None) -> Answers:
    score = np.array(score, float)
    age = np.zeros(len(score)) if age_ms is None else np.array(age_ms)
    return Answers(
        score,
        np.array(model),
        (np.array(latency_ms) * MS).astype(np.int64),
        (age * MS).astype(np.int64),
    )


RISING = bids(*np.arange(10.0, 40.0), spread=0.0)
TWO = signals_of(signal(0, time_limit_s=5), signal(10, time_limit_s=5))
GOOD = np.array([0.9, 0.9])


def costs_of(serving):
    return serving_costs(RISING, TWO, serving, Costs(), DEFAULT, 7)


def test_an_abstention_costs_the_trade_that_it_prevented():
    # each trade earns 5: a price that rises by 1 a second, held for 5 s
    told = costs_of(served(answers_of([0.9, np.nan], [0, -1], [0, 0]), GOOD))
    assert (told["ideal"], told["served"]) == (10.0, 5.0)
    assert told["by"]["abstention"] == 5.0
    assert told["interaction"] == 0.0


def test_a_smaller_model_that_says_no_costs_the_trade():
    smaller = np.array([[0.1, 0.1]])
    told = costs_of(served(answers_of([0.9, 0.1], [0, 1], [0, 0]), GOOD, smaller=smaller))
    assert told["by"]["smaller tier"] == 5.0
    assert told["served"] == 5.0


def test_a_stale_answer_costs_the_trade_that_a_fresh_one_would_have_made():
    told = costs_of(served(answers_of([0.9, 0.1], [0, 0], [0, 0], [0, 3_000]), GOOD))
    assert told["by"]["stale cache"] == 5.0


def test_a_model_that_was_live_and_worse_costs_what_it_missed():
    live = np.array([0.9, 0.1])
    told = costs_of(served(answers_of(live, [0, 0], [0, 0]), GOOD, live=live))
    assert told["by"]["model changes"] == 5.0
    assert (told["ideal"], told["served"]) == (10.0, 5.0)


def test_latency_costs_what_the_price_ran_away():
    # the price rises by 1 until second 3 and stays: 2 s late, the first order earns 2 less
    quotes = bids(*np.minimum(np.arange(10.0, 40.0), 13.0), spread=0.0)
    one = signals_of(signal(0, time_limit_s=5))
    serving = served(answers_of([0.9], [0], [2_000]), GOOD[:1])
    told = serving_costs(quotes, one, serving, Costs(), DEFAULT, 7)
    assert (told["ideal"], told["served"], told["by"]["latency"]) == (3.0, 1.0, 2.0)


def test_degradations_and_interaction_add_up_to_the_difference():
    # the answer of the second is both stale and late: neither alone would have saved it
    late = answers_of([0.9, 0.1], [0, 0], [0, 60_000], [0, 3_000])
    told = costs_of(served(late, GOOD))
    assert told["difference"] == 5.0
    assert told["by"]["stale cache"] == told["by"]["latency"] == 0.0
    assert sum(told["by"].values()) + told["interaction"] == told["difference"]
    assert told["interaction"] == 5.0


def test_the_model_that_was_live_is_found_for_each_moment():
    spans = [Live("a", 10, 20), Live("b", 20, 2**62)]
    assert live_at(spans, np.array([5, 10, 19, 20, 99])).tolist() == [-1, 0, 0, 1, 1]


def test_an_empty_ledger_has_no_history(tmp_path):
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    assert live_history(ledger, "default", "none") == []
    ledger.close()


def test_a_refused_setting_is_named():
    with pytest.raises(ConfigError, match="smaller_cost is 0"):
        ReplayConfig(smaller_cost=0.0)
    with pytest.raises(ConfigError, match="latency_ms is -1"):
        replace(ReplayConfig(), latency_ms=-1.0)
