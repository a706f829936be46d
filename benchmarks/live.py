"""Live features: what a quote costs at 60, 600 and 6,000 lags, and a decision against recomputing.

Shape letter: D columns.
"""

from __future__ import annotations

import sys
import time

import numpy as np

from harness import Benchmark, Measurement, Seconds, alternate, main, ratio
from trademl.etl.features import feature_matrix
from trademl.etl.live_features import LiveFeatures
from trademl.etl.recipe import FeatureRecipe, Lags
from trademl.ingest.simulated import SimulatedMarket, simulate
from trademl.market.quotes import QuoteTick, ticks_of

LAGS = (60, 600, 6_000)
PER_S = 4
BENCHMARK = Benchmark(
    name="live",
    goals={
        "tick_600_vs_60": {"max": 1.25},
        "tick_6000_vs_600": {"max": 1.25},
        "decision_vs_recompute": {"max": 0.5},
    },
    libraries=("numpy", "numba"),
    does_not_show=(
        "Quotes are simulated, four a second, without silences; one price column per lag.",
        "Recomputing is handed only the quotes that the row reads, not the whole recording.",
        "The model, the order and the ledger are not part of it.",
    ),
)


def measure(quick: bool) -> Measurement:
    n_ticks, rounds = (4_000, 3) if quick else (40_000, 7)
    market = SimulatedMarket(n_quotes=n_ticks + PER_S * 6_100, interval_s=1 / PER_S)
    quotes = simulate(market).quotes
    ticks = list(ticks_of(quotes))
    warm = len(ticks) - n_ticks
    live = {n: LiveFeatures(FeatureRecipe(lags=(Lags(n),))) for n in LAGS}
    for one in live.values():
        for tick in ticks[:warm]:
            one.on_quote(tick)
    shifts = dict.fromkeys(LAGS, 0)

    def feed(n: int) -> float:
        later = _later(ticks[warm:], shifts[n])
        shifts[n] += (ticks[-1].ts_event - ticks[warm - 1].ts_event) // 10**9 * 10**9
        started = time.perf_counter()
        for tick in later:
            live[n].on_quote(tick)
        return (time.perf_counter() - started) / n_ticks

    seconds = alternate({f"tick_{n}": lambda n=n: feed(n) for n in LAGS}, rounds)
    fresh = LiveFeatures(FeatureRecipe(lags=(Lags(600),)))
    for tick in ticks:
        fresh.on_quote(tick)
    span = quotes.slice(len(quotes) - PER_S * 602, len(quotes))
    at = np.array([len(span) - 1])
    recipe = FeatureRecipe(lags=(Lags(600),))

    def decide() -> Seconds:
        return _per_call(fresh.row, 200)

    def recompute() -> Seconds:
        return _per_call(lambda: feature_matrix(span, at, recipe), 200)

    seconds |= alternate({"decision_600": decide, "recompute_600": recompute}, rounds)
    row = fresh.row().features_D
    checks = {
        "equal_to_recomputed": row is not None
        and bool((row == feature_matrix(span, at, recipe)[0]).all())
    }
    ratios = {
        "tick_600_vs_60": ratio(seconds["tick_600"], seconds["tick_60"]),
        "tick_6000_vs_600": ratio(seconds["tick_6000"], seconds["tick_600"]),
        "decision_vs_recompute": ratio(seconds["decision_600"], seconds["recompute_600"]),
    }
    return Measurement(ratios, seconds, checks)


def _later(ticks: list[QuoteTick], by_ns: int) -> list[QuoteTick]:
    return [tick._replace(ts_event=tick.ts_event + by_ns) for tick in ticks]


def _per_call(job: object, times: int) -> float:
    assert callable(job)
    started = time.perf_counter()
    for _ in range(times):
        job()
    return (time.perf_counter() - started) / times


if __name__ == "__main__":
    sys.exit(main(BENCHMARK, measure))
