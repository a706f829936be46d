"""``trademl ingest``: quotes into the tick store, completed orders out of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trademl.cli import options
from trademl.cli.output import emit
from trademl.cli.session import open_session

app = typer.Typer(
    help="Quotes into the tick store, batches of completed mock orders out of it.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command("replay")
def replay(
    quotes: options.Quotes = None,
    tz: options.Zone = None,
    tick_size: options.TickSize = None,
    allow_bad_quotes: options.AllowBadQuotes = False,
    config: options.Config = None,
    workspace: options.Workspace = None,
    json: options.Json = False,
) -> None:
    """Read a recording into the tick store; what is there already is not stored again."""
    from trademl.ingest.replay import replay as replay_quotes

    flags = options.feed_flags(quotes, tz, tick_size, allow_bad_quotes)
    with open_session(config, workspace, flags=flags, needs_file=quotes is None) as session:
        session.progress.step("ingest")
        recording = replay_quotes(
            session.strategy.feed, session.workspace.ticks, progress=session.progress
        )
        found = session.workspace.ticks.find(recording)
        n_quotes = found.n_quotes if found else 0
        session.progress.done(f"{n_quotes} quotes")
    emit(
        {"id": recording, "n_quotes": n_quotes},
        as_json=json,
        lines=[f"{recording}: {n_quotes} quotes", f"next: trademl ingest export {recording}"],
    )


@app.command("simulate")
def simulate(
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="A .parquet file to write.")],
    quotes: Annotated[int, typer.Option("--quotes", help="Number of quotes.")] = 20_000,
    interval_s: Annotated[float, typer.Option(help="Seconds between two quotes.")] = 1.0,
    spread_ticks: Annotated[float, typer.Option(help="Mean spread; 0: no costs.")] = 1.0,
    edge: Annotated[
        float, typer.Option(help="Lean of each move towards the signal; 0: a martingale.")
    ] = 0.0,
    signal_s: Annotated[float, typer.Option(help="Seconds that a signal lasts.")] = 300.0,
    jumps_per_hour: Annotated[float, typer.Option(help="Jumps, up or down.")] = 0.0,
    regime_s: Annotated[
        float, typer.Option(help="Seconds after which calm and busy take turns; 0: never.")
    ] = 0.0,
    seed: Annotated[int, typer.Option(help="The same seed gives the same quotes.")] = 7,
    json: options.Json = False,
) -> None:
    """Write a simulated recording whose truth is known, to be replayed like any other."""
    from trademl.ingest.simulated import SimulatedMarket, write_simulation

    market = SimulatedMarket(
        n_quotes=quotes,
        seed=seed,
        interval_s=interval_s,
        spread_ticks=spread_ticks,
        edge=edge,
        signal_s=signal_s,
        jumps_per_hour=jumps_per_hour,
        regime_s=regime_s,
    )
    n_quotes = write_simulation(out, market)
    emit(
        {"id": str(out), "n_quotes": n_quotes, "is_martingale": edge == 0},
        as_json=json,
        lines=[f"{out}: {n_quotes} quotes", f"next: trademl ingest replay --quotes {out}"],
    )


@app.command("export")
def export(
    recording: Annotated[str | None, typer.Argument(help="Id; the newest by default.")] = None,
    config: options.Config = None,
    workspace: options.Workspace = None,
    json: options.Json = False,
) -> None:
    """Place and settle the mock orders of a recording, and export its batches."""
    from trademl.ingest.replay import export as export_batches
    from trademl.ingest.replay import newest_recording

    with open_session(config, workspace) as session, session.workspace.lock():
        ticks = session.workspace.ticks
        batches = export_batches(
            recording or newest_recording(ticks),
            ticks,
            session.strategy.orders,
            session.strategy.costs,
            session.workspace.store,
            session.workspace.ledger,
            max_delay_s=session.strategy.health.max_delay_s,
        )
    rows = [{"id": b.id, **b.metrics} for b in batches]
    lines = [
        f"{r['id']}: {r['n_orders']} orders, {r['label_rate']:.1%} earned money after costs"
        for r in rows
    ]
    emit({"id": rows[-1]["id"], "batches": rows}, as_json=json, lines=lines)


@app.command("status")
def status(workspace: options.Workspace = None, json: options.Json = False) -> None:
    """Show what recordings and batches a workspace holds."""
    with open_session(None, workspace, needs_file=False) as session:
        recordings = session.workspace.ticks.recordings()
        batches = session.workspace.store.all_of("batch")
        root = session.workspace.root
    result = {
        "id": str(root),
        "recordings": [vars(r) for r in recordings],
        "batches": [{"id": b.id, **b.metrics} for b in batches],
    }
    lines = [
        f"{r.id}: {r.instrument}, {r.n_quotes} quotes of {r.source}"
        + ("" if r.is_complete else " (incomplete: replay it again)")
        for r in recordings
    ]
    lines += [f"{b.id}: {b.metrics['n_orders']} orders" for b in batches]
    emit(result, as_json=json, lines=lines or ["empty: run trademl ingest replay"])
