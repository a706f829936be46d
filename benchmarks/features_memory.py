"""Features: the peak memory of building a dataset far larger than memory may be.

Ten million orders on a week of one-second quotes; the dataset is 24.7 GB and deleted afterwards.
The build runs in a process of its own, whose peak is the kernel's ``VmHWM``.

Shape letters: N orders.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from harness import Benchmark, Measurement, main

N_SECONDS = 7 * 86_400
FIRST_S = 1_700_000_000
BENCHMARK = Benchmark(
    name="features_memory",
    goals={"build_peak_gb": {"max": 1.5}},
    libraries=("numpy", "numba", "pyarrow"),
    does_not_show=(
        "Prices are a seeded random walk with one quote a second for seven days.",
        "Peak is resident memory of the building process; the page cache is not in it.",
        "Memory grows by some 60 bytes an order while rows are split, not with columns.",
        "Indicators and volatility, which hold a number per row of a chunk, are not in it.",
    ),
)
BATCH = "batch-000000000001"
BUILD = """
import json, sys, time
from pathlib import Path
from trademl.etl.build import write_dataset
from trademl.etl.labels import Labelling
from trademl.ingest.batch import open_batch
from trademl.market.health import HealthConfig
from trademl.etl.recipe import FeatureRecipe
from trademl.etl.splits import SplitConfig
from trademl.ports import Silent
from trademl.store.artifacts import ArtifactStore
store, batch = ArtifactStore(Path(sys.argv[1])), sys.argv[2]
start = time.perf_counter()
with store.create("dataset-000000000001", parents=[batch], parameters={}) as draft:
    settings = FeatureRecipe(), SplitConfig(), Labelling(), HealthConfig(), Silent()
    draft.metrics.update(write_dataset(draft.path, open_batch(store.get(batch)), *settings))
dataset = store.get(draft.id)
seconds = time.perf_counter() - start
status = Path("/proc/self/status").read_text().splitlines()
peak_kib = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
facts = dataset.metrics
n_rows = sum(split["rows"] for split in facts["splits"].values())
n_bytes = sum(entry["bytes"] for entry in dataset.manifest["files"].values())
print(json.dumps({"peak_gb": peak_kib * 1024 / 1e9, "seconds": seconds, "n_bytes": n_bytes,
                  "n_rows": n_rows + sum(facts["dropped"].values())}))
"""


def measure(quick: bool) -> Measurement:
    n_orders = 200_000 if quick else 10_000_000
    with tempfile.TemporaryDirectory() as folder:
        here = Path(__file__).resolve()
        make = (
            "import features_memory, pathlib, sys\n"
            "features_memory.make_batch(pathlib.Path(sys.argv[1]), int(sys.argv[2]))"
        )
        subprocess.run(
            [sys.executable, "-c", make, folder, str(n_orders)], cwd=here.parent, check=True
        )
        done = subprocess.run(
            [sys.executable, "-c", BUILD, folder, BATCH], stdout=subprocess.PIPE, check=True
        )
    found: dict[str, Any] = json.loads(done.stdout)
    note = f"{found['n_bytes'] / 1e9:.1f} GB written in {found['seconds']:.0f} s"
    return Measurement(
        {"build_peak_gb": found["peak_gb"]},
        {"build": found["seconds"]},
        {"every_order_is_accounted_for": found["n_rows"] == n_orders},
        [note],
    )


def make_batch(folder: Path, n_orders: int) -> None:
    """Publish a batch of random orders, each of which lives for up to a minute."""
    from trademl.store.artifacts import ArtifactStore

    with ArtifactStore(folder).create(BATCH, parents=[], parameters={}) as draft:
        _write_prices(draft.path / "prices.csv")
        _write_orders(draft.path / "transactions.csv", n_orders)


def _write_prices(path: Path) -> None:
    import pyarrow as pa
    import pyarrow.csv as csv

    rng = np.random.default_rng(7)
    bid = 1640 + 0.25 * np.cumsum(rng.integers(-1, 2, N_SECONDS))
    mid = bid + 0.125
    ts_event = (FIRST_S + np.arange(N_SECONDS)) * 1_000_000_000
    columns = {
        "seq": np.arange(N_SECONDS), "ts_event": ts_event, "ts_recv": ts_event, "bid": bid,
        "ask": bid + 0.25, "mid_open": np.full(N_SECONDS, mid[0]), "change": mid - mid[0],
        "change_pct": 100 * (mid / mid[0] - 1), "high": np.maximum.accumulate(mid),
        "low": np.minimum.accumulate(mid), "market_state": pa.nulls(N_SECONDS, pa.string()),
        "market_delay_s": pa.nulls(N_SECONDS), "flags": np.zeros(N_SECONDS, np.uint8),
    }  # fmt: skip
    csv.write_csv(pa.table(columns), path)


def _write_orders(path: Path, n_orders: int, step: int = 500_000) -> None:
    import pyarrow as pa
    import pyarrow.csv as csv

    rng = np.random.default_rng(1)
    at_N = np.sort(rng.integers(0, N_SECONDS - 61, n_orders))
    file = None
    for start in range(0, n_orders, step):
        decided = at_N[start : start + step]
        n = len(decided)
        leave = decided + 1 + rng.integers(0, 60, n)
        pnl = 0.25 * rng.integers(-4, 4, n) - 0.05
        table = pa.table({
            "id": start + np.arange(n), "instrument": pa.array(["TEST"] * n),
            "side": pa.array(np.where(rng.random(n) < 0.5, "buy", "sell").astype(object)),
            "opened_at": (FIRST_S + decided + 1) * 1_000_000_000,
            "entry_price": np.full(n, 1640.25), "take_profit": np.full(n, 1.0),
            "stop_loss": np.full(n, 1.0), "time_limit_s": np.full(n, 60.0),
            "closed_at": (FIRST_S + leave) * 1_000_000_000, "exit_price": 1640.3 + pnl,
            "exit_reason": pa.array(["time"] * n), "fees": np.full(n, 0.05), "pnl": pnl,
            "label": (pnl > 0).astype(np.int8), "decided_seq": decided,
            "entry_seq": decided + 1, "exit_seq": leave,
        })  # fmt: skip
        file = file or csv.CSVWriter(path, table.schema)
        file.write_table(table)
    if file:
        file.close()


if __name__ == "__main__":
    sys.exit(main(BENCHMARK, measure))
