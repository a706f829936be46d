"""Options that every verb shares."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypedDict

import typer

Config = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="Strategy file; strategy.toml by default."),
]
Workspace = Annotated[
    Path | None,
    typer.Option(
        "--workspace",
        metavar="DIR",
        help="Folder of ticks, ledger and artifacts; $TRADEML_WORKSPACE, else ./trademl-workspace.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
MaxConnections = Annotated[
    int,
    typer.Option(
        "--max-connections",
        help="Of each process at once; what comes beyond is answered 503.",
    ),
]
TimeoutS = Annotated[
    float,
    typer.Option(
        "--timeout-s",
        metavar="SECONDS",
        help="In which a request must have arrived, up to 3600; a connection may be idle for a "
        "quarter longer.",
    ),
]
Quotes = Annotated[
    str | None,
    typer.Option(
        "--quotes", metavar="FILE", help="Parquet or CSV recording in place of the strategy's."
    ),
]
Zone = Annotated[
    str | None, typer.Option("--tz", metavar="ZONE", help="Zone of naive times, such as UTC.")
]
TickSize = Annotated[
    float | None,
    typer.Option("--tick-size", help="Smallest price step; needed for files of trade prints."),
]
AllowBadQuotes = Annotated[
    bool,
    typer.Option(
        "--allow-bad-quotes",
        help="Read a file even if more than 5 % of its quotes are crossed or one-sided.",
    ),
]
# What is said of a server, to itself and to what starts one: see `trademl.serve.command`.
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=1,
        help="Processes that answer at the address, a dead one is replaced; 1, and with --ml-root "
        "$SAGEMAKER_MODEL_SERVER_WORKERS.",
    ),
]
Capture = Annotated[
    str | None,
    typer.Option(
        "--capture",
        metavar="DEST",
        help="Keep a sample of requests and answers, as SageMaker's data capture does, below a "
        "folder or s3://bucket/prefix.",
    ),
]
CapturePercent = Annotated[
    float | None,
    typer.Option(
        "--capture-percent",
        metavar="PERCENT",
        help="How large that sample is, above 0, up to 100; 10.",
    ),
]
LogRequests = Annotated[
    float | None,
    typer.Option(
        "--log-requests",
        min=0.0,
        metavar="RATE",
        help="Successes a second that are logged; 1. Errors always are, and requests that send "
        "an X-Request-Id.",
    ),
]
MemoryMib = Annotated[
    int | None,
    typer.Option(
        "--memory-mib",
        min=1,
        help="Most memory of each worker for models that are read from files; 1024.",
    ),
]
Emf = Annotated[
    bool | None,
    typer.Option(
        "--emf/--no-emf",
        help="Log figures once a minute in CloudWatch's embedded metric format; on with --ml-root.",
    ),
]


def feed_flags(
    quotes: str | None, zone: str | None, tick_size: float | None, allow_bad_quotes: bool
) -> dict[str, object]:
    """Return the settings that the feed's options stand for; None where not given."""
    return {
        "feed.quotes": quotes,
        "feed.timezone": zone,
        "feed.tick_size": tick_size,
        "feed.allow_bad_quotes": allow_bad_quotes or None,
    }


class ServerLimits(TypedDict):
    """Settings of a server that its clients are held to."""

    max_body_bytes: int
    max_connections: int
    read_timeout_s: float
    idle_timeout_s: float


def server_limits(max_body_mib: int, max_connections: int, timeout_s: float) -> ServerLimits:
    """Return the settings that the options of a server's limits stand for."""
    return {
        "max_body_bytes": max_body_mib * 2**20,
        "max_connections": max_connections,
        "read_timeout_s": timeout_s,
        "idle_timeout_s": timeout_s * 1.25,
    }


CaFile = Annotated[
    Path | None,
    typer.Option(
        "--ca-file",
        help="PEM of the CA behind the server's certificate, where the machine does not know it.",
    ),
]
