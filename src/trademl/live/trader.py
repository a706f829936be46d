"""A strategy trading live: quote by quote from the feed to features, a decision, an order, a fill.

Policy
------
It is that of `trademl.backtest.compiled`: one position at a time; exits come before decisions; an
entry on its way is never withdrawn. Decisions are made when the order bot makes them, on the same
features, and the paper broker fills by the same fill model. So on recorded quotes a live run trades
as the backtest of its model does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from math import isnan
from typing import Any, NamedTuple, Protocol

from trademl.errors import ConfigError, LeaseError, ServeError
from trademl.etl.live_features import LiveFeatures
from trademl.etl.recipe import FeatureRecipe
from trademl.ingest.order_bot import LiveOrderBot, OrderBotConfig
from trademl.ledger.live_tables import BrokerOrder
from trademl.live.asking import Adviser, Opinion
from trademl.live.journal import Decision, Journal
from trademl.live.outbox import ask_cancel, order_key
from trademl.live.paper_broker import PaperBroker
from trademl.live.sender import Sender
from trademl.market.costs import Costs
from trademl.market.health import HealthConfig, LiveHealth
from trademl.market.open_order import OpenOrder, Stage
from trademl.market.orders import ExitReason
from trademl.market.quotes import QuoteFlag, QuoteTick
from trademl.ports import OrderTicket


class Risk(Protocol):
    """Which entries are made, and how large: limits of the account."""

    def units(self, tick: QuoteTick, barriers: tuple[float, float], score: float) -> float:
        """Return the units to trade; 0 for none."""

    def refusal(self, decided_ns: int) -> str:
        """Return ``rejected`` or ``halted`` for an entry that is not made, else nothing."""

    def account_for(self, left_ns: int, pnl: float) -> None:
        """Count the profit of a position that ended."""


@dataclass(frozen=True)
class LivePlan:
    """What a live run trades, and how.

    Parameters
    ----------
    run_id, strategy, instrument : str
    trades : bool
        Send orders; else decisions are only kept: shadow mode.
    trades_shadow : bool
        Send them on answers of a model in shadow mode too.
    """

    run_id: str
    strategy: str
    instrument: str
    recipe: FeatureRecipe
    orders: OrderBotConfig
    costs: Costs
    health: HealthConfig
    trades: bool
    trades_shadow: bool = False

    def __post_init__(self) -> None:
        costs = self.costs
        is_financed = costs.financing_long_pct or costs.financing_short_pct
        if is_financed or costs.needs_volatility:
            found = "financing" if is_financed else "slippage or impact by volatility"
            raise ConfigError(
                f"[costs] has {found}, which the paper broker does not charge: set it to 0"
            )


class Trip(NamedTuple):
    """A round trip that ended; profit after all costs, in quote currency."""

    quote_index: int
    side: str
    entry_ns: int
    entry_price: float
    exit_ns: int
    exit_price: float
    exit_reason: str
    units: float
    pnl: float
    score: float


@dataclass
class _Open:
    """The order that is on its way or held."""

    quote_index: int
    key: str
    exit_key: str
    score: float
    wanted: float
    order: OpenOrder


@dataclass
class Tally:
    """What a run came to."""

    n_quotes: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    tiers: Counter[str] = field(default_factory=Counter)
    trips: list[Trip] = field(default_factory=list)
    n_resumed: int = 0
    latency_us: list[float] = field(default_factory=list)


class Trader:
    """Trades one strategy on the quotes that it is given, from the feed's first one on.

    A run that was cut short is shown its quotes again from the first: what it had decided is read
    from the journal, not asked again, and what it had sent is known to the broker by its key.

    Parameters
    ----------
    broker : PaperBroker
        Fresh, as the run begins.
    may_trade : callable
        Whether this process still may: asked before every quote.
    """

    def __init__(
        self,
        plan: LivePlan,
        adviser: Adviser,
        risk: Risk,
        broker: PaperBroker,
        journal: Journal,
        sender: Sender,
        *,
        may_trade: Callable[[], bool] = lambda: True,
    ) -> None:
        self.plan, self.tally, self._may_trade = plan, Tally(), may_trade
        self._adviser, self._risk, self._broker = adviser, risk, broker
        self._journal, self._sender = journal, sender
        self._bot = LiveOrderBot(plan.orders)
        self._features = LiveFeatures(plan.recipe, least_s=self._bot.least_s)
        self._health = LiveHealth(plan.health)
        self._lookback_ns = plan.recipe.lookback_ns
        self._open: _Open | None = None

    def on_quote(self, tick: QuoteTick) -> None:
        """Take the next quote: fills first, then perhaps a decision.

        Raises
        ------
        LeaseError
            If this process may trade no more. What it had sent stays with the broker, what it had
            not sent never goes out; whoever may trade now goes on with the run.
        """
        if not self._may_trade():
            raise LeaseError("the lease ended or could not be renewed: another region may trade")
        if tick.market_delay_s is not None and tick.market_delay_s > self.plan.health.max_delay_s:
            tick = tick._replace(flags=tick.flags | int(QuoteFlag.DELAYED))
        self._features.on_quote(tick)
        self._health.add(tick)
        if self._broker.on_quote(tick):
            self._account()
        if self._bot.is_due(tick):
            self._decide(tick)
        self.tally.n_quotes += 1

    def open_position(self) -> dict[str, Any] | None:
        """Return what is held or on its way, None if nothing."""
        if self._open is None:
            return None
        order = self._open.order
        return {
            "order": self._open.key,
            "stage": order.stage.value,
            "side": self.plan.orders.side,
            "units": order.units,
            "entry_price": None if isnan(order.entry_price) else order.entry_price,
            "entry_ns": order.entry_ns,
        }

    def finish(self, status: str, summary: dict[str, Any]) -> None:
        """Write what is not written yet, and how the run ended; a position stays open."""
        self._journal.flush(status=status, summary=summary)

    def _decide(self, tick: QuoteTick) -> None:
        index = self.tally.n_quotes
        barriers = self._bot.barriers(tick, self._features.grid())
        known = self._journal.known.get(index)
        opinion = self._recall(known) if known else self._opinion(tick, barriers)
        self.tally.n_resumed += known is not None
        self.tally.tiers[opinion.tier or "none"] += 1
        outcome, units = self._outcome(tick, barriers, opinion)
        self.tally.outcomes[outcome] += 1
        tickets: list[OrderTicket] = []
        if outcome == "order":
            tickets = self._tickets(index, tick, barriers, units, opinion)
        decision = Decision(
            index,
            tick.ts_event,
            outcome,
            opinion.score,
            opinion.tier,
            opinion.model_id,
            opinion.age_ms,
            opinion.latency_us,
            opinion.reason,
            tickets[0].key if tickets else None,
        )
        self._journal.note(decision, tickets)
        if tickets:
            self._send(index, tickets, opinion.score or 0.0)
        if not known:
            self.tally.latency_us.append(opinion.latency_us)

    def _recall(self, known: Decision) -> Opinion:
        return Opinion(
            known.score,
            known.outcome not in ("abstained", "below"),
            known.tier,
            known.model_id,
            "shadow" if known.outcome == "shadow" else "",
            reason=known.reason,
            age_ms=known.age_ms,
            latency_us=known.latency_us,
        )

    def _opinion(self, tick: QuoteTick, barriers: tuple[float, float]) -> Opinion:
        if isnan(barriers[0]):
            return Opinion(None, reason="no volatility to set barriers by")
        marks = self._health.within(self._lookback_ns)
        if marks and self.plan.health.policy == "drop":
            words = str(QuoteFlag(marks).name).lower()
            return Opinion(None, reason=f"the feed is unhealthy: {words}")
        row = self._features.row()
        if row.features_D is None:
            return Opinion(None, reason=row.reason)
        try:
            return self._adviser.ask(row.features_D, tick.ask - tick.bid)
        except ServeError as error:  # a server that is gone for a while: hold, and ask again
            return Opinion(None, reason=str(error))

    def _outcome(
        self, tick: QuoteTick, barriers: tuple[float, float], opinion: Opinion
    ) -> tuple[str, float]:
        if opinion.score is None:
            return "abstained", 0.0
        units = 0.0
        if opinion.is_yes:
            units = self._risk.units(tick, barriers, opinion.score)
        if not units > 0:
            return "below", 0.0
        is_shadow = opinion.mode == "shadow" and not self.plan.trades_shadow
        if is_shadow or not self.plan.trades:
            return "shadow", 0.0
        if self._open is not None:
            return "busy", 0.0
        return self._risk.refusal(tick.ts_event) or "order", units

    def _tickets(
        self,
        index: int,
        tick: QuoteTick,
        barriers: tuple[float, float],
        units: float,
        opinion: Opinion,
    ) -> list[OrderTicket]:
        plan = self.plan
        keys = [order_key(plan.run_id, index, kind) for kind in ("entry", "exit")]
        is_buy = plan.orders.side == "buy"
        bracket = {
            "take_profit": barriers[0],
            "stop_loss": barriers[1],
            "time_limit_ns": plan.orders.time_limit_ns,
            "exit_key": keys[1],
            "multiplier": plan.costs.multiplier,
            "score": opinion.score,
            "run": plan.run_id,
        }
        common = (plan.strategy, plan.instrument)
        return [
            OrderTicket(
                keys[0], *common, "buy" if is_buy else "sell", "entry", units, None,
                tick.ts_event, bracket,
            ),
            OrderTicket(
                keys[1], *common, "sell" if is_buy else "buy", "exit", units, None,
                tick.ts_event, {"closes": keys[0], "run": plan.run_id},
            ),
        ]  # fmt: skip

    def _send(self, index: int, tickets: list[OrderTicket], score: float) -> None:
        self._sender.work()
        entry, leaving = tickets
        if self._broker.order(entry.key) is None:  # an earlier process sent it to its own broker
            row = self._journal.ledger.get(BrokerOrder, entry.key)
            if row is None or row.sent_at_ns is None:
                return  # or had not sent it when its lease ended: it never goes out
            for ticket in tickets:
                self._broker.send(ticket)
            self._sender.collect()
        order = self._broker.order(entry.key)
        assert order is not None  # noqa: S101  (a paper broker keeps every entry)
        self._open = _Open(index, entry.key, leaving.key, score, entry.quantity, order)

    def _account(self) -> None:
        """Bring the broker's fills into the ledger, and end the round trip that they ended."""
        self._sender.collect()
        held = self._open
        if held is None or held.order.stage is not Stage.DONE:
            return
        self._open = None
        order, plan = held.order, self.plan
        fees = _round_trip_fees(order.entry_price, order.exit_price, plan.costs)
        moved = (order.exit_price - order.entry_price) * order.side * plan.costs.multiplier
        pnl = order.units * (moved - fees)
        self._risk.account_for(order.exit_ns, pnl)
        why = ExitReason(order.reason).name.lower()
        if order.units < held.wanted:  # the rest of a partial fill will not come
            for key in (held.key, held.exit_key):
                ask_cancel(self._journal.ledger, key, "filled in part")
            self._sender.work()
        self._journal.tell(held.exit_key, why)
        self.tally.trips.append(
            Trip(
                held.quote_index,
                plan.orders.side,
                order.entry_ns,
                order.entry_price,
                order.exit_ns,
                order.exit_price,
                why,
                order.units,
                pnl,
                held.score,
            )
        )


def _round_trip_fees(entry: float, leaving: float, costs: Costs) -> float:
    rate = costs.fee_bps * 1e-4 * costs.multiplier
    return rate * (entry + leaving) + 2 * costs.fee_per_unit
