"""``trademl serve hedge``: watch a strategy's home region, and hedge it when it is gone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from trademl.cli import options
from trademl.cli.output import emit
from trademl.cli.route import RegionsFile
from trademl.cli.session import open_session
from trademl.errors import ConfigError

if TYPE_CHECKING:
    from trademl.live.watch import Look


def hedge(
    region: Annotated[
        str, typer.Option(metavar="NAME", help="Where this runs: not the home region.")
    ],
    spot: Annotated[
        str,
        typer.Option(
            metavar="PRICE|FILE", help="Price of the ETF, or a file that holds it, read anew."
        ),
    ],
    regions: RegionsFile = None,
    server: Annotated[
        list[str] | None,
        typer.Option(metavar="URL", help="A server of the home region; instead of --regions."),
    ] = None,
    market: Annotated[
        str,
        typer.Option(
            metavar="HOST:PORT", help="The home region's market; gone with its servers if empty."
        ),
    ] = "",
    price: Annotated[
        float, typer.Option(help="Price of the instrument; that of its last fill otherwise.")
    ] = 0.0,
    every_s: Annotated[float, typer.Option(help="Seconds between two looks.")] = 1.0,
    misses: Annotated[
        int, typer.Option(help="Looks in a row without an answer until the servers are away.")
    ] = 3,
    rests: Annotated[
        bool, typer.Option("--paper-rests", help="Paper orders rest instead of filling at once.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what an outage now would buy, and end.")
    ] = False,
    unwind: Annotated[
        bool, typer.Option("--unwind", help="Sell what hedges bought, cancel what is open; end.")
    ] = False,
    while_out: Annotated[
        bool, typer.Option("--while-out", help="Unwind although the home region is still out.")
    ] = False,
    config: options.Config = None,
    workspace: options.Workspace = None,
    json: options.Json = False,
) -> None:
    """Watch the home region of [hedge]; when all of it is gone, buy options once, on paper."""
    if unwind:
        _unwind(region, spot, while_out, rests, dry_run, config, workspace, json)
        return
    if while_out:
        raise ConfigError("--while-out goes with --unwind: give both, or neither")
    from trademl.pipeline.hedging import HedgeOptions, plan_outage, watch_region
    from trademl.serve.routing.settings import read_regions

    if (regions is None) == (not server):
        raise ConfigError("give --regions FILE, or --server URL once or more")
    ca_file = ""
    with open_session(config, workspace) as session:
        strategy = session.strategy
        if regions is not None:
            home = read_regions(regions).named(strategy.hedge.home)
            server, market, ca_file = [home.url], market or home.market, home.ca_file
        chosen = HedgeOptions(
            region=region,
            servers=tuple(server or ()),
            spot=spot,
            ca_file=ca_file,
            market=market,
            price=price,
            every_s=every_s,
            misses=misses,
            rests=rests,
        )
        if dry_run:
            found = plan_outage(strategy, session.workspace, chosen)
            emit(found, as_json=json, lines=_plan_lines(found))
            return
        found = watch_region(
            strategy, session.workspace, chosen, told=_tell, progress=session.progress
        )
    emit(found, as_json=json, lines=_lines(found))


def _unwind(
    region: str,
    spot: str,
    while_out: bool,
    rests: bool,
    dry_run: bool,
    config: options.Config,
    workspace: options.Workspace,
    json: bool,
) -> None:
    from trademl.pipeline.unwinding import UnwindOptions, plan_unwinding, unwind_hedges

    act = plan_unwinding if dry_run else unwind_hedges
    with open_session(config, workspace) as session:
        chosen = UnwindOptions(region, spot, while_out, rests)
        found = act(session.strategy, session.workspace, chosen)
    lines = [_unwound_line(found)]
    if dry_run and found["why_not"]:
        lines.append(f"  not now: {found['why_not']}")
    emit(found, as_json=json, lines=lines)


def _unwound_line(found: dict[str, Any]) -> str:
    words = [f"cancelled {key}" for key in found["cancelled"]]
    for fact in found["held"]:
        what = f"{fact['quantity']:g} {fact['instrument']}"
        if fact["why"]:
            words.append(f"kept {what}: {fact['why']}")
        elif fact["status"] == "filled":
            words.append(f"sold {what} at {fact['limit_price']:.4f}")
        else:
            standing = fact["status"] or "not sent"
            words.append(f"sell {what} at {fact['limit_price']:.4f} ({standing})")
    return "; ".join(words) or "nothing to unwind: no options of a hedge are held"


def _tell(look: Look) -> None:
    typer.echo(f"{look.standing}: {look.why}{f' ({look.key})' if look.key else ''}", err=True)


def _lines(found: dict[str, Any]) -> list[str]:
    last = found["last"]
    return [
        f"hedges fired: {found['fired']}, taken back: {found['recovered']}",
        f"  region {found['home']}: {last['why'] if last else 'never looked at'}",
    ]


def _plan_lines(found: dict[str, Any]) -> list[str]:
    plan = found["plan"]
    first = "an outage now would buy nothing: there is no position"
    if plan is not None:
        cost = plan["contracts"] * plan["premium"]
        first = f"an outage now would buy {plan['contracts']} {plan['instrument']} for {cost:.2f}"
    lines = [
        first,
        f"  position {found['position']:g} at {found['price']:g}, spot {found['spot']:g}",
    ]
    if plan is not None:
        lines.append(
            f"  exposure {plan['exposure']:.2f}, delta {plan['delta']:.4f}, premium of a contract "
            f"{plan['premium']:.2f}"
        )
        lines.append(
            f"  contracts: {plan['by_budget']:.2f} by the budget, {plan['by_exposure']:.2f} by the "
            f"exposure, bound by the {plan['bound']}"
        )
    lines.append(
        "  it would be bought now" if found["would_fire"] else f"  not now: {found['why_not']}"
    )
    return lines
