"""One region trades at a time: whatever the order of calls, the delays and the clocks."""

from __future__ import annotations

import time
from contextlib import contextmanager
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import literal, select
from sqlalchemy.dialects import mysql, postgresql

from trademl.errors import ConfigError
from trademl.ledger import Ledger
from trademl.ledger.clock import DatabaseNowMs
from trademl.ledger.live_tables import Lease
from trademl.live.lease import LeaseHolder, lease_state

TTL_MS = 1000
NAMES = count()


class World:
    """True time in ms, which is the database's; every question to it may take a while."""

    def __init__(self):
        self.now_ms, self.delay_ms = 1_700_000_000_000, 0

    def database(self):
        self.now_ms += self.delay_ms
        return literal(self.now_ms)


class SlowLedger:
    """A ledger whose answers take as long to come as its questions to go."""

    def __init__(self, ledger, world):
        self._ledger, self._world = ledger, world

    def get(self, table, key):
        return self._ledger.get(table, key)

    @contextmanager
    def session(self):
        with self._ledger.session() as session:
            yield session
        self._world.now_ms += self._world.delay_ms


@pytest.fixture(scope="module")
def ledger(tmp_path_factory):
    opened = Ledger(f"sqlite:///{tmp_path_factory.mktemp('lease')}/ledger.db")
    yield opened
    opened.close()


def holder(ledger, world, region, name, *, rate=1.0, offset_s=0.0, process="1"):
    return LeaseHolder(
        SlowLedger(ledger, world), name, home="hk", region=region,
        holder=f"{region}-{process}", ttl_ms=TTL_MS,
        clock=lambda: offset_s + rate * world.now_ms / 1000, database_now=world.database,
    )  # fmt: skip


class OvertakenLedger(SlowLedger):
    """A ledger in which somebody else acts just after the first look at it."""

    def __init__(self, ledger, world, act):
        super().__init__(ledger, world)
        self._acts = [act]

    def get(self, table, key):
        found = super().get(table, key)
        if self._acts:
            self._acts.pop()()
        return found


@pytest.fixture
def world():
    return World()


@pytest.fixture
def two(ledger, world):
    name = f"lease-{next(NAMES)}"
    return holder(ledger, world, "hk", name), holder(ledger, world, "us", name)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    rates=st.tuples(*[st.sampled_from([0.951, 1.0, 1.05])] * 2),
    offsets=st.tuples(*[st.sampled_from([-1e6, 0.0, 1e6])] * 2),
    steps=st.lists(
        st.tuples(
            st.sampled_from([0, 1]),
            st.sampled_from(["acquire", "acquire", "renew", "release", "restart"]),
            st.sampled_from([0, 500, 960, 1001]),
            st.sampled_from([0, 0, 400, 990]),
        ),
        min_size=6,
        max_size=15,
    ),
)
def test_two_regions_never_trade_at_once(ledger, rates, offsets, steps):
    world, name, processes = World(), f"lease-{next(NAMES)}", count(1)

    def start(which):
        return holder(
            ledger, world, ("hk", "us")[which], name, rate=rates[which],
            offset_s=offsets[which], process=str(next(processes)),
        )  # fmt: skip

    def check():
        assert sum(h.fence is not None for h in (*both, *gone)) <= 1

    both, gone = [start(0), start(1)], []
    tokens = [both[0].acquire().token]
    for which, act, pause_ms, delay_ms in steps:
        for _ in range(4):
            world.now_ms += pause_ms // 4
            check()
        world.delay_ms = delay_ms
        if act == "restart":  # the old process may live on, and think that it holds the lease
            gone.append(both[which])
            both[which] = start(which)
        elif act == "acquire" and (fence := both[which].acquire()):
            assert fence.token > tokens[-1]
            tokens.append(fence.token)
        elif act == "renew":
            both[which].renew()
        elif act == "release":
            both[which].release()
        world.delay_ms = 0
        check()


@pytest.mark.parametrize("act", ["acquire", "renew"])
@pytest.mark.parametrize("delay_ms", [0, 60, 400, 990])
def test_who_holds_a_lease_knows_its_end_before_it_comes_however_late_the_answer(
    ledger, world, act, delay_ms
):
    one = holder(ledger, world, "hk", f"lease-{next(NAMES)}", rate=0.951)
    if act == "renew":
        one.acquire()
    world.delay_ms = delay_ms
    getattr(one, act)()
    world.delay_ms = 0
    left_ms = lease_state(ledger, one.name, database_now=world.database).left_ms
    world.now_ms += max(0, left_ms - 1)
    assert one.fence is None


def test_a_lease_that_is_held_is_not_given_twice(two):
    home, other = two
    assert home.acquire().token == 1
    assert other.acquire() is None
    assert home.acquire() is None


def test_renewal_keeps_it_and_expiry_passes_it_on(two, world):
    home, other = two
    home.acquire()
    world.now_ms += 900
    assert home.renew().token == 1
    world.now_ms += 900
    assert other.acquire() is None
    world.now_ms += 101

    assert other.acquire().token == 2
    assert home.fence is None
    assert home.renew() is None


def test_a_lease_that_was_let_go_of_is_free_at_once(two):
    home, other = two
    home.acquire()
    home.release()

    assert home.fence is None
    assert other.acquire().token == 2


def test_who_lost_a_lease_lets_go_of_nothing(two, world):
    home, other = two
    home.acquire()
    world.now_ms += 1001
    other.acquire()
    home.release()
    assert home.acquire() is None


def test_a_region_that_is_not_at_home_cannot_make_a_lease(two):
    assert two[1].acquire() is None


def test_only_the_home_regions_tokens_name_an_outage(two, world, ledger):
    home, other = two
    home.acquire()
    world.now_ms += 1000
    other.acquire()
    world.now_ms += 1000
    other.acquire()
    state = lease_state(ledger, home.name, database_now=world.database)
    assert (state.region, state.token, state.home_token, state.left_ms) == ("us", 3, 1, 1000)
    world.now_ms += 1000
    home.acquire()
    assert lease_state(ledger, home.name, database_now=world.database).home_token == 4


def test_whoever_takes_over_to_trade_begins_what_may_be_an_outage(two, world, ledger):
    home, _ = two
    home.acquire()
    world.now_ms += 1000
    LeaseHolder(
        ledger, home.name, home="hk", region="us", holder="us-9", trades=True,
        database_now=world.database,
    ).acquire()  # fmt: skip
    state = lease_state(ledger, home.name, database_now=world.database)
    assert (state.token, state.home_token) == (2, 2)


def test_the_databases_clock_is_the_time(ledger):
    ledger.record(
        Lease(name="n", home="h", region="h", holder="h", token=1, home_token=1, expires_at_ms=0)
    )
    with ledger.session() as session:
        found = session.scalar(select(DatabaseNowMs()))
    assert found == pytest.approx(time.time_ns() / 1e6, abs=5000)


@pytest.mark.parametrize(
    ("dialect", "word"), [(postgresql, "clock_timestamp"), (mysql, "UTC_TIMESTAMP(6)")]
)
def test_every_database_is_asked_in_its_own_words(dialect, word):
    assert word in str(select(DatabaseNowMs()).compile(dialect=dialect.dialect()))


@pytest.mark.parametrize("change", [{"ttl_ms": 99}, {"region": ""}, {"holder": "h" * 81}])
def test_nonsense_is_refused(ledger, change):
    with pytest.raises(ConfigError):
        LeaseHolder(ledger, "n", **{"home": "hk", "region": "hk", "holder": "x", **change})


def test_of_two_processes_that_take_a_new_lease_at_once_one_has_it(ledger, world):
    name = f"lease-{next(NAMES)}"
    quicker, slower = (holder(ledger, world, "hk", name, process=p) for p in ("1", "2"))
    slower._ledger = OvertakenLedger(ledger, world, quicker.acquire)

    assert slower.acquire() is None
    assert slower.fence is None
    assert quicker.fence is not None
    assert ledger.get(Lease, name).holder == quicker.holder
