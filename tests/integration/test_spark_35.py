"""Glue 5 runs Spark 3.5: the cells are the same there, in an environment of its own.

The environment holds pyspark 3.5 and nothing else; the other libraries are those of the tests. It
is built once, below ``.cache/`` of the checkout, which takes a download of 300 MB.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from filelock import FileLock
from test_spark import build, needs_spark, store  # noqa: F401 - fixtures

from trademl.etl.build import LocalEngine
from trademl.etl.dataset import SPLITS, record_files

PYSPARK = "pyspark==3.5.4"  # of Glue 5.0
HERE = Path(__file__).resolve().parent
CACHE = HERE.parents[1] / ".cache"
BUILD = """
import json, sys
from pathlib import Path
import pyspark
from test_spark import build
from trademl.etl.spark_engine import SparkEngine
from trademl.store.artifacts import ArtifactStore
build(ArtifactStore(Path(sys.argv[1])), "spark35", SparkEngine("local[2]", partitions=5))
print(json.dumps(pyspark.__version__))
"""


@pytest.fixture(scope="module")
def python():
    """Return the interpreter of an environment with Spark 3.5."""
    folder = CACHE / PYSPARK.replace("==", "-")
    interpreter, done = folder / "bin" / "python", folder / ".done"
    CACHE.mkdir(exist_ok=True)
    with FileLock(CACHE / "spark.lock"):
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            subprocess.run([sys.executable, "-m", "venv", folder], check=True)
            command = [interpreter, "-m", "pip", "install", "--quiet", PYSPARK]
            installed = subprocess.run(command, capture_output=True, text=True, timeout=900)
            if installed.returncode:
                said = installed.stderr.strip().splitlines() or ["it says nothing"]
                pytest.skip(f"pip cannot install {PYSPARK}: {said[-1]}")
            done.touch()
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site = folder / "lib" / version / "site-packages"
    # after its own packages, so that pyspark is its own
    (site / "tests.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return interpreter


@pytest.mark.slow
def test_spark_3_5_gives_the_cells_of_the_local_engine(store, needs_spark, python):  # noqa: F811
    local = build(store, "local35", LocalEngine())
    path = os.pathsep.join([str(HERE), str(HERE.parent), *sys.path])
    done = subprocess.run(
        [python, "-c", BUILD, store.root],
        env={**os.environ, "PYTHONPATH": _without_site_packages(path)},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == PYSPARK.partition("==")[2]
    spark = store.get("dataset-spark35")
    for name in SPLITS:
        assert len(record_files(spark, name)) > 0
        joined = b"".join(part.read_bytes() for part in record_files(spark, name))
        assert joined == local.file(f"{name}.recordio").read_bytes()
    for name in ("rows.parquet", "labels.parquet"):
        assert spark.file(name).read_bytes() == local.file(name).read_bytes()


def _without_site_packages(path: str) -> str:
    return os.pathsep.join(p for p in path.split(os.pathsep) if p and "site-packages" not in p)
