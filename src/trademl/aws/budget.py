"""What a job costs at worst, said and judged before anything is started."""

from __future__ import annotations

from dataclasses import dataclass

from trademl.aws.plan import JobPlan
from trademl.aws.prices import PriceTable
from trademl.aws.tuning_request import TuningRequest
from trademl.errors import CloudError


@dataclass(frozen=True)
class Estimate:
    """The dearest end that a job can have.

    Parameters
    ----------
    n_jobs : int
        Training jobs at most.
    instance_type, instance_count
        Of each.
    hours : float
        Machine hours of all of them, each running to its limit.
    usd_per_hour : float or None
        On demand; a discount of spot capacity is not counted on. None where it is not known.
    region, as_of : str
        Of the price.
    """

    n_jobs: int
    instance_type: str
    instance_count: int
    hours: float
    usd_per_hour: float | None
    region: str
    as_of: str

    @property
    def usd(self) -> float | None:
        """Worst case in US dollars, machines only: storage and traffic come on top."""
        if self.usd_per_hour is None:
            return None
        return round(self.hours * self.usd_per_hour, 4)

    def __str__(self) -> str:
        machines = f"{self.n_jobs} x {self.instance_count} {self.instance_type}"
        span = f"{self.hours:.4g} machine hours at most"
        if self.usd_per_hour is None:
            return f"worst case unknown: {machines}, {span}, no price for {self.region}"
        return (
            f"worst case {self.usd:.2f} USD: {machines}, {span}, {self.usd_per_hour:g} USD an hour "
            f"on demand in {self.region} as of {self.as_of}"
        )


def worst_case(plan: JobPlan, prices: PriceTable) -> Estimate:
    """Return a plan's worst case.

    Every training job runs to ``max_runtime_s`` on every machine; a tuning job that has a
    ``MaxRuntimeInSeconds`` of its own ends no later than that with all its parallel jobs running.
    """
    config = plan.place.config
    seconds = float(plan.n_jobs * config.max_runtime_s)
    if isinstance(plan.body, TuningRequest):
        limits = plan.body.job["ResourceLimits"]
        if (limit := limits.get("MaxRuntimeInSeconds")) is not None:
            # A child that is running when the limit comes may take its time to stop: 120 s.
            seconds = min(seconds, float(limits["MaxParallelTrainingJobs"] * (limit + 120)))
    return Estimate(
        plan.n_jobs,
        config.instance_type,
        config.instance_count,
        seconds * config.instance_count / 3600.0,
        prices.usd_per_hour.get(config.instance_type),
        config.region,
        prices.as_of,
    )


def check_budget(estimate: Estimate, max_cost_usd: float | None) -> None:
    """Refuse a job that might cost more than its budget.

    Raises
    ------
    CloudError
        If the worst case is above the budget, or there is a budget and no price.
    """
    if max_cost_usd is None:
        return
    if estimate.usd is None:
        raise CloudError(
            f"the price of {estimate.instance_type} in {estimate.region} is not known, and the "
            f"budget is {max_cost_usd:.2f} USD: run trademl aws prices --refresh, or leave the "
            "budget out"
        )
    if estimate.usd > max_cost_usd:
        raise CloudError(
            f"the {estimate} is above the budget of {max_cost_usd:.2f} USD: lower "
            "aws.max_runtime_s, the number of jobs or machines, or raise --max-cost"
        )
