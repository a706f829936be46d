"""``trademl backtest``: trade a model's scores, or a strategy of one's own, on the fill model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from trademl.cli import options
from trademl.cli.output import emit
from trademl.cli.session import open_session

app = typer.Typer(
    help="Trade a model's scores, or a strategy of your own, on the one fill model.",
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
    strategy: Annotated[
        Path | None,
        typer.Option(
            help="A Python file with decide(now) or a backtrader strategy, traded over the feed's "
            "quotes instead of a model."
        ),
    ] = None,
    config: options.Config = None,
    workspace: options.Workspace = None,
    json: options.Json = False,
) -> None:
    """Backtest a model in every engine; trades, equity and figures go to the ledger."""
    if strategy is not None:
        _run_strategy(strategy, config, workspace, json)
        return
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
            config=session.strategy.backtest,
            seed=session.strategy.seed,
            progress=session.progress,
        )
    metrics = found.metrics
    baseline = metrics["baseline"]
    lines = [
        f"{found.id}: {metrics['n_trades']} trades, net PnL {metrics['net_pnl']:.2f}, "
        f"fees {metrics['fees']:.2f}, max drawdown {metrics['max_drawdown']:.2f}",
        f"  every signal: {baseline['n_trades']} trades, net PnL {baseline['net_pnl']:.2f}",
        *_ladder(metrics),
        *_realism(metrics),
        f"  engines that agreed trade by trade: {', '.join(metrics['engines'])}",
    ]
    emit({"id": found.id, **metrics}, as_json=json, lines=lines)


def _run_strategy(file: Path, config: Path | None, workspace: Path | None, json: bool) -> None:
    from trademl.backtest.user_strategy import backtest_strategy
    from trademl.errors import DataError
    from trademl.ingest.sources import read_quotes

    with open_session(config, workspace) as session:
        settings = session.strategy
        _, metrics = backtest_strategy(
            file, read_quotes(settings.feed), settings.costs, settings.backtest, seed=settings.seed
        )
    lines = [
        f"{file}: {metrics['n_trades']} trades, net PnL {metrics['net_pnl']:.2f}, "
        f"fees {metrics['fees']:.2f}, max drawdown {metrics['max_drawdown']:.2f}",
        *_ladder(metrics),
        *_realism(metrics),
    ]
    emit(metrics, as_json=json, lines=lines)
    if metrics["stopped"]:
        raise DataError(f"{metrics['stopped']}; the figures are of what had ended before")


def _ladder(metrics: Mapping[str, Any]) -> list[str]:
    if not metrics["cost_ladder"]:
        return []
    told = ", ".join(f"{pnl:.2f} at {factor}" for factor, pnl in metrics["cost_ladder"].items())
    return [f"  net PnL by cost: {told}"]


def _realism(metrics: Mapping[str, Any]) -> list[str]:
    return ["  real: " + "; ".join(f"{part} {what}" for part, what in metrics["realism"].items())]
