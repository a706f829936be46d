"""Labels: trademl against a search in numpy, with barriers near and a hundred times as far.

Shape letters: P quotes, N orders.
"""

from __future__ import annotations

import sys
from dataclasses import fields

import numpy as np
from numba import njit
from numpy.typing import NDArray

from harness import Benchmark, Measurement, Seconds, alternate, main, ratio, timed
from trademl.market.costs import Costs
from trademl.market.fills import TIE_TOLERANCE, settle, settle_one
from trademl.market.friction import friction_of, tape_of
from trademl.market.orders import ExitReason, Orders, Transactions
from trademl.market.quotes import NS_PER_S, Quotes

N_QUOTES = 7 * 86_400
BARRIER_USD = {"narrow": 10.0, "wide": 1_000.0}
PEER_ORDERS = {"narrow": 2_000, "wide": 200}
COSTS = Costs(fee_bps=0.1, fee_per_unit=0.05, slippage=0.05)
NEVER_NS = 2**62
FIRST_CHUNK, LARGEST_CHUNK = 512, 65_536
BENCHMARK = Benchmark(
    name="labels",
    goals={
        "labels_vs_numpy_narrow": {"min": 50},
        "labels_vs_numpy_wide": {"min": 1000},
        "labels_wide_over_narrow": {"max": 4},
    },
    libraries=("numpy", "numba"),
    does_not_show=(
        "Prices are a seeded walk with drift: one quote a second for seven days, none flagged.",
        "All orders are buys without latency or time limit; the barriers are 10 and 1000 USD.",
        "numpy settles a sample of 2000 (near) or 200 (far) orders on one core, scaled per order; "
        "it looks ahead in chunks that double from 512 to 65,536 quotes.",
        "trademl uses every core, and builds its search structure within the time.",
        "Compiling, which is done once and kept on disk, is not timed.",
    ),
)


def measure(quick: bool) -> Measurement:
    n_orders, rounds = (100_000, 3) if quick else (1_000_000, 7)
    quotes = make_quotes()
    orders = {name: make_orders(n_orders, usd) for name, usd in BARRIER_USD.items()}
    rng = np.random.default_rng(3)
    sampled = {
        name: np.sort(rng.choice(n_orders, n, replace=False)) for name, n in PEER_ORDERS.items()
    }
    seconds = time_labels(quotes, orders, sampled, rounds)
    ours_per_peer_order = {
        name: None if (s := seconds[name]) is None else s * PEER_ORDERS[name] / n_orders
        for name in BARRIER_USD
    }
    ratios = {
        "labels_vs_numpy_narrow": ratio(seconds["numpy_narrow"], ours_per_peer_order["narrow"]),
        "labels_vs_numpy_wide": ratio(seconds["numpy_wide"], ours_per_peer_order["wide"]),
        "labels_wide_over_narrow": ratio(seconds["wide"], seconds["narrow"]),
    }
    return Measurement(ratios, seconds, check(quotes, orders, sampled))


def make_quotes() -> Quotes:
    rng = np.random.default_rng(7)
    move = 0.0014 * np.arange(N_QUOTES) + np.cumsum(rng.normal(0, 0.5, N_QUOTES))
    bid = 60_000 + 0.25 * np.round(move / 0.25)
    mid = bid + 0.125
    ts_event = (1_700_000_000 + np.arange(N_QUOTES)) * NS_PER_S
    return Quotes(ts_event, bid, bid + 0.25, mid, mid, mid, np.zeros(N_QUOTES, np.uint8))


def make_orders(n: int, barrier_usd: float) -> Orders:
    at_N = np.sort(np.random.default_rng(1).integers(0, N_QUOTES, n))
    barrier_N = np.full(n, barrier_usd)
    return Orders(at_N, np.ones(n, np.int8), barrier_N, barrier_N, np.full(n, NEVER_NS))


def time_labels(
    quotes: Quotes,
    orders: dict[str, Orders],
    sampled: dict[str, NDArray[np.int64]],
    rounds: int,
) -> dict[str, Seconds]:
    few = {name: orders[name].take(rows) for name, rows in sampled.items()}
    return alternate(
        {
            "narrow": lambda: timed(lambda: settle(quotes, orders["narrow"], COSTS).label),
            "numpy_narrow": lambda: timed(lambda: search_with_numpy(quotes, few["narrow"])),
            "wide": lambda: timed(lambda: settle(quotes, orders["wide"], COSTS).label),
            "numpy_wide": lambda: timed(lambda: search_with_numpy(quotes, few["wide"])),
        },
        rounds,
    )


def search_with_numpy(quotes: Quotes, orders: Orders) -> dict[str, NDArray[np.float64]]:
    """Settle buys one by one, each with comparisons of whole chunks, and label them after costs."""
    n = len(orders)
    exit_index, entry, exit_price = np.full(n, -1), np.empty(n), np.full(n, np.nan)
    for row in range(n):
        at = orders.quote_index[row]
        entry[row] = quotes.ask[at] + COSTS.slippage
        limit, stop = entry[row] + orders.take_profit[row], entry[row] - orders.stop_loss[row]
        slack = TIE_TOLERANCE * entry[row]
        upper, lower = limit - slack, stop + slack
        start, chunk = at + 1, FIRST_CHUNK
        while start < len(quotes):
            touch = quotes.bid[start : start + chunk]
            is_outside = (touch >= upper) | (touch <= lower)
            if is_outside[k := int(is_outside.argmax())]:
                exit_index[row] = start + k
                exit_price[row] = limit if touch[k] >= upper else touch[k] - COSTS.slippage
                break
            start, chunk = start + chunk, min(2 * chunk, LARGEST_CHUNK)
    fees = COSTS.fee_bps * 1e-4 * (entry + exit_price) + 2 * COSTS.fee_per_unit
    pnl = exit_price - entry - fees
    return {"exit_index": exit_index, "exit_price": exit_price, "pnl": pnl, "label": pnl > 0}


def check(
    quotes: Quotes, orders: dict[str, Orders], sampled: dict[str, NDArray[np.int64]]
) -> dict[str, bool]:
    """Say whether every exit is that of a plain look at each quote in turn."""
    done = {name: settle(quotes, orders[name], COSTS) for name in orders}
    some = np.arange(0, len(orders["wide"]), max(len(orders["wide"]) // 4_000, 1))
    touched = (done["wide"].reason != ExitReason.CENSORED).mean()
    print(f"{touched:.0%} of the far barriers are reached", file=sys.stderr)
    return {
        "narrow_equal_to_numpy": is_equal_to_numpy(quotes, orders, done, sampled, "narrow"),
        "wide_equal_to_numpy": is_equal_to_numpy(quotes, orders, done, sampled, "wide"),
        "narrow_equal_to_scan_of_all": is_equal_to_scan(quotes, orders["narrow"], done["narrow"]),
        "wide_equal_to_scan_of_4000": is_equal_to_scan(
            quotes, orders["wide"].take(some), done["wide"].take(some)
        ),
        "wide_is_reached_by_some_only": bool(0.1 < touched < 0.9),
    }


def is_equal_to_numpy(
    quotes: Quotes,
    orders: dict[str, Orders],
    done: dict[str, Transactions],
    sampled: dict[str, NDArray[np.int64]],
    name: str,
) -> bool:
    rows = sampled[name]
    expected, found = search_with_numpy(quotes, orders[name].take(rows)), done[name].take(rows)
    has_ended = found.reason != ExitReason.CENSORED
    label = np.where(has_ended, found.label, 0) == 1
    return np.array_equal(label, expected["label"]) and all(
        np.array_equal(getattr(found, column), expected[column], equal_nan=True)
        for column in ("exit_index", "exit_price", "pnl")
    )


def is_equal_to_scan(quotes: Quotes, orders: Orders, done: Transactions) -> bool:
    exit_index, exit_price, reason = _scan(
        *tape_of(quotes, COSTS),
        friction_of(COSTS),
        tuple(getattr(orders, field.name) for field in fields(orders)),
    )
    return (
        np.array_equal(exit_index, done.exit_index)
        and np.array_equal(exit_price, done.exit_price, equal_nan=True)
        and np.array_equal(reason, done.reason)
    )


@njit
def _scan(ts, bid, ask, flags, book, friction, orders):  # type: ignore[no-untyped-def]
    at, side, take_profit, stop_loss, limit_ns = orders
    exit_index, exit_price = np.empty(len(at), np.int64), np.empty(len(at))
    reason = np.empty(len(at), np.int8)
    for n in range(len(at)):
        _, _, exit_index[n], exit_price[n], reason[n], _ = settle_one(
            ts,
            bid,
            ask,
            flags,
            book,
            friction,
            at[n],
            side[n],
            take_profit[n],
            stop_loss[n],
            limit_ns[n],
            1.0,
        )
    return exit_index, exit_price, reason


if __name__ == "__main__":
    sys.exit(main(BENCHMARK, measure))
