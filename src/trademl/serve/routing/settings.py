"""Which regions there are and how a route treats them: a TOML file, checked."""

from __future__ import annotations

import difflib
import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from trademl.errors import ConfigError
from trademl.serve.ladder import LONGEST_S

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
_ADDRESS = re.compile(r"(?:\[(?P<ip6>[0-9A-Fa-f:]+)\]|(?P<host>[^\s:]+)):(?P<port>[0-9]{1,5})")


@dataclass(frozen=True)
class RegionConfig:
    """One table ``[[regions]]``: a regional server and the market beside it.

    Parameters
    ----------
    name : str
        Letters, digits, ``.``, ``_`` and ``-``.
    url : str
        ``http://host:port`` or ``https://host:port``.
    token_file : str
        File that holds the token for that server; relative to the file of regions.
    ca_file : str
        Certificates (PEM) to trust besides those of the machine.
    market : str
        ``host:port`` of the region's market access; it counts as reached when it accepts a
        connection.
    priority : int
        Regions of a higher number are asked only while none of a lower one is there.
    """

    name: str
    url: str
    token_file: str = ""
    ca_file: str = ""
    market: str = ""
    priority: int = 0

    def __post_init__(self) -> None:
        check_region_name(self.name)
        try:
            parts = urlsplit(self.url)
            is_address = parts.scheme in ("http", "https") and bool(parts.hostname)
            is_address = is_address and parts.port != 0 and parts.path in ("", "/")
        except ValueError:
            is_address = False
        if not is_address:
            raise ConfigError(
                f"region {self.name}: url is {self.url!r}, expected such as http://10.0.0.1:8080"
            )
        if self.ca_file and parts.scheme != "https":
            raise ConfigError(
                f"region {self.name} has a ca_file and the url {self.url}: expected https://"
            )
        if self.market:
            market_address(self.market)


@dataclass(frozen=True)
class RouteConfig:
    """The table ``[route]``: how long regions are waited for, and when they are given up.

    Parameters
    ----------
    deadline_ms : float
        How long a caller waits who does not say so; at most 60000.
    hedge_share : float
        Of the time left: after it a second region is asked, if not before.
    hedge_most_ms, hedge_least_ms : float
        Latest and soonest time after which a second region is asked. Between them it is the
        95th percentile of what the first region took lately.
    hedge_budget : float
        Second questions for each request, at most, so that a slow day is not twice the load.
        Regions that failed do not count.
    health_every_s, health_timeout_s : float
        How often ``/ping`` is asked, and how long its answer may take; four times as long from a
        region that is away, to which a connection must be opened first.
    fall : int
        A region is away after so many health checks in a row that failed; one that succeeds
        brings it back.
    failures : int
        Failed requests in a row that open a region's breaker.
    open_s, longest_open_s : float
        How long a breaker stays open: the first time, and at most; it doubles each time.
    decay_s : float
        In this time an old latency loses all but a third of its weight.
    """

    deadline_ms: float = 1000.0
    hedge_share: float = 0.25
    hedge_most_ms: float = 300.0
    hedge_least_ms: float = 5.0
    hedge_budget: float = 0.1
    health_every_s: float = 0.2
    health_timeout_s: float = 0.25
    fall: int = 2
    failures: int = 3
    open_s: float = 1.0
    longest_open_s: float = 30.0
    decay_s: float = 10.0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            least_is_allowed = name == "hedge_budget"
            if not (math.isfinite(value) and (value > 0 or (least_is_allowed and value == 0))):
                expected = "0 or more" if least_is_allowed else "a number above 0"
                raise ConfigError(f"[route] {name} is {value}: expected {expected}")
        if self.deadline_ms > LONGEST_S * 1000:
            raise ConfigError(
                f"[route] deadline_ms is {self.deadline_ms:g}: expected at most "
                f"{LONGEST_S * 1000:g}"
            )
        if self.hedge_share > 1:
            raise ConfigError(f"[route] hedge_share is {self.hedge_share:g}: expected at most 1")


@dataclass(frozen=True)
class Regions:
    """A file of regions as a whole; regions in its order."""

    regions: tuple[RegionConfig, ...]
    route: RouteConfig = field(default_factory=RouteConfig)

    def __post_init__(self) -> None:
        names = [region.name for region in self.regions]
        if not names:
            raise ConfigError("there is no region: write at least one [[regions]]")
        if twice := {name for name in names if names.count(name) > 1}:
            raise ConfigError(f"region {min(twice)} is there twice: expected each name once")

    def named(self, name: str) -> RegionConfig:
        """Return a region.

        Raises
        ------
        ConfigError
            If there is none of the name.
        """
        for region in self.regions:
            if region.name == name:
                return region
        known = ", ".join(region.name for region in self.regions)
        raise ConfigError(f"there is no region {name!r}: expected one of {known}")


def read_regions(path: Path) -> Regions:
    """Return what a file of regions says.

    Raises
    ------
    ConfigError
        If it cannot be read, or a key or value is not known.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is not valid TOML: {error}") from error
    _check_keys(path, "", document, ("route", "regions"))
    tables = document.get("regions", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise ConfigError(f"{path}: regions is no list of tables: write [[regions]]")
    try:
        route = _table(path, "route", document.get("route", {}), RouteConfig)
        regions = [_table(path, "regions", table, RegionConfig) for table in tables]
        return Regions(tuple(_beside(region, path.parent) for region in regions), route)
    except ConfigError as error:
        message = str(error)
        raise ConfigError(
            message if message.startswith(str(path)) else f"{path}: {message}"
        ) from error


def parse_regions(words: Sequence[str]) -> Regions:
    """Return the regions of words such as ``hk=http://10.0.0.1:8080``."""
    found = []
    for word in words:
        name, mark, url = word.partition("=")
        if not mark:
            raise ConfigError(f"--region {word!r}: expected NAME=URL")
        found.append(RegionConfig(name, url))
    return Regions(tuple(found))


def check_region_name(name: str) -> None:
    """Refuse what is no region's name: it also names files, and labels of metrics."""
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"region {name!r}: expected a name of 1 to 80 letters, digits, '.', '_' and '-'"
        )


def market_address(text: str) -> tuple[str, int]:
    """Return host and port of ``host:port``.

    Raises
    ------
    ConfigError
        If it is none.
    """
    match = _ADDRESS.fullmatch(text)
    if match is None or not 0 < int(match["port"]) < 65536:
        raise ConfigError(f"market {text!r}: expected host:port, such as 10.0.0.1:7496")
    return match["host"] or match["ip6"], int(match["port"])


def _table(path: Path, name: str, table: Mapping[str, Any], kind: type[Any]) -> Any:
    if not isinstance(table, dict):
        raise ConfigError(f"{path}: {name} is no table: write [{name}]")
    _check_keys(path, f"{name}.", table, [key.name for key in fields(kind)])
    try:
        return msgspec.convert(table, kind)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$.")
        key = f"{name}.{where.rstrip('`')}" if where else name
        raise ConfigError(f"{path}: {key}: {what[:1].lower()}{what[1:]}") from error


def _check_keys(path: Path, prefix: str, table: Mapping[str, Any], known: Sequence[str]) -> None:
    for key in table:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {prefix}{close[0]}?" if close else f"know {', '.join(known)}"
            raise ConfigError(f"{path}: unknown key {prefix}{key}; {hint}")


def _beside(region: RegionConfig, folder: Path) -> RegionConfig:
    """Take a region's relative files as relative to the file of regions."""
    token_file, ca_file = (
        str(folder / file) if file else "" for file in (region.token_file, region.ca_file)
    )
    return replace(region, token_file=token_file, ca_file=ca_file)
