"""Trade a strategy live: its feed, its deployed model, its risk and a broker, put together."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from statistics import median
from threading import Event, current_thread, main_thread
from typing import Any, Literal

from trademl.backtest.live_risk import AccountRisk
from trademl.errors import ConfigError, require_extra
from trademl.ingest.replay import recording_id
from trademl.ingest.simulated import SimulatedMarket, simulate
from trademl.ingest.sources import read_quotes
from trademl.ledger.live_tables import LiveRun
from trademl.live.feeds import replayed
from trademl.live.journal import Journal
from trademl.live.paper_broker import PaperBroker
from trademl.live.sender import Sender
from trademl.live.trader import LivePlan, Trader
from trademl.market.orders import Side
from trademl.market.quotes import Quotes
from trademl.pipeline.strategy import Strategy
from trademl.pipeline.workspace import Workspace
from trademl.ports import Progress, Silent
from trademl.serve.deployments import deployed_strategies
from trademl.serve.served import ServedModel
from trademl.serve.strategies import ServedStrategy
from trademl.store.identity import artifact_id

FeedName = Literal["recorded", "simulated"]
TOLD_EVERY = 2_000  # quotes


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
    trade_refused : bool
        Send orders although the model is refused, or in shadow mode.
    smaller : tuple of str
        Ids of smaller models of the ladder in this process, biggest first.
    n_simulated : int
        Quotes of a simulated feed.
    """

    feed: FeedName = "recorded"
    speed: float = 0.0
    url: str = ""
    token: str = ""
    trade_refused: bool = False
    smaller: tuple[str, ...] = ()
    n_simulated: int = 20_000

    def __post_init__(self) -> None:
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
        Summary, safe for JSON; ``status`` is finished or stopped.

    Raises
    ------
    ServeError
        If nothing is deployed, or the server cannot be asked.
    ConfigError
        If the strategy cannot be traded live, or the model takes other columns than ``[features]``.
    DataError
        If the feed cannot be read.
    LockedError
        If another process trades live in this workspace.
    """
    require_extra("serve")
    # SQLite writes its log back, slowly, whenever the last connection closes: one stays open
    with workspace.lock("live"), workspace.ledger.engine.connect():
        return _trade(
            strategy, workspace, options or LiveOptions(), stop or Event(), progress or Silent()
        )


def _trade(
    strategy: Strategy,
    workspace: Workspace,
    options: LiveOptions,
    stop: Event,
    progress: Progress,
) -> dict[str, Any]:
    store, ledger = workspace.store, workspace.ledger
    (served,) = deployed_strategies(
        [strategy.serving.endpoint],
        store,
        ledger,
        policy=strategy.ladder,
        freshness=strategy.freshness,
        smaller=options.smaller,
    )
    model = served.ladder[0]
    assert isinstance(model, ServedModel)  # noqa: S101  (the first of a deployed ladder is loaded)
    _check_columns(strategy, model.model.columns)
    threshold = float(store.get(model.id).metrics["threshold"])
    trades = options.trade_refused or (model.mode == "live" and model.status == "accepted")
    quotes, feed = _quotes(strategy, options)
    plan = _plan(strategy, model.id, feed, threshold, options, trades=trades)
    run = LiveRun(
        id=plan.run_id,
        strategy=strategy.name,
        model_id=model.id,
        feed=feed,
        mode="paper" if trades else "shadow",
        status="running",
        n_quotes=0,
        last_ns=0,
        summary={},
    )
    broker = PaperBroker(strategy.costs, f"paper-{plan.run_id}")
    side = Side[strategy.orders.side.upper()]
    risk = AccountRisk(strategy.backtest, strategy.costs, side, seed=strategy.seed)
    progress.step("live", f"{len(quotes)} quotes, {run.mode}")
    with _adviser(served, options) as adviser, _until_told(stop):
        journal = Journal(ledger, run)
        n_seen = max(journal.known, default=-1) + 1
        trader = Trader(plan, adviser, risk, broker, journal, Sender(ledger, broker, strategy.name))
        for tick in replayed(quotes, speed=options.speed, n_at_once=n_seen, stop=stop):
            trader.on_quote(tick)
            if trader.tally.n_quotes % TOLD_EVERY == 0:
                progress.advance(trader.tally.n_quotes, len(quotes))
        status = "stopped" if trader.tally.n_quotes < len(quotes) else "finished"
        summary = _summary(trader, status, model.id, list(model.reasons), feed)
        trader.finish(status, summary)
    progress.done(f"{status}: {len(trader.tally.trips)} trades")
    return summary


def _plan(
    strategy: Strategy,
    model_id: str,
    feed: str,
    threshold: float,
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
    identity = artifact_id(
        "live",
        {"model": model_id, "feed": feed},
        settings
        | {"strategy": strategy.name, "seed": strategy.seed, "trades": trades}
        | {"url": options.url, "smaller": list(options.smaller)},
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
        threshold,
        trades,
        options.trade_refused,
    )


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


def _adviser(served: ServedStrategy, options: LiveOptions) -> AbstractContextManager[Any]:
    from trademl.live.asking import LadderHere, ServerThere

    if options.url:
        return ServerThere(options.url, token=options.token)
    return LadderHere(served)


def _until_told(stop: Event) -> AbstractContextManager[None]:
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


def _summary(
    trader: Trader, status: str, model_id: str, reasons: list[str], feed: str
) -> dict[str, Any]:
    tally, plan = trader.tally, trader.plan
    return {
        "id": plan.run_id,
        "status": status,
        "mode": "paper" if plan.trades else "shadow",
        "model": model_id,
        "reasons": reasons,
        "feed": feed,
        "n_quotes": tally.n_quotes,
        "n_decisions": sum(tally.outcomes.values()),
        "n_resumed": tally.n_resumed,
        "outcomes": dict(tally.outcomes),
        "tiers": dict(tally.tiers),
        "n_trades": len(tally.trips),
        "net_pnl": sum(trip.pnl for trip in tally.trips),
        "median_latency_us": median(tally.latency_us) if tally.latency_us else None,
        "open": trader.open_position(),
    }
