"""Train as SageMaker starts a container: everything is read from and written to ``/opt/ml``.

======================================== =========================================================
``input/config/hyperparameters.json``     flat, all values text
``input/config/inputdataconfig.json``     the channels: see `trademl.train.channels`
``input/config/resourceconfig.json``      the hosts; left out, there is one
``input/data``                            the channels' rows
``checkpoints/training.checkpoint``       state after the newest epoch, gone on with where it exists
``model``                                 the model's files, which the platform packs
``output/data/metrics.json``              every metric
``output/failure``                        why it failed
======================================== =========================================================

The log is Linear Learner's, line by line. On SIGTERM training ends and the best model
so far is kept.
"""

from __future__ import annotations

import json
import signal
import tarfile
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from trademl.errors import ConfigError, TrademlError, TrainError
from trademl.etl.dataset import Split
from trademl.store.artifacts import storage_errors, write_atomically
from trademl.train.channels import Channel, Interrupted, column_names, parse_channels, read_channel
from trademl.train.hyperparameters import LinearLearnerParameters, as_text
from trademl.train.model import save_model
from trademl.train.request import expect

if TYPE_CHECKING:
    from trademl.train.linear_learner import TrainedModel

ML_ROOT = Path("/opt/ml")
CHECKPOINT = Path("checkpoints") / "training.checkpoint"

_HYPERPARAMETERS = Path("input") / "config" / "hyperparameters.json"
_CHANNELS = Path("input") / "config" / "inputdataconfig.json"
_RESOURCES = Path("input") / "config" / "resourceconfig.json"
_OBJECTIVE = "_tuning_objective_metric"  # added by a tuning job
_FAILURE_CHARACTERS = 1024  # of which SageMaker makes the FailureReason
_STOPPED_EARLY = "the job was stopped before training began: there is no model to keep"


def is_container(root: Path) -> bool:
    """Say whether a folder holds the configuration of a training job."""
    return (root / _HYPERPARAMETERS).is_file()


def train_in_container(root: Path, write: Callable[[str], None], *, seed: int) -> TrainedModel:
    """Train the job that lies below a folder, and leave there what became of it.

    Parameters
    ----------
    root : Path
        ``/opt/ml``, or a folder laid out like it.
    write : callable
        Takes one line of the log without its end.
    seed : int
        Decides the start, the order of rows and every sample.

    Returns
    -------
    TrainedModel
        Its model lies in ``<root>/model``.

    Raises
    ------
    TrademlError
        If the job cannot be trained. Whatever is raised also stands in ``<root>/output/failure``.
    """
    try:
        with stop_request() as should_stop:
            return _train(root, write, should_stop, seed)
    except BaseException as error:
        _write_failure(root, error)
        raise


class StopRequest:
    """Whether SIGTERM has come; called, it answers."""

    def __init__(self) -> None:
        self._has_come = False

    def __call__(self) -> bool:
        return self._has_come

    def note(self, _signal: int, _frame: FrameType | None) -> None:
        """Take the signal."""
        self._has_come = True


@contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Yield a `StopRequest`; at the end SIGTERM does again what it did before."""
    request = StopRequest()
    before = signal.signal(signal.SIGTERM, request.note)
    try:
        yield request
    finally:
        signal.signal(signal.SIGTERM, before)


def _train(
    root: Path, write: Callable[[str], None], should_stop: StopRequest, seed: int
) -> TrainedModel:
    given = _read_hyperparameters(root)
    parameters = LinearLearnerParameters.from_strings(given)
    channels = parse_channels(_read_json(root / _CHANNELS))
    host = _only_host(root)
    _check_objective(given.get(_OBJECTIVE, ""), channels)
    splits = _read_splits(channels, root / "input" / "data", should_stop)
    from trademl.train.checkpoints import FileCheckpoint
    from trademl.train.linear_learner import fit
    from trademl.train.log_lines import LogLines

    trained = fit(
        splits["train"],
        splits.get("validation"),
        parameters,
        seed=seed,
        columns=column_names(root / "input" / "data"),
        test=splits.get("test"),
        observer=LogLines(write, host=host),
        checkpoint=FileCheckpoint(root / CHECKPOINT),
        should_stop=should_stop,
    )
    _write_results(root, trained)
    return trained


def _read_hyperparameters(root: Path) -> dict[str, str]:
    found = expect(_read_json(root / _HYPERPARAMETERS), dict, "hyperparameters.json")
    return {name: as_text(value) for name, value in found.items()}


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as JSON: {error}") from error


def _only_host(root: Path) -> str:
    """Return the name of the host; refuse more than one of them."""
    if not (root / _RESOURCES).exists():
        return "algo-1"
    resources = expect(_read_json(root / _RESOURCES), dict, "resourceconfig.json")
    if len(hosts := resources.get("hosts", [])) > 1:
        raise ConfigError(
            f"resourceconfig.json lists {len(hosts)} hosts, and Linear Learner trains on one here: "
            "set InstanceCount to 1"
        )
    return str(resources.get("current_host", "algo-1"))


def _check_objective(metric: str, channels: Mapping[str, Channel]) -> None:
    """Refuse a tuning job whose objective this job would never report."""
    split = metric.partition(":")[0]
    if split in ("validation", "test") and split not in channels:
        raise ConfigError(f"the objective {metric} needs the channel {split}, which is missing")


def _read_splits(
    channels: Mapping[str, Channel], data: Path, should_stop: StopRequest
) -> dict[str, Split]:
    try:
        splits = {
            name: read_channel(channel, data, should_stop=should_stop)
            for name, channel in channels.items()
        }
    except Interrupted as interruption:
        raise TrainError(_STOPPED_EARLY) from interruption
    if should_stop():
        raise TrainError(_STOPPED_EARLY)
    return splits


def _write_results(root: Path, trained: TrainedModel) -> None:
    """Leave metrics and the model's files, of which the document comes last."""
    with storage_errors(root, "volume"), tempfile.TemporaryDirectory() as folder:
        metrics = json.dumps(trained.metrics, indent=1).encode()
        write_atomically(root / "output" / "data" / "metrics.json", metrics)
        packed = Path(folder) / "model.tar.gz"
        save_model(trained.model, packed)
        with tarfile.open(packed) as tar:
            entries = sorted(tar.getmembers(), key=lambda entry: entry.name.endswith(".json"))
            for entry in entries:
                if file := tar.extractfile(entry):
                    write_atomically(root / "model" / entry.name, file.read())


def _write_failure(root: Path, error: BaseException) -> None:
    """Say why in the words that SageMaker shows; the trace of a defect follows them."""
    text = str(error) if isinstance(error, TrademlError) else f"{type(error).__name__}: {error}"
    reason = " ".join(text.split())[:_FAILURE_CHARACTERS]
    if not isinstance(error, TrademlError):
        reason += "\n" + "".join(traceback.format_exception(error))
    with suppress(OSError):  # where the disk is full, what was raised is all that can be said
        write_atomically(root / "output" / "failure", reason.encode())
