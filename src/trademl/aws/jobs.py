"""Training and tuning on SageMaker: sent once, waited for, brought home as an ordinary study.

Whatever is running or finished under the study's name is taken up again, so that the same command
given twice starts one job and pays once.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trademl.aws.budget import Estimate, check_budget, worst_case
from trademl.aws.clients import Clients, open_clients
from trademl.aws.failures import aws_errors, code_of
from trademl.aws.kinds import KINDS, check_same, console_url
from trademl.aws.plan import JobPlan, plan_training, plan_tuning
from trademl.aws.prices import load_prices
from trademl.aws.records import record_job
from trademl.aws.results import FetchedTrial, Results
from trademl.aws.settings import AwsConfig
from trademl.aws.upload import upload_dataset
from trademl.aws.watch import Sleep, check_ended_well, wait_for
from trademl.ledger import Ledger
from trademl.ports import Progress, Silent
from trademl.store.artifacts import Artifact, ArtifactStore
from trademl.train.jobs import record_study
from trademl.train.studies import study_metrics

MAX_ATTEMPTS = 99


@dataclass(frozen=True)
class Handling:
    """How one command treats its job.

    Parameters
    ----------
    prices_folder : Path, optional
        Where refreshed prices lie.
    max_cost_usd : float, optional
        Before that of ``[aws]``.
    wait : bool
        Stay until the job has ended, and bring its results home.
    retry : bool
        Start another attempt where the last one failed or was stopped.
    sleep : callable
        Waits between two looks.
    """

    prices_folder: Path | None = None
    max_cost_usd: float | None = None
    wait: bool = True
    retry: bool = False
    sleep: Sleep = time.sleep


@dataclass(frozen=True)
class Launched:
    """A job on SageMaker, and the study that it became if it has ended."""

    plan: JobPlan
    status: str
    study: Artifact | None = None

    @property
    def console(self) -> str:
        """Address of the job's page."""
        return console_url(self.plan)


class JobGoesOnError(KeyboardInterrupt):
    """Ctrl-C while a job was being waited for: here the wait ends, there the job goes on."""

    def __init__(self, plan: JobPlan) -> None:
        super().__init__(plan.name)
        self.plan = plan


def estimate_job(plan: JobPlan, handling: Handling | None = None) -> Estimate:
    """Return what a job costs at worst; nothing is asked of AWS."""
    folder = (handling or Handling()).prices_folder
    return worst_case(plan, load_prices(plan.place.config.region, folder))


def train_on_sagemaker(
    dataset: Artifact,
    hyperparameters: Mapping[str, str],
    store: ArtifactStore,
    ledger: Ledger,
    config: AwsConfig,
    *,
    seed: int,
    strategy: str = "",
    handling: Handling | None = None,
    progress: Progress | None = None,
) -> Launched:
    """Train one model on SageMaker and publish it as a study of one trial.

    Raises
    ------
    ConfigError
        If ``[aws]``, a hyperparameter or the dataset is refused.
    CloudError
        If the worst case is above the budget, AWS refuses, or the job fails.
    JobGoesOnError
        On Ctrl-C, once there is a job.
    """
    plan = plan_training(dataset, hyperparameters, config, seed=seed, strategy=strategy)
    return run_job(plan, dataset, store, ledger, handling=handling, progress=progress)


def tune_on_sagemaker(
    dataset: Artifact,
    tuning: Mapping[str, Any],
    store: ArtifactStore,
    ledger: Ledger,
    config: AwsConfig,
    *,
    seed: int,
    strategy: str = "",
    handling: Handling | None = None,
    progress: Progress | None = None,
) -> Launched:
    """Search for hyperparameters on SageMaker and publish the study with all of its models.

    Parameters
    ----------
    tuning : mapping
        SageMaker's JSON, as the local search takes it.

    Raises
    ------
    ConfigError
        If ``[aws]``, the tuning job or the dataset is refused.
    CloudError
        If the worst case is above the budget, AWS refuses, or every training job fails.
    """
    plan = plan_tuning(dataset, tuning, config, seed=seed, strategy=strategy)
    return run_job(plan, dataset, store, ledger, handling=handling, progress=progress)


def run_job(
    plan: JobPlan,
    dataset: Artifact,
    store: ArtifactStore,
    ledger: Ledger,
    *,
    handling: Handling | None = None,
    progress: Progress | None = None,
) -> Launched:
    """Start a planned job, or take up the one that runs or ran already; see the two above."""
    handling, progress = handling or Handling(), progress or Silent()
    if (study := store.find(plan.study_id)) is not None:
        record_study(study, ledger)
        return Launched(plan, "Completed", study)
    clients = open_clients(plan.place.config.region)
    plan, described = _take_up(plan, clients, retry=handling.retry)
    if described is None:
        described = _start(plan, dataset, clients, ledger, handling, progress)
    kind = KINDS[plan.kind]
    if not handling.wait and not kind.is_finished(described):
        return Launched(plan, kind.status(described))
    with _running(plan):
        described = wait_for(plan, clients, progress, sleep=handling.sleep)
    record_job(ledger, plan, described)
    check_ended_well(plan, described)
    study = _publish(plan, described, dataset, store, clients, progress)
    record_study(study, ledger)
    record_job(ledger, plan, described, jobs=study.metrics["sagemaker"]["jobs"])
    return Launched(plan, kind.status(described), study)


def _take_up(
    plan: JobPlan, clients: Clients, *, retry: bool
) -> tuple[JobPlan, dict[str, Any] | None]:
    """Return the last attempt that was started; or one to start, which has no description."""
    kind, last, found = KINDS[plan.kind], plan, None
    for number in range(1, MAX_ATTEMPTS + 1):
        attempt = plan.attempt(number)
        described = kind.find(clients.sagemaker, attempt.name)
        if described is None:
            wants_another = found is not None and retry and _came_to_nothing(attempt, found)
            return (attempt, None) if found is None or wants_another else (last, found)
        check_same(attempt, described)
        last, found = attempt, described
    return last, found


def _came_to_nothing(plan: JobPlan, described: Mapping[str, Any]) -> bool:
    return KINDS[plan.kind].status(described) in ("Failed", "Stopped")


def _start(
    plan: JobPlan,
    dataset: Artifact,
    clients: Clients,
    ledger: Ledger,
    handling: Handling,
    progress: Progress,
) -> dict[str, Any]:
    """Say the worst case and judge it, bring the data, start the job."""
    from botocore.exceptions import ClientError

    config, kind = plan.place.config, KINDS[plan.kind]
    estimate = estimate_job(plan, handling)
    progress.step("cost", str(estimate))
    budget = handling.max_cost_usd or config.max_cost_usd
    check_budget(estimate, budget)
    progress.done("no budget was set" if budget is None else f"within {budget:.2f} USD")
    upload_dataset(dataset, config, clients.s3, progress)
    progress.step("start", plan.name)
    with _running(plan), aws_errors(f"starting {kind.words} {plan.name}"):
        try:
            kind.create(clients.sagemaker, plan.request)
        except ClientError as error:
            if code_of(error) != "ResourceInUse":  # started a moment ago by another process
                raise
        described = kind.describe(clients.sagemaker, plan.name)
    check_same(plan, described)
    record_job(ledger, plan, described, estimate=estimate)
    progress.done(console_url(plan))
    return described


@contextmanager
def _running(plan: JobPlan) -> Iterator[None]:
    """Mark an interruption inside the block as one that leaves a job behind."""
    try:
        yield
    except KeyboardInterrupt as error:
        raise JobGoesOnError(plan) from error


def stop_job(plan: JobPlan) -> None:
    """Ask SageMaker to end a job; what its containers leave behind within 120 s is kept.

    Raises
    ------
    CloudError
        If AWS refuses.
    """
    KINDS[plan.kind].stop(open_clients(plan.place.config.region).sagemaker, plan.name)


def _publish(
    plan: JobPlan,
    described: Mapping[str, Any],
    dataset: Artifact,
    store: ArtifactStore,
    clients: Clients,
    progress: Progress,
) -> Artifact:
    with store.create(
        plan.study_id, parents=[dataset.id], parameters=plan.parameters, resume=True
    ) as draft:
        fetched = Results(plan, dataset, clients, draft.path).fetch(described, progress)
        results = [one.result for one in fetched]
        draft.metrics.update(study_metrics(plan.objective, results, plan.warnings))
        if plan.kind == "tuning":
            draft.metrics["name"] = plan.name
        draft.metrics["sagemaker"] = _provenance(plan, fetched)
    return store.get(plan.study_id)


def _provenance(plan: JobPlan, fetched: list[FetchedTrial]) -> dict[str, Any]:
    config = plan.place.config
    return {
        "name": plan.name,
        "region": config.region,
        "image": plan.place.image,
        "instance_type": config.instance_type,
        "instance_count": config.instance_count,
        "jobs": [dict(one.job) for one in fetched],
    }
