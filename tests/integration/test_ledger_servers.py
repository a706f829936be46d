"""The ledger on real servers: the same schema, forward and back, and many rows at once.

MySQL or MariaDB is tried where ``TRADEML_TEST_MYSQL_URL`` names an empty database.
"""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from threading import Barrier, Event, Thread

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import delete, event, inspect, text

from database_servers import running_postgres
from ledger_cases import add_batch, add_model, add_proven_models, add_study
from trademl.ledger import Ledger, schema, tables
from trademl.ledger.bulk import COPY_FROM, insert_rows
from trademl.ledger.connections import open_engine
from trademl.ledger.live_tables import Lease
from trademl.ledger.schema import MIGRATIONS, VERSION_TABLE
from trademl.live.lease import LeaseHolder, lease_state
from trademl.live.outbox import Fence, ask_cancel, hold, queue, refence, step
from trademl.ports import OrderTicket
from trademl.serve.deployments import deploy
from trademl.store.artifacts import ArtifactStore


@pytest.fixture(scope="module")
def postgres():
    with running_postgres() as server:
        yield server.url


@pytest.fixture(params=["sqlite", "postgresql", "mysql"])
def url(request, tmp_path):
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'ledger.db'}"
        return
    if request.param == "mysql":
        if not (found := os.environ.get("TRADEML_TEST_MYSQL_URL")):
            pytest.skip("TRADEML_TEST_MYSQL_URL is not set")
    else:
        found = request.getfixturevalue("postgres")
    yield found
    move(found, command.downgrade, "base")


def alembic_config():
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    return config


def move(url, direction, revision):
    """Move the schema, and return the tables of ours that are there then."""
    engine, config = open_engine(url), alembic_config()
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        direction(config, revision)
    found = set(inspect(engine).get_table_names()) & set(tables.Base.metadata.tables)
    engine.dispose()
    return found


def test_revisions_form_one_line():
    assert len(ScriptDirectory.from_config(alembic_config()).get_heads()) == 1


def test_schema_goes_up_down_and_up_again(url):
    assert move(url, command.upgrade, "head") == set(tables.Base.metadata.tables)
    assert move(url, command.downgrade, "base") == set()
    assert move(url, command.upgrade, "head") == set(tables.Base.metadata.tables)


def test_migrated_schema_is_the_declared_one(url):
    ledger = Ledger(url)
    with ledger.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        assert compare_metadata(context, tables.Base.metadata) == []
    ledger.close()


def test_many_trades_come_back_as_they_were_written(url):
    ledger = Ledger(url)
    add_batch(ledger)
    add_study(ledger)
    add_model(ledger, "model-1")
    backtest = tables.Backtest(
        id="b", model_id="model-1", dataset_id="dataset-1", engines=[], metrics={}, path="/p"
    )
    rows = [trade(number) for number in range(COPY_FROM + 1)]
    ledger.replace(backtest, (tables.Trade, "backtest_id", rows))
    found = ledger.rows(tables.Trade, backtest_id="b")
    assert [{name: getattr(t, name) for name in rows[0]} for t in found] == rows
    with ledger.engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM trades")) == len(rows)
    ledger.close()


def test_processes_that_make_the_tables_together_make_them_once(url):
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: Ledger(url), range(4)))
    assert all(ledger.rows(tables.Run) == [] for ledger in made)
    for ledger in made:
        ledger.close()


def test_a_schema_that_another_is_bringing_forward_is_waited_for(url, monkeypatch):
    move(url, command.upgrade, "0001")  # a step that shows on servers which commit each
    looked, look = Event(), schema.schema_state
    monkeypatch.setattr(schema, "schema_state", lambda c: (look(c), looked.set())[0])
    engine, config = open_engine(url), alembic_config()
    with ThreadPoolExecutor(1) as pool:
        with engine.begin() as connection, schema.one_at_a_time(connection):
            opened = pool.submit(Ledger, url)
            assert looked.wait(60)
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
        ledger = opened.result(60)
    assert ledger.rows(tables.Run) == []
    ledger.close()
    engine.dispose()


def test_backtests_that_are_written_at_once_do_not_wait_for_each_other(url):
    if url.startswith("sqlite"):
        pytest.skip("SQLite lets one write at a time")
    ledger = Ledger(url)
    for name in ("a", "b"):
        ledger.record(tables.Backtest(id=name, engines=[], metrics={}, path="/p"))
    with ledger.session() as one, ledger.session() as two:  # a wait would be for ever: one thread
        for session, name in ((one, "a"), (two, "b")):
            session.execute(delete(tables.Trade).filter_by(backtest_id=name))
        for session, name in ((one, "a"), (two, "b")):
            insert_rows(session, tables.Trade, {"backtest_id": name}, [trade(0)])
    assert [t.backtest_id for t in ledger.rows(tables.Trade)] == ["a", "b"]
    ledger.close()


def test_times_are_kept_to_the_microsecond(url):
    ledger = Ledger(url)
    began = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    ledger.record(tables.Run(id=1, strategy="s", started_at=began, status="done", artifacts={}))
    (row,) = ledger.rows(tables.Run)
    assert row.started_at.replace(tzinfo=UTC) == began
    ledger.close()


def test_what_was_written_is_written_again_over_itself(url):
    ledger = Ledger(url)
    row = tables.Backtest(id="b", engines=["compiled"], metrics={"n": 2}, path="/p")
    for _ in range(2):
        ledger.replace(row, (tables.Trade, "backtest_id", [trade(0), trade(1)]))
    assert [t.number for t in ledger.rows(tables.Trade)] == [0, 1]
    ledger.close()


def at_once(work, n=4):
    """Call ``work`` with 0 to n - 1, each in a thread of its own, all from the same moment on."""
    barrier = Barrier(n)

    def start(number):
        barrier.wait()
        return work(number)

    with ThreadPoolExecutor(n) as pool:
        return list(pool.map(start, range(n)))


def test_of_processes_that_write_one_row_at_once_the_last_one_stands(url):
    ledgers = [Ledger(url) for _ in range(4)]
    for number in range(12):
        name = f"batch-{number}"
        at_once(lambda n, name=name: add_batch(ledgers[n], name, instrument=str(n)))
        assert ledgers[0].get(tables.Batch, name).instrument in "0123"
    for ledger in ledgers:
        ledger.close()


def test_a_result_that_is_written_twice_at_once_has_its_rows_once(url):
    ledgers = [Ledger(url) for _ in range(4)]
    rows = [trade(0), trade(1)]
    for number in range(12):
        row = {"id": f"b{number}", "engines": [], "metrics": {"n": 2}, "path": "/p"}
        at_once(
            lambda n, row=row: ledgers[n].replace(
                tables.Backtest(**row), (tables.Trade, "backtest_id", rows)
            )
        )
        at_once(
            lambda n, row=row: ledgers[n].rewrite(tables.Trade, {"backtest_id": row["id"]}, rows)
        )
        assert len(ledgers[0].rows(tables.Trade, backtest_id=row["id"])) == 2
    for ledger in ledgers:
        ledger.close()


def test_of_verdicts_that_are_kept_at_once_the_first_stands_for_all(url):
    ledgers = [Ledger(url) for _ in range(4)]
    add_batch(ledgers[0])
    add_study(ledgers[0])
    add_model(ledgers[0], "model-1")

    def judge(identity, n):
        gate = {"strategy": "s", "model_id": "model-1", "champion_id": None, "reasons": []}
        row = tables.Gate(id=identity, verdict=f"verdict of {n}", report={}, **gate)
        return ledgers[n].first(row).verdict

    for number in range(12):
        told = at_once(lambda n, i=f"gate-{number}": judge(i, n))
        assert set(told) == {ledgers[0].get(tables.Gate, f"gate-{number}").verdict}
    for ledger in ledgers:
        ledger.close()


def test_of_models_that_are_deployed_at_once_one_stands_at_the_endpoint(url, tmp_path):
    ledgers, store = [Ledger(url) for _ in range(4)], ArtifactStore(tmp_path / "artifacts")
    models = add_proven_models(store, ledgers[0], 4)
    for number in range(8):
        at_once(lambda n, e=f"endpoint-{number}": deploy(models[n], e, store, ledgers[n]))
        at_once(lambda n, e=f"same-{number}": deploy(models[0], e, store, ledgers[n]))
    endpoints = [row.endpoint for row in ledgers[0].rows(tables.Deployment, retired_at=None)]
    assert len(endpoints) == len(set(endpoints)) == 16
    for ledger in ledgers:
        ledger.close()


def test_an_order_that_another_takes_up_meanwhile_is_cancelled(url):
    if url.startswith("sqlite"):
        pytest.skip("SQLite lets one write at a time")
    ledger, other = Ledger(url), Ledger(url)
    with ledger.session() as session:
        queue(session, OrderTicket("o1", "s", "ES", "buy", "entry", 1.0, None, 1))

    def take_up(_connection, _cursor, statement, *_):
        if statement.startswith("UPDATE broker_orders"):
            with other.session() as session:
                if not step(session, "o1", ("queued",), "sending"):
                    refence(session, "o1", Fence("s", 2))

    event.listen(ledger.engine, "before_cursor_execute", take_up)
    assert ask_cancel(ledger, "o1", "the region is back") == "cancelling"
    ledger.close()
    other.close()


def test_of_regions_that_race_for_a_lease_one_gets_it_and_another_after_it_ended(url):
    ledger = Ledger(url)
    holders = [
        LeaseHolder(
            ledger, "s", home="hk", region=region, holder=region, ttl_ms=600_000, trades=True
        )
        for region in ("hk", "us", "eu", "jp")
    ]
    assert holders[0].acquire() == Fence("s", 1)
    holders[0].release()
    with ThreadPoolExecutor(4) as pool:
        taken = [fence for fence in pool.map(LeaseHolder.acquire, holders) if fence]
        assert taken == [Fence("s", 2)]
        with ledger.session() as session:
            assert hold(session, taken[0])
            assert not hold(session, Fence("s", 1))
        row = ledger.get(Lease, "s")
        row.expires_at_ms = 1
        ledger.record(row)
        with ledger.session() as session:
            assert not hold(session, taken[0])
        assert [fence for fence in pool.map(LeaseHolder.acquire, holders) if fence] == [
            Fence("s", 3)
        ]
    assert lease_state(ledger, "s").home_token == 3
    ledger.close()


def test_a_lease_is_not_taken_from_under_a_transaction_that_holds_it(url):
    ledger = Ledger(url)
    home, other = (
        LeaseHolder(ledger, "s", home="hk", region=region, holder=region, ttl_ms=3000)
        for region in ("hk", "us")
    )
    fence, began = home.acquire(), Event()
    taken = []

    def take():
        began.set()
        while not (found := other.acquire()):
            time.sleep(0.02)
        taken.append((found, time.monotonic()))

    with ledger.session() as session:
        assert hold(session, fence)
        thread = Thread(target=take)
        thread.start()
        began.wait()
        while lease_state(ledger, "s").left_ms > 0:
            time.sleep(0.02)
        time.sleep(0.3)  # it has ended, and the other region asks for it
        ended = time.monotonic()
    thread.join()
    assert taken[0][0] == Fence("s", 2)
    assert taken[0][1] > ended
    ledger.close()


def trade(number):
    return {
        "number": number, "order_id": 2**40 + number, "side": "long\t\\N",
        "opened_at_ns": 1_790_000_000_000_000_001, "entry_price": 0.1 + number,
        "closed_at_ns": 1_790_000_000_000_000_003, "exit_price": 1e-300,
        "exit_reason": "stop_loss", "fees": 0.0, "pnl": -1 / 3, "score": 0.7,
    }  # fmt: skip
