"""Which region is asked, when a second one is, and what a caller gets when none is there."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from trademl.errors import ConfigError
from trademl.serve.messages import Request
from trademl.serve.routing.breaker import Breaker, BreakerPolicy, asked, failed, may_ask, succeeded
from trademl.serve.routing.exchange import Exchange, HedgeBudget
from trademl.serve.routing.latency import Latency
from trademl.serve.routing.region import Region, RegionError
from trademl.serve.routing.settings import (
    RegionConfig,
    RouteConfig,
    market_address,
    parse_regions,
    read_regions,
)
from trademl.serve.routing.upstream import Response

POLICY = BreakerPolicy(failures=2, open_s=1.0, longest_open_s=4.0)
OPEN = Breaker("open", 2, 10.0, 1)
HALF = Breaker("half open", 2, 11.0, 1)


@pytest.mark.parametrize(
    ("before", "event", "now_s", "after"),
    [
        (Breaker(), "fail", 0.0, Breaker("closed", 1)),
        (Breaker("closed", 1), "fail", 9.0, OPEN),
        (Breaker("closed", 1), "succeed", 9.0, Breaker()),
        (Breaker(), "ask", 9.0, Breaker()),
        (OPEN, "fail", 9.5, OPEN),
        (OPEN, "ask", 10.0, HALF),
        (HALF, "succeed", 10.5, Breaker()),
        (HALF, "fail", 10.5, Breaker("open", 3, 12.5, 2)),
        (Breaker("half open", 3, 13.0, 2), "fail", 12.5, Breaker("open", 4, 16.5, 3)),
        (Breaker("half open", 4, 20.0, 3), "fail", 16.5, Breaker("open", 5, 20.5, 4)),
        (HALF, "ask", 11.0, Breaker("half open", 2, 12.0, 1)),
    ],
)
def test_a_breaker_goes_from_standing_to_standing(before, event, now_s, after):
    steps = {
        "ask": lambda: asked(before, now_s, POLICY),
        "fail": lambda: failed(before, now_s, POLICY),
        "succeed": succeeded,
    }
    assert steps[event]() == after


@pytest.mark.parametrize(
    ("breaker", "now_s", "may"),
    [
        (Breaker(), 0.0, True),
        (OPEN, 9.99, False),
        (OPEN, 10.0, True),
        (HALF, 10.99, False),  # one tries: the others wait for what comes of it
        (HALF, 11.0, True),  # it never came back
    ],
)
def test_an_open_breaker_lets_one_request_try_when_its_time_is_up(breaker, now_s, may):
    assert may_ask(breaker, now_s) is may


def test_a_slow_answer_counts_at_once_and_is_forgotten_with_time():
    latency = Latency(decay_s=10.0)
    latency.answered(0.01, 100.0)
    latency.answered(0.5, 100.1)
    assert latency.value_s(100.1) == 0.5
    assert latency.value_s(110.1) == pytest.approx(0.5 / 2.718281828, rel=1e-6)
    latency.answered(0.01, 100.2)
    assert 0.4 < latency.value_s(100.2) < 0.5


def test_the_95th_percentile_is_that_of_recent_answers():
    latency = Latency(decay_s=10.0)
    for n in range(1, 33):
        latency.answered(n / 1000, 100.0)
    assert latency.p95_s == 0.031  # the 31st of 32: 30.4 of them are 95 %


class Clock:
    """The event loop's own time, so that waiting and counting agree."""

    def __call__(self):
        return asyncio.get_running_loop().time()


class Fake:
    """A server that answers after a while, or fails, or never does anything."""

    def __init__(self, delay_s=0.0, error=None, status=200, tier=b"biggest"):
        self.delay_s, self.error, self.status, self.tier = delay_s, error, status, tier
        self.asked, self.cancelled, self.headers = 0, 0, {}

    async def ask(self, method, path, headers, body=b""):
        self.asked += 1
        self.headers = headers
        try:
            await asyncio.sleep(self.delay_s)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error:
            raise self.error
        tier = {b"x-trademl-tier": self.tier} if self.tier else {}
        return Response(self.status, tier, b"body")

    def drop_idle(self):
        pass


ROUTE = RouteConfig(hedge_most_ms=50, hedge_share=1.0)


def region(name, fake, *, priority=0, route=ROUTE):
    found = Region(
        RegionConfig(name, "http://127.0.0.1:1", priority=priority), route, clock=Clock()
    )
    found._upstream, found.is_up = fake, True
    return found


def ask(regions, *, deadline_s=2.0, budget=None, route=ROUTE):
    async def run():
        exchange = Exchange(
            Request("POST", "/invocations", b"1"), regions, route,
            budget or HedgeBudget(route.hedge_budget),
            until_s=Clock()() + deadline_s,
            headers=lambda left_s: {b"left": b"%.3f" % left_s}, clock=Clock(),
        )  # fmt: skip
        return await exchange.run()

    with asyncio.Runner() as runner:
        return runner.run(run())


def test_a_region_that_hangs_is_overtaken_and_let_go_of():
    hung, well = Fake(3600.0), Fake()
    found = ask([region("hk", hung), region("us", well)])
    assert (found.region, found.n_asked, hung.cancelled) == ("us", 2, 1)
    assert float(well.headers[b"left"]) < float(hung.headers[b"left"])


def test_a_region_that_answers_in_time_is_not_overtaken():
    well = Fake()
    assert ask([region("hk", Fake()), region("us", well)]).region == "hk"
    assert well.asked == 0


@pytest.mark.parametrize(
    "bad",
    [
        Fake(error=ConnectionRefusedError()),
        Fake(status=500, tier=b""),
        Fake(status=401, tier=b""),
        Fake(status=429, tier=b""),
        Fake(status=799, tier=b""),
    ],
)
def test_a_region_that_fails_is_followed_by_the_next_whatever_the_budget(bad):
    regions = [region("hk", bad), region("us", Fake())]
    assert ask(regions, budget=HedgeBudget(0.0, left=0.0)).region == "us"
    assert (regions[0].counters.n_failures, regions[0].breaker.failures) == (1, 1)


@pytest.mark.parametrize("status", [400, 404, 422])
def test_an_error_of_the_callers_own_is_its_answer(status):
    found = ask([region("hk", Fake(status=status, tier=b"")), region("us", Fake())])
    assert (found.region, found.response.status) == ("hk", status)


def test_an_error_that_the_caller_asked_for_is_its_answer():
    found = ask([region("hk", Fake(status=503, tier=b"abstain")), region("us", Fake())])
    assert (found.region, found.response.status) == ("hk", 503)


def test_no_second_question_is_asked_without_budget():
    slow, well = Fake(0.2), Fake()
    budget = HedgeBudget(0.1, left=0.0)
    assert ask([region("hk", slow), region("us", well)], budget=budget).region == "hk"
    assert (well.asked, budget.n_hedges) == (0, 0)


def test_after_failures_in_a_row_a_region_is_left_alone():
    bad = Fake(error=OSError("gone"))
    regions = [region("hk", bad), region("us", Fake(), priority=1)]
    for _ in range(ROUTE.failures + 2):
        assert ask(regions).region == "us"
    assert bad.asked == ROUTE.failures


@pytest.mark.parametrize(("is_up", "stays_up"), [(False, True), (True, False)])
def test_a_region_that_is_away_has_time_to_open_a_connection(is_up, stays_up):
    route = replace(ROUTE, health_timeout_s=0.25, fall=1)
    far = region("us", Fake(0.5), route=route)
    far.is_up = is_up
    with asyncio.Runner() as runner:
        runner.run(far.look())
    assert far.is_up is stays_up


def standing(found):
    facts = found.facts(Clock()())
    names = ("is_up", "since", "last_failure", "last_failure_at", "last_failure_over_at")
    return tuple(facts[name] for name in names)


def test_a_failure_that_is_over_says_when_it_was_and_when_it_ended():
    second = iter(range(100))
    found = Region(
        RegionConfig("us", "http://127.0.0.1:1"), replace(ROUTE, fall=2), clock=Clock(),
        wall_ns=lambda: next(second) * 10**9,
    )  # fmt: skip
    well, gone = Fake(), Fake(error=OSError("gone"))
    at = "1970-01-01T00:00:{:02}.000Z".format

    async def run():
        assert standing(found) == (False, at(0), "", None, None)
        found._upstream = well
        await found.look()  # seen at 1
        assert standing(found) == (True, at(1), "", None, None)
        found._upstream = gone
        await found.look()  # a miss at 2
        assert standing(found) == (True, at(1), "gone", at(2), None)
        await found.look()  # and at 3: it is away
        assert standing(found) == (False, at(3), "gone", at(3), None)
        found._upstream = well
        await found.look()  # back at 4
        await found.look()
        assert standing(found) == (True, at(4), "gone", at(3), at(5))

    with asyncio.Runner() as runner:
        runner.run(run())


def test_a_request_that_failed_is_over_with_one_that_is_answered_not_with_a_health_check():
    found = region("us", Fake(status=401))

    async def run():
        with pytest.raises(RegionError):
            await found.ask("POST", "/invocations", {}, b"1", 1.0)
        found._upstream = Fake()
        await found.look()
        assert standing(found)[4] is None
        await found.ask("POST", "/invocations", {}, b"1", 1.0)
        assert standing(found)[4] >= standing(found)[3]

    with asyncio.Runner() as runner:
        runner.run(run())


def test_the_region_that_takes_less_is_asked_first():
    async def ranked():
        slow, quick = region("hk", Fake()), region("us", Fake())
        now_s = Clock()()
        slow.latency.answered(0.2, now_s)
        quick.latency.answered(0.01, now_s)
        return min([slow, quick], key=lambda r: r.rank(now_s)).name

    with asyncio.Runner() as runner:
        assert runner.run(ranked()) == "us"


def test_a_lower_priority_is_asked_only_where_no_higher_one_is_there():
    near, far = region("hk", Fake(), priority=1), region("us", Fake(), priority=0)
    assert ask([near, far]).region == "us"
    far.is_up = False
    assert ask([near, far]).region == "hk"


def test_a_region_that_declines_at_once_is_not_liked_for_it():
    lazy, well = region("hk", Fake(tier=b"abstain")), region("us", Fake(0.01))
    ask([well])
    assert ask([lazy, well]).region == "hk"  # nothing is known of it yet
    assert ask([lazy, well]).region == "us"


@pytest.mark.parametrize("deadline_s", [0.0, -1.0, 0.05])
def test_a_deadline_is_not_waited_beyond(deadline_s):
    found = ask([region("hk", Fake(3600.0))], deadline_s=deadline_s)
    assert (found.response, found.reason) == (None, "no region answered in time")


def test_without_a_region_there_is_no_answer():
    gone = region("hk", Fake())
    gone.is_up = False
    assert ask([gone]).reason == "no region"


@pytest.mark.parametrize("n_turns", [1, 2, 5])
def test_who_waits_for_a_region_that_goes_away_is_answered_by_another(n_turns):
    hung, well = Fake(3600.0), Fake()
    regions = [region("hk", hung), region("us", well)]

    async def run():
        exchange = Exchange(
            Request("POST", "/invocations", b"1"), regions, ROUTE, HedgeBudget(0.0),
            until_s=Clock()() + 60.0, headers=lambda _: {}, clock=Clock(),
        )  # fmt: skip
        asking = asyncio.create_task(exchange.run())
        for _ in range(n_turns):
            await asyncio.sleep(0)
        regions[0]._misses = 0
        for _ in range(ROUTE.fall):
            regions[0]._missed("/ping took too long")
        return await asking

    with asyncio.Runner() as runner:
        assert runner.run(run()).region == "us"


FILE = """
[route]
deadline_ms = 500
[[regions]]
name = "hk"
url = "http://127.0.0.1:8081"
token_file = "hk.token"
market = "127.0.0.1:7496"
[[regions]]
name = "us"
url = "https://us.example:8443"
priority = 1
"""


def test_a_file_of_regions_is_read(tmp_path):
    path = tmp_path / "regions.toml"
    path.write_text(FILE)
    found = read_regions(path)
    assert found.route == RouteConfig(deadline_ms=500)
    assert found.named("hk").token_file == str(tmp_path / "hk.token")
    assert found.regions[1] == RegionConfig("us", "https://us.example:8443", priority=1)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("deadline_ms", "dedline_ms", r"unknown key route.dedline_ms; did you mean route.deadline_ms"),
        ('name = "us"', 'name = "hk"', "region hk is there twice"),
        ("priority = 1", 'priority = "x"', "regions.priority: expected `int`"),
        ("https://us.example:8443", "us.example", "region us: url is 'us.example', expected such"),
        ("127.0.0.1:7496", "nowhere", "market 'nowhere': expected host:port"),
        ("deadline_ms = 500", "deadline_ms = 0", r"\[route\] deadline_ms is 0.0: expected a number"),
        ("[route]", "[route", "is not valid TOML"),
        ("[[regions]]\nname", "[regions]\nname", "is not valid TOML|no list of tables"),
    ],
)  # fmt: skip
def test_nonsense_in_a_file_of_regions_is_one_line(tmp_path, old, new, words):
    path = tmp_path / "regions.toml"
    path.write_text(FILE.replace(old, new))
    with pytest.raises(ConfigError, match=words) as caught:
        read_regions(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("words", [(), ("hk",), ("hk=ftp://x",), ("h k=http://x",)])
def test_nonsense_in_options_is_refused(words):
    with pytest.raises(ConfigError):
        parse_regions(words)


@pytest.mark.parametrize(
    ("text", "address"), [("10.0.0.1:80", ("10.0.0.1", 80)), ("[::1]:9", ("::1", 9))]
)
def test_a_markets_address_is_read(text, address):
    assert market_address(text) == address


def test_a_route_that_never_hedges_is_possible():
    assert replace(ROUTE, hedge_budget=0).hedge_budget == 0
