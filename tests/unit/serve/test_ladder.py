"""Which tier answers, and when a strategy moves: tables worked out by hand, and simulated load."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trademl.errors import ConfigError
from trademl.serve.ladder import (
    LadderPolicy,
    Load,
    Rung,
    Standing,
    choose,
    next_standing,
    tier_names,
)

FREE, BUSY = Rung(0.0, 0.01), Rung(0.5, 0.01)
ABSENT = Rung(0.0, 0.0, is_ready=False)
IDLE = Load(0.0, (0.1, 0.01))


@pytest.mark.parametrize(
    ("n", "tiers"),
    [
        (1, ("biggest", "cached", "delayed", "abstain")),
        (2, ("biggest", "smallest", "cached", "delayed", "abstain")),
        (4, ("biggest", "middle", "middle", "smallest", "cached", "delayed", "abstain")),
    ],
)
def test_tiers_are_named_from_the_biggest_down(n, tiers):
    assert tier_names(n) == tiers


@pytest.mark.parametrize(
    ("level", "rungs", "left_s", "has_cached", "tier"),
    [
        (0, (FREE, FREE), 1.0, True, "biggest"),
        (0, (BUSY, FREE), 1.0, True, "smallest"),
        (0, (ABSENT, FREE), 1.0, True, "smallest"),
        (0, (FREE, FREE), 0.005, True, "cached"),  # neither is done in 5 ms
        (1, (FREE, FREE), 1.0, True, "smallest"),  # the strategy stands there
        (0, (BUSY, BUSY), 1.0, True, "cached"),
        (0, (BUSY, BUSY), 1.0, False, "delayed"),
        (2, (BUSY, BUSY), 1.0, True, "cached"),
        (2, (BUSY, BUSY), 1.0, False, "delayed"),
        (4, (FREE, FREE), 1.0, True, "smallest"),  # others were sent away: this one need not be
        (0, (BUSY, BUSY), 0.4, False, "abstain"),
        (0, (ABSENT, ABSENT), 1.0, False, "abstain"),
        (0, (FREE, FREE), 0.0, False, "abstain"),
    ],
)
def test_a_request_takes_the_best_tier_that_answers_in_time(level, rungs, left_s, has_cached, tier):
    choice = choose(level, rungs, patience_s=0.025, left_s=left_s, has_cached=has_cached)

    assert tier_names(2)[choice.tier] == tier


def test_a_model_that_had_its_chance_gets_no_other():
    choice = choose(0, (FREE, FREE), patience_s=0.025, left_s=1.0, has_cached=True, tried=2)

    assert tier_names(2)[choice.tier] == "cached"


rungs = st.builds(Rung, st.floats(0, 2), st.floats(0, 2), st.booleans())


@given(st.lists(rungs, min_size=1, max_size=4), st.integers(0, 6), st.floats(0, 3), st.booleans())
def test_a_model_that_is_chosen_is_ready_and_done_before_the_deadline(
    rungs, level, left_s, has_cached
):
    choice = choose(level, rungs, patience_s=0.025, left_s=left_s, has_cached=has_cached)

    if choice.model >= 0:
        rung = rungs[choice.model]
        assert rung.is_ready
        assert rung.wait_s + rung.cost_s <= left_s


@pytest.mark.parametrize(
    ("load", "level", "reason"),
    [
        (IDLE, 0, "start"),
        (Load(0.0, (0.96, 0.1)), 1, "the model is too busy"),
        (Load(0.026, (0.5, 0.1)), 1, "the queue is too long"),
        (Load(0.0, (0.1, 0.1), (0.06, 0.0, 0.0)), 2, "answers came from there"),
        (Load(0.0, (0.1, 0.1), (0.0, 0.0, 0.06)), 4, "answers came from there"),
    ],
)
def test_a_strategy_steps_down_where_load_is_high(load, level, reason):
    standing = next_standing(Standing(), load, LadderPolicy(), 1.0)

    assert (standing.level, standing.reason) == (level, reason)


def test_a_strategy_steps_up_only_after_load_was_low_for_long():
    standing, moved_at = Standing(1, 0.0), []
    for at_s in np.arange(0.0, 6.0, 0.5):
        load = IDLE if at_s != 2.0 else Load(0.0, (0.8, 0.1))  # one look with more load
        before, standing = standing, next_standing(standing, load, LadderPolicy(), at_s)
        if standing.level != before.level:
            moved_at.append(at_s)
    assert moved_at == []  # calm began anew at 2.5 s

    standing = next_standing(standing, IDLE, LadderPolicy(), 7.5)
    assert standing.level == 0


@pytest.mark.parametrize("rate", [0.05, 0.69, 0.8, 0.94, 1.5, 3.0])
def test_steady_load_does_not_make_it_flap(rate):
    """The utilisation of the biggest model by what arrives does not depend on who answers."""
    standing, moves = Standing(), 0
    for look in range(3_000):
        before = standing
        load = Load(0.0, (rate, rate / 10))
        standing = next_standing(standing, load, LadderPolicy(), look / 10)
        moves += standing.level != before.level

    assert moves <= 1
    assert standing.level == int(rate > 0.95)


def test_after_a_storm_it_climbs_one_step_at_a_time():
    standing = Standing(4, 0.0)
    levels = []
    for look in range(400):
        standing = next_standing(standing, IDLE, LadderPolicy(), look / 10)
        levels.append(standing.level)

    assert sorted(set(levels), reverse=True) == [4, 3, 2, 1, 0]
    assert levels == sorted(levels, reverse=True)


@pytest.mark.parametrize(
    "setting",
    [
        {"deadline_ms": 60_001.0},
        {"up_utilisation": 0.95},
        {"patience_ms": -1.0},
        {"cache_entries": 0},
    ],
)
def test_impossible_rules_are_refused_by_name(setting):
    with pytest.raises(ConfigError, match=next(iter(setting))):
        LadderPolicy(**setting)
