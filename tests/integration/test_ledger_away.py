"""A server of the ledger that is away for a while: results wait and are there once, in the end."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from contextlib import contextmanager
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlalchemy import make_url, text

from database_servers import running_postgres
from ledger_cases import add_batch, add_gate, add_model, add_study
from market_cases import random_walk
from trademl.backtest.settings import BacktestConfig
from trademl.backtest.strategy_jobs import backtest_file
from trademl.errors import AwayError, SchemaError, StoreError
from trademl.ingest.sources import FeedConfig
from trademl.ledger import Database, Ledger, tables
from trademl.ledger.bulk import COPY_FROM
from trademl.ledger.connections import open_engine
from trademl.ledger.schema import VERSION_TABLE
from trademl.market.costs import Costs
from trademl.pipeline.ledger_upkeep import flush_ledger, ledger_status, upgrade_ledger
from trademl.store.artifacts import ArtifactStore
from trademl.train.registry import promote

STRATEGY = """
from trademl.backtest.callback import Bracket
from trademl.market.orders import Side
import stopper

def decide(now):
    if now.index == 900:
        stopper.stop()
    return Bracket(Side.BUY, 1.0, 1.0) if now.index % 50 == 0 else None
"""


@pytest.fixture(scope="module")
def server():
    with running_postgres() as running:
        yield running


@pytest.fixture
def empty(server, request):
    """The address of a database of the test's own, without tables."""
    name = f"t{abs(hash(request.node.name)):x}"
    execute(server.url, f"CREATE DATABASE {name}")
    return make_url(server.url).set(database=name).render_as_string(hide_password=False)


@pytest.fixture
def url(server):
    return server.url


@pytest.fixture
def ledger(url, tmp_path):
    opened = Ledger(url, spool=tmp_path / "spool")
    execute(url, f"TRUNCATE {', '.join(tables.Base.metadata.tables)}")
    yield opened
    opened.close()


def execute(url, *statements):
    engine = open_engine(url).execution_options(isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()


@contextmanager
def away(server):
    server.stop()
    try:
        yield
    finally:
        server.start()


def backtest(identity="b"):
    return tables.Backtest(id=identity, engines=["compiled"], metrics={"n": 1}, path="/p")


def trades(n, first=0):
    numbers = range(first, first + n)
    return pa.table(
        {
            "number": numbers, "order_id": numbers, "side": ["buy"] * n,
            "opened_at_ns": [2**60] * n, "entry_price": [0.1] * n, "closed_at_ns": [2**60 + 1] * n,
            "exit_price": [1e-300] * n, "exit_reason": ["time"] * n, "fees": [0.0] * n,
            "pnl": [-1 / 3] * n, "score": [None] * n, "decided_at_ns": [None] * n,
            "size": [1.0] * n, "gross_points": [0.5] * n, "carry": [0.0] * n,
            "tier": ["", None] * (n // 2) + [None] * (n % 2), "latency_ms": [None] * n,
        }
    )  # fmt: skip


def numbers(ledger, identity="b"):
    return [row.number for row in ledger.rows(tables.Trade, backtest_id=identity)]


def test_a_server_that_stops_during_a_backtest_has_its_trades_once(
    server, ledger, url, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "stopper", SimpleNamespace(stop=server.stop))
    quotes = random_walk(2_000)
    columns = {"ts_event": quotes.ts_event, "bid": quotes.bid, "ask": quotes.ask}
    pq.write_table(pa.table(columns), tmp_path / "q.parquet")
    (tmp_path / "mine.py").write_text(STRATEGY)
    try:
        made = backtest_file(
            tmp_path / "mine.py", FeedConfig(quotes=str(tmp_path / "q.parquet")), Costs(),
            BacktestConfig(reject_share=0.0), ArtifactStore(tmp_path / "artifacts"), ledger,
        )  # fmt: skip
    finally:
        server.start()
    assert ledger.rows(tables.Backtest) == []  # they wait

    again = Ledger(url, spool=tmp_path / "spool")
    assert len(numbers(again, made.id)) == made.metrics["n_trades"] > 10
    assert len(again.rows(tables.Equity, backtest_id=made.id)) > 0
    assert again.spool.is_empty()
    again.close()


def test_what_waits_is_written_before_what_comes_next(server, ledger, caplog):
    with away(server):
        ledger.replace(backtest(), (tables.Trade, "backtest_id", trades(3)))
        ledger.replace(backtest(), (tables.Trade, "backtest_id", trades(2, first=7)))
    assert "results wait in" in caplog.text
    ledger.record(backtest("later"))
    assert numbers(ledger) == [7, 8]
    assert ledger.spool.is_empty()


def test_rows_that_waited_are_those_that_were_told(server, ledger):
    sizes = (3, COPY_FROM + 1)
    for n in sizes:
        ledger.replace(backtest(f"direct-{n}"), (tables.Trade, "backtest_id", trades(n)))
    with away(server):
        for n in sizes:
            ledger.replace(backtest(f"waited-{n}"), (tables.Trade, "backtest_id", trades(n)))
    ledger.flush()
    for n in sizes:
        told, waited = (
            [{**vars(row), "backtest_id": "", "_sa_instance_state": None} for row in found]
            for found in (
                ledger.rows(tables.Trade, backtest_id=f"{b}-{n}") for b in ("direct", "waited")
            )
        )
        assert waited == told
        assert len(told) == n


def test_what_decides_fails_at_once_in_one_line(server, ledger):
    add_batch(ledger)
    add_study(ledger)
    add_model(ledger, "model-1")
    add_gate(ledger, "model-1")
    with away(server):
        with pytest.raises(AwayError, match="check that it runs and can be reached") as caught:
            promote(ledger, "s", "model-1")
        with pytest.raises(AwayError):
            add_gate(ledger, "model-1", day=2)
    assert "\n" not in str(caught.value)
    assert ledger.spool.is_empty()
    assert ledger.rows(tables.Reign) == []


NOBODY = [
    "postgresql://u@127.0.0.1:1/n",
    "postgresql://u@/n?host=/nonexistent",
    "mysql://u@127.0.0.1:1/n",
]


@pytest.mark.parametrize("url", NOBODY)
def test_a_verb_does_not_begin_without_its_server(url, tmp_path):
    with pytest.raises(AwayError, match="check that it runs and can be reached"):
        Ledger(url, spool=tmp_path / "spool")


def test_without_a_folder_to_wait_in_results_fail_at_once(server, ledger):
    ledger.spool = None
    with away(server), pytest.raises(AwayError):
        ledger.record(backtest())


@pytest.mark.parametrize("moment", ["before the commit", "after the commit"])
def test_a_flush_that_is_killed_is_gone_on_with(server, ledger, url, tmp_path, moment):
    with away(server):
        for k in range(3):
            ledger.replace(backtest(f"b{k}"), (tables.Trade, "backtest_id", trades(2000)))
    place = "trademl.ledger.database.apply" if moment == "before the commit" else (
        "trademl.ledger.spool._mark"
    )  # fmt: skip
    script = f"""
        import os, signal, sys
        import trademl.ledger.database, trademl.ledger.spool
        from pathlib import Path
        from trademl.ledger import Ledger
        module, name = {place!r}.rsplit(".", 1)
        true, seen = getattr(sys.modules[module], name), []
        def deadly(*arguments):
            if {moment == "before the commit"}:
                true(*arguments)
            seen.append(1)
            if len(seen) == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            if not {moment == "before the commit"}:
                true(*arguments)
        setattr(sys.modules[module], name, deadly)
        Ledger({url!r}, spool=Path({str(tmp_path / "spool")!r}))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], timeout=300)
    assert done.returncode == -signal.SIGKILL
    reached = {"before the commit": 1, "after the commit": 2}[moment]
    assert len(ledger.rows(tables.Backtest)) == reached

    assert ledger.flush().n_written == 2
    assert [len(numbers(ledger, f"b{k}")) for k in range(3)] == [2000] * 3
    assert ledger.spool.is_empty()


def test_a_result_whose_model_is_gone_is_kept_and_named(server, ledger, url, tmp_path):
    with away(server):
        ledger.record(tables.Backtest(id="o", model_id="gone", engines=[], metrics={}, path="/p"))
        ledger.record(backtest())
    drained = flush_ledger(tmp_path, Database(url))
    assert drained.n_written == 1
    assert "foreign key" in drained.refused[0]
    found = ledger_status(tmp_path, Database(url))
    assert (found.state, found.n_waiting, found.n_refused) == ("ready", 0, 1)


def test_a_copy_that_fails_is_an_error_of_ours(ledger):
    rows = trades(COPY_FROM).set_column(0, "number", pa.array([0] * COPY_FROM))
    with pytest.raises(StoreError, match="duplicate key"):
        ledger.replace(backtest(), (tables.Trade, "backtest_id", rows))
    assert ledger.rows(tables.Backtest) == []


def test_an_older_schema_is_named_and_upgraded_by_its_verb(empty, tmp_path):
    from alembic import command

    from trademl.ledger.schema import _config

    engine, config = open_engine(empty), _config()
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0010")
    engine.dispose()
    with pytest.raises(SchemaError, match=r"schema 0010, older than .* run trademl ledger upgrade"):
        Ledger(empty)
    assert ledger_status(tmp_path, Database(empty)).state == "older"
    assert upgrade_ledger(tmp_path, Database(empty)).found == "0010"
    assert ledger_status(tmp_path, Database(empty)).state == "ready"
    Ledger(empty).close()


def test_a_newer_schema_is_named(empty, tmp_path):
    Ledger(empty).close()
    execute(empty, f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
    with pytest.raises(SchemaError, match=r"schema 9999, newer than this trademl's"):
        Ledger(empty)
    assert ledger_status(tmp_path, Database(empty)).state == "newer"


def test_a_password_that_was_changed_is_fetched_again(server, url, tmp_path):
    execute(url, "CREATE ROLE changer LOGIN SUPERUSER PASSWORD 'one'")
    rules = server.folder / "pg_hba.conf"
    before = rules.read_text()
    rules.write_text(f"local all changer scram-sha-256\n{before}")
    server.reload()
    source = Rotating("one")
    database = Database(
        make_url(url).set(username="changer", password=None).render_as_string(hide_password=False),
        password_from="file:/replaced",
    )
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("trademl.ledger.connections.open_secret", lambda _: source)
            opened = Ledger(database)
            execute(url, "ALTER ROLE changer PASSWORD 'two'")
            source.true = "two"
            opened.engine.dispose()
            assert opened.rows(tables.Run) == []
            source.true = "wrong"
            opened.engine.dispose()
            source.held = "wrong"
            with pytest.raises(StoreError, match="check the user of ledger.url") as caught:
                opened.rows(tables.Run)
            assert not isinstance(caught.value, AwayError)
            opened.close()
    finally:
        rules.write_text(before)
        server.reload()


class Rotating:
    """Keeps what it was told once, as Secrets Manager's source does."""

    def __init__(self, password: str) -> None:
        self.true = self.held = password

    def credentials(self, *, renewed: bool = False):
        from trademl.ports import Credentials

        if renewed:
            self.held = self.true
        return Credentials(self.held)


def test_a_search_is_kept_on_the_server(empty):
    from trademl.train.study import open_storage, study_errors

    database = Database(empty)
    with study_errors(database):
        held = open_storage(database)
        assert held.get_all_studies() == []
        held.engine.dispose()


def test_a_search_without_its_server_is_one_line():
    from trademl.train.study import open_storage, study_errors

    database = Database(NOBODY[0])
    with pytest.raises(AwayError, match="check that it runs"), study_errors(database):
        open_storage(database)
