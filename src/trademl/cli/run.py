"""``trademl run`` and ``trademl demo``: the whole loop, once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trademl.cli import options
from trademl.cli.output import check_lines, emit
from trademl.cli.session import open_session

if TYPE_CHECKING:
    from trademl.pipeline.recorded import Result


def run(
    strategy: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="Strategy file, as --config.")
    ] = None,
    config: options.Config = None,
    workspace: options.Workspace = None,
    json: options.Json = False,
) -> None:
    """Take a strategy from its quotes to a report; steps that are done are skipped."""
    if strategy is not None and config is not None:
        raise typer.BadParameter("give the strategy file once: as FILE or by --config")
    _run(strategy or config, workspace, {}, json)


def demo(
    quotes: options.Quotes = None,
    tz: options.Zone = None,
    tick_size: options.TickSize = None,
    allow_bad_quotes: options.AllowBadQuotes = False,
    workspace: options.Workspace = None,
    json: options.Json = False,
) -> None:
    """Run the whole loop on bundled real ticks, or on a recording of your own."""
    from trademl.config import sample_file

    flags = options.feed_flags(quotes, tz, tick_size, allow_bad_quotes)
    if quotes is None:
        _run(sample_file("strategy.toml"), workspace, flags, json)
    else:
        name = Path(quotes).name.split(".")[0]
        flags |= {"name": name, "serving.endpoint": name, "serving.shadow_refused": True}
        _run(None, workspace, flags, json, is_demo=True)


def _run(
    config: Path | None,
    workspace: Path | None,
    flags: dict[str, Any],
    as_json: bool,
    *,
    is_demo: bool = False,
) -> None:
    from trademl.cli.allocation import allocation_lines
    from trademl.config import process_environment
    from trademl.pipeline.run import run as run_pipeline

    with open_session(
        config, workspace, flags=flags, needs_file=not is_demo, finds_ledger=not is_demo
    ) as session:
        result = run_pipeline(
            session.strategy,
            session.workspace,
            environment=process_environment(),
            progress=session.progress,
        )
    lines = allocation_lines(result) if "allocation" in result else _lines(result)
    emit(result, as_json=as_json, lines=lines)


def _lines(result: Result) -> list[str]:
    selected, gate, backtest = result["selected"], result["gate"], result["backtest"]
    parts = (result["dataset"], result["tuning"])
    lines = [f"WARNING: {text}" for part in parts for text in part.get("warnings", [])]
    lines.append(str(gate["headline"]))
    if selected["reasons"]:
        lines += [f"  refused: {reason}" for reason in selected["reasons"]]
    else:
        lines += check_lines(gate)
    if backtest["id"]:
        evaluation, baseline = result["evaluation"], backtest["baseline"]
        lines += [
            f"  test rows: base rate {evaluation['base_rate']:.1%}, "
            f"ROC AUC {_shown(evaluation['roc_auc'])} (a coin: 0.5)",
            f"  backtest: {backtest['n_trades']} trades, net PnL {backtest['net_pnl']:.2f}; "
            f"every signal: {baseline['n_trades']} trades, {baseline['net_pnl']:.2f}",
            f"  deployed: {result['deployment']['mode']} at endpoint "
            f"{result['deployment']['endpoint']}",
        ]
    return [*lines, f"report: {result['report']['id']}", f"ledger: {result['ledger']['id']}"]


def _shown(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"
