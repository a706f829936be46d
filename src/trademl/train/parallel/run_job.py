"""Run a job in one process, or as one process of several: train, then write the model."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec

from trademl.store.artifacts import write_atomically
from trademl.train.network_file import load_network
from trademl.train.parallel.checkpoints import Checkpoints
from trademl.train.parallel.export import export_model
from trademl.train.parallel.job import NetworkJob, make_trainer
from trademl.train.parallel.measure import measure_steps
from trademl.train.parallel.position import Position
from trademl.train.parallel.run_files import (
    CHECKPOINTS,
    FAILURE,
    HISTORY,
    JOB,
    LOG,
    MEASURED,
    MODEL,
    SPOOL,
)
from trademl.train.parallel.world import World, alone


def run_job(
    job: NetworkJob, world: World | None = None, *, report: Callable[[Position], None] | None = None
) -> None:
    """Train and write ``model.tar.gz`` into the job's folder; every process of a world calls it.

    A job that was cut short goes on from its last checkpoint. One that asks to be measured writes
    ``measured.json`` instead.

    Raises
    ------
    ConfigError, DataError
        If settings or rows cannot be used.
    TrainError
        If the loss is no longer finite.
    """
    world = world or alone()

    def tell(position: Position) -> None:
        write_history(job.folder, position)
        if report:
            report(position)

    trainer = make_trainer(job, world, report=tell)
    if job.measure_steps:
        measured = measure_steps(trainer, job.measure_steps)
        if world.is_first:
            write_atomically(job.folder / MEASURED, msgspec.json.encode(asdict(measured)))
        return
    position = trainer.run()
    if world.is_first and not (job.folder / MODEL).exists():
        # others have finished their part of the last checkpoint: run() ends by waiting for all
        checkpoints = Checkpoints(job.folder / CHECKPOINTS, world)
        export_model(job, position, checkpoints, trainer.validation.source)


def write_history(folder: Path, position: Position) -> None:
    """Write the losses of all epochs so far."""
    write_atomically(folder / HISTORY, msgspec.json.encode(position.history))


def read_history(folder: Path) -> list[dict[str, Any]]:
    """Return the losses of all epochs so far, empty before the first has ended."""
    path = folder / HISTORY
    return list(msgspec.json.decode(path.read_bytes())) if path.exists() else []


def finish_folder(job: NetworkJob) -> dict[str, Any]:
    """Return what a finished run measured, and remove what nobody needs any more."""
    model = load_network(job.folder / MODEL)
    for name in (CHECKPOINTS, SPOOL):
        shutil.rmtree(job.folder / name, ignore_errors=True)
    for name in (JOB, LOG, FAILURE, MEASURED):
        (job.folder / name).unlink(missing_ok=True)
    dims = job.dims()
    return {
        **model.metrics,
        "kind": model.kind,
        "columns": list(model.columns),
        "schema_hash": model.schema_hash,
        "threshold": model.threshold,
        "history": read_history(job.folder),
        "processes": dims.world,
        "copies": dims.dp,
        "pipeline_ranks": dims.pp,
        "notes": list(job.distribution.notes),
    }
