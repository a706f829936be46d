"""A training job as SageMaker's container lays it out: hyperparameters, channels, folders.

``/opt/ml/input/config/hyperparameters.json`` holds texts; ``network``, ``training`` and
``distribution`` are JSON objects in them, with the keys of a strategy file, and ``columns``, if it
is there, a list of names. The channels ``train`` and ``validation`` hold RecordIO or Parquet files.
Checkpoints go to ``/opt/ml/checkpoints``, the model to ``/opt/ml/model``.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from trademl.errors import ConfigError, DataError
from trademl.etl.parquet_spool import needs_spool
from trademl.etl.parquet_table import LABEL, ParquetRows
from trademl.etl.record_file import open_recordio
from trademl.train.network_config import NetworkConfig, NetworkTraining
from trademl.train.parallel.distribution import parse_distribution
from trademl.train.parallel.job import NetworkJob
from trademl.train.parallel.run_files import CHECKPOINTS, MODEL

ROOT = Path("/opt/ml")


def job_of_container(root: Path = ROOT, *, world: int, hosts: int | None = None) -> NetworkJob:
    """Return the job that a container's files describe.

    Parameters
    ----------
    world : int
        Processes that were started, on all hosts.

    Raises
    ------
    ConfigError
        If a hyperparameter is not understood.
    DataError
        If a channel holds no rows.
    """
    found = _read_json(root / "input/config/hyperparameters.json")
    resources = _read_json(root / "input/config/resourceconfig.json")
    n_hosts = hosts or len(resources.get("hosts", ["algo-1"]))
    train = _channel(root, "train")
    return NetworkJob(
        network=_section(found, "network", NetworkConfig),
        training=_section(found, "training", NetworkTraining),
        distribution=parse_distribution(_json(found, "distribution", "ddp")),
        columns=tuple(_json(found, "columns", None) or _columns(train)),
        train=train,
        validation=_channel(root, "validation"),
        folder=root / CHECKPOINTS,
        seed=int(_json(found, "seed", 7)),
        processes_per_host=world // n_hosts,
        hosts=n_hosts,
    )


def finish(job: NetworkJob, root: Path = ROOT) -> None:
    """Put the model where SageMaker takes it from."""
    (root / "model").mkdir(parents=True, exist_ok=True)
    shutil.copy2(job.folder / MODEL, root / "model" / MODEL)


def _channel(root: Path, name: str) -> tuple[Path, ...]:
    folder = root / "input/data" / name
    found = [*sorted(folder.rglob("*.recordio")), *sorted(folder.rglob("*.parquet"))]
    if not found:
        raise DataError(f"{folder} holds no .recordio or .parquet file: give a channel {name}")
    return tuple(found)


def _columns(paths: tuple[Path, ...]) -> list[str]:
    if needs_spool(paths):
        return [name for name in ParquetRows(paths[0]).columns if name != LABEL]
    return [f"x{i}" for i in range(open_recordio(paths[0]).feature_dim)]


def _section(found: Mapping[str, Any], name: str, kind: type[Any]) -> Any:
    try:
        return msgspec.convert(_json(found, name, {}), kind, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigError(f"hyperparameter {name}: {error}") from error


def _json(found: Mapping[str, Any], name: str, default: Any) -> Any:
    text = found.get(name)
    if text is None:
        return default
    try:
        return json.loads(text)
    except (TypeError, ValueError):
        return text


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes()) if path.exists() else {}
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{path} holds {found!r:.60}, expected an object")
    return found
