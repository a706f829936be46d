"""Predictions as CSV, JSON lines or Parquet, written block by block.

JSON lines are those of a server and of a batch transform job. A score is the shortest decimal
that reads back as the same float32.

Shape letters: N rows, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

from trademl.errors import DataError, require_extra
from trademl.serve.served import Scores

OutputFormat = Literal["jsonl", "csv", "parquet"]
ENDINGS: dict[OutputFormat, str] = {"jsonl": ".jsonl", "csv": ".csv", "parquet": ".parquet"}

LABEL = "predicted_label"
Write = Callable[[Scores], None]
_BEFORE, _AFTER_LABEL = b'{"score":', b',"predicted_label":0.0}\n'


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
            write_block = _OPENERS[output_format](files.enter_context(part.open("wb")), files)

            def write(scores: Scores) -> None:
                nonlocal n_rows
                n_rows += len(scores.score_N)
                write_block(scores)

            yield write
        if not n_rows:
            raise DataError(f"{path.name}: no row to predict")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _table(scores: Scores) -> Any:
    """Return predictions as a table; scores of several classes have a column each."""
    import pyarrow as pa

    score_N, label_N = scores
    names = ["score"] if score_N.ndim == 1 else [f"score_{k}" for k in range(score_N.shape[1])]
    columns = np.ascontiguousarray(score_N.reshape(len(score_N), -1).T)
    table = dict(zip(names, columns, strict=True))
    if label_N is not None:
        table[LABEL] = label_N
    return pa.table(table)


def _open_jsonl(file: BinaryIO, _: ExitStack) -> Write:
    require_extra("serve")

    def write(scores: Scores) -> None:
        file.write(_lines(scores) if scores.score_N.ndim == 1 else _lines_of_classes(scores))

    return write


def _lines(scores: Scores) -> bytes | bytearray:
    """Return a line for each row, none of which is touched by Python."""
    score_N, label_N = scores
    after = _AFTER_LABEL if label_N is not None else b"}\n"
    text = bytearray(_BEFORE + _text_of(score_N)[1:-1]).replace(b",", after + _BEFORE) + after
    if label_N is not None:
        # all are written as 0.0; the digits of the others are put in their place
        characters = np.frombuffer(text, np.uint8)
        ends_N = np.flatnonzero(characters == ord("\n"))
        characters[ends_N - len(b"0.0}")] += label_N.astype(np.uint8)
    return text


def _lines_of_classes(scores: Scores) -> bytes:
    score_NK, label_N = scores
    lists = _text_of(score_NK)[1:-2].split(b"],")
    if label_N is None:
        return b"".join([b'{"score":%b]}\n' % text for text in lists])
    labels = _text_of(label_N)[1:-1].split(b",")
    line = b'{"score":%b],"predicted_label":%b}\n'
    return b"".join([line % pair for pair in zip(lists, labels, strict=True)])


def _text_of(numbers: Any) -> bytes:
    import orjson

    return orjson.dumps(np.ascontiguousarray(numbers), None, orjson.OPT_SERIALIZE_NUMPY)


def _open_csv(file: BinaryIO, _: ExitStack) -> Write:
    from pyarrow import csv

    is_first = True

    def write(scores: Scores) -> None:
        nonlocal is_first
        options = csv.WriteOptions(include_header=is_first, quoting_style="none")
        csv.write_csv(_table(scores), file, options)
        is_first = False

    return write


def _open_parquet(file: BinaryIO, files: ExitStack) -> Write:
    import pyarrow.parquet as pq

    writer: Any = None

    def write(scores: Scores) -> None:
        nonlocal writer
        table = _table(scores)
        if writer is None:
            writer = files.enter_context(pq.ParquetWriter(file, table.schema, compression="zstd"))
        writer.write_table(table)

    return write


_OPENERS: dict[OutputFormat, Callable[[BinaryIO, ExitStack], Write]] = {
    "jsonl": _open_jsonl,
    "csv": _open_csv,
    "parquet": _open_parquet,
}
