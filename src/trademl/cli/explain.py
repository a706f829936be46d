"""``trademl explain``: where a result came from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from trademl.cli import options
from trademl.cli.output import emit
from trademl.cli.session import open_session

app = typer.Typer(help="Say where a result came from.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _explain() -> None:
    pass


@app.command("trade")
def trade(
    backtest: Annotated[str, typer.Argument(help="Id of a backtest.")],
    number: Annotated[int, typer.Argument(help="Number of the trade, from 0.", min=0)],
    workspace: options.Workspace = None,
    json: options.Json = False,
) -> None:
    """Walk back from a trade to its signal, model, dataset, proof, batch and ticks."""
    from trademl.backtest.explain import explain_trade

    with open_session(None, workspace, needs_file=False) as session:
        store, ledger = session.workspace.store, session.workspace.ledger
        found = explain_trade(backtest, number, store, ledger)
    emit(found, as_json=json, lines=_lines(found))


def _lines(found: Mapping[str, Any]) -> list[str]:
    made, signal = found["trade"], found["signal"]
    lines = [
        f"{made['side']} {made['entry_price']:g} -> {made['exit_price']:g} "
        f"({made['exit_reason']}), net PnL {made['pnl']:.2f}, fees {made['fees']:.2f}",
        f"  backtest    {found['backtest']['id']}",
        f"  signal      order {made['order_id']}, score {signal['score']}, "
        f"threshold {signal['threshold']}",
    ]
    steps = ("deployment", "model", "study", "dataset", "proof", "batch")
    lines += [f"  {name:<11} {found[name]['id']}" for name in steps if found[name]]
    if found["batch"]:
        lines.append(f"  recording   {found['batch']['recording_id']}")
    for name, ticks in (found["ticks"] or {}).items():
        for tick in ticks:
            mark = ">" if tick["is_it"] else " "
            lines.append(
                f"  {name:<9} {mark} {tick['ts_event_ns']}  bid {tick['bid']}  ask {tick['ask']}"
            )
    return [*lines, *(f"  missing: {what}" for what in found["missing"])]
