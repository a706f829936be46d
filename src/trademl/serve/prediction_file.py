"""Predictions as CSV, JSON lines or Parquet, written block by block.

JSON lines are those of a server and of a batch transform job. A score is the shortest decimal
that reads back as the same float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

from trademl.errors import DataError
from trademl.serve.served import Scores

OutputFormat = Literal["jsonl", "csv", "parquet"]
ENDINGS: dict[OutputFormat, str] = {"jsonl": ".jsonl", "csv": ".csv", "parquet": ".parquet"}

LABEL = "predicted_label"
Write = Callable[[Scores], None]


@contextmanager
def prediction_writer(path: Path, output_format: OutputFormat) -> Iterator[Write]:
    """Yield what takes blocks of predictions; the file appears when the ``with`` block ends.

    Until then it is called ``<path>.part``; where the block raises, an older file of that name
    stays as it is.

    Raises
    ------
    DataError
        If there is no prediction.
    """
    part = path.with_name(f"{path.name}.part")
    n_rows = 0
    try:
        with ExitStack() as files:
            write_table = _OPENERS[output_format](part, files)

            def write(scores: Scores) -> None:
                nonlocal n_rows
                n_rows += len(scores.score_N)
                write_table(_table(scores))

            yield write
        if not n_rows:
            raise DataError(f"{path.name}: no row to predict")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _table(scores: Scores) -> Any:
    """Return predictions as a table; scores of several classes have a column each."""
    import numpy as np
    import pyarrow as pa

    score_N, label_N = scores
    names = ["score"] if score_N.ndim == 1 else [f"score_{k}" for k in range(score_N.shape[1])]
    columns = np.ascontiguousarray(score_N.reshape(len(score_N), -1).T)
    table = dict(zip(names, columns, strict=True))
    if label_N is not None:
        table[LABEL] = label_N
    return pa.table(table)


def _open_jsonl(part: Path, files: ExitStack) -> Callable[[Any], None]:
    import pyarrow as pa
    from pyarrow import compute

    file = files.enter_context(part.open("wb"))

    def write(table: Any) -> None:
        scores = [name for name in table.column_names if name != LABEL]
        text = [compute.cast(table[name], pa.string()) for name in scores]
        if len(text) > 1:
            text = ["[", compute.binary_join_element_wise(*text, ","), "]"]
        end: Any = "}\n"
        if LABEL in table.column_names:
            # Labels are few whole numbers, which the server writes as floats.
            label_N = compute.cast(table[LABEL], pa.int32())
            n_labels = compute.max(label_N).as_py() + 1
            ends = [f',"{LABEL}":{label}.0}}\n' for label in range(n_labels)]
            end = pa.array(ends).take(label_N.combine_chunks())
        line = compute.binary_join_element_wise('{"score":', *text, end, "")
        file.write(_text_of(line.combine_chunks()))

    return write


def _text_of(strings: Any) -> memoryview:
    """Return the characters of an array of strings, which lie end to end."""
    import numpy as np

    _, offsets, characters = strings.buffers()
    ends = np.frombuffer(offsets, np.int32)[strings.offset :][: len(strings) + 1]
    return memoryview(characters)[ends[0] : ends[-1]]


def _open_csv(part: Path, files: ExitStack) -> Callable[[Any], None]:
    from pyarrow import csv

    file = files.enter_context(part.open("wb"))
    is_first = True

    def write(table: Any) -> None:
        nonlocal is_first
        options = csv.WriteOptions(include_header=is_first, quoting_style="none")
        csv.write_csv(table, file, options)
        is_first = False

    return write


def _open_parquet(part: Path, files: ExitStack) -> Callable[[Any], None]:
    import pyarrow.parquet as pq

    file = files.enter_context(part.open("wb"))
    writer: Any = None

    def write(table: Any) -> None:
        nonlocal writer
        if writer is None:
            writer = files.enter_context(pq.ParquetWriter(file, table.schema, compression="zstd"))
        writer.write_table(table)

    return write


_OPENERS: dict[OutputFormat, Callable[[Path, ExitStack], Callable[[Any], None]]] = {
    "jsonl": _open_jsonl,
    "csv": _open_csv,
    "parquet": _open_parquet,
}
