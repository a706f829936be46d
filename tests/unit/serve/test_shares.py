"""Whose turn it is on shared hardware."""

from __future__ import annotations

import pytest

from trademl.errors import ConfigError
from trademl.serve.shares import Quota, Shares


def turns(shares, waiting, n, cost_s=0.01):
    """Return how many of n turns each gets that always waits."""
    got = dict.fromkeys(waiting, 0)
    for turn in range(n):
        name = shares.next(waiting)
        got[name] += 1
        shares.charge(name, cost_s, turn * cost_s)
    return got


def test_who_always_waits_gets_its_floor():
    got = turns(Shares({"a": Quota(0.6), "b": Quota(0.3), "c": Quota(0.1)}), "abc", 1000)

    assert [got[name] / 1000 for name in "abc"] == pytest.approx([0.6, 0.3, 0.1], abs=0.02)


def test_what_others_leave_is_anyones():
    assert turns(Shares({"a": Quota(0.9), "b": Quota(0.1)}), "b", 50) == {"b": 50}


def test_without_quotas_all_share_evenly():
    got = turns(Shares({"a": Quota(), "b": Quota()}), "ab", 1000)

    assert got["a"] == pytest.approx(500, abs=10)


def test_a_burst_of_one_takes_no_turn_of_another_within_its_floor():
    shares = Shares({"burst": Quota(0.5, priority=9), "steady": Quota(0.5)})
    turns(shares, ["burst"], 100)

    assert shares.next(["burst", "steady"]) == "steady"
    assert shares.is_crowding("burst")
    assert not shares.is_crowding("steady")


def test_within_their_floors_priority_decides():
    shares = Shares({"a": Quota(0.5), "b": Quota(0.5, priority=1)})

    assert shares.next(["a", "b"]) == "b"


def test_use_is_forgotten():
    shares = Shares({"a": Quota(0.5), "b": Quota(0.5)})
    shares.charge("a", 1.0, 0.0)
    shares.charge("b", 0.01, 10.0)  # e**-10 of the first use is left

    assert shares.used("a") < 0.01


def test_one_alone_crowds_nobody():
    shares = Shares({"a": Quota()})
    shares.charge("a", 1.0, 0.0)

    assert not shares.is_crowding("a")


def test_who_left_may_still_be_charged_and_served():
    shares = Shares({"a": Quota(), "b": Quota()})
    shares.remove("b")

    shares.charge("b", 1.0, 0.0)

    assert shares.next(["b"]) == "b"
    assert shares.used("b") == 0.0


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_share_is_between_0_and_1(share):
    with pytest.raises(ConfigError, match="expected a share from 0 to 1"):
        Quota(share)
