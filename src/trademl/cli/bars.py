"""``trademl bars``: bars built from ticks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from trademl.cli import options
from trademl.cli.output import emit
from trademl.cli.session import open_session

By = Literal["time", "tick", "volume", "dollar"]

app = typer.Typer(help="Bars built from ticks.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _root() -> None:
    pass


@app.command("build")
def build(
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="A .parquet, .csv or .npz file to write.")
    ],
    recording: Annotated[
        str | None, typer.Argument(help="Id of an ingested recording, in place of a file.")
    ] = None,
    by: Annotated[By, typer.Option(help="What fills a bar.")] = "time",
    size: Annotated[
        float, typer.Option(help="Seconds, ticks, units or money (price times units) of a bar.")
    ] = 60.0,
    quotes: options.Quotes = None,
    tz: options.Zone = None,
    tick_size: options.TickSize = None,
    calendar: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Exchange calendar, such as CMES: no bar spans a close."),
    ] = None,
    session_open: Annotated[
        str | None,
        typer.Option(metavar="HH:MM", help="Without a calendar: when a session begins, local."),
    ] = None,
    allow_bad_quotes: options.AllowBadQuotes = False,
    config: options.Config = None,
    workspace: options.Workspace = None,
    json: options.Json = False,
) -> None:
    """Build bars from ticks by time, ticks, volume or money; none spans a session's end."""
    from trademl.ingest.bar_builds import build_bars

    flags = options.feed_flags(quotes, tz, tick_size, allow_bad_quotes)
    flags |= {"feed.calendar": calendar, "feed.session_open": session_open}
    needs_file = quotes is None and recording is None
    with open_session(config, workspace, flags=flags, needs_file=needs_file) as session:
        stored = None if recording is None else session.workspace.ticks.load(recording)
        built = build_bars(session.strategy.feed, by, size, quotes=stored, out=out)
    n_ticks = int(built.ticks.n_ticks.sum())
    emit(
        {"id": str(out), "n_bars": len(built), "n_ticks": n_ticks, "by": by, "size": size},
        as_json=json,
        lines=[f"{out}: {len(built)} bars of {n_ticks} ticks"],
    )
