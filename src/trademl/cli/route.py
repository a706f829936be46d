"""``trademl serve route``: one address in front of the servers of several regions."""

from __future__ import annotations

import json as jsonlib
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from trademl.cli import options
from trademl.cli.output import LogFormat, announce
from trademl.errors import ConfigError, require_extra

RegionsFile = Annotated[
    Path | None,
    typer.Option(
        "--regions", metavar="FILE", help="TOML file of [[regions]] and [route]; docs/regions.md."
    ),
]


def route(
    regions: RegionsFile = None,
    region: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=URL", help="A region's server; give several."),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.")] = 8090,
    token_file: Annotated[
        Path | None,
        typer.Option(help="Lines of 'predict TOKEN': nobody else may ask."),
    ] = None,
    open_to_all: Annotated[
        bool, typer.Option("--open", help="Anyone who reaches the address may ask.")
    ] = False,
    tls_cert: Annotated[Path | None, typer.Option(help="Certificate (PEM): HTTPS.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its key (PEM).")] = None,
    max_body_mib: Annotated[
        int, typer.Option(help="Largest body of a request, 1 to 25; also a limit of each region's.")
    ] = 6,
    max_connections: options.MaxConnections = 1024,
    timeout_s: options.TimeoutS = 60.0,
    log_format: Annotated[
        LogFormat, typer.Option(help="Of what is logged on stderr: text, or JSON lines.")
    ] = "text",
    log_requests: options.LogRequests = None,
    json: options.Json = False,
) -> None:
    """Pass requests on to the best of several regions; another one answers where it is cut off."""
    require_extra("serve")
    from trademl.serve.logs import logging_to
    from trademl.serve.routing.server import route as route_until_stopped
    from trademl.serve.routing.settings import parse_regions, read_regions
    from trademl.serve.settings import ServerConfig

    if (regions is None) == (not region):
        raise ConfigError("give --regions FILE, or --region NAME=URL once or more")
    found = read_regions(regions) if regions is not None else parse_regions(region or ())
    settings = ServerConfig(
        host=host,
        port=port,
        **options.server_limits(max_body_mib, max_connections, timeout_s),
        token_file=token_file,
        is_open=open_to_all,
        tls_cert=tls_cert,
        tls_key=tls_key,
        log_per_s=1.0 if log_requests is None else log_requests,
    )

    def tell(url: str, facts: list[dict[str, Any]]) -> None:
        if json:
            typer.echo(jsonlib.dumps({"url": url, "regions": facts}))
            return
        for fact in facts:
            standing = "is there" if fact["is_up"] else f"is away: {fact['last_failure']}"
            announce(f"region {fact['name']} ({fact['url']}) {standing}", log_format)
        announce(f"routing to {', '.join(fact['name'] for fact in facts)} at {url}", log_format)

    with logging_to(sys.stderr, log_format):
        route_until_stopped(found, settings, on_ready=tell)
