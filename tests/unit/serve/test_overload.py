"""A server that gets more than it can answer: what is sent away, and when. The clock is the test's."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import orjson
import pytest

from trademl.serve.batches import Batches
from trademl.serve.ladder import Standing
from trademl.serve.live_strategy import LiveStrategy, Machine
from trademl.serve.messages import Request
from trademl.serve.model_pool import Held, ModelFile, ModelPool
from trademl.serve.provenance import Provenance, abstention, brief_abstention
from trademl.serve.served import ServedModel
from trademl.serve.shares import Quota, Shares
from trademl.serve.turns import BEHIND_S, Turns
from trademl.serve.wants import NOTHING


class Clock:
    def __init__(self):
        self.at_s = 100.0

    def __call__(self):
        return self.at_s


class Loop:
    """Turns of an event loop: what was to be called at the end of one is called there."""

    def __init__(self):
        self.clock = Clock()
        self._due = []
        self.turns = Turns(self._due.append, self.clock)

    def turn(self, seconds, idle_s=0.0):
        """Let bytes arrive, be busy with them, then wait for others; return since when they wait."""
        since_s = self.turns.begin()
        self.clock.at_s += seconds
        self.end_turn()
        self.clock.at_s += idle_s
        return since_s

    def end_turn(self):
        for call in self._due:
            call()
        self._due.clear()


def behind():
    loop = Loop()
    for _ in range(20):
        loop.turn(BEHIND_S / 10)
    return loop


class Sum:
    columns = ("a", "b")
    schema_hash = "ab"

    def predict(self, features_ND):
        return features_ND.sum(axis=1), None


def test_a_loop_without_a_moment_to_spare_is_behind_after_a_while():
    loop = Loop()
    for _ in range(20):
        loop.turn(BEHIND_S / 10, idle_s=BEHIND_S / 300)  # timers, and looking for bytes

    assert loop.turns.is_behind


def test_moments_of_idleness_say_that_it_has_caught_up():
    loop = behind()
    for _ in range(20):
        loop.turn(BEHIND_S / 10, idle_s=BEHIND_S / 100)

    assert not loop.turns.is_behind


def test_what_came_while_the_loop_was_busy_waits_since_that_turn_began():
    loop = Loop()
    loop.turn(0.03)

    assert loop.turn(0.01) == pytest.approx(100.0)


async def asked_of(loop, ask):
    """Return what ``ask`` says of a strategy of one quick model."""
    with ThreadPoolExecutor(1) as threads:
        batches = Batches(asyncio.get_running_loop(), threads, 1, Shares({}))
        pool, shares = ModelPool(10**6, threads), Shares({"btc": Quota()})
        held = Held(ModelFile("m", ""), ServedModel(Sum(), "m"), row_s=1e-6)
        return ask(LiveStrategy("btc", [held], Machine(loop.turns, pool, batches, shares)))


def tier_of(strategy, arrived_s, **headers):
    asked = {name.replace("_", "-").encode(): value for name, value in headers.items()}
    request = Request("POST", "/invocations", b"1,2", {b"content-type": b"text/csv"} | asked)
    request.arrived_s = arrived_s
    head = strategy.answer(request).head.decode()
    return dict(line.split(": ", 1) for line in head.splitlines())["X-Trademl-Tier"]


def answer_of(loop, waited_s, level=0, **headers):
    """Return the tier that answers a request which arrived so long ago."""

    def ask(strategy):
        strategy.standing = Standing(level)
        return tier_of(strategy, loop.clock() - waited_s, **headers)

    return asyncio.run(asked_of(loop, ask))


@pytest.mark.parametrize(
    ("loop", "waited_s", "tier"),
    [
        (Loop(), 0.2, "biggest"),  # a burst: late, but before its deadline
        (behind(), 0.24, "biggest"),
        (behind(), 0.26, "abstain"),  # of 1 s
    ],
)
def test_only_a_server_that_is_behind_sends_away_what_waited_for_a_quarter_of_its_time(
    loop, waited_s, tier
):
    assert answer_of(loop, waited_s) == tier


def test_how_long_one_may_wait_goes_by_its_own_deadline():
    assert answer_of(behind(), 0.03, x_trademl_deadline_ms=b"100") == "abstain"


def test_a_brief_abstention_says_what_a_full_one_does():
    request = Request("POST", "/invocations", b"", {b"content-type": b"text/csv"})

    brief = brief_abstention(request, "abstain", "busy", 0.0305)

    request.headers = {b"x-request-id": brief.head.split()[-1]}
    full = abstention(request, NOTHING, Provenance("abstain", "busy", queue_s=0.0305))
    assert orjson.loads(brief.body) == orjson.loads(full.body)
    assert brief._replace(body=b"") == full._replace(body=b"")


@pytest.mark.parametrize("headers", [{b"x-trademl-on-abstain": b"error"}, {b"accept": b"text/csv"}])
def test_who_asks_for_something_special_gets_no_brief_abstention(headers):
    request = Request("POST", "/invocations", b"", headers)

    assert brief_abstention(request, "abstain", "busy", 0.03) is None


@pytest.mark.parametrize(("waited_s", "deadline_ms"), [(0.2, b"201"), (0.0, b"0"), (0.0, b"0.0")])
def test_what_has_no_time_left_is_sent_away_unread(waited_s, deadline_ms):
    assert answer_of(Loop(), waited_s, x_trademl_deadline_ms=deadline_ms) == "abstain"


@pytest.mark.parametrize(("deadline_ms", "tier"), [(b"120", "abstain"), (b"250", "biggest")])
def test_what_would_leave_too_late_at_the_end_of_the_turn_is_sent_away(deadline_ms, tier):
    loop = Loop()
    loop.turn(0.1)
    arrived_s = loop.turns.begin()  # up to 0.1 s ago; the answers leave in about 0.1 s

    assert answer_of(loop, loop.clock() - arrived_s, x_trademl_deadline_ms=deadline_ms) == tier


def test_a_strategy_that_sends_some_away_still_answers_the_others():
    assert answer_of(behind(), 0.001, level=3) == "biggest"


def test_under_steady_overload_as_much_is_answered_as_there_is_time_for():
    """Five arrive in the time of four answers; to send one away takes a third of an answer's time.

    All the time goes into ``n`` answers and ``5/4 - n`` others: ``n + (5/4 - n) / 3 = 1``, n = 7/8.
    """
    loop, cost_s, n_answered, longest_s = Loop(), 0.001, 0, 0.0
    soon = {"x_trademl_deadline_ms": b"200"}

    def overload(strategy):
        nonlocal n_answered, longest_s
        n_due = 5.0
        while loop.clock() < 110.0:
            since_s, began_s = loop.turns.begin(), loop.clock()
            for _ in range(int(n_due)):
                is_answered = tier_of(strategy, since_s, **soon) != "abstain"
                n_answered += is_answered
                loop.clock.at_s += cost_s if is_answered else cost_s / 3
            n_due += (loop.clock() - began_s) * 1.25 / cost_s - int(n_due)
            longest_s = max(longest_s, loop.clock() - began_s)
            loop.end_turn()

    asyncio.run(asked_of(loop, overload))

    assert n_answered * cost_s / 10.0 == pytest.approx(7 / 8, abs=0.02)
    assert longest_s < 0.1  # half of the deadline
