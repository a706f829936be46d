"""Wait for a job and say what happens to it: its state, its counts, its figures as they come."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from trademl.aws.clients import Clients
from trademl.aws.failures import aws_errors, is_passing
from trademl.aws.kinds import KINDS
from trademl.aws.plan import JobPlan
from trademl.errors import CloudError
from trademl.ports import Progress

NAMESPACE = "/aws/sagemaker/TrainingJobs"
MAX_MISSES = 20  # looks in a row that may go wrong: a night's wait outlives a lost connection

Sleep = Callable[[float], None]


def wait_for(
    plan: JobPlan, clients: Clients, progress: Progress, *, sleep: Sleep = time.sleep
) -> dict[str, Any]:
    """Return the description of a job once it is finished, however it ended.

    Raises
    ------
    CloudError
        If AWS refuses to describe it, or cannot be reached `MAX_MISSES` times in a row.
    """
    kind, news = KINDS[plan.kind], _News(progress)
    live = LiveMetrics(clients.cloudwatch, plan)
    misses = 0
    while True:
        described = _look(plan, clients, last_chance=misses >= MAX_MISSES)
        misses = 0 if described else misses + 1
        if described:
            if plan.kind == "tuning":
                _tell_tuning(plan, described, news)
            else:
                news.tell(_with_figures(_state(described), live.latest(described)))
            if kind.is_finished(described):
                news.end(kind.status(described))
                return described
        sleep(plan.place.config.poll_s)


def _look(plan: JobPlan, clients: Clients, *, last_chance: bool) -> dict[str, Any] | None:
    """Return the description, or None where the call failed in a way that may pass."""
    from botocore.exceptions import ClientError, HTTPClientError
    from botocore.exceptions import ConnectionError as NoConnectionError

    with aws_errors(f"looking at {plan.name}"):
        try:
            return KINDS[plan.kind].describe(clients.sagemaker, plan.name)
        except ClientError as error:
            if last_chance or not is_passing(error):
                raise
        except (HTTPClientError, NoConnectionError):
            if last_chance:
                raise
    return None


class _News:
    """Says each thing once: a step begins when there is something new, and the last one ends."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._last = ""

    def tell(self, detail: str) -> None:
        if detail == self._last:
            return
        if self._last:
            self._progress.done()
        self._progress.step("sagemaker", detail)
        self._last = detail

    def advance(self, done: int, total: int) -> None:
        self._progress.advance(done, total)

    def end(self, detail: str) -> None:
        self._progress.done(detail)


def _state(described: Mapping[str, Any]) -> str:
    """Return a training job's secondary status and what SageMaker last said about it."""
    status = str(described["SecondaryStatus"])
    transitions = described.get("SecondaryStatusTransitions") or [{}]
    message = str(transitions[-1].get("StatusMessage", "")).strip()
    return f"{status}: {message}" if message and message != status else status


def _with_figures(state: str, figures: Mapping[str, float]) -> str:
    shown = ", ".join(f"{name} {value:.5g}" for name, value in figures.items())
    return f"{state} ({shown})" if shown else state


def _tell_tuning(plan: JobPlan, described: Mapping[str, Any], news: _News) -> None:
    counters = described.get("TrainingJobStatusCounters", {})
    ended = sum(counters.get(c, 0) for c in ("Completed", "Stopped", "NonRetryableError"))
    running, failed = counters.get("InProgress", 0), counters.get("NonRetryableError", 0)
    text = f"{ended} of {plan.n_jobs} ended, {running} running, {failed} failed"
    best = described.get("BestTrainingJob", {})
    if metric := best.get("FinalHyperParameterTuningJobObjectiveMetric"):
        name = best["TrainingJobName"]
        text += f", best {metric['MetricName']} {metric['Value']:.5g} ({name})"
    news.tell(text)
    news.advance(min(ended, plan.n_jobs), plan.n_jobs)


class LiveMetrics:
    """The latest figures that a running training job has logged, by CloudWatch.

    Without the permission ``cloudwatch:GetMetricData`` there are none: the wait goes on.
    """

    def __init__(self, cloudwatch: Any, plan: JobPlan) -> None:
        self._cloudwatch = cloudwatch
        self._plan = plan
        self._is_refused = False

    def latest(self, described: Mapping[str, Any]) -> dict[str, float]:
        """Return name to value; final ones, once the job has them."""
        if final := described.get("FinalMetricDataList"):
            found = {m["MetricName"]: float(m["Value"]) for m in final}
            kept = {name.removesuffix(":final"): value for name, value in found.items()}
            return {name: kept[name] for name in self._watched() if name in kept}
        if self._is_refused or described["SecondaryStatus"] not in ("Training", "Uploading"):
            return {}
        return self._ask(described)

    def _watched(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(("train:objective_loss", self._plan.objective.metric)))

    def _ask(self, described: Mapping[str, Any]) -> dict[str, float]:
        from botocore.exceptions import BotoCoreError, ClientError

        names = self._watched()
        try:
            answer = self._cloudwatch.get_metric_data(
                MetricDataQueries=[self._query(i, name) for i, name in enumerate(names)],
                StartTime=described.get("TrainingStartTime", described["CreationTime"]),
                EndTime=datetime.now(UTC),
                ScanBy="TimestampDescending",
            )
        except ClientError as error:
            self._is_refused = not is_passing(error)
            return {}
        except BotoCoreError:
            return {}
        values = {found["Id"]: found["Values"] for found in answer["MetricDataResults"]}
        latest = {name: values.get(f"m{i}") for i, name in enumerate(names)}
        return {name: float(found[0]) for name, found in latest.items() if found}

    def _query(self, number: int, metric: str) -> dict[str, Any]:
        dimensions = [{"Name": "TrainingJobName", "Value": self._plan.name}]
        named = {"Namespace": NAMESPACE, "MetricName": metric, "Dimensions": dimensions}
        stat = {"Metric": named, "Period": 60, "Stat": "Average"}
        return {"Id": f"m{number}", "MetricStat": stat}


def check_ended_well(plan: JobPlan, described: Mapping[str, Any]) -> None:
    """Refuse the end of a job that left nothing to take home.

    Raises
    ------
    CloudError
        The message holds SageMaker's reason.
    """
    kind = KINDS[plan.kind]
    status = kind.status(described)
    counters = described.get("TrainingJobStatusCounters", {})
    if status == "Completed" or counters.get("Completed", 0) + counters.get("Stopped", 0) > 0:
        return
    if plan.kind == "training" and status == "Stopped" and _has_model(described):
        return
    region = plan.place.config.region
    reason = " ".join(str(described.get("FailureReason", "")).split())
    secondary = described.get("SecondaryStatus", status)
    raise CloudError(
        f"{kind.words} {plan.name} in {region} ended as {secondary}: "
        f"{reason or 'SageMaker gives no reason'}; its log is in CloudWatch under {NAMESPACE}; "
        "mend it and run again with --retry"
    )


def _has_model(described: Mapping[str, Any]) -> bool:
    return bool(described.get("ModelArtifacts", {}).get("S3ModelArtifacts"))
