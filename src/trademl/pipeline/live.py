"""Trade a strategy live: its feed, its deployed model, its risk and a broker, put together."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from statistics import median
from threading import Event, current_thread, main_thread
from typing import Any, Literal

from trademl.backtest.live_risk import AccountRisk
from trademl.errors import ConfigError, LeaseError, require_extra
from trademl.ingest.replay import recording_id
from trademl.ingest.simulated import SimulatedMarket, simulate
from trademl.ingest.sources import read_quotes
from trademl.ledger.live_tables import LiveRun
from trademl.live.asking import Adviser
from trademl.live.feeds import replayed
from trademl.live.journal import Journal
from trademl.live.lease import LeaseHolder, lease_state
from trademl.live.outbox import Fence
from trademl.live.paper_broker import PaperBroker
from trademl.live.reach import is_reached
from trademl.live.sender import Sender
from trademl.live.standby import Turn, stand_by
from trademl.live.trader import LivePlan, Tally, Trader
from trademl.market.orders import Side
from trademl.market.quotes import Quotes
from trademl.pipeline.ladders import strategy_ladders
from trademl.pipeline.strategy import Strategy
from trademl.pipeline.workspace import Workspace
from trademl.ports import Progress, Silent
from trademl.serve.deployments import DEPLOYED
from trademl.serve.known_models import KnownModels
from trademl.serve.routing.settings import check_region_name, market_address
from trademl.serve.served import ServedModel, served
from trademl.serve.strategies import ServedStrategy
from trademl.store.identity import artifact_id
from trademl.train.model import load_model

FeedName = Literal["recorded", "simulated"]
TOLD_EVERY = 2_000  # quotes
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LiveOptions:
    """How a strategy is traded live.

    Parameters
    ----------
    feed : {"recorded", "simulated"}
        The recording of ``[feed]``, or `trademl.ingest.simulated` with the strategy's seed.
    speed : float
        Times as fast as the quotes came; 0 as fast as they are taken.
    url : str
        A model server to ask; the deployed model is asked in this process where empty.
    token : str
        What that server knows us by.
    ca_file : str
        Certificates (PEM) to trust besides those of the machine.
    endpoint : str
        What that server calls the strategy; the name of the strategy's endpoint where empty.
    trade_refused : bool
        Send orders although the model is refused, or in shadow mode.
    smaller : tuple of str
        Smaller models of the ladder in this process, biggest first, instead of
        ``[[serving.rungs]]``.
    n_simulated : int
        Quotes of a simulated feed.
    region : str
        Trade only while this region holds the strategy's lease in the ledger; stand by while
        another does. Empty: there is one region, and no lease.
    market : str
        ``host:port``; the lease is taken only while it accepts connections.
    lease_s : float
        How long the lease lasts when it is not renewed: after a region is lost, nobody trades for
        so long.
    """

    feed: FeedName = "recorded"
    speed: float = 0.0
    url: str = ""
    token: str = ""
    ca_file: str = ""
    endpoint: str = ""
    trade_refused: bool = False
    smaller: tuple[str, ...] = ()
    n_simulated: int = 20_000
    region: str = ""
    market: str = ""
    lease_s: float = 5.0

    def __post_init__(self) -> None:
        if self.endpoint and not self.url:
            raise ConfigError("--endpoint is what a server calls the strategy: give its --url too")
        if self.ca_file and not self.url:
            raise ConfigError("--ca-file is for a server of https: give its --url too")
        if self.region:
            check_region_name(self.region)
        if self.market:
            market_address(self.market)
        if not 0.5 <= self.lease_s <= 3600:
            raise ConfigError(f"--lease-s is {self.lease_s:g}: expected 0.5 to 3600 seconds")
        if not 0 <= self.speed < float("inf"):
            raise ConfigError(f"--speed is {self.speed}, expected a finite number of 0 or more")


def trade_live(
    strategy: Strategy,
    workspace: Workspace,
    options: LiveOptions | None = None,
    *,
    stop: Event | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Trade a strategy's deployed model on a feed until it ends or ``stop`` is set.

    The same strategy, model and feed are one run: what was cut short is gone on with, and a run
    that had finished is told again.

    Returns
    -------
    dict
        Summary, safe for JSON; ``status`` is finished, stopped, or stood by where another region
        held the lease until the end.

    Raises
    ------
    ServeError
        If nothing is deployed, or the server cannot be asked.
    ConfigError
        If the strategy cannot be traded live, or the model takes other columns than ``[features]``.
    DataError
        If the feed cannot be read.
    LockedError
        If another process trades live in this workspace, for the same region.
    """
    options = options or LiveOptions()
    require_extra("serve")
    lock = f"live-{options.region}" if options.region else "live"
    # SQLite writes its log back, slowly, whenever the last connection closes: one stays open
    with workspace.lock(lock), workspace.ledger.engine.connect():
        return _trade(strategy, workspace, options, stop or Event(), progress or Silent())


def _trade(
    strategy: Strategy,
    workspace: Workspace,
    options: LiveOptions,
    stop: Event,
    progress: Progress,
) -> dict[str, Any]:
    ladder = _ladder(strategy, workspace, options)
    model = _deployed(ladder)
    _check_columns(strategy, model.model.columns)
    trades = options.trade_refused or (model.mode == "live" and model.status == "accepted")
    quotes, feed = _quotes(strategy, options)
    plan = _plan(strategy, model.id, feed, options, trades=trades)
    _check_lease(strategy, workspace, options)
    with _adviser(ladder, strategy, workspace, options) as adviser, until_told(stop):
        run = _Run(strategy, workspace, options, plan, model, quotes, feed, adviser, stop, progress)
        return run.take_turns() if options.region else run.trade()


def _ladder(strategy: Strategy, workspace: Workspace, options: LiveOptions) -> ServedStrategy:
    """Return what answers in this process; a server that is asked has rungs of its own."""
    if options.url:
        strategy = replace(strategy, serving=replace(strategy.serving, rungs=()))
    (ladder,) = strategy_ladders(strategy, workspace, smaller=options.smaller)
    return ladder


def _deployed(strategy: ServedStrategy) -> ServedModel:
    """Return the model that is deployed, in memory also where it will compute on a card."""
    held = strategy.ladder[strategy.followed]
    if isinstance(held, ServedModel):
        return held
    return served(load_model(held.location), held.id, mode=held.mode, made_at_s=held.made_at_s)


def _check_lease(strategy: Strategy, workspace: Workspace, options: LiveOptions) -> None:
    """Refuse to trade without a lease beside a region that has one."""
    state = None if options.region else lease_state(workspace.ledger, strategy.name)
    if state is not None and state.left_ms > 0:
        raise ConfigError(
            f"region {state.region} holds the lease of {strategy.name} in this ledger: give "
            "--region NAME to take turns with it"
        )


@dataclass(frozen=True)
class _Run:
    """All that a run is begun with, or taken up where another region left it."""

    strategy: Strategy
    workspace: Workspace
    options: LiveOptions
    plan: LivePlan
    model: ServedModel
    quotes: Quotes
    feed: str
    adviser: Adviser
    stop: Event
    progress: Progress

    def take_turns(self) -> dict[str, Any]:
        """Trade while this region holds the lease, stand by while it does not."""
        options, name = self.options, self.strategy.name
        region = options.region
        holder = LeaseHolder(
            self.workspace.ledger,
            name,
            home=self.strategy.hedge.home or region,
            region=region,
            holder=f"{region[:40]}-{os.getpid()}-{os.urandom(8).hex()}",
            ttl_ms=round(options.lease_s * 1000),
            trades=True,
        )
        market = market_address(options.market) if options.market else None
        while not self.stop.is_set():
            self.progress.step("live", f"region {region} stands by for the lease of {name}")
            fence = stand_by(
                holder, self.stop, may_take=lambda: market is None or is_reached(market)
            )
            if fence is None:
                break
            with Turn(holder):
                try:
                    return self.trade(fence, partial(_has, holder, fence))
                except LeaseError as error:
                    _log.warning("region %s trades no more: %s", region, error)
        return self._summary(Tally(), "stood by", None)

    def trade(
        self, fence: Fence | None = None, may_trade: Callable[[], bool] = lambda: True
    ) -> dict[str, Any]:
        """Trade until the feed ends or this process is told to stop.

        Raises
        ------
        LeaseError
            If the fence falls before.
        """
        strategy, options, quotes = self.strategy, self.options, self.quotes
        ledger, plan = self.workspace.ledger, self.plan
        broker = PaperBroker(strategy.costs, f"paper-{plan.run_id}")
        side = Side[strategy.orders.side.upper()]
        risk = AccountRisk(strategy.backtest, strategy.costs, side, seed=strategy.seed)
        self.progress.step("live", f"{len(quotes)} quotes, {self._mode}")
        journal = Journal(ledger, self._row(), fence)
        n_seen = max(journal.known, default=-1) + 1
        sender = Sender(ledger, broker, strategy.name, kinds=("entry", "exit"))
        trader = Trader(plan, self.adviser, risk, broker, journal, sender, may_trade=may_trade)
        for tick in replayed(quotes, speed=options.speed, n_at_once=n_seen, stop=self.stop):
            trader.on_quote(tick)
            if trader.tally.n_quotes % TOLD_EVERY == 0:
                self.progress.advance(trader.tally.n_quotes, len(quotes))
        status = "stopped" if trader.tally.n_quotes < len(quotes) else "finished"
        summary = self._summary(trader.tally, status, trader.open_position())
        trader.finish(status, summary)
        self.progress.done(f"{status}: {len(trader.tally.trips)} trades")
        return summary

    @property
    def _mode(self) -> str:
        return "paper" if self.plan.trades else "shadow"

    def _row(self) -> LiveRun:
        return LiveRun(
            id=self.plan.run_id,
            strategy=self.strategy.name,
            model_id=self.model.id,
            feed=self.feed,
            mode=self._mode,
            status="running",
            n_quotes=0,
            last_ns=0,
            summary={},
        )

    def _summary(
        self, tally: Tally, status: str, position: dict[str, Any] | None
    ) -> dict[str, Any]:
        return {
            "id": self.plan.run_id,
            "status": status,
            "mode": self._mode,
            "region": self.options.region or None,
            "model": self.model.id,
            "reasons": list(self.model.reasons),
            "feed": self.feed,
            "n_quotes": tally.n_quotes,
            "n_decisions": sum(tally.outcomes.values()),
            "n_resumed": tally.n_resumed,
            "outcomes": dict(tally.outcomes),
            "tiers": dict(tally.tiers),
            "n_trades": len(tally.trips),
            "net_pnl": sum(trip.pnl for trip in tally.trips),
            "median_latency_us": median(tally.latency_us) if tally.latency_us else None,
            "open": position,
        }


def _has(holder: LeaseHolder, fence: Fence) -> bool:
    return holder.fence == fence


def _plan(
    strategy: Strategy,
    model_id: str,
    feed: str,
    options: LiveOptions,
    *,
    trades: bool,
) -> LivePlan:
    sections = ("orders", "costs", "health", "features", "backtest", "ladder", "freshness")
    settings = {name: asdict(getattr(strategy, name)) for name in sections}
    no_limit = float("inf")
    settings["backtest"] = {
        name: None if value == no_limit else value for name, value in settings["backtest"].items()
    }
    # regions that take turns go on with one run, each asking the server beside it
    there = {"url": options.url} | ({"endpoint": options.endpoint} if options.endpoint else {})
    asked = {"turns": True} if options.region else there
    identity = artifact_id(
        "live",
        {"model": model_id, "feed": feed},
        settings
        | {"strategy": strategy.name, "seed": strategy.seed, "trades": trades}
        | asked
        | {"smaller": list(options.smaller)}
        | _rungs(strategy, options),
        code="live 1",
    )
    return LivePlan(
        identity,
        strategy.name,
        strategy.feed.name,
        strategy.features,
        strategy.orders,
        strategy.costs,
        strategy.health,
        trades,
        options.trade_refused,
    )


def _rungs(strategy: Strategy, options: LiveOptions) -> dict[str, Any]:
    """Return what of a run's identity its rungs are; nothing where there are none."""
    rungs = () if options.smaller else strategy.serving.rungs
    return {"rungs": [asdict(rung) for rung in rungs]} if rungs else {}


def _check_columns(strategy: Strategy, columns: tuple[str, ...]) -> None:
    wanted = strategy.features.feature_dim
    if len(columns) != wanted:
        raise ConfigError(
            f"the deployed model takes {len(columns)} columns, the recipe of [features] has "
            f"{wanted}: trade it with the strategy file that it was trained by"
        )


def _quotes(strategy: Strategy, options: LiveOptions) -> tuple[Quotes, str]:
    if options.feed == "recorded":
        quotes = read_quotes(strategy.feed)
        if any(event.dividend or event.is_roll for event in quotes.events):
            raise ConfigError(
                "[feed] adjustments has dividends or rolls, which the paper broker does not pay: "
                "leave them out, or trade a feed without them"
            )
        return quotes, recording_id(strategy.feed)
    market = replace(SimulatedMarket(), n_quotes=options.n_simulated, seed=strategy.seed)
    return simulate(market).quotes, f"simulated, {market.n_quotes} quotes, seed {market.seed}"


def _adviser(
    ladder: ServedStrategy, strategy: Strategy, workspace: Workspace, options: LiveOptions
) -> AbstractContextManager[Any]:
    from trademl.live.asking import LadderHere, ServerThere

    if not options.url:
        return LadderHere(ladder)
    endpoint = strategy.serving.endpoint
    models = [entry.id for entry in ladder.ladder]
    models += [rung.model for rung in strategy.serving.rungs if rung.model != DEPLOYED]
    known = KnownModels(endpoint, models, workspace.ledger)
    return ServerThere(
        options.url,
        options.endpoint or endpoint,
        known,
        token=options.token,
        ca_file=options.ca_file,
    )


def until_told(stop: Event) -> AbstractContextManager[None]:
    """Let SIGTERM and SIGINT set ``stop`` while the block lasts, where signals come at all."""
    return _signals(stop) if current_thread() is main_thread() else nullcontext()


@contextmanager
def _signals(stop: Event) -> Iterator[None]:
    """Let SIGTERM and SIGINT set an event while the block lasts."""
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, lambda *_: stop.set()) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
