"""What else the same money could have done: hold, take every signal, or enter at random."""

from __future__ import annotations

from typing import Any

import numpy as np

from trademl.backtest.bar_engine import Engine
from trademl.backtest.compiled import run_compiled
from trademl.backtest.figures import figures_of, returns_of
from trademl.backtest.limits import Limits
from trademl.backtest.settings import BacktestConfig
from trademl.backtest.signals import Signals
from trademl.backtest.statistics import equity_curve, performance
from trademl.backtest.targets import Targets, run_compiled_targets
from trademl.backtest.trades import Trades
from trademl.market.carry import Carry
from trademl.market.costs import Costs
from trademl.market.orders import Orders
from trademl.market.quotes import Quotes

N_DRAWS = 20


def buy_and_hold(
    quotes: Quotes, costs: Costs, units: float, *, carry: Carry | None = None
) -> Trades:
    """Return the one trade of holding from the first quote to the last executable one."""
    executable = np.flatnonzero(quotes.is_executable)
    if len(executable) < 2:
        return run_compiled_targets(quotes, Targets(executable[:0], np.empty(0)), costs)
    first, last_ns = executable[0], quotes.ts_event[executable[-1]] - costs.seen_ns
    last = int(np.searchsorted(quotes.ts_event, last_ns, side="right")) - 1
    targets = Targets(np.array([first, max(last, first + 1)]), np.array([units, 0.0]))
    return run_compiled_targets(quotes, targets, costs, carry=carry)


def random_entries(
    quotes: Quotes,
    signals: Signals,
    n_flagged: int,
    costs: Costs,
    *,
    limits: Limits,
    carry: Carry | None,
    seed: int,
    trade: Engine = run_compiled,
) -> list[Trades]:
    """Return runs of as many signals as were flagged, chosen by chance among all of them."""
    rng, made = np.random.default_rng(seed), []
    for _ in range(N_DRAWS if len(signals) else 0):
        rows = np.sort(rng.choice(len(signals), min(n_flagged, len(signals)), replace=False))
        made.append(trade(quotes, signals.take(rows), costs, limits=limits, carry=carry))
    return made


def random_holdings(quotes: Quotes, trades: Trades, costs: Costs, *, seed: int) -> list[Trades]:
    """Return runs that hold as often, as long and as much as trades did, from quotes by chance."""
    rng, n, made = np.random.default_rng(seed), len(trades), []
    held_ns = quotes.ts_event[trades.exit_index] - quotes.ts_event[trades.entry_index]
    for _ in range(N_DRAWS if n else 0):
        at, which = np.sort(rng.choice(len(quotes), n)), rng.permutation(n)
        far = np.full(n, np.inf)
        orders = Orders(at, trades.side[which], far, far, held_ns[which])
        signals = Signals(orders, np.arange(n), np.full(n, np.nan), trades.size[which])
        made.append(run_compiled(quotes, signals, costs))
    return made


def beside(
    quotes: Quotes, trades: Trades, costs: Costs, config: BacktestConfig, every_s: float
) -> dict[str, Any]:
    """Return the figures of a benchmark, without intervals."""
    told = performance(quotes, trades, costs)
    ts_ns, equity = equity_curve(quotes, trades, every_s, costs)
    returns = returns_of(ts_ns, equity, config.capital)
    figures = figures_of(returns.value_T, returns.per_year)
    return {**figures, **told}


def mean_of(runs: list[dict[str, Any]]) -> dict[str, float | None]:
    """Return the mean of each number over runs; None where none has it."""
    numbers = (
        [n for n, v in runs[0].items() if not isinstance(v, bool | dict | str)] if runs else []
    )
    found: dict[str, float | None] = {}
    for name in numbers:
        values = [run[name] for run in runs if run[name] is not None]
        found[name] = float(np.mean(values)) if values else None
    return found
