"""``trademl serve live``: trade a strategy's deployed model on a feed, on paper."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from trademl.cli import options
from trademl.cli.output import emit
from trademl.cli.session import open_session


def live(
    feed: Annotated[
        Literal["recorded", "simulated"],
        typer.Option(help="The recording of [feed], or a simulated market with its seed."),
    ] = "recorded",
    speed: Annotated[
        float, typer.Option(help="Times as fast as the quotes came; 0: as fast as possible.")
    ] = 0.0,
    url: Annotated[
        str, typer.Option(help="Ask this model server; the model in this process otherwise.")
    ] = "",
    ca_file: options.CaFile = None,
    endpoint: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="What that server calls the strategy; the strategy's endpoint by default.",
        ),
    ] = "",
    smaller: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODEL",
            help="Id, folder or s3:// address of a smaller model that answers under load, instead "
            "of [[serving.rungs]]; give several, biggest first.",
        ),
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option(help="File that holds the token for that server.")
    ] = None,
    trade_refused: Annotated[
        bool,
        typer.Option(
            "--trade-refused",
            help="Send paper orders although the model is refused or in shadow mode.",
        ),
    ] = False,
    region: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Trade only while this region holds the strategy's lease in the ledger; stand by "
            "while another does.",
        ),
    ] = "",
    market: Annotated[
        str,
        typer.Option(metavar="HOST:PORT", help="Take the lease only while this can be reached."),
    ] = "",
    lease_s: Annotated[
        float, typer.Option(help="Seconds after which another region takes over from a lost one.")
    ] = 5.0,
    config: options.Config = None,
    workspace: options.Workspace = None,
    json: options.Json = False,
) -> None:
    """Trade live on paper: feed, features, model, orders, fills in the ledger; resumes if cut."""
    from trademl.pipeline.live import LiveOptions, trade_live
    from trademl.serve.client import read_token

    chosen = LiveOptions(
        feed=feed,
        speed=speed,
        url=url,
        ca_file="" if ca_file is None else str(ca_file),
        endpoint=endpoint,
        token=read_token(token_file) if token_file else "",
        trade_refused=trade_refused,
        smaller=tuple(smaller or ()),
        region=region,
        market=market,
        lease_s=lease_s,
    )
    with open_session(config, workspace) as session:
        found = trade_live(session.strategy, session.workspace, chosen, progress=session.progress)
    emit(found, as_json=json, lines=_lines(found))


def _lines(found: dict[str, Any]) -> list[str]:
    outcomes = ", ".join(f"{n} {what}" for what, n in sorted(found["outcomes"].items()))
    tiers = ", ".join(f"{n} {tier}" for tier, n in sorted(found["tiers"].items()))
    resumed = f", {found['n_resumed']} of them from before" if found["n_resumed"] else ""
    if found["status"] == "stood by":
        return [f"STOOD BY: region {found['region']} did not get the lease, and traded nothing"]
    lines = [
        _verdict(found),
        f"  {found['id']}: {found['status']} after {found['n_quotes']} quotes of {found['feed']}",
        f"  decisions: {found['n_decisions']}{resumed}: {outcomes or 'none'}",
        f"  answered by: {tiers or 'nobody'}",
    ]
    if (position := found["open"]) is not None:
        lines.append(
            f"  open: {position['stage']}, {position['units']:g} units {position['side']} at "
            f"{position['entry_price']}; run the same command to go on with it"
        )
    return lines


def _verdict(found: dict[str, Any]) -> str:
    if found["mode"] == "shadow":
        why = "; ".join(found["reasons"]) or "it is not the strategy's champion"
        return f"SHADOW: {found['model']} traded nothing: {why}"
    refused = f", by a model that was refused ({'; '.join(found['reasons'])})"
    return (
        f"PAPER: {found['n_trades']} trades, net PnL {found['net_pnl']:.2f}; no money was at stake"
        + (refused if found["reasons"] else "")
    )
