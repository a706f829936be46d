"""Training a network on a dataset, as an artifact; and what dividing the work would cost."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trademl.errors import require_extra
from trademl.etl.dataset import record_files
from trademl.ledger import Ledger
from trademl.ports import Progress, Silent
from trademl.store.artifacts import Artifact, ArtifactStore
from trademl.store.identity import artifact_id
from trademl.train.jobs import column_names, record_study
from trademl.train.model_archive import MODEL_FILE
from trademl.train.network_config import NETWORK, NetworkConfig, NetworkTraining
from trademl.train.parallel.dims import check_batch, parallel_dims
from trademl.train.parallel.distribution import Distribution, as_dict
from trademl.train.search_space import VALIDATION_LOSS
from trademl.train.studies import study_metrics
from trademl.train.trials import TrialResult

if TYPE_CHECKING:
    from trademl.train.parallel.explain import Explanation
    from trademl.train.parallel.job import NetworkJob

_GIB = 2**30


@dataclass(frozen=True)
class NetworkRequest:
    """What to train, how, and divided in which way.

    Parameters
    ----------
    environment : mapping
        Of the processes, where there are several; usually this process's own.
    """

    network: NetworkConfig
    training: NetworkTraining
    distribution: Distribution
    seed: int
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def n_processes(self) -> int:
        """Processes on this machine."""
        return self.distribution.processes_per_host or 1


def train_network(
    dataset: Artifact,
    request: NetworkRequest,
    store: ArtifactStore,
    ledger: Ledger,
    *,
    progress: Progress | None = None,
) -> Artifact:
    """Train a network and publish it; go on from its last checkpoint if it was interrupted.

    Returns
    -------
    Artifact
        A study of one trial, as `trademl.train.jobs.train_dataset` publishes: selection judges it
        by its id. It holds ``model.tar.gz``, read by `trademl.train.network_file.load_network`, and
        ``history.json``.
        ``metrics`` holds those of the best epoch, the loss of every epoch, and how the work was
        divided. The division is part of its id, for it moves losses in their last digits.

    Raises
    ------
    ConfigError
        If the settings, the data and the number of processes do not fit together.
    TrainError
        If a process fails or the loss is no longer finite.
    """
    require_extra("train")
    progress = progress or Silent()
    request = _decided(dataset, request)
    check_division(request)
    parameters = {
        "network": asdict(request.network),
        "training": asdict(request.training),
        "distribution": as_dict(request.distribution),
        "seed": request.seed,
    }
    identity = artifact_id("network", {"dataset": dataset.id}, parameters)
    progress.step("train")
    if found := store.find(identity):
        progress.done(f"kept {found.id}")
        record_study(found, ledger)
        return found
    from trademl.train.parallel.launch import launch
    from trademl.train.parallel.run_job import finish_folder

    with store.create(identity, parents=[dataset.id], parameters=parameters, resume=True) as draft:
        job = _job(dataset, request, draft.path)
        launch(job, environment=request.environment, progress=progress)
        measured = finish_folder(job)
        trial = _trial(request, measured, draft.path)
        draft.metrics.update(measured | study_metrics(VALIDATION_LOSS, [trial], measured["notes"]))
    progress.done()
    network = store.get(identity)
    record_study(network, ledger)
    return network


def _trial(request: NetworkRequest, found: Mapping[str, Any], folder: Path) -> TrialResult:
    """Return a trained network as the trial of a study."""
    loss = float(found["validation_loss"])
    measured = {name: value for name, value in found.items() if name.startswith("validation:")}
    return TrialResult(
        number=0,
        hyperparameters={
            NETWORK: json.dumps(asdict(request.network)),
            "training": json.dumps(asdict(request.training)),
            "distribution": json.dumps(as_dict(request.distribution)),
            "seed": str(request.seed),
        },
        objective=loss,
        direction=VALIDATION_LOSS.direction,
        metrics={**measured, VALIDATION_LOSS.metric: loss},
        model_path=folder / MODEL_FILE,
        losses=tuple(float(epoch["validation_loss"]) for epoch in found["history"]),
    )


def explain_plan(
    dataset: Artifact,
    request: NetworkRequest,
    *,
    memory_gib: float | None = None,
    progress: Progress | None = None,
) -> Explanation:
    """Estimate what each way to divide the work costs, choose one, and measure a step of it.

    Parameters
    ----------
    memory_gib : float, optional
        Of a device, where it is not this machine's; then nothing is measured.

    Raises
    ------
    ConfigError
        If the batch cannot be dealt out to so many processes in any way.
    """
    require_extra("train")
    from trademl.train.parallel import explain
    from trademl.train.parallel.devices import device_here
    from trademl.train.parallel.plan import make_plan

    progress = progress or Silent()
    n = request.n_processes
    columns = column_names(dataset)
    progress.step("plan")
    device = device_here(n)
    if memory_gib is not None:
        device = replace(device, name="the device", memory_bytes=int(memory_gib * _GIB), n_here=0)
    else:
        device = explain.measured_device(
            device, request.network, request.training, len(columns), n_processes=n
        )
    plan = make_plan(request.network, request.training, len(columns), n_processes=n, device=device)
    measured = None
    if plan.chosen and n <= device.n_here:
        with tempfile.TemporaryDirectory(prefix="trademl-plan-") as folder:
            measured = explain.measure_candidate(
                _job(dataset, request, Path(folder)),
                plan.chosen.distribution,
                environment=request.environment,
                progress=progress,
            )
    progress.done()
    return explain.Explanation(plan, measured, _n_rows(dataset))


def check_division(request: NetworkRequest) -> None:
    """Refuse processes, a batch and a network that do not fit together; torch is not needed.

    Raises
    ------
    ConfigError
        torch would raise on one process and leave the others waiting for ever.
    """
    dims = parallel_dims(request.distribution, processes=request.n_processes)
    check_batch(
        request.distribution,
        dims,
        batch_size=request.training.batch_size,
        accumulate=request.training.accumulate,
        n_layers=request.network.n_layers,
    )


def _decided(dataset: Artifact, request: NetworkRequest) -> NetworkRequest:
    """Return the request with ``auto`` and an open number of processes settled."""
    n, distribution = request.n_processes, request.distribution
    if distribution.technique == "auto":
        from trademl.train.parallel.devices import device_here
        from trademl.train.parallel.plan import choose, make_plan

        width = len(column_names(dataset))
        device = device_here(n)
        plan = make_plan(request.network, request.training, width, n_processes=n, device=device)
        chosen = choose(plan)
        distribution = replace(
            chosen, environment=distribution.environment, notes=distribution.notes
        )
    return replace(request, distribution=replace(distribution, processes_per_host=n))


def _job(dataset: Artifact, request: NetworkRequest, folder: Path) -> NetworkJob:
    from trademl.train.parallel.job import NetworkJob

    return NetworkJob(
        network=request.network,
        training=request.training,
        distribution=request.distribution,
        columns=column_names(dataset),
        train=tuple(path.resolve() for path in record_files(dataset, "train")),
        validation=tuple(path.resolve() for path in record_files(dataset, "validation")),
        folder=folder.resolve(),
        seed=request.seed,
        processes_per_host=request.n_processes,
    )


def _n_rows(dataset: Artifact) -> int:
    import pyarrow.parquet as pq

    rows = pq.read_table(dataset.file("rows.parquet"), columns=["split"])
    return int((rows["split"].to_numpy(zero_copy_only=False) == "train").sum())
