"""Backtests: trademl's engines beside backtrader, backtesting.py and vectorbt, on one rule.

Enter where a score reaches 0.75 and nothing is held; leave ten dollars away from the price paid, or
after 600 seconds; decide and fill on one price; 0.25 of fee and 0.5 of slippage a fill.

vectorbt needs two tricks: its stops lie a millionth of a dollar nearer, as rounding would lose
touches, and its time limit is a stop that is moved to 0.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import backtrader as bt
import numpy as np
from numpy.typing import NDArray

from harness import Benchmark, Measurement, Peer, Seconds, main, ratio, timed
from trademl.backtest.backtrader_engine import run_backtrader, run_strategy
from trademl.backtest.callback import Bracket, run_callback
from trademl.backtest.parity import check_parity
from trademl.backtest.score_rule import ScoreRule, trade_scores
from trademl.backtest.signals import Signals
from trademl.backtest.trades import Trades
from trademl.errors import ParityError
from trademl.market.costs import Costs, realistic_costs
from trademl.market.orders import Orders, Side
from trademl.market.quotes import NS_PER_S, Quotes

WEEK = 7 * 86_400
YEAR = 365 * 86_400
THRESHOLD, BARRIER, LIMIT_S = 0.75, 10.0, 600
COSTS = Costs(fee_per_unit=0.25, slippage=0.5, take_profit_is_market=True)
RULE = ScoreRule(THRESHOLD, BARRIER, BARRIER, LIMIT_S, rest_quotes=1)
GRID = [
    (float(threshold), float(barrier))
    for threshold in np.linspace(0.5, 0.95, 10)
    for barrier in np.linspace(5, 20, 10)
]
REPEATS = 30
BENCHMARK = Benchmark(
    name="backtest",
    goals={
        "compiled_vs_backtrader": {"min": 20_000},
        "compiled_vs_backtesting": {"min": 1_000},
        "compiled_vs_vectorbt": {"min": 50},
        "sweep_vs_vectorbt": {"min": 200},
        "sweep_rss_vs_vectorbt": {"max": 0.1},
        "callback_vs_backtrader": {"min": 150},
        "wrapped_vs_plain_backtrader": {"max": 1.3},
        "realistic_vs_backtrader": {"min": 2_000},
        "trades_identical": {"min": 1},
        "year_in_memory_s": {"max": 2},
        "year_from_parquet_s": {"max": 10},
        "year_rss_vs_month": {"max": 1.25},
    },
    libraries=("numpy", "numba", "backtrader"),
    peers=("backtesters",),
    does_not_show=(
        "One instrument, one rule, one position at a time: not portfolios, not order books.",
        "Prices are a seeded walk of one dollar a second on a grid of 0.25, without a spread.",
        "Compiling is not timed on either side; trademl and vectorbt ran once before.",
        "backtrader and backtesting.py are timed once, trademl's compiled runs as the median of "
        "many.",
        "vectorbt has no order latency, partial fills or rejections, so no realistic run.",
    ),
)


def measure(quick: bool) -> Measurement:
    n, n_year = (20_000, 200_000) if quick else (WEEK, YEAR)
    quotes, score = make_week(n)
    with tempfile.TemporaryDirectory() as folder, Peer("backtesters") as peer:
        arrays = Path(folder) / "week.npz"
        np.savez(arrays, ts=quotes.ts_event, price=quotes.bid, score=score)
        peer.call("load", path=str(arrays))
        ours = run_ours(quotes, score)
        theirs = run_peers(peer, GRID[:4] if quick else GRID)
        sweep_s, sweep_bytes = run_sweep(arrays, 4 if quick else len(GRID))
        year, peak_mb = run_year(Path(folder), n_year)
        notes = [peer.failure] if peer.failure else []
    seconds = {**ours["seconds"], **theirs["seconds"], "sweep": sweep_s, **year}
    identical, differences = compare(ours["trades"], theirs["trades"])
    notes += differences
    ratios = {
        "compiled_vs_backtrader": ratio(seconds["backtrader"], seconds["compiled"]),
        "compiled_vs_backtesting": ratio(seconds["backtesting"], seconds["compiled"]),
        "compiled_vs_vectorbt": ratio(seconds["vectorbt"], seconds["compiled"]),
        "sweep_vs_vectorbt": ratio(seconds["vectorbt_sweep"], seconds["sweep"]),
        "sweep_rss_vs_vectorbt": ratio(sweep_bytes, theirs["sweep_bytes"]),
        "callback_vs_backtrader": ratio(seconds["backtrader"], seconds["callback"]),
        "wrapped_vs_plain_backtrader": ratio(seconds["wrapped"], seconds["backtrader"]),
        "realistic_vs_backtrader": ratio(
            seconds["realistic_backtrader"], seconds["realistic_compiled"]
        ),
        "trades_identical": identical,
        "year_in_memory_s": year["year_in_memory"],
        "year_from_parquet_s": year["year_from_parquet"],
        "year_rss_mb": peak_mb["year"],
        "year_rss_vs_month": ratio(peak_mb["year"], peak_mb["month"]),
    }
    return Measurement(ratios, seconds, ours["checks"], notes)


def make_week(n: int, *, seed: int = 7) -> tuple[Quotes, NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    price = 60_000 + 0.25 * np.round(np.cumsum(rng.normal(0, 1, n)) / 0.25)
    ts_event = (1_700_000_000 + np.arange(n)) * NS_PER_S
    score = np.random.default_rng(seed + 1).random(n)
    nothing = np.zeros(n, np.uint8)
    return Quotes(ts_event, price, price, price, price, price, nothing), score


# trademl's side


def run_ours(quotes: Quotes, score: NDArray[np.float64]) -> dict[str, Any]:
    compiled = trade_scores(quotes, score, RULE, COSTS)
    called = run_callback(quotes, policy(score), COSTS)
    wrapped: dict[str, Trades] = {}
    seconds: dict[str, Seconds] = {
        "compiled": median(lambda: trade_scores(quotes, score, RULE, COSTS)),
        "callback": median(lambda: run_callback(quotes, policy(score), COSTS), 5),
        "wrapped": timed(
            lambda: wrapped.update(made=run_strategy(quotes, WrappedRule, COSTS, score=score))
        ),
    }
    realistic, checks = run_realistic(quotes, score)
    checks["callback_equals_compiled"] = is_same(compiled, called)
    return {
        "seconds": {**seconds, **realistic},
        "checks": checks,
        "trades": {
            "compiled": rows_of(compiled),
            "callback": rows_of(called),
            "wrapped": rows_of(wrapped["made"]),
        },
    }


def run_realistic(
    quotes: Quotes, score: NDArray[np.float64]
) -> tuple[dict[str, Seconds], dict[str, bool]]:
    """Time the same realism, on by default, in the compiled engine and through backtrader."""
    wide = Quotes(
        quotes.ts_event,
        quotes.bid,
        quotes.bid + 0.25,
        quotes.mid_open,
        quotes.high,
        quotes.low,
        quotes.flags,
    )
    rule, costs = ScoreRule(THRESHOLD, BARRIER, BARRIER, LIMIT_S), realistic_costs()
    at = np.flatnonzero(score >= THRESHOLD)
    ones = np.ones(len(at))
    limit_ns = np.full(len(at), LIMIT_S * NS_PER_S)
    orders = Orders(at, ones.astype(np.int8), BARRIER * ones, BARRIER * ones, limit_ns)
    signals = Signals(orders, at, score[at])
    made = trade_scores(wide, score, rule, costs)
    found: dict[str, Trades] = {}
    seconds = {
        "realistic_compiled": median(lambda: trade_scores(wide, score, rule, costs)),
        "realistic_backtrader": timed(
            lambda: found.update(made=run_backtrader(wide, signals, costs))
        ),
    }
    return seconds, {"realistic_engines_agree": is_same(made, found["made"])}


def policy(score: NDArray[np.float64]) -> Any:
    """Return the rule as one Python function, called on every quote."""
    scores, order = score.tolist(), Bracket(Side.BUY, BARRIER, BARRIER, LIMIT_S)
    rested = 0

    def decide(now):  # type: ignore[no-untyped-def]
        nonlocal rested
        if now.position:
            rested = now.index + 2
        elif scores[now.index] >= THRESHOLD and now.index >= rested:
            return order
        return None

    return decide


class WrappedRule(bt.Strategy):  # type: ignore[misc]
    """The rule as a backtrader user writes it, line for line that of the peer."""

    params = (("score", None),)

    def __init__(self) -> None:
        self.score = self.p.score.tolist()
        self.k, self.entered, self.paid = -1, 0, 0.0

    def next(self) -> None:
        self.k += 1
        if self.position:
            moved = self.data.close[0] - self.paid
            if moved >= BARRIER or moved <= -BARRIER or self.k - self.entered >= LIMIT_S:
                self.close()
        elif self.score[self.k] >= THRESHOLD:
            self.buy(size=1)

    def notify_order(self, order: Any) -> None:
        if order.status == order.Completed and order.isbuy():
            self.paid, self.entered = order.executed.price, order.info.quote_index


def run_sweep(arrays: Path, n_rules: int) -> tuple[Seconds, float]:
    """Return the seconds of a sweep, and the most memory that a process of its own held for it."""
    told = {"grid": GRID[:n_rules], "limit_s": LIMIT_S, "costs": dataclasses.asdict(COSTS)}
    script = Path(__file__).with_name("backtest_sweep.py")
    done = subprocess.run(
        [sys.executable, script, arrays],
        input=json.dumps(told),
        capture_output=True,
        text=True,
        check=True,
    )
    seconds, peak = done.stdout.split()
    return float(seconds), float(peak)


def run_year(folder: Path, n: int) -> tuple[dict[str, Seconds], dict[str, float]]:
    """Return the seconds of a year in memory and from a file, and the peaks of year and month."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    quotes, score = make_week(n)
    columns = {"ts_event": quotes.ts_event, "bid": quotes.bid, "ask": quotes.ask, "score": score}
    table = pa.table(columns)
    seconds: dict[str, Seconds] = {
        "year_in_memory": median(lambda: trade_scores(quotes, score, RULE, COSTS), 3)
    }
    peak_mb = {}
    for name, rows in (("month", n // 12), ("year", n)):
        path = folder / f"{name}.parquet"
        pq.write_table(table.slice(0, rows), path, row_group_size=1_000_000)
        seconds[f"{name}_from_parquet"], peak_mb[name] = run_file(path)
    return seconds, peak_mb


def run_file(path: Path) -> tuple[Seconds, float]:
    """Return the seconds of trading a file, and the peak in MB of a process that did only that."""
    told = json.dumps({"rule": dataclasses.asdict(RULE), "costs": dataclasses.asdict(COSTS)})
    script = Path(__file__).with_name("backtest_year.py")
    done = subprocess.run(
        [sys.executable, script, path, told], capture_output=True, text=True, check=True
    )
    seconds, peak = done.stdout.split()
    return float(seconds), float(peak) / 1e6


# Peers, and the comparison


def run_peers(peer: Peer, grid: list[tuple[float, float]]) -> dict[str, Any]:
    rule = {"threshold": THRESHOLD, "barrier": BARRIER}
    found = {name: peer.call(name, **rule) for name in ("backtrader", "backtesting", "vectorbt")}
    swept = peer.call(
        "vectorbt_sweep", thresholds=[t for t, _ in grid], barriers=[b for _, b in grid]
    )
    return {
        "seconds": {
            **{name: answer and answer["seconds"] for name, answer in found.items()},
            "vectorbt_sweep": swept and swept["seconds"],
        },
        "trades": {name: answer["trades"] for name, answer in found.items() if answer},
        "sweep_bytes": swept and swept["peak_bytes"],
    }


def compare(*sides: dict[str, list[Any]]) -> tuple[float, list[str]]:
    """Return 1 where every engine made the same trades, and a line for each that did not."""
    engines = {name: np.array(rows).reshape(-1, 4) for side in sides for name, rows in side.items()}
    expected, notes = engines["compiled"], []
    for name, rows in engines.items():
        n = min(len(rows), len(expected))
        same = np.isclose(rows[:n], expected[:n], rtol=0, atol=1e-6).all(axis=1)
        # an engine may leave out, or mark, what the end of the recording left open
        if not same.all() or abs(len(rows) - len(expected)) > (0 if name in sides[0] else 1):
            at = int(np.flatnonzero(~same)[0]) if not same.all() else n
            notes.append(
                f"{name} differs at trade {at}: {rows[at : at + 1]}, {expected[at : at + 1]}"
            )
    return float(not notes), notes


def rows_of(trades: Trades) -> list[tuple[float, float, float, float]]:
    columns = (trades.entry_index, trades.entry_price, trades.exit_index, trades.exit_price)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def is_same(one: Trades, other: Trades) -> bool:
    try:
        check_parity(*(without_scores(side) for side in (one, other)), names=("one", "other"))
    except ParityError as error:
        print(error, file=sys.stderr)
        return False
    return True


def without_scores(trades: Trades) -> Trades:
    from dataclasses import replace

    blank = np.zeros(len(trades))
    return replace(trades, score=blank, skipped_while_in_position=0, open_at_end=None)


def median(job: Any, repeats: int = REPEATS) -> float:
    found = []
    for _ in range(repeats):
        start = time.perf_counter()
        job()
        found.append(time.perf_counter() - start)
    return float(np.median(found))


if __name__ == "__main__":
    sys.exit(main(BENCHMARK, measure))
