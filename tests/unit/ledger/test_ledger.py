"""The ledger: schema, whole transactions, one line when it cannot be used."""

from __future__ import annotations

import sqlite3

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, event, inspect
from sqlalchemy.pool import NullPool

from trademl.errors import SchemaError, StoreError
from trademl.ledger import Ledger, connections, database, tables
from trademl.ledger.schema import VERSION_TABLE

OPTUNA = {"study", "trial", "version_info", "alembic_version"}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ledger.db"


@pytest.fixture
def ledger(path):
    opened = Ledger(f"sqlite:///{path}")
    yield opened
    opened.close()


def batch(identity="batch-1", **changes):
    values = {
        "instrument": "ES", "recording_id": "recording-1", "number": 0, "n_orders": 3,
        "first_entry_ns": 1_378_072_800_083_000_000, "last_exit_ns": 1_378_232_479_748_000_000,
        "label_rate": 0.25, "path": "/p",
    }  # fmt: skip
    return tables.Batch(id=identity, **{**values, **changes})


def test_migrations_make_exactly_the_declared_tables(ledger):
    with ledger.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        assert compare_metadata(context, tables.Base.metadata) == []


def test_writing_the_same_row_twice_changes_nothing_but_its_values(ledger):
    ledger.record(batch())
    ledger.record(batch(n_orders=4))
    (row,) = ledger.rows(tables.Batch)
    assert row.n_orders == 4
    assert row.first_entry_ns == 1_378_072_800_083_000_000


def test_a_row_that_another_process_writes_meanwhile_is_replaced_too(ledger, path):
    other = Ledger(f"sqlite:///{path}")

    def write_first(_connection, _cursor, statement, *_):
        if statement.startswith("INSERT"):
            other.record(batch(n_orders=4))

    event.listen(ledger.engine, "before_cursor_execute", write_first)
    ledger.record(batch(n_orders=5))
    other.close()
    (row,) = ledger.rows(tables.Batch)
    assert row.n_orders == 5


def test_a_transaction_is_whole_or_absent(ledger):
    orphan = tables.Dataset(
        id="d", batch_id="nowhere", n_train=1, n_validation=1, n_test=1, feature_dim=1, facts={},
        path="/p",
    )  # fmt: skip
    with pytest.raises(StoreError, match="FOREIGN KEY"):
        ledger.record(batch(), orphan)
    assert ledger.rows(tables.Batch) == []


def test_children_are_replaced_with_their_parent(ledger):
    run = tables.Study(
        id="s", dataset_id="d", objective="o", direction="Maximize", seed=1, path="/p"
    )
    dataset = tables.Dataset(
        id="d", batch_id="batch-1", n_train=1, n_validation=1, n_test=1, feature_dim=1, facts={},
        path="/p",
    )  # fmt: skip
    ledger.record(batch())
    ledger.record(dataset)

    def trial(n):
        return {"number": n, "objective": 0.5, "hyperparameters": {}, "metrics": {}}

    ledger.replace(run, (tables.Trial, "study_id", [trial(0), trial(1), trial(2)]))
    ledger.replace(run, (tables.Trial, "study_id", [trial(7)]))
    assert [t.number for t in ledger.rows(tables.Trial, study_id="s")] == [7]


def test_a_newer_schema_is_refused(ledger, path):
    with sqlite3.connect(path) as database:
        database.execute(f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
    with pytest.raises(SchemaError, match="at schema 9999, newer than"):
        Ledger(f"sqlite:///{path}")


def test_a_new_file_that_another_process_writes_meanwhile_is_opened(path, monkeypatch):
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    monkeypatch.setattr(connections.time, "sleep", lambda _: other.execute("ROLLBACK"))
    Ledger(f"sqlite:///{path}").close()
    assert other.execute("PRAGMA journal_mode").fetchall() == [("wal",)]
    other.close()


def test_a_file_that_is_no_database_is_named(path):
    path.write_bytes(b"rubbish" * 999)
    with pytest.raises(StoreError, match=r"ledger.db: .*not a database"):
        Ledger(f"sqlite:///{path}")


def test_a_folder_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(StoreError, match="unable to open"):
        Ledger(f"sqlite:///{tmp_path}/nowhere/ledger.db")


def test_a_change_of_the_schema_is_whole_or_absent(path, monkeypatch):
    from alembic import command

    true = command.upgrade

    def die(config, revision):
        true(config, revision)
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "upgrade", die)
    with pytest.raises(KeyboardInterrupt):
        Ledger(f"sqlite:///{path}")
    with sqlite3.connect(path) as database:
        assert database.execute("SELECT name FROM sqlite_master").fetchall() == []
    monkeypatch.undo()
    Ledger(f"sqlite:///{path}").close()


def test_no_table_clashes_with_those_of_optuna():
    ours = set(tables.Base.metadata.tables)
    assert not {t for t in ours if t.startswith(("study", "studies", "trial")) or t in OPTUNA}


def test_the_first_schema_is_brought_up_to_date_and_back(path):
    from alembic import command
    from alembic.config import Config
    from sqlalchemy import inspect

    from trademl.ledger.connections import open_engine
    from trademl.ledger.schema import MIGRATIONS

    engine = open_engine(f"sqlite:///{path}")
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))

    def tables_at(revision, move):
        with engine.begin() as connection:
            config.attributes["connection"] = connection
            move(config, revision)
            return set(inspect(connection).get_table_names())

    ours = {"test_looks", "gates", "reigns"}
    assert not ours & tables_at("0001", command.upgrade)
    assert ours < tables_at("0002", command.upgrade)
    assert not ours & tables_at("0001", command.downgrade)


def test_trades_survive_the_way_to_full_columns_and_back(path):
    from alembic import command
    from alembic.config import Config

    from trademl.ledger.connections import open_engine
    from trademl.ledger.schema import MIGRATIONS

    engine = open_engine(f"sqlite:///{path}")
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))

    def move(step, to):
        with engine.begin() as connection:
            connection.exec_driver_sql("PRAGMA foreign_keys=OFF")
            config.attributes["connection"] = connection
            step(config, to)

    move(command.upgrade, "0004")
    with engine.begin() as connection:
        connection.exec_driver_sql("PRAGMA foreign_keys=OFF")
        connection.exec_driver_sql(
            "INSERT INTO backtests VALUES ('b', '2026-01-01', 'm', NULL, 'd', '[]', '{}', '/p')"
        )
        connection.exec_driver_sql(
            "INSERT INTO trades VALUES ('b', 0, 4, 'buy', 1, 1.0, 2, 2.0, 'time', 0.0, 1.0, 0.9)"
        )
    move(command.upgrade, "0011")
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO backtests VALUES ('s', '2026-01-01', NULL, NULL, NULL, '[]', '{}', '/p')"
        )
    move(command.downgrade, "0004")

    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT id FROM backtests").fetchall() == [("b",)]
        assert connection.exec_driver_sql("SELECT pnl, score FROM trades").fetchall() == [
            (1.0, 0.9)
        ]
    engine.dispose()


def test_a_disk_that_fills_during_migrations_leaves_no_table_behind(tmp_path, monkeypatch):
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    small = create_engine(url, poolclass=NullPool)
    event.listen(small, "connect", lambda made, _: made.execute("PRAGMA max_page_count=30"))
    monkeypatch.setattr(database, "open_engine", lambda *_asked: small)
    with pytest.raises(StoreError, match="free some space"):
        Ledger(url)
    monkeypatch.undo()
    with small.connect() as connection:
        assert inspect(connection).get_table_names() == []


def test_jobs_of_studies_survive_the_way_to_jobs_of_models_and_back(path):
    from alembic import command
    from alembic.config import Config

    from trademl.ledger.connections import open_engine
    from trademl.ledger.schema import MIGRATIONS

    engine = open_engine(f"sqlite:///{path}")
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))

    def move(step, to):
        with engine.begin() as connection:
            config.attributes["connection"] = connection
            step(config, to)

    def add(name, study, model=""):
        with engine.begin() as connection:
            connection.exec_driver_sql(
                f"INSERT INTO cloud_jobs VALUES ('r', '{name}', '2026-01-01', 'k', {study}, 'i', "
                f"'t', 1, 'Completed', NULL, 1.0, 1.0, 60{model})"
            )

    move(command.upgrade, "0011")
    add("training", "'study-1'")
    move(command.upgrade, "0013")
    add("transform", "NULL", ", 'model-1'")
    move(command.downgrade, "0011")

    with engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT name, study_id FROM cloud_jobs").fetchall()
    engine.dispose()
    assert rows == [("training", "study-1")]
