"""Pairs of trades, and the causes that their differences are put down to."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from backtest_cases import START_NS, bids

from trademl.backtest.compare import CAUSES, compare_histories
from trademl.backtest.histories import History
from trademl.backtest.live_rows import Decided
from trademl.backtest.trade_rows import TradeRow, rows_of_file
from trademl.errors import DataError

S = 1_000_000_000
COSTS = {
    "latency_ms": 50.0, "quote_delay_ms": 0.0, "slippage": 0.0, "slippage_spreads": 0.0,
    "slippage_volatility": 0.0, "impact": 0.0, "spread_scale": 1.0,
}  # fmt: skip
TOLD = {"costs": COSTS, "backtest": {"units": 1.0}}


def trade(
    order=1, *, at=0.0, until=10.0, paid=100.0, got=101.0, side=1, size=1.0, fees=0.0, **more
):
    opened = START_NS + round(at * S)
    told = {
        "number": order, "order_id": order, "side": side, "decided_at_ns": opened,
        "opened_at_ns": opened, "entry_price": paid, "closed_at_ns": START_NS + round(until * S),
        "exit_price": got, "exit_reason": "time", "size": size,
        "gross": (got - paid) * side * size, "fees": fees, "carry": 0.0,
    }  # fmt: skip
    return TradeRow(**{**told, **more})


def history(*trades, settings=TOLD, quotes=None):
    return History("h", list(trades), settings, quotes)


def causes(one, other, **options):
    found = compare_histories(one, other, **options)
    assert sum(row["pnl"] for row in found["causes"].values()) == pytest.approx(found["difference"])
    return {cause: row["pnl"] for cause, row in found["causes"].items() if row["n"]}


def live(*trades, decided=None, quotes=None):
    """Return a live run that decided on seconds 0 and 100 and, in between, as told."""
    said = {0: "order", 100: "below", **(decided or {})}
    told = {
        START_NS + second * S: Decided(
            *(word if isinstance(word, tuple) else (word, "biggest", 1.0))
        )
        for second, word in said.items()
    }
    return History("live", list(trades), {}, quotes, (min(told), max(told)), told)


def test_a_trade_that_live_answered_from_no_tier_is_the_tier():
    mute = live(trade(order_id=None), decided={50: ("abstained", "abstain", 1.0)})

    assert causes(history(trade(), trade(2, at=50, until=60)), mute) == {"tier": -1.0}


def test_a_trade_that_a_smaller_tier_said_no_to_is_the_tier():
    small = live(trade(order_id=None), decided={50: ("below", "smallest", 1.0)})

    assert causes(history(trade(), trade(2, at=50, until=60)), small) == {"tier": -1.0}


def test_a_trade_that_live_did_not_decide_on_is_a_missed_tick():
    assert causes(history(trade(), trade(2, at=50, until=60)), live(trade(order_id=None))) == {
        "missed tick": -1.0
    }


def test_a_trade_that_the_same_tier_said_no_to_is_the_signal():
    no = live(trade(order_id=None), decided={50: "below"})

    assert causes(history(trade(), trade(2, at=50, until=60)), no) == {"signal": -1.0}


def test_a_trade_that_was_rejected_live_is_the_fill():
    away = live(trade(order_id=None), decided={50: "rejected"})

    assert causes(history(trade(), trade(2, at=50, until=60)), away) == {"fill": -1.0}


def test_a_trade_that_only_a_smaller_tier_made_is_the_tier():
    small = trade(at=50, until=60, order_id=None, tier="smallest")
    run = live(trade(order_id=None), small, decided={50: ("order", "smallest", 1.0)})

    assert causes(history(trade()), run) == {"tier": 1.0}


def test_an_answer_that_was_late_live_is_latency():
    late = trade(opened_at_ns=START_NS + S, paid=100.5, order_id=None, latency_ms=900.0)

    assert causes(history(trade()), live(late)) == {"latency": -0.5}


def test_trades_outside_of_the_time_that_both_cover_are_left_out():
    whole = history(trade(), trade(2, at=200, until=210))
    whole = replace(whole, window=(START_NS, START_NS + 300 * S))

    found = compare_histories(whole, live(trade(order_id=None)))

    assert (found["one"]["n_outside"], found["difference"]) == (1, 0.0)


def test_alike_histories_differ_in_nothing():
    found = compare_histories(history(trade()), history(trade()))

    assert (found["n_alike"], found["difference"], found["trades"]) == (1, 0, [])


def test_fees_are_costs():
    assert causes(history(trade(fees=1.0)), history(trade(fees=1.5))) == {"costs": -0.5}


def test_a_worse_price_at_the_same_moment_is_the_fill():
    assert causes(history(trade()), history(trade(paid=100.25))) == {"fill": -0.25}


def test_a_price_worse_by_slippage_that_was_told_is_costs():
    dear = {**TOLD, "costs": {**COSTS, "slippage": 0.25}}

    assert causes(history(trade()), history(trade(paid=100.25), settings=dear)) == {"costs": -0.25}


def test_a_quote_that_was_revised_is_a_data_revision():
    one, other = bids(100, 101, spread=0.0), bids(100.5, 101, spread=0.0)

    found = causes(history(trade(), quotes=one), history(trade(paid=100.5), quotes=other))

    assert found == {"data revision": -0.5}


def test_a_tick_that_one_side_lacks_is_a_missed_tick():
    one = bids(100, 100, 100.5, spread=0.0, at_s=[0, 1, 2])
    other = bids(100, 100.5, spread=0.0, at_s=[0, 2])
    late = trade(opened_at_ns=START_NS + 2 * S, paid=100.5)

    found = causes(
        history(trade(opened_at_ns=START_NS + S), quotes=one), history(late, quotes=other)
    )

    assert found == {"missed tick": -0.5}


def test_an_order_that_arrives_later_pays_for_latency_and_the_rest_is_the_fill():
    quotes = bids(100, 100.5, spread=0.0)
    slow = {**TOLD, "costs": {**COSTS, "latency_ms": 900.0}}
    late = trade(opened_at_ns=START_NS + S, paid=100.75)

    found = causes(history(trade(), quotes=quotes), history(late, settings=slow, quotes=quotes))

    assert found == {"latency": -0.5, "fill": -0.25}


def test_an_exit_that_follows_another_entry_has_the_entry_s_cause():
    slow = {**TOLD, "costs": {**COSTS, "latency_ms": 900.0}}
    late = trade(opened_at_ns=START_NS + S, until=11.0, got=100.5)

    assert causes(history(trade()), history(late, settings=slow)) == {"latency": -0.5}


def test_another_tier_is_named():
    one, other = history(trade(tier="big")), history(trade(tier="cached", paid=100.5))

    assert causes(one, other) == {"tier": -0.5}


def test_more_units_by_another_rule_are_the_signal():
    told = {**TOLD, "backtest": {"units": 3.0}}

    assert causes(history(trade()), history(trade(size=3.0), settings=told)) == {"signal": 2.0}


def test_a_trade_of_one_side_alone_is_the_signal():
    assert causes(history(trade()), history(trade(), trade(2, at=100, until=110))) == {
        "signal": 1.0
    }


def test_a_trade_that_a_late_position_displaced_has_that_position_s_cause():
    slow = {**TOLD, "costs": {**COSTS, "latency_ms": 900.0}}
    late = trade(until=30.0, opened_at_ns=START_NS + S)

    found = causes(history(trade(), trade(2, at=15, until=20)), history(late, settings=slow))

    assert found == {"latency": -1.0}


def test_trades_without_orders_are_paired_with_the_nearest():
    one = history(
        *(trade(k, at=at, order_id=None, decided_at_ns=None) for k, at in enumerate((0, 50)))
    )
    other = history(trade(0, at=49, order_id=None, decided_at_ns=None))

    found = compare_histories(one, other)

    assert [(t["one"], t["other"]) for t in found["trades"]] == [(0, None), (1, 0)]


def test_sides_and_tolerance_keep_strangers_apart():
    found = compare_histories(
        history(trade(1), trade(2, at=100, until=101)),
        history(trade(1, side=-1), trade(2, at=200, until=201)),
        tolerance_s=60,
    )

    assert found["n_paired"] == 0


def test_causes_of_random_histories_add_up_to_the_difference():
    rng = np.random.default_rng(1)
    for _ in range(50):
        sides = [
            history(
                *(
                    trade(
                        int(rng.integers(0, 20)) if rng.random() < 0.7 else None,
                        at=float(at), until=float(at) + 5, paid=float(rng.normal(100, 1)),
                        got=float(rng.normal(100, 1)), side=int(rng.choice([1, -1])),
                        size=float(rng.integers(1, 4)), fees=float(rng.random()),
                    )
                    for at in np.sort(rng.integers(0, 400, 30))
                ),
                quotes=bids(*rng.normal(100, 1, 400)) if rng.random() < 0.5 else None,
            )
            for _ in range(2)
        ]  # fmt: skip
        assert set(causes(*sides)) <= set(CAUSES)


def test_fills_of_a_file_are_read(tmp_path):
    path = tmp_path / "live.csv"
    path.write_text(
        "side,opened_at,entry_price,closed_at,exit_price,size,fees\n"
        "buy,2026-01-05T10:00:00Z,100,2026-01-05T10:01:00Z,101,2,0.5\n"
    )

    (row,) = rows_of_file(path, multiplier=10)

    assert (row.pnl, row.closed_at_ns - row.opened_at_ns) == (19.5, 60 * S)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("up,1,100,2,101", "line 2 has side 'up'"),
        ("buy,5,100,2,101", "line 2 is closed before it is opened"),
        ("buy,1,,2,101", "line 2 has entry_price None"),
    ],
)
def test_a_file_with_rubbish_names_the_line(tmp_path, line, said):
    path = tmp_path / "live.csv"
    path.write_text(f"side,opened_at_ns,entry_price,closed_at_ns,exit_price\n{line}\n")

    with pytest.raises(DataError, match=said):
        rows_of_file(path)


def test_a_file_without_a_column_names_it(tmp_path):
    path = tmp_path / "live.csv"
    path.write_text("side,opened_at\nbuy,1\n")

    with pytest.raises(DataError, match="has no column entry_price"):
        rows_of_file(path)
