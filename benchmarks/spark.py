"""Features on Spark: what a second core is worth, and what Spark itself costs.

Shape letters: N orders.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from features_memory import BATCH, make_batch
from harness import Benchmark, Measurement, Seconds, alternate, main, ratio, timed
from trademl.etl.build import Engine, LocalEngine, write_dataset
from trademl.etl.labels import Labelling
from trademl.etl.recipe import FeatureRecipe
from trademl.etl.spark_engine import SparkEngine
from trademl.etl.splits import SplitConfig
from trademl.ingest.batch import Batch, read_batch
from trademl.market.health import HealthConfig
from trademl.ports import Silent
from trademl.store.artifacts import ArtifactStore

BENCHMARK = Benchmark(
    name="spark",
    goals={"spark_2_cores_vs_1": {"min": 1.0}},
    libraries=("pyspark", "pyarrow", "numpy"),
    does_not_show=(
        "Orders are random, on a seeded random walk of one quote a second for seven days.",
        "Each build starts a Spark session and its Python workers in a JVM that is warm; starting "
        "the JVM is not timed.",
        "Which rows there are, and their split, is decided by the caller in every engine; that "
        "share does not become faster with more cores.",
        "local[2] uses both cores of one machine; a cluster is not shown.",
    ),
)


def measure(quick: bool) -> Measurement:
    n_orders, rounds = (20_000, 1) if quick else (1_000_000, 3)
    engines: dict[str, Engine] = {
        "local": LocalEngine(),
        "spark_1_core": SparkEngine("local[1]"),
        "spark_2_cores": SparkEngine("local[2]"),
    }
    with tempfile.TemporaryDirectory() as folder:
        make_batch(Path(folder), n_orders)
        batch = read_batch(ArtifactStore(Path(folder)).get(BATCH))
        same = len({records(batch, Path(folder), engine) for engine in engines.values()}) == 1
        sides = {
            name: lambda engine=engine: build(batch, Path(folder), engine)
            for name, engine in engines.items()
        }
        seconds = alternate(sides, rounds)
    one, two, local = (seconds[name] for name in ("spark_1_core", "spark_2_cores", "local"))
    notes = [
        f"{name}: {1e6 * value / n_orders:.1f} us a row" for name, value in seconds.items() if value
    ]
    ratios = {"spark_2_cores_vs_1": ratio(one, two), "spark_1_core_vs_local": ratio(one, local)}
    return Measurement(ratios, seconds, {"same_records": same}, notes)


def write(folder: Path, batch: Batch, engine: Engine) -> None:
    write_dataset(
        folder,
        batch,
        FeatureRecipe(),
        SplitConfig(),
        Labelling(),
        HealthConfig(),
        Silent(),
        engine=engine,
    )


def build(batch: Batch, folder: Path, engine: Engine) -> Seconds:
    """Return the seconds of one build, whose files are then removed."""
    out = folder / "out"
    out.mkdir()
    seconds = timed(lambda: write(out, batch, engine))
    shutil.rmtree(out)
    return seconds


def records(batch: Batch, folder: Path, engine: Engine) -> str:
    """Return a digest of the training records, whose parts are laid end to end."""
    import hashlib

    out = folder / "out"
    out.mkdir()
    write(out, batch, engine)
    digest = hashlib.sha256()
    for path in sorted(out.glob("train.recordio")) + sorted(out.glob("train/*.recordio")):
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    shutil.rmtree(out)
    return digest.hexdigest()


if __name__ == "__main__":
    sys.exit(main(BENCHMARK, measure))
