"""Whole files scored without a server: read, scored and written block by block.

One thread reads, scores and writes a block while it is in the cache: handing it to another takes
longer than a linear model takes. A network has the next block read while it scores one.
Shape letters: B rows of a block, D features.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from trademl.errors import ConfigError, DataError, LockedError, require_extra
from trademl.etl.row_blocks import feature_blocks
from trademl.ports import Progress, Silent
from trademl.serve.prediction_file import ENDINGS, OutputFormat, prediction_writer
from trademl.serve.served import Scores
from trademl.store.artifacts import storage_errors, write_atomically
from trademl.train.model import BINARY_KINDS, BinaryModel, LinearKind, Model

MANIFEST, LOCK = "predictions.json", ".predictions.lock"
CAPTURED = ".jsonl"  # requests that a server has captured
Floats = NDArray[np.float32]
Block = TypeVar("Block")


@dataclass(frozen=True)
class ScoredFile:
    """One file of predictions.

    Parameters
    ----------
    path, source : str
        The predictions, and the rows that they are of.
    n_rows, n_positive : int
        Rows, and those labelled other than 0; nothing is labelled by a regression.
    is_kept : bool
        Whether an earlier run had made it already.
    """

    path: str
    source: str
    n_rows: int
    n_positive: int
    is_kept: bool = False


def predict_files(
    model: Model,
    model_id: str,
    paths: Sequence[Path],
    folder: Path,
    *,
    output_format: OutputFormat = "jsonl",
    progress: Progress | None = None,
) -> list[ScoredFile]:
    """Score every row of every file into a file of predictions each, in the order of its rows.

    A file of predictions appears under its name when it is complete. Run again, files whose
    predictions are there, by the same model and of the same rows, are left alone.

    Parameters
    ----------
    model_id : str
        What tells this model from others.
    paths : sequence of Path
        See `trademl.etl.row_blocks.feature_blocks`; a file of captured requests (``.jsonl``) has
        the rows of all of them.
    folder : Path
        Takes ``<name>.jsonl`` and so on, and ``predictions.json``, which lists them.

    Raises
    ------
    ConfigError
        If two files would have predictions of one name.
    DataError
        If a file is missing, damaged, or has other columns than the model; the files before it
        are done.
    StoreError
        If the folder cannot be written.
    LockedError
        If another process writes predictions there.
    """
    progress = progress or Silent()
    targets = _targets(paths, folder, output_format)
    with storage_errors(folder, "--output"), _alone(folder):
        done = _read_manifest(folder / MANIFEST)
        scored = []
        for path, target in targets.items():
            given = _given(path, model_id)
            progress.step("predict", path.name)
            if _is_done(target, given, done.get(target.name, {})):
                scored.append(ScoredFile(**{**done[target.name]["scored"], "is_kept": True}))
                progress.done("kept")
                continue
            scored.append(_score_file(model, path, target, output_format))
            done[target.name] = {
                "given": given, "bytes": target.stat().st_size, "scored": asdict(scored[-1]),
            }  # fmt: skip
            write_atomically(folder / MANIFEST, json.dumps(done, indent=1).encode())
            progress.done(f"{scored[-1].n_rows} rows")
    return scored


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep others out, whose unfinished files have the same names; free when the process ends."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise LockedError(
            f"another run writes predictions into {folder}: wait for it to end, or choose another "
            "--output"
        ) from error
    try:
        yield
    finally:
        lock.release()


def score_blocks(model: Model, path: Path) -> Iterator[Scores]:
    """Yield what a model says of consecutive rows of a file; every score is that of the server.

    Raises
    ------
    DataError
        As `predict_files`; also where a feature is not a finite number.
    """
    n_before = 0
    blocks = _blocks(path, model.columns)
    for features_BD in blocks if isinstance(model, LinearKind) else _ahead(blocks):
        scores = _scores(model, features_BD, path, n_before)
        n_before += len(features_BD)
        del features_BD  # the next block takes its place in memory, and so in the cache
        yield scores


def _blocks(path: Path, columns: Sequence[str]) -> Iterator[Floats]:
    if path.suffix != CAPTURED:
        return feature_blocks(path, columns)
    require_extra("serve")  # for what reads requests
    from trademl.serve.capture_file import captured_rows

    return captured_rows(path, len(columns))


def _score_file(model: Model, path: Path, target: Path, output_format: OutputFormat) -> ScoredFile:
    n_rows = n_positive = 0
    with prediction_writer(target, output_format) as write:
        for scores in score_blocks(model, path):
            write(scores)
            n_rows += len(scores.score_N)
            if scores.label_N is not None:
                n_positive += int(np.count_nonzero(scores.label_N))
    return ScoredFile(str(target), str(path), n_rows, n_positive)


def _ahead(blocks: Iterator[Block]) -> Iterator[Block]:
    """Yield blocks, the next of which is being made already."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, blocks, None)
        while (block := coming.result()) is not None:
            coming = pool.submit(next, blocks, None)
            yield block


def _scores(model: Model, features_BD: Floats, path: Path, n_before: int) -> Scores:
    """Return scores; a sum with a NaN or an infinity in it is neither finite nor a prediction."""
    sum_B = model.logits(features_BD)
    if not np.isfinite(sum_B).all():
        row = n_before + int(np.argwhere(~np.isfinite(sum_B))[0][0])
        raise DataError(f"{path}: row {row} holds a feature that is not a finite number: drop it")
    if model.kind in BINARY_KINDS:
        classifier = cast("BinaryModel", model)
        score_B = classifier.scores_of(sum_B)
        return Scores(score_B, classifier.flags(score_B).astype(np.float32))
    score_B, label_B = model.predict(features_BD)
    return Scores(score_B, None if label_B is None else label_B.astype(np.float32))


def _targets(paths: Sequence[Path], folder: Path, output_format: OutputFormat) -> dict[Path, Path]:
    """Return where the predictions of each file go."""
    targets: dict[Path, Path] = {}
    for path in paths:
        if not path.is_file():
            raise DataError(f"{path}: no such file; give rows as .recordio, .csv or .parquet")
        target = folder / f"{path.name}{ENDINGS[output_format]}"
        if target in targets.values():
            raise ConfigError(f"{path}: another file is called {path.name}: predict them apart")
        targets[path] = target
    return targets


def _is_done(target: Path, given: Mapping[str, Any], listed: Mapping[str, Any]) -> bool:
    """Return whether predictions are there as they were written; a power cut may empty a file."""
    is_same = listed.get("given") == given and target.is_file()
    return is_same and target.stat().st_size == listed.get("bytes")


def _given(path: Path, model_id: str) -> dict[str, Any]:
    """Return what predictions depend on; a file that was changed has another time or size."""
    found = path.stat()
    return {
        "model": model_id, "source": str(path.resolve()), "size": found.st_size,
        "mtime_ns": found.st_mtime_ns,
    }  # fmt: skip


def _read_manifest(path: Path) -> dict[str, Mapping[str, Any]]:
    try:
        found: dict[str, Mapping[str, Any]] = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}  # nothing is known to be done: everything is done again
    return found if isinstance(found, dict) else {}
