"""`trademl serve hedge --unwind`, while a watch runs and while none does."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

from hedge_cases import HEDGE, day
from running import one_line
from trademl.ledger import Ledger
from trademl.ledger.live_tables import BrokerOrder, Hedge, Lease
from trademl.live.lease import LeaseHolder, lease_state
from trademl.live.outbox import queue
from trademl.live.paper_options import PaperOptions
from trademl.live.positions import positions
from trademl.live.sender import Sender
from trademl.pipeline.workspace import Workspace
from trademl.ports import OrderTicket

PUT = f"EWH {day(60)} P 20"


@pytest.fixture
def there(project, tmp_path):
    """Return a project with a hedge, and the ledger of its workspace: a position, a lost lease."""
    folder = tmp_path / "project"
    shutil.copytree(project, folder)
    with (folder / "strategy.toml").open("a") as file:
        file.write(HEDGE)
    with Workspace(tmp_path / "ws"):
        pass
    ledger = Ledger(f"sqlite:///{tmp_path / 'ws' / 'ledger.db'}")
    with ledger.session() as session:
        queue(session, OrderTicket("p", "small", "TEST", "buy", "entry", 1.0, 100.0, 1))
    Sender(ledger, PaperOptions(tmp_path / "entries"), "small", kinds=("entry",)).work()
    lease = {"name": "small", "home": "hk", "region": "hk", "holder": "1", "token": 1}
    ledger.record(Lease(**lease, home_token=1, expires_at_ms=1))
    yield folder, ledger
    ledger.close()


def words(folder, *more):
    line = [sys.executable, "-m", "trademl", "serve", "hedge", "--region", "us", "--spot", "20"]
    return [*line, "--workspace", str(folder.parent / "ws"), *more]


def unwind(folder, *more):
    line = words(folder, "--unwind", *more)
    return subprocess.run(line, cwd=folder, capture_output=True, text=True, timeout=600)


@contextmanager
def watching(folder):
    """Run a watch for which all of hk is gone; kill -9 at the end."""
    line = words(folder, "--server", "http://127.0.0.1:1", "--price", "100", "--every-s", "0.1")
    with subprocess.Popen(line, cwd=folder, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def until(is_so, within_s=180.0):
    deadline = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < deadline, "it never came to be"
        time.sleep(0.02)


def orders(ledger, side):
    return [row for row in ledger.rows(BrokerOrder, kind="hedge") if row.side == side]


def held(ledger):
    found = positions(ledger, "small").get(PUT)
    return found.quantity if found else 0.0


def test_a_hedge_that_filled_is_sold_once_its_region_is_back(there):
    folder, ledger = there
    with watching(folder):
        until(lambda: held(ledger) > 0 and lease_state(ledger, "small").left_ms <= 0)
    n_bought = held(ledger)

    refused = one_line(unwind(folder))
    assert "region hk is out: nobody trades small under its lease" in refused
    assert "give --while-out to unwind it all the same" in refused
    assert (orders(ledger, "sell"), ledger.rows(Hedge)[0].recovered_at_ns) == ([], None)
    looked = unwind(folder, "--dry-run")
    assert looked.stdout.startswith(f"sell {n_bought:g} {PUT} at ")
    assert "not now: region hk is out" in looked.stdout
    assert orders(ledger, "sell") == []

    home = LeaseHolder(
        ledger, "small", home="hk", region="hk", holder="2", ttl_ms=600_000, trades=True
    )
    assert home.acquire()
    done = unwind(folder, "--json")
    assert done.returncode == 0, done.stderr
    (fact,) = json.loads(done.stdout)["held"]
    (sale,) = orders(ledger, "sell")
    assert (fact["order"], fact["status"], fact["quantity"]) == (sale.key, "filled", n_bought)
    assert held(ledger) == 0
    assert ledger.rows(Hedge)[0].recovered_at_ns > 0

    again = unwind(folder)
    assert again.stdout == "nothing to unwind: no options of a hedge are held\n"
    assert len(orders(ledger, "sell")) == 1


def test_while_it_is_out_a_watch_sends_the_sale_when_told_so_and_hedges_no_more(there):
    folder, ledger = there
    with watching(folder):
        until(lambda: held(ledger) > 0)
        n_bought = held(ledger)
        done = unwind(folder, "--while-out")
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f"sold {n_bought:g} {PUT} at ")
        assert held(ledger) == 0
    with watching(folder) as watch:
        assert any("hedged: this outage was hedged, and the hedge" in line for line in watch.stderr)
    assert [len(orders(ledger, side)) for side in ("buy", "sell")] == [1, 1]


def test_while_out_alone_is_refused(there):
    folder, _ = there
    line = words(folder, "--server", "http://127.0.0.1:1", "--while-out")
    done = subprocess.run(line, cwd=folder, capture_output=True, text=True, timeout=600)
    assert "--while-out goes with --unwind" in one_line(done)
