"""``trademl backtest``: trade a model's scores over a span it was not trained on."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from trademl.cli import options
from trademl.cli.output import emit
from trademl.cli.session import open_session

app = typer.Typer(
    help="Trade a model's scores on the one fill model.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.callback()
def _backtest() -> None:
    pass


@app.command("run")
def run(
    model: Annotated[str | None, typer.Argument(help="Id; the newest by default.")] = None,
    split: Annotated[
        Literal["validation", "test"], typer.Option(help="Part of the dataset.")
    ] = "test",
    config: options.Config = None,
    workspace: options.Workspace = None,
    json: options.Json = False,
) -> None:
    """Backtest a model in every engine; trades, equity and figures go to the ledger."""
    from trademl.backtest.jobs import backtest_model

    with open_session(config, workspace) as session, session.workspace.lock():
        store = session.workspace.store
        chosen = store.newest("model", model)
        found = backtest_model(
            chosen,
            session.strategy.costs,
            store,
            session.workspace.ledger,
            split=split,
            progress=session.progress,
        )
    metrics = found.metrics
    baseline = metrics["baseline"]
    lines = [
        f"{found.id}: {metrics['n_trades']} trades, net PnL {metrics['net_pnl']:.2f}, "
        f"fees {metrics['fees']:.2f}, max drawdown {metrics['max_drawdown']:.2f}",
        f"  every signal: {baseline['n_trades']} trades, net PnL {baseline['net_pnl']:.2f}",
        f"  engines that agreed trade by trade: {', '.join(metrics['engines'])}",
    ]
    emit({"id": found.id, **metrics}, as_json=json, lines=lines)
