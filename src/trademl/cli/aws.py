"""``trademl aws``: what machines cost, and the jobs that a workspace has started."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trademl.cli import options
from trademl.cli.output import emit
from trademl.cli.session import open_session

app = typer.Typer(
    help="Prices of machines, and jobs on SageMaker.", no_args_is_help=True, rich_markup_mode=None
)


@app.command("prices")
def prices(
    refresh: Annotated[
        bool, typer.Option("--refresh", help="Ask AWS, and keep its answer.")
    ] = False,
    region: Annotated[str | None, typer.Option(help="[aws] region by default.")] = None,
    config: options.Config = None,
    workspace: options.Workspace = None,
    json: options.Json = False,
) -> None:
    """Print what an hour of each training machine costs in a region."""
    from trademl.aws.prices import load_prices, refresh_prices
    from trademl.config import DEFAULT_FILE

    if config is None and Path(DEFAULT_FILE).is_file():
        config = Path(DEFAULT_FILE)
    flags = {"aws.region": region}
    with open_session(config, workspace, flags=flags, needs_file=False) as session:
        where, folder = session.strategy.aws.region or "us-east-1", session.workspace.root
        table = refresh_prices(where, folder) if refresh else load_prices(where, folder)
    lines = [f"{table.region}: USD an hour on demand as of {table.as_of} ({table.source})"]
    lines += [f"  {kind:<20} {usd:g}" for kind, usd in table.usd_per_hour.items()]
    if not table.usd_per_hour:
        lines.append("  none known: run trademl aws prices --refresh")
    result = {"region": table.region, "as_of": table.as_of, "source": table.source}
    emit({**result, "usd_per_hour": dict(table.usd_per_hour)}, as_json=json, lines=lines)


@app.command("jobs")
def jobs(workspace: options.Workspace = None, json: options.Json = False) -> None:
    """List the jobs that this workspace has started, as they were last seen."""
    from trademl.aws.records import list_jobs

    with open_session(None, workspace, needs_file=False) as session:
        found = list_jobs(session.workspace.ledger)
    lines = [
        f"{j['name']:<32} {j['kind']:<9} {j['status']:<11} {j['region']:<15} {_usd(j['cost_usd'])}"
        f"  {j['study_id'] or j['model_id']}"
        for j in found
    ]
    emit({"jobs": found}, as_json=json, lines=lines or ["no job yet: trademl train --on sagemaker"])


@app.command("torchrun")
def torchrun(
    script: Annotated[Path, typer.Argument(help="Python file; its folder travels with it.")],
    processes: Annotated[
        int | None, typer.Option(help="For each machine; its GPUs by default.")
    ] = None,
    hp: Annotated[
        list[str] | None,
        typer.Option("--hp", metavar="NAME=VALUE", help="Handed to the script as --NAME VALUE."),
    ] = None,
    channel: Annotated[
        list[str] | None,
        typer.Option("--channel", metavar="NAME=S3-URI", help="Data below /opt/ml/input/data."),
    ] = None,
    max_cost: Annotated[
        float | None, typer.Option("--max-cost", metavar="USD", help="Refuse a dearer worst case.")
    ] = None,
    config: options.Config = None,
    workspace: options.Workspace = None,
    json: options.Json = False,
) -> None:
    """Start a script of yours under torchrun on SageMaker; it is not waited for."""
    from trademl.aws.prices import load_prices
    from trademl.aws.torchrun import TorchrunJob, estimate_torchrun, launch_torchrun
    from trademl.train.jobs import parse_assignments

    job = TorchrunJob(
        script.resolve(), processes, parse_assignments(hp or []), parse_assignments(channel or [])
    )
    with open_session(config, workspace) as session:
        where = session.strategy.aws
        table = load_prices(where.region, session.workspace.root)
        typer.echo(str(estimate_torchrun(where, table)), err=True)
        name = launch_torchrun(job, where, table, max_cost_usd=max_cost)
    emit({"job": name, "region": where.region}, as_json=json, lines=[f"{name}: started"])


def _usd(cost: float | None) -> str:
    return "cost unknown" if cost is None else f"{cost:.2f} USD"
