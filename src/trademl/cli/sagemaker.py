"""``--on sagemaker`` of ``trademl train`` and ``trademl tune``: its options and what it prints."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from trademl.cli.output import emit
from trademl.cli.session import open_session

if TYPE_CHECKING:
    from trademl.aws.budget import Estimate
    from trademl.aws.jobs import Launched
    from trademl.aws.plan import JobPlan
    from trademl.pipeline.strategy import Strategy
    from trademl.store.artifacts import Artifact

On = Annotated[
    Literal["local", "sagemaker"],
    typer.Option("--on", help="Where it runs; [aws] of the strategy file says how."),
]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Of sagemaker: print the request as JSON and send nothing."),
]
Wait = Annotated[
    bool,
    typer.Option(
        "--wait/--no-wait",
        help="Of sagemaker: stay until the job ends; the same command comes back to it.",
    ),
]
Retry = Annotated[
    bool,
    typer.Option(
        "--retry", help="Of sagemaker: start anew where the last attempt came to nothing."
    ),
]
MaxCost = Annotated[
    float | None,
    typer.Option(
        "--max-cost", metavar="USD", min=0.01, help="Of sagemaker: refuse a dearer worst case."
    ),
]


@dataclass(frozen=True)
class Flags:
    """What was asked for on the command line."""

    dry_run: bool
    wait: bool
    retry: bool
    max_cost: float | None

    def refuse_elsewhere(self) -> None:
        """Refuse flags that a local job would pass over in silence."""
        self._refuse("needs --on sagemaker")

    def refuse_without_a_job(self) -> None:
        """Refuse flags that a question to an endpoint would pass over in silence."""
        self._refuse("needs --batch: an endpoint is asked at once")

    def _refuse(self, why: str) -> None:
        given = {
            "--dry-run": self.dry_run,
            "--no-wait": not self.wait,
            "--retry": self.retry,
            "--max-cost": self.max_cost is not None,
        }
        if names := [name for name, is_given in given.items() if is_given]:
            raise typer.BadParameter(f"{names[0]} {why}")


def launch(
    make_plan: Callable[[Artifact, Strategy], JobPlan],
    dataset: str | None,
    config: Path | None,
    workspace: Path | None,
    flags: Flags,
    *,
    as_json: bool,
) -> Artifact | None:
    """Run a job on SageMaker; return its study, or None where something else was printed."""
    from trademl.aws.jobs import Handling, estimate_job, run_job
    from trademl.etl.adopt import open_dataset

    with _leaving_the_job(), open_session(config, workspace) as session:
        opened = session.workspace
        found = open_dataset(dataset, opened.store, opened.ledger)
        plan = make_plan(found, session.strategy)
        handling = Handling(
            prices_folder=opened.root,
            max_cost_usd=flags.max_cost,
            wait=flags.wait,
            retry=flags.retry,
        )
        if flags.dry_run:
            _print_plan(plan, estimate_job(plan, handling))
            return None
        with opened.lock():
            launched = run_job(
                plan,
                found,
                opened.store,
                opened.ledger,
                handling=handling,
                progress=session.progress,
            )
    if launched.study is None:
        _print_running(launched, as_json=as_json)
    return launched.study


def _print_plan(plan: JobPlan, estimate: Estimate) -> None:
    """Print the request on stdout; what it may cost, and what to know of it, on stderr."""
    for line in (*(f"WARNING: {w}" for w in plan.warnings), str(estimate), "nothing was sent"):
        typer.echo(line, err=True)
    sys.stdout.write(json.dumps(plan.request, indent=1) + "\n")


def print_requests(requests: list[dict[str, Any]], cost: str) -> None:
    """Print requests in their order on stdout, and what they cost on stderr."""
    typer.echo(f"{cost}\nnothing was sent", err=True)
    sys.stdout.write(json.dumps(requests, indent=1) + "\n")


def _print_running(launched: Launched, *, as_json: bool) -> None:
    plan = launched.plan
    emit(
        {"id": plan.study_id, "job": plan.name, "status": launched.status, "url": launched.console},
        as_json=as_json,
        lines=[
            f"{plan.name}: {launched.status}",
            f"  {launched.console}",
            "next: the same command without --no-wait waits for it and brings its results home",
        ],
    )


@contextmanager
def _leaving_the_job() -> Iterator[None]:
    """On Ctrl-C, once the progress display is gone, ask what shall become of the job."""
    from trademl.aws.jobs import JobGoesOnError, stop_job

    try:
        yield
    except JobGoesOnError as left:
        if _is_stop_wanted(left.plan):
            stop_job(left.plan)
            typer.echo(
                f"{left.plan.name} is told to stop; the same command brings home what it left",
                err=True,
            )
        else:
            typer.echo(
                f"{left.plan.name} goes on in {left.plan.place.config.region}, at your cost; "
                "the same command comes back to it",
                err=True,
            )
        raise


def _is_stop_wanted(plan: JobPlan) -> bool:
    if not sys.stdin.isatty():
        return False
    try:
        return typer.confirm(f"Stop {plan.name} on SageMaker?", default=False, err=True)
    except (typer.Abort, KeyboardInterrupt):
        return False
