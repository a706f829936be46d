"""What else the same money could have done: hold, take every signal, or enter at random."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from trademl.backtest.bar_engine import Engine
from trademl.backtest.compiled import run_compiled
from trademl.backtest.figures import plain_figures
from trademl.backtest.limits import Limits
from trademl.backtest.settings import BacktestConfig
from trademl.backtest.signals import Signals
from trademl.backtest.statistics import equity_curve, performance
from trademl.backtest.targets import Targets, run_compiled_targets
from trademl.backtest.trades import Trades
from trademl.market.carry import Carry
from trademl.market.costs import Costs
from trademl.market.orders import Orders
from trademl.market.quotes import NS_PER_S, Quotes

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


def always_in(quotes: Quotes, trades: Trades, costs: Costs) -> Trades:
    """Return a position that is entered again as soon as it ends, over the whole recording.

    It is on the side that most trades were on, and as large and held as long as their median.
    """
    if not len(trades):
        return run_compiled(quotes, _plain(trades.entry_index, trades.side, trades.size, 1), costs)
    length_ns = max(int(np.median(_held_ns(quotes, trades))), NS_PER_S)
    every_ns = length_ns + 2 * _travel_ns(quotes, costs)  # to leave, and to enter again
    at_ns = np.arange(int(quotes.ts_event[0]), int(quotes.ts_event[-1]), every_ns)
    at = np.unique(np.searchsorted(quotes.ts_event, at_ns))
    side = 1 if 2 * (trades.side > 0).sum() >= len(trades) else -1
    sides, sizes = np.full(len(at), side, np.int8), np.full(len(at), np.median(trades.size))
    return run_compiled(quotes, _plain(at, sides, sizes, length_ns), costs)


def random_entries(
    quotes: Quotes,
    signals: Signals,
    traded: Trades,
    costs: Costs,
    *,
    limits: Limits,
    carry: Carry | None,
    seed: int,
    trade: Engine = run_compiled,
) -> list[Trades]:
    """Return runs of signals chosen by chance among all, as many as hold as long as was traded."""
    rng, made = np.random.default_rng(seed), []
    wanted_ns = int(_held_ns(quotes, traded).sum())

    def run(rows: NDArray[np.int64]) -> Trades:
        return trade(quotes, signals.take(np.sort(rows)), costs, limits=limits, carry=carry)

    for _ in range(N_DRAWS if len(signals) else 0):
        order = rng.permutation(len(signals))
        low, high = 0, len(signals)  # as few as hold for the wanted time
        while high - low > max(1, len(signals) // 200):
            n = (low + high) // 2
            is_enough = int(_held_ns(quotes, run(order[:n])).sum()) >= wanted_ns
            low, high = (low, n) if is_enough else (n, high)
        made.append(run(order[:high] if wanted_ns else order[:0]))
    return made


def random_holdings(quotes: Quotes, trades: Trades, costs: Costs, *, seed: int) -> list[Trades]:
    """Return runs that hold as often, as long and as much as trades did, at times by chance.

    The time between positions is cut at random, so that none overlaps the next.
    """
    rng, n, made = np.random.default_rng(seed), len(trades), []
    held_ns = _held_ns(quotes, trades)
    busy_ns = held_ns + 2 * _travel_ns(quotes, costs)
    free_ns = max(int(quotes.ts_event[-1] - quotes.ts_event[0]) - int(busy_ns.sum()), 0) if n else 0
    for _ in range(N_DRAWS if n else 0):
        which = rng.permutation(n)
        before_ns = np.cumsum(busy_ns[which]) - busy_ns[which]
        at_ns = quotes.ts_event[0] + before_ns + np.sort(rng.integers(0, free_ns + 1, n))
        at = np.minimum(np.searchsorted(quotes.ts_event, at_ns), len(quotes) - 1)
        wanted = _plain(at, trades.side[which], trades.size[which], held_ns[which])
        made.append(run_compiled(quotes, wanted, costs))
    return made


def _travel_ns(quotes: Quotes, costs: Costs) -> int:
    """Return how long an order waits for its fill: its latency, and the next quote."""
    return costs.seen_ns + max(int(np.median(np.diff(quotes.ts_event))), 1)


def _held_ns(quotes: Quotes, trades: Trades) -> NDArray[np.int64]:
    held: NDArray[np.int64] = quotes.ts_event[trades.exit_index]
    return held - quotes.ts_event[trades.entry_index]


def _plain(
    at: NDArray[np.int64],
    side: NDArray[np.int8],
    size: NDArray[np.float64],
    length_ns: NDArray[np.int64] | int,
) -> Signals:
    """Return entries without barriers, each held for a length of time."""
    n = len(at)
    far, lengths = np.full(n, np.inf), np.broadcast_to(np.maximum(length_ns, 1), n)
    orders = Orders(at, side, far, far, lengths.astype(np.int64))
    return Signals(orders, np.arange(n), np.full(n, np.nan), size)


def beside(
    quotes: Quotes, trades: Trades, costs: Costs, config: BacktestConfig, every_s: float
) -> dict[str, Any]:
    """Return the `performance` of a benchmark, and its ``figures`` without intervals."""
    ts_ns, equity = equity_curve(quotes, trades, every_s, costs)
    told = plain_figures(quotes, trades, ts_ns, equity, costs, config)
    return {**performance(quotes, trades, costs), "figures": told}


def mean_of(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the mean of each number over runs, and of each of their figures; None without one."""
    if not runs:
        return {}
    names = [n for n, v in runs[0].items() if not isinstance(v, bool | dict | str)]
    found: dict[str, Any] = {name: _mean([run[name] for run in runs]) for name in names}
    of = [run["figures"] for run in runs]
    found["figures"] = {name: _mean([one[name] for one in of]) for name in of[0]}
    return found


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
