"""``trademl backtest``: trade a model's scores, or a strategy of one's own, on the fill model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from trademl.cli import options
from trademl.cli.output import emit
from trademl.cli.session import open_session

if TYPE_CHECKING:
    from trademl.store.artifacts import Artifact

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
    signals: Annotated[
        Path | None,
        typer.Option(
            help="A CSV or Parquet file of signals (time, side, ...), traded over the feed's "
            "quotes instead of a model."
        ),
    ] = None,
    config: options.Config = None,
    workspace: options.Workspace = None,
    json: options.Json = False,
) -> None:
    """Backtest a model in every engine; trades, equity and figures go to the ledger."""
    if strategy is not None or signals is not None:
        _run_own(strategy, signals, config, workspace, json)
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
    _tell_stopped(found)


def _tell_stopped(found: Artifact) -> None:
    """Raise DataError with what ended a backtest early, once its result is kept and told."""
    from trademl.errors import DataError

    if why := found.metrics.get("stopped"):
        raise DataError(f"{why}; {found.id} keeps what had ended before, marked as stopped")


@app.command("allocate")
def allocate(
    config: options.Config = None,
    workspace: options.Workspace = None,
    json: options.Json = False,
) -> None:
    """Allocate among the assets of ``[allocation]`` by quarters, beside equal weights."""
    from trademl.cli.allocation import allocation_lines
    from trademl.config import process_environment
    from trademl.pipeline.allocation_run import run_allocation_strategy

    with open_session(config, workspace) as session:
        found = run_allocation_strategy(
            session.strategy,
            session.workspace,
            environment=process_environment(),
            progress=session.progress,
        )
    emit(found, as_json=json, lines=allocation_lines(found))


def _run_own(
    strategy: Path | None,
    signals: Path | None,
    config: Path | None,
    workspace: Path | None,
    json: bool,
) -> None:
    from trademl.backtest.strategy_jobs import backtest_file, backtest_signals
    from trademl.errors import ConfigError

    if strategy is not None and signals is not None:
        raise ConfigError("give --strategy or --signals, not both")
    job, file = (backtest_file, strategy) if strategy else (backtest_signals, signals)
    assert file is not None  # noqa: S101  (one of them is given)
    with open_session(config, workspace) as session, session.workspace.lock():
        settings = session.strategy
        found = job(
            file,
            settings.feed,
            settings.costs,
            settings.backtest,
            session.workspace.store,
            session.workspace.ledger,
            seed=settings.seed,
        )
    metrics = found.metrics
    lines = [
        f"{found.id}: {file}: {metrics['n_trades']} trades, net PnL {metrics['net_pnl']:.2f}, "
        f"fees {metrics['fees']:.2f}, max drawdown {metrics['max_drawdown']:.2f}",
        *_ladder(metrics),
        *_realism(metrics),
    ]
    emit({"id": found.id, **metrics}, as_json=json, lines=lines)
    _tell_stopped(found)


@app.command("compare")
def compare(
    one: Annotated[
        str,
        typer.Argument(help="Id of a backtest or of a live run, or a CSV or Parquet of trades."),
    ],
    other: Annotated[str, typer.Argument(help="Another, such as paper or live fills.")],
    tolerance: Annotated[
        float, typer.Option(metavar="SECONDS", help="How far apart partners may begin.")
    ] = 60.0,
    top: Annotated[int, typer.Option(min=0, help="Trades to print.")] = 10,
    workspace: options.Workspace = None,
    json: options.Json = False,
) -> None:
    """Pair the trades of two backtests, or of one and real fills, and name what differs and why."""
    from trademl.backtest.compare import compare as library

    with open_session(None, workspace, needs_file=False) as session:
        opened = session.workspace
        found = library(
            one, other, opened.store, opened.ledger, ticks=opened.ticks, tolerance_s=tolerance
        )
    emit(found, as_json=json, lines=_compared(found, top))


@app.command("report")
def report(
    backtest: Annotated[str | None, typer.Argument(help="Id; the newest by default.")] = None,
    is_opened: Annotated[
        bool, typer.Option("--open", help="Show it in the browser; a picture lies beside it.")
    ] = False,
    png: Annotated[Path | None, typer.Option(metavar="FILE", help="A picture too.")] = None,
    csv: Annotated[Path | None, typer.Option(metavar="FILE", help="The trades too.")] = None,
    parquet: Annotated[Path | None, typer.Option(metavar="FILE", help="The trades too.")] = None,
    workspace: options.Workspace = None,
    json: options.Json = False,
) -> None:
    """Write a backtest as one HTML page that needs no network, and print its path."""
    from trademl.monitor.tear_sheet import write_tear_sheet

    with open_session(None, workspace, needs_file=False) as session:
        root, store = session.workspace.root, session.workspace.store
        page = write_tear_sheet(
            backtest,
            store,
            root / "reports",
            png=png,
            csv=csv,
            parquet=parquet,
            has_picture=is_opened,
        )
    picture = png or (page.with_suffix(".png") if is_opened else None)
    lines = [f"report: {page}", *([f"picture: {picture}"] if picture else [])]
    emit({"id": str(page)}, as_json=json, lines=lines)
    if is_opened:
        typer.launch(page.as_uri())


def _left_out(side: Mapping[str, Any]) -> str:
    n = side["n_outside"]
    return f"; {n} outside of the time that both cover are left out" if n else ""


def _compared(found: Mapping[str, Any], top: int) -> list[str]:
    one, two = found["one"], found["other"]
    lines = [
        *(
            f"{side['id']}: {side['n_trades']} trades, net PnL {side['net_pnl']:.2f}"
            f"{_left_out(side)}"
            for side in (one, two)
        ),
        f"  {found['n_alike']} alike, {found['n_paired'] - found['n_alike']} paired and different, "
        f"{found['n_only_one']} only in the first, {found['n_only_other']} only in the second",
        f"  difference of net PnL {found['difference']:+.2f}, by cause:",
        *(
            f"    {cause:<13} {row['pnl']:+12.2f}  in {row['n']} trades"
            for cause, row in found["causes"].items()
            if row["n"]
        ),
        *(f"  told differently: {n}: {a} | {b}" for n, (a, b) in found["settings"].items()),
        *(f"  not known: {what}" for what in found["not_known"]),
    ]
    largest = sorted(found["trades"], key=lambda t: -abs(t["difference"]))[:top]
    for trade in largest:
        numbers = " | ".join("-" if trade[n] is None else str(trade[n]) for n in ("one", "other"))
        causes = ", ".join(f"{cause} {pnl:+.2f}" for cause, pnl in trade["causes"].items())
        lines.append(f"  trade {numbers}: {trade['difference']:+.2f} ({causes})")
    return lines


def _ladder(metrics: Mapping[str, Any]) -> list[str]:
    if not metrics["cost_ladder"]:
        return []
    told = ", ".join(f"{pnl:.2f} at {factor}" for factor, pnl in metrics["cost_ladder"].items())
    return [f"  net PnL by cost: {told}"]


def _realism(metrics: Mapping[str, Any]) -> list[str]:
    return ["  real: " + "; ".join(f"{part} {what}" for part, what in metrics["realism"].items())]


@app.command("walk-forward")
def walk_forward(
    batch: Annotated[str | None, typer.Argument(help="Id; the newest by default.")] = None,
    learn: Annotated[
        str | None,
        typer.Option(help="Orders, or a duration such as 30d, to train, validate and test on."),
    ] = None,
    trade: Annotated[
        str | None, typer.Option(help="Orders, or a duration, traded before the next training.")
    ] = None,
    windows: Annotated[
        int | None, typer.Option(help="How many, where no lengths are given.")
    ] = None,
    anchored: Annotated[
        bool, typer.Option("--anchored", help="Learn from everything before, not the last LEARN.")
    ] = False,
    processes: Annotated[
        int | None, typer.Option(help="Windows learned at the same time; one a core by default.")
    ] = None,
    config: options.Config = None,
    workspace: options.Workspace = None,
    json: options.Json = False,
) -> None:
    """Train, select, gate, trade what comes next, roll; interrupted, it goes on where it was."""
    from trademl.backtest.walk_forward import backtest_walk_forward
    from trademl.pipeline.strategy import learn_settings

    flags = {
        "walk_forward.learn": learn,
        "walk_forward.trade": trade,
        "walk_forward.windows": windows,
        "walk_forward.anchored": anchored or None,
        "walk_forward.processes": processes,
    }
    with open_session(config, workspace, flags=flags) as session, session.workspace.lock():
        found = backtest_walk_forward(
            session.workspace.store.newest("batch", batch),
            learn_settings(session.strategy),
            session.strategy.gate,
            session.strategy.backtest,
            session.workspace.store,
            session.workspace.ledger,
            progress=session.progress,
        )
    emit({"id": found.id, **found.metrics}, as_json=json, lines=_walk_lines(found.metrics))
    _tell_stopped(found)


def _walk_lines(metrics: Mapping[str, Any]) -> list[str]:
    sharpe, ungated = metrics["figures"]["sharpe"], metrics["ungated"]
    return [
        str(metrics["headline"]),
        f"  {metrics['n_trades']} trades, net PnL {metrics['net_pnl']:.2f}, max drawdown "
        f"{metrics['max_drawdown']:.2f}, Sharpe {_interval(sharpe)}",
        f"  not gated, for comparison only: {ungated['n_trades']} trades, net PnL "
        f"{ungated['net_pnl']:.2f}",
        *_ladder(metrics),
        "  window  learned  orders  trades  net PnL  (not gated)  verdict",
        *(
            f"  {one['number']:>6}  {one['n_learned']:>7}  {one['n_orders']:>6}  "
            f"{one['n_trades']:>6}  {one['pnl']:>7.2f}  {one['ungated_pnl']:>11.2f}  "
            f"{one['verdict']}{_why(one['reasons'])}"
            for one in metrics["windows"]
        ),
        *_realism(metrics),
    ]


def _why(reasons: list[str]) -> str:
    return f": {reasons[0]}" if reasons else ""


def _interval(figure: Mapping[str, Any]) -> str:
    if figure["value"] is None:
        return "undefined"
    low, high = (
        "undefined" if figure[name] is None else f"{figure[name]:.2f}" for name in ("low", "high")
    )
    return f"{figure['value']:.2f} (95 % from {low} to {high})"


@app.command("replay")
def replay(
    model: Annotated[str | None, typer.Argument(help="Id; the newest by default.")] = None,
    serving: Annotated[
        Literal["ideal", "modelled", "recorded"],
        typer.Option(
            help="Where answers come from: [replay]'s load, or the ledger's live decisions, else "
            "its predictions."
        ),
    ] = "modelled",
    live: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="The live run that is replayed, where there are several."),
    ] = None,
    smaller: Annotated[
        list[str] | None, typer.Option(help="Smaller models of the ladder, biggest first.")
    ] = None,
    config: options.Config = None,
    workspace: options.Workspace = None,
    json: options.Json = False,
) -> None:
    """Trade a model's test rows as serving answers them; what each degradation cost."""
    from trademl.backtest.replay import backtest_replay
    from trademl.errors import ConfigError

    if live is not None and serving != "recorded":
        raise ConfigError(f"--live {live} goes with --serving recorded, not with {serving}")

    with open_session(config, workspace) as session, session.workspace.lock():
        store, told = session.workspace.store, session.strategy
        found = backtest_replay(
            store.newest("model", model),
            told.costs,
            store,
            session.workspace.ledger,
            kind=serving,
            endpoint=told.serving.endpoint,
            strategy=told.name,
            live=live,
            smaller=[store.get(one) for one in smaller or ()],
            policy=told.ladder,
            load=told.replay,
            config=told.backtest,
            seed=told.seed,
            progress=session.progress,
        )
    emit({"id": found.id, **found.metrics}, as_json=json, lines=_serving_lines(found))
    _tell_stopped(found)


def _told_by(told: Mapping[str, Any]) -> str:
    return f"{told['kind']}: {told['live_run']}" if told["live_run"] else str(told["kind"])


def _serving_lines(found: Artifact) -> list[str]:
    told = found.metrics["serving"]
    return [
        f"{found.id}: net PnL {told['served']:.2f} as served ({_told_by(told)}), "
        f"{told['ideal']:.2f} with ideal serving",
        *(f"  cost of {name}: {cost:.2f}" for name, cost in told["by"].items()),
        f"  interaction: {told['interaction']:.2f}",
        *(
            f"  tier {row['tier']}: {row['n_answers']} answers, {row['n_trades']} trades, net PnL "
            f"{row['net_pnl']:.2f}, cost {row['cost']:.2f}"
            for row in told["tiers"]
        ),
        f"  of {told['n']} answers {told['n_smaller']} came from smaller models, "
        f"{told['n_cached']} from the cache, {told['n_abstained']} never",
        f"  models that were live: {', '.join(told['models'])}"
        if told["is_live_history"]
        else f"  nothing is known to have been live in this span: {told['models'][0]} throughout",
        *_ladder(found.metrics),
        *_realism(found.metrics),
    ]
