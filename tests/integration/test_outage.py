"""A region is lost and another goes on: requests, the lease, one hedge, and its end."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socketserver
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import ExitStack, contextmanager

import pytest

from hedge_cases import HEDGE, day
from serving_cases import port_of_ones_own
from trademl.config import load_settings
from trademl.errors import ConfigError, DataError, TrademlError
from trademl.ledger import Ledger
from trademl.ledger.live_tables import BrokerOrder, Hedge, Lease, LiveDecision
from trademl.live.lease import LeaseHolder, lease_state
from trademl.live.positions import positions
from trademl.pipeline.hedging import HedgeOptions, plan_outage, watch_region
from trademl.pipeline.live import LiveOptions, trade_live
from trademl.pipeline.workspace import Workspace
from trademl.serve.routing.server import BackgroundRoute
from trademl.serve.routing.settings import RegionConfig, Regions

LEASE_S = 3.0  # a busy disk may keep a renewal waiting for a second


@pytest.fixture
def there(project, finished, tmp_path):
    """Return a project with a hedge, and a workspace of its own."""
    folder = tmp_path / "project"
    shutil.copytree(project, folder)
    with (folder / "strategy.toml").open("a") as file:
        file.write(HEDGE)
    shutil.copytree(finished[0], tmp_path / "ws")
    return folder, tmp_path / "ws"


@contextmanager
def command(folder, workspace, *words):
    line = [sys.executable, "-m", "trademl", "serve", *words, "--workspace", str(workspace)]
    with subprocess.Popen(
        line, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def url_of(process):
    for line in process.stderr:
        if found := re.search(r" at (http\S+)$", line.strip()):
            return found[1]
    raise AssertionError("the server never listened")


@contextmanager
def open_market(port):
    """Accept connections for a while, and say nothing; yield ``host:port``."""

    class Server(socketserver.TCPServer):
        allow_reuse_address = True

    with Server(("127.0.0.1", port), socketserver.BaseRequestHandler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def ports():
    """Those of the market and of the home region's server, which both go and come back."""
    with port_of_ones_own() as market, port_of_ones_own() as server:
        yield market, server


@contextmanager
def working(function):
    """Run a function of an event in a thread; set the event at the end of the block."""
    stop, found = threading.Event(), []
    thread = threading.Thread(target=lambda: found.append(function(stop)))
    thread.start()
    try:
        yield found
    finally:
        stop.set()
        thread.join()


def until(is_so, within_s=180.0):
    deadline = time.monotonic() + within_s
    while not (found := is_so()):
        assert time.monotonic() < deadline, "it never came to be"
        time.sleep(0.02)
    return found


def answered_by(url):
    request = urllib.request.Request(
        f"{url}/invocations", b",".join([b"0"] * 65), {"Content-Type": "text/csv"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.headers["X-Trademl-Region"]


def all_are_up(url):
    with urllib.request.urlopen(f"{url}/regions", timeout=60) as answer:
        return all(region["is_up"] for region in json.loads(answer.read())["regions"])


def kill_while_it_holds(process, ledger):
    """End a trader for good at a moment at which it holds a position; return its lease's end."""

    def is_caught():
        os.kill(process.pid, signal.SIGSTOP)
        held = positions(ledger, "small").get("TEST")
        if held is not None and held.quantity:
            return True
        os.kill(process.pid, signal.SIGCONT)
        return False

    until(is_caught)
    ends_ms = ledger.get(Lease, "small").expires_at_ms
    process.kill()
    return ends_ms


LIVE = ("live", "--region", "hk", "--speed", "30", "--trade-refused", "--lease-s", str(LEASE_S))
SERVER = ("--endpoint", "small", "--port")
WATCH = ("hedge", "--region", "us", "--spot", "20", "--price", "100", "--every-s", "0.1")


def said(process, words):
    """Wait until a process says so on stderr."""
    for line in process.stderr:
        if words in line:
            return
    raise AssertionError(f"it never said {words!r}")


def trades(ledger, region):
    state = lease_state(ledger, "small")
    return state is not None and state.region == region and state.left_ms > 0


def cancelled_at_the_broker(workspace):
    lines = (workspace / "paper-options-us.jsonl").read_text().splitlines()
    return [line for line in map(json.loads, lines) if line["did"] == "cancelled"]


@pytest.mark.slow
def test_a_lost_region_is_hedged_once_until_another_trades_on_and_back_only_when_that_ends(
    there, ports, monkeypatch
):
    folder, workspace = there
    monkeypatch.chdir(folder)
    strategy = load_settings(folder / "strategy.toml", environ={}).strategy
    market, looks = ExitStack(), []
    address = market.enter_context(open_market(ports[0]))
    with (
        market,
        Workspace(workspace) as opened,
        command(folder, workspace, *SERVER, str(ports[1])) as hk,
        command(folder, workspace, *SERVER, "0") as us,
        command(folder, workspace, *LIVE, "--market", address) as trader,
    ):
        ledger, urls = opened.ledger, {"hk": url_of(hk), "us": url_of(us)}
        regions = tuple(
            RegionConfig(name, url, priority=i) for i, (name, url) in enumerate(urls.items())
        )
        until(lambda: lease_state(ledger, "small"))
        options = LiveOptions(
            region="us", market=address, lease_s=LEASE_S, trade_refused=True, speed=30.0
        )
        watch = HedgeOptions(
            "us", (urls["hk"],), "20.0", market=address, price=100.0, every_s=0.1, misses=2,
            rests=True,
        )  # fmt: skip
        with (
            BackgroundRoute(Regions(regions)) as route,
            working(
                lambda stop: watch_region(strategy, opened, watch, stop=stop, told=looks.append)
            ) as watched,
            ExitStack() as home,  # as it comes back
        ):
            with working(lambda stop: trade_live(strategy, opened, options, stop=stop)) as traded:
                until(lambda: all_are_up(route.url))
                assert answered_by(route.url) == "hk"
                market.close()  # the market first: else the other region may trade there
                ends_ms = kill_while_it_holds(trader, ledger)
                hk.kill()
                assert answered_by(route.url) == "us"  # in time: else it would be none
                until(lambda: any(look.standing == "fired" for look in looks))
                assert ledger.rows(Hedge)[0].fired_at_ns >= ends_ms * 10**6
                (order,) = ledger.rows(BrokerOrder, kind="hedge")
                until(lambda: ledger.get(BrokerOrder, order.key).status == "sent")
                assert (order.side, order.instrument.split()[2]) == ("buy", "P")
                n_decisions = len(ledger.rows(LiveDecision))
                home.enter_context(open_market(ports[0]))
                until(lambda: ledger.get(BrokerOrder, order.key).status == "cancelled")
                until(lambda: len(ledger.rows(LiveDecision)) > n_decisions)

                home.enter_context(command(folder, workspace, *SERVER, str(ports[1])))
                until(lambda: answered_by(route.url) == "hk")
                live = (*LIVE, "--market", address)
                said(home.enter_context(command(folder, workspace, *live)), "hk stands by")
                turn = ledger.get(Lease, "small")
                assert turn.region == "us"
                until(lambda: renewed_for(ledger, turn, 3 * LEASE_S))
            until(lambda: trades(ledger, "hk"))
            assert lease_state(ledger, "small").token == turn.token + 1
            until(lambda: turn.token + 1 in order_tokens(ledger))  # it trades again
    assert len(ledger.rows(Hedge)) == len(ledger.rows(BrokerOrder, kind="hedge")) == 1
    assert ledger.get(BrokerOrder, order.key).status == "cancelled"
    assert len(cancelled_at_the_broker(workspace)) == 1
    assert (watched[0]["fired"], watched[0]["recovered"]) == (1, 1)
    assert traded[0]["n_resumed"] > 0
    assert order_tokens(ledger) >= {1, turn.token + 1}


def order_tokens(ledger):
    return {row.token for row in ledger.rows(BrokerOrder) if row.kind != "hedge"}


def renewed_for(ledger, turn, for_s):
    """Return whether a holder has renewed its lease for so long; nobody else may have it."""
    row = ledger.get(Lease, "small")
    assert (row.region, row.token) == (turn.region, turn.token)
    return row.expires_at_ms - turn.expires_at_ms > for_s * 1000


@pytest.mark.slow
def test_a_region_that_comes_back_itself_has_its_hedge_cancelled_once_whoever_dies(there, ports):
    folder, workspace = there
    with ExitStack() as stack, ExitStack() as market:
        address = market.enter_context(open_market(ports[0]))
        live = (*LIVE, "--market", address)
        ledger = stack.enter_context(Workspace(workspace)).ledger

        def start(*words):
            return stack.enter_context(command(folder, workspace, *words))

        hk, trader = start(*SERVER, str(ports[1])), start(*live)
        url = url_of(hk)
        watch = (*WATCH, "--server", url, "--market", address, "--misses", "2", "--paper-rests")
        until(lambda: lease_state(ledger, "small"))
        watching = start(*watch)
        said(watching, "there: ")
        market.close()
        kill_while_it_holds(trader, ledger)
        hk.kill()
        (order,) = until(lambda: ledger.rows(BrokerOrder, kind="hedge", status="sent"))
        until(lambda: lease_state(ledger, "small").left_ms <= 0)  # let go of: hk may have it
        watching.kill()

        stack.enter_context(open_market(ports[0]))
        start(*SERVER, str(ports[1]))
        start(*live)
        until(lambda: trades(ledger, "hk"))
        assert lease_state(ledger, "small").token > order.token
        watching = start(*watch)
        until(lambda: ledger.get(BrokerOrder, order.key).status == "cancelled")
        watching.kill()  # as soon as it is taken back
        (hedge,) = ledger.rows(Hedge)
        said(start(*watch), "there: ")

        assert ledger.rows(Hedge)[0].recovered_at_ns == hedge.recovered_at_ns > 0
        assert [row.status for row in ledger.rows(BrokerOrder, kind="hedge")] == ["cancelled"]
        assert len(cancelled_at_the_broker(workspace)) == 1


def test_a_dry_run_says_what_an_outage_would_buy_and_sends_nothing(there, tmp_path):
    folder, workspace = there
    done = hedge(folder, workspace, "--price", "100", "--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["would_fire"], found["plan"], found["position"]) == (False, None, 0.0)
    assert found["why_not"] == "region hk never held the lease: there is no outage"
    ledger = Ledger(f"sqlite:///{workspace / 'ledger.db'}")
    assert ledger.rows(BrokerOrder) == ledger.rows(Hedge) == []
    ledger.close()


def hedge(folder, workspace, *words):
    line = [sys.executable, "-m", "trademl", "serve", "hedge", "--workspace", str(workspace)]
    line += ["--region", "us", "--spot", "20", "--server", "http://127.0.0.1:1", *words]
    return subprocess.run(line, cwd=folder, capture_output=True, text=True, timeout=600)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (day(-1), day(-30), f"beta and implied_volatility are of {day(-30)}, 30 days old"),
        ('instrument = "TEST"\netf', 'instrument = "HSI"\netf', "the strategy trades TEST"),
        ('home = "hk"', 'home = "us"', "region us is the home of small"),
        ('home = "hk"', 'home = "hk"', "has no fill of TEST in this ledger: give --price"),
    ],
)
def test_a_watch_that_could_not_hedge_does_not_begin(there, old, new, message, monkeypatch):
    folder, workspace = there
    path = folder / "strategy.toml"
    path.write_text(path.read_text().replace(old, new))
    monkeypatch.chdir(folder)
    strategy = load_settings(path, environ={}).strategy
    with Workspace(workspace) as opened, pytest.raises(TrademlError, match=message):
        watch_region(strategy, opened, HedgeOptions("us", ("http://127.0.0.1:1",), "20"))


@pytest.mark.parametrize(
    ("text", "age_s", "message"),
    [
        (None, 0, "neither a price nor a file"),
        ("x", 0, "neither a price"),
        ("20", 9000, "s ago, more than 60"),
    ],
)
def test_a_spot_that_is_no_price_of_now_is_refused(
    there, tmp_path, monkeypatch, text, age_s, message
):
    folder, workspace = there
    path = tmp_path / "spot"
    if text is not None:
        path.write_text(text)
        os.utime(path, (time.time() - age_s, time.time() - age_s))
    monkeypatch.chdir(folder)
    strategy = load_settings(folder / "strategy.toml", environ={}).strategy
    options = HedgeOptions("us", ("http://127.0.0.1:1",), str(path), price=100.0)
    with Workspace(workspace) as opened, pytest.raises(DataError, match=message):
        plan_outage(strategy, opened, options)


def test_without_a_lease_nobody_trades_beside_a_region_that_has_one(there):
    folder, workspace = there
    with Workspace(workspace) as opened:
        home = LeaseHolder(
            opened.ledger, "small", home="hk", region="hk", holder="1", ttl_ms=600_000
        )
        home.acquire()
        with pytest.raises(ConfigError, match="region hk holds the lease of small"):
            trade_live(load_settings(folder / "strategy.toml", environ={}).strategy, opened)
