"""What the ledger keeps about a job on SageMaker: where it ran, how it ended, what it cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from trademl.aws.budget import Estimate
from trademl.aws.kinds import KINDS
from trademl.aws.plan import JobPlan
from trademl.ledger import Ledger, tables

if TYPE_CHECKING:
    from trademl.aws.transform import TransformPlan


def record_job(
    ledger: Ledger,
    plan: JobPlan,
    described: Mapping[str, Any],
    *,
    estimate: Estimate | None = None,
    jobs: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Write a job as it is described now; the estimate of its start stays where it was.

    Parameters
    ----------
    jobs : sequence of mapping
        The training jobs that it consisted of, with their ``billable_s``.
    """
    config = plan.place.config
    billed = [int(job["billable_s"]) for job in jobs if job.get("billable_s") is not None]
    job = tables.CloudJob(
        region=config.region,
        name=plan.name,
        created_at=described["CreationTime"],
        kind=plan.kind,
        study_id=plan.study_id,
        image=plan.place.image,
        instance_type=config.instance_type,
        instance_count=config.instance_count,
        status=KINDS[plan.kind].status(described),
        failure=described.get("FailureReason"),
        billable_s=sum(billed) if billed else None,
    )
    _write(ledger, job, estimate)


def record_transform(
    ledger: Ledger,
    plan: TransformPlan,
    described: Mapping[str, Any],
    *,
    estimate: Estimate | None = None,
) -> None:
    """Write a transform job as `record_job` does; it is billed from its start to its end."""
    began, ended = (described.get(f"Transform{word}Time") for word in ("Start", "End"))
    job = tables.CloudJob(
        region=plan.aws.region,
        name=plan.name,
        created_at=described["CreationTime"],
        kind="transform",
        model_id=plan.model.artifact_id,
        image=plan.model.image,
        instance_type=plan.hosting.instance_type,
        instance_count=plan.hosting.instance_count,
        status=described["TransformJobStatus"],
        failure=described.get("FailureReason"),
        billable_s=math.ceil((ended - began).total_seconds()) if began and ended else None,
    )
    _write(ledger, job, estimate)


def _write(ledger: Ledger, job: tables.CloudJob, estimate: Estimate | None) -> None:
    """Write a job; what is not known now stays as it was known before."""
    known = ledger.get(tables.CloudJob, (job.region, job.name))
    if estimate is not None:
        job.worst_case_usd, job.usd_per_hour = estimate.usd, estimate.usd_per_hour
    elif known is not None:
        job.worst_case_usd, job.usd_per_hour = known.worst_case_usd, known.usd_per_hour
    if known is not None:
        job.created_at = known.created_at
        job.billable_s = known.billable_s if job.billable_s is None else job.billable_s
    ledger.record(job)


def list_jobs(ledger: Ledger) -> list[dict[str, Any]]:
    """Return every job of a workspace, oldest first, as it was last seen.

    ``cost_usd`` is billed seconds at the price on demand of the day of its start; None where one
    of the two is not known.
    """
    rows = sorted(ledger.rows(tables.CloudJob), key=lambda row: (row.created_at, row.name))
    return [
        {
            "name": row.name,
            "region": row.region,
            "kind": row.kind,
            "status": row.status,
            "study_id": row.study_id,
            "model_id": row.model_id,
            "created_at": row.created_at.isoformat(),
            "instance_type": row.instance_type,
            "instance_count": row.instance_count,
            "failure": row.failure,
            "worst_case_usd": row.worst_case_usd,
            "billable_s": row.billable_s,
            "cost_usd": _cost(row),
        }
        for row in rows
    ]


def _cost(row: tables.CloudJob) -> float | None:
    if row.billable_s is None or row.usd_per_hour is None:
        return None
    return round(row.billable_s * row.instance_count / 3600.0 * row.usd_per_hour, 4)
