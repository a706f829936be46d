"""Watch a strategy's home region from another one, and hedge what it holds when it is gone."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Event
from typing import Any

from sqlalchemy import select

from trademl.errors import ConfigError, DataError, TrademlError
from trademl.ledger import Ledger
from trademl.ledger.live_tables import BrokerFilled, BrokerOrder
from trademl.live.hedge import Evidence, hedge_of, plan_for, report, was_taken_back, why_not
from trademl.live.hedge_size import HedgeConfig, check_fresh
from trademl.live.lease import LeaseHolder, lease_state
from trademl.live.paper_options import PaperOptions
from trademl.live.positions import positions
from trademl.live.reach import any_server_answers, is_reached, refuse_untrusted
from trademl.live.sender import Sender
from trademl.live.watch import HedgeWatch, Look, Prices
from trademl.pipeline.live import until_told
from trademl.pipeline.strategy import Strategy
from trademl.pipeline.workspace import Workspace
from trademl.ports import Progress, Silent
from trademl.serve.routing.settings import check_region_name, market_address

MAX_SPOT_AGE_S = 60.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class HedgeOptions:
    """How a region is watched.

    Parameters
    ----------
    region : str
        From where: another one than the home of ``[hedge]``.
    servers : tuple of str
        URLs of the home region's servers.
    ca_file : str
        Certificates (PEM) to trust besides those of the machine.
    market : str
        ``host:port`` of the home region's market; empty: it counts as gone with the servers.
    spot : str
        Price of the ETF: a number, or a file that holds one and is read anew when it is needed.
    max_spot_age_s : float
        Such a file is refused when it was written longer ago.
    price : float
        Of the instrument; 0 takes that of the last fill in the ledger.
    every_s : float
        Between two looks.
    misses : int
        Looks in a row without an answer after which the servers are away.
    lease_s : float
        How long the lease is taken for while the order goes out.
    rests : bool
        The paper broker's orders rest until they are cancelled, instead of filling at once.
    """

    region: str
    servers: tuple[str, ...]
    spot: str
    ca_file: str = ""
    market: str = ""
    max_spot_age_s: float = MAX_SPOT_AGE_S
    price: float = 0.0
    every_s: float = 1.0
    misses: int = 3
    lease_s: float = 30.0
    rests: bool = False

    def __post_init__(self) -> None:
        check_region_name(self.region)
        if not self.servers:
            raise ConfigError("no server of the home region: give --regions FILE or --server URL")
        if self.market:
            market_address(self.market)
        for name in ("max_spot_age_s", "every_s", "misses", "lease_s"):
            if not (math.isfinite(value := getattr(self, name)) and value > 0):
                raise ConfigError(f"{name} is {value}: expected a number above 0")

    @property
    def is_server_up(self) -> bool:
        """Whether one of the servers answers now."""
        return any_server_answers(self.servers, ca_file=self.ca_file)

    @property
    def is_market_up(self) -> bool:
        """Whether the market can be reached now."""
        return bool(self.market) and is_reached(market_address(self.market))


def plan_outage(strategy: Strategy, workspace: Workspace, options: HedgeOptions) -> dict[str, Any]:
    """Return what an outage now would buy, and why nothing is bought yet; nothing is sent.

    Raises
    ------
    ConfigError, DataError
        If the section ``[hedge]`` or a price cannot be used, or beta and volatility are stale.
    ServeError
        If a server's certificate is not trusted.
    """
    config, ledger = _hedged(strategy, options), workspace.ledger
    prices = _prices(ledger, strategy.name, config, options)
    is_up = options.is_server_up
    lease = lease_state(ledger, strategy.name)
    evidence = Evidence(lease, is_up, is_up or options.is_market_up)
    is_hedged = hedge_of(ledger, lease) is not None or was_taken_back(ledger, lease)
    why = why_not(evidence, config.home) or ("this outage is hedged already" if is_hedged else "")
    plan = plan_for(
        ledger, strategy.name, config, price=prices.price, spot=prices.spot, now_ns=time.time_ns()
    )
    held = positions(ledger, strategy.name).get(config.instrument)
    return {
        "strategy": strategy.name,
        "home": config.home,
        "position": held.quantity if held else 0.0,
        "would_fire": not why,
        "why_not": why,
        **asdict(prices),
        **report(plan),
    }


def watch_region(
    strategy: Strategy,
    workspace: Workspace,
    options: HedgeOptions,
    *,
    stop: Event | None = None,
    told: Callable[[Look], None] = lambda _: None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Look at the home region until ``stop`` is set; hedge once when it is gone.

    Parameters
    ----------
    told : callable
        Given each look that differs from the one before.

    Returns
    -------
    dict
        Hedges fired and taken back, and the last look; safe for JSON.

    Raises
    ------
    ConfigError, DataError, ServeError
        Before the watch begins: as `plan_outage`. Later they are logged, and it goes on.
    LockedError
        If this region is watched from the workspace already.
    """
    config, ledger = _hedged(strategy, options), workspace.ledger
    _prices(ledger, strategy.name, config, options)
    stop, progress = stop or Event(), progress or Silent()
    watch = HedgeWatch(
        ledger,
        strategy.name,
        config,
        _holder(ledger, strategy.name, config, options),
        hedge_sender(strategy, workspace, options.region, rests=options.rests),
        is_server_up=lambda: options.is_server_up,
        is_market_up=lambda: options.is_market_up,
        prices=lambda: _prices(ledger, strategy.name, config, options),
        misses=options.misses,
    )
    counts = {"fired": 0, "recovered": 0}
    last: Look | None = None
    progress.step("hedge", f"region {options.region} watches {config.home}")
    with workspace.lock(lock_of(options.region)), until_told(stop):
        while not stop.is_set():
            look = _look(watch)
            if look is not None:
                for what in counts:
                    counts[what] += look.standing == what
                if last is None or (look.standing, look.key) != (last.standing, last.key):
                    told(look)
                last = look
            stop.wait(options.every_s)
    return {
        "strategy": strategy.name,
        "home": config.home,
        "region": options.region,
        **counts,
        "last": None if last is None else asdict(last),
    }


def hedge_sender(
    strategy: Strategy, workspace: Workspace, region: str, *, rests: bool = False
) -> Sender:
    """Return what sends a region's hedges to its broker, for whoever holds `lock_of` it."""
    account = f"paper-options-{region}"
    broker = PaperOptions(
        workspace.root / f"{account}.jsonl", fills_at_once=not rests, name=account[:60]
    )
    return Sender(workspace.ledger, broker, strategy.name, kinds=("hedge",), region=region)


def lock_of(region: str) -> str:
    """Return the name of the workspace's lock under which a region's hedges are sent."""
    return f"hedge-{region}"


def read_spot(text: str, max_age_s: float) -> float:
    """Return the ETF's price: ``text`` itself, or what the file of that name holds.

    Raises
    ------
    DataError
        If it is neither, or the file was written longer than ``max_age_s`` ago.
    """
    try:
        return float(text)
    except ValueError:
        path = Path(text)
    try:
        age_s = time.time() - path.stat().st_mtime
        spot = float(path.read_text(encoding="ascii"))
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise DataError(f"--spot {text}: neither a price nor a file of one: {error}") from error
    if age_s > max_age_s:
        raise DataError(
            f"--spot {text} was written {age_s:.0f} s ago, more than {max_age_s:g}: a hedge is "
            "sized by the price of now"
        )
    return spot


def _look(watch: HedgeWatch) -> Look | None:
    """Look once; a ledger or a price that is away for a while does not end the watch."""
    try:
        return watch.look()
    except TrademlError as error:
        _log.error("%s", error)
        return None


def _hedged(strategy: Strategy, options: HedgeOptions) -> HedgeConfig:
    config = strategy.hedge
    if not config.home:
        raise ConfigError("the strategy file has no [hedge] with a home region: write one")
    if config.home == options.region:
        raise ConfigError(
            f"region {options.region} is the home of {strategy.name}: watch it from another one"
        )
    if config.instrument != strategy.feed.name:
        raise ConfigError(
            f"[hedge] instrument is {config.instrument}, the strategy trades {strategy.feed.name}: "
            "its position would never be found"
        )
    check_fresh(config, time.time_ns())
    refuse_untrusted(options.servers, ca_file=options.ca_file)
    return config


def _holder(
    ledger: Ledger, strategy: str, config: HedgeConfig, options: HedgeOptions
) -> LeaseHolder:
    return LeaseHolder(
        ledger,
        strategy,
        home=config.home,
        region=options.region,
        holder=f"hedge-{options.region[:40]}-{os.getpid()}-{os.urandom(8).hex()}",
        ttl_ms=round(options.lease_s * 1000),
    )


def _prices(ledger: Ledger, strategy: str, config: HedgeConfig, options: HedgeOptions) -> Prices:
    price = options.price or _last_price(ledger, strategy, config.instrument)
    return Prices(price, read_spot(options.spot, options.max_spot_age_s))


def _last_price(ledger: Ledger, strategy: str, instrument: str) -> float:
    statement = (
        select(BrokerFilled.price)
        .join(BrokerOrder, BrokerFilled.order_key == BrokerOrder.key)
        .where(BrokerOrder.strategy == strategy, BrokerOrder.instrument == instrument)
        .order_by(BrokerFilled.ts_event_ns.desc())
        .limit(1)
    )
    with ledger.session() as session:
        price = session.scalar(statement)
    if price is None:
        raise DataError(
            f"strategy {strategy} has no fill of {instrument} in this ledger: give --price"
        )
    return float(price)
