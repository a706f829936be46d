"""How often the gate promotes noise, and how often a real edge, on simulated markets.

Shape letters: N orders.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from harness import Benchmark, Measurement, main
from trademl.etl.dataset import Split
from trademl.etl.features import feature_matrix, usable_rows
from trademl.etl.recipe import FeatureRecipe, Lags
from trademl.etl.splits import Part, SplitConfig, split_rows
from trademl.ingest.order_bot import OrderBotConfig, place_orders
from trademl.ingest.simulated import SimulatedMarket, simulate, true_win_probability
from trademl.market.costs import Costs
from trademl.market.fills import settle
from trademl.market.orders import Orders
from trademl.market.quotes import Quotes
from trademl.stats.uniqueness import effective_size
from trademl.train.gate import GateConfig, GateVerdict, weigh
from trademl.train.hyperparameters import LinearLearnerParameters
from trademl.train.linear_learner import fit
from trademl.train.model import save_model
from trademl.train.selection import Selection, SelectionFloors, select
from trademl.train.trials import TrialResult

N_MARKETS, N_TRIALS = 200, 10
CURVE = (2.0, 3.0, 4.0, 6.0)  # net t-statistics of the oracle; 0 is noise
ORACLE_TOLERANCE = 0.1  # of the mean over the markets: what is left of the interpolation
NORMAL = Costs(fee_per_unit=0.01)
BARRIER = 1.0
BOT = OrderBotConfig(
    interval_s=20, barrier_unit="price", take_profit=BARRIER, stop_loss=BARRIER, time_limit_s=300
)
CROWDED = replace(BOT, interval_s=8)  # about three orders live side by side
RECIPE = FeatureRecipe(quote_columns=(), spread=True, volatility_s=(60,), lags=(Lags(6, 10),))
WALK = SimulatedMarket(n_quotes=200_000, spread_ticks=0.2, signal_s=60.0)
FREE = replace(WALK, spread_ticks=0.0)
KINDS: tuple[
    dict[str, float], ...
] = (  # noise comes as a plain walk, with regimes, with jumps, and with both
    {},
    {"regime_s": 1800.0},
    {"jumps_per_hour": 6.0},
    {"regime_s": 1800.0, "jumps_per_hour": 6.0},
)
BENCHMARK = Benchmark(
    name="gate",
    goals={
        "noise_promoted": {"max": 0.05},
        "noise_promoted_free": {"max": 0.05},
        "edge_promoted": {"min": 0.9},
    },
    libraries=("numpy", "numba", "torch"),
    does_not_show=(
        "Markets are simulated: one quote a second for 56 hours, 10,000 orders (noise: 25,000 in "
        "every other market) with barriers of 4 ticks, and a spread and fees that cost a tenth of "
        "a barrier, or nothing.",
        "The edge shows itself in one column, the spread, and does not fade.",
        "Each market is the first look at its test span, and has no champion yet.",
        "The oracle's t-statistic of a row is the mean over its markets; single ones vary by 1.2.",
        "Noise has 200 markets with and 200 without costs, the curve 100 below a t of 6.",
    ),
)


@dataclass(frozen=True)
class Case:
    """A market, and the bot that places orders on it."""

    market: SimulatedMarket
    bot: OrderBotConfig = BOT


@dataclass(frozen=True)
class Rows:
    """A market's rows by split, and which test rows the oracle would take."""

    train: Split
    validation: Split
    test: Split
    is_good_N: NDArray[np.bool_]


def measure(quick: bool) -> Measurement:
    n_all, n_some = (8, 4) if quick else (N_MARKETS, N_MARKETS // 2)
    began = time.perf_counter()
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        edges = edges_of(CURVE, pool, n_markets=n_all)
        cases = {
            "noise_promoted": noise(WALK, n_all),
            "noise_promoted_free": noise(FREE, n_all),
            **{
                f"promoted_at_t{t:g}": edge(edges[t], n_all if t == max(CURVE) else n_some)
                for t in CURVE
            },
        }
        found = {name: promotions(name, of, pool) for name, of in cases.items()}
    ratios = {name: share for name, (share, _) in found.items()}
    ratios["promoted_at_t0"] = ratios["noise_promoted"]
    ratios["edge_promoted"] = ratios["promoted_at_t6"]
    checks = {"oracle_at_6": quick or abs(found["promoted_at_t6"][1] - 6.0) < ORACLE_TOLERANCE}
    return Measurement(ratios, {"all": time.perf_counter() - began}, checks)


def seeds(n: int) -> range:
    return range(1_000, 1_000 + n)


def noise(market: SimulatedMarket, n: int) -> list[Case]:
    """Return markets without an edge, of every kind, crowded ones among them."""
    kinds = [(kind, bot) for kind in KINDS for bot in (BOT, CROWDED)]
    return [
        Case(replace(market, seed=seed, **kinds[k % len(kinds)][0]), kinds[k % len(kinds)][1])
        for k, seed in enumerate(seeds(n))
    ]


def edge(size: float, n: int) -> list[Case]:
    return [Case(replace(WALK, edge=size, seed=seed)) for seed in seeds(n)]


def promotions(name: str, cases: Sequence[Case], pool: ProcessPoolExecutor) -> tuple[float, float]:
    """Return the share of markets that end in promote, and the mean t-statistic of the oracle."""
    found = list(pool.map(run_case, cases, chunksize=2))
    share = float(np.mean([verdict == "promote" for verdict, _ in found]))
    mean_t = float(np.mean([t for _, t in found]))
    text = f"{name}: {share:.1%} of {len(cases)} markets, mean t of the oracle {mean_t:.2f}"
    print(text, file=sys.stderr, flush=True)
    return share, mean_t


def run_case(case: Case) -> tuple[GateVerdict, float]:
    """Take a market from its quotes to the gate's verdict, and ask the oracle."""
    rows = make_rows(case)
    return judge_rows(rows, seed=case.market.seed), oracle_t(rows)


def judge_rows(rows: Rows, *, seed: int) -> GateVerdict:
    """Search, select and gate."""
    with TemporaryDirectory() as folder:
        selection = search(rows, Path(folder), seed=seed)
        if selection.winner is None:
            return "reject"
        _, flag_N = selection.winner.model().predict(rows.test.features_ND)
    found = weigh(
        rows.test,
        flag_N == 1,
        GateConfig(),
        n_tried=N_TRIALS,
        overfitting=vars_of(selection),
        duel=None,
        seed=seed,
    )
    return found.verdict


def search(rows: Rows, folder: Path, *, seed: int) -> Selection:
    trials = [
        train_trial(rows, drawn, number, folder, seed=seed)
        for number, drawn in enumerate(hyperparameters(seed))
    ]
    return select(trials, rows.validation, SelectionFloors(), seed=seed)


def train_trial(
    rows: Rows, drawn: dict[str, str], number: int, folder: Path, *, seed: int
) -> TrialResult:
    parameters = LinearLearnerParameters.from_strings(drawn)
    trained = fit(rows.train, rows.validation, parameters, seed=seed)
    path = folder / f"{number}.tar.gz"
    save_model(trained.model, path)
    value = trained.metrics["validation:precision"]
    return TrialResult(number, drawn, value, "Maximize", trained.metrics, path)


def hyperparameters(seed: int) -> list[dict[str, str]]:
    """Return ten random draws, log-uniform."""
    rng = np.random.default_rng([seed, 1])
    low, high = np.log([[0.02, 1e-6, 1e-7], [0.3, 1e-2, 1e-3]])
    static = {
        "predictor_type": "binary_classifier",
        "binary_classifier_model_selection_criteria": "precision_at_target_recall",
        "target_recall": "0.6",
        "epochs": "5",
        "mini_batch_size": "500",
    }
    names = ("learning_rate", "wd", "l1")
    return [
        static | {n: repr(float(v)) for n, v in zip(names, np.exp(drawn), strict=True)}
        for drawn in rng.uniform(low, high, (N_TRIALS, 3))
    ]


def vars_of(selection: Selection) -> dict[str, float] | None:
    found = selection.overfitting
    return {n: getattr(found, n) for n in found.__slots__} if found else None


def make_rows(case: Case) -> Rows:
    """Place, settle and split the orders of a market, and make their features."""
    market = case.market
    simulation, costs = simulate(market), costs_of(market)
    quotes = simulation.quotes
    orders = place_orders(quotes, case.bot)
    done = settle(quotes, orders, costs)
    kept_N = usable_rows(quotes, orders.quote_index, RECIPE) & ~np.isnan(done.pnl)
    orders, done = orders.take(kept_N), done.take(kept_N)
    as_of_N, exit_N = quotes.ts_event[orders.quote_index], quotes.ts_event[done.exit_index]
    part_N = split_rows(as_of_N, RECIPE.start_ns(as_of_N), exit_N, SplitConfig())
    features_ND = feature_matrix(quotes, orders.quote_index, RECIPE)
    lean_N = market.edge * simulation.signal_P[orders.quote_index]
    splits = [
        Split(
            features_ND[part_N == part],
            done.label[part_N == part],
            np.flatnonzero(part_N == part),
            as_of_N[part_N == part],
            exit_N[part_N == part],
            done.pnl[part_N == part],
        )
        for part in (Part.TRAIN, Part.VALIDATION, Part.TEST)
    ]
    is_good_N = expected_pnl(quotes, orders, lean_N, costs, market.tick_size) > 0
    return Rows(*splits, is_good_N[part_N == Part.TEST])


def costs_of(market: SimulatedMarket) -> Costs:
    return NORMAL if market.spread_ticks else Costs()


def expected_pnl(
    quotes: Quotes, orders: Orders, lean_N: NDArray[np.float64], costs: Costs, tick_size: float
) -> NDArray[np.float64]:
    """Return what the oracle, who knows each order's true probability, expects it to earn."""
    spread_N = quotes.spread[orders.quote_index]
    up_N = np.ceil((orders.take_profit + spread_N) / tick_size - 1e-9).astype(np.int64)
    down_N = np.ceil((orders.stop_loss - spread_N) / tick_size - 1e-9).astype(np.int64)
    win_N = true_win_probability(lean_N, up_N, down_N)
    fees = 2 * costs.fee_per_unit
    return win_N * (orders.take_profit - fees) - (1 - win_N) * (orders.stop_loss + fees)


def oracle_t(rows: Rows) -> float:
    """Return the t-statistic of what the oracle takes of the test rows, on its effective size."""
    test, good_N = rows.test, rows.is_good_N
    pnl_N = test.pnl_N[good_N]
    if len(pnl_N) < 2:
        return 0.0
    size = effective_size(test.as_of_N[good_N], test.exit_N[good_N])
    return float(pnl_N.mean() / pnl_N.std() * np.sqrt(size))


def edges_of(
    targets: Sequence[float], pool: ProcessPoolExecutor, *, n_markets: int
) -> dict[float, float]:
    """Return the edges at which the oracle's mean t-statistic is as asked.

    On the markets that are judged later: what t means is defined there, and no model is asked.
    """
    grid = np.linspace(0.06, 0.13, 5)
    cases = [Case(replace(WALK, edge=float(e), seed=s)) for e in grid for s in seeds(n_markets)]
    t_EM = np.array(list(pool.map(oracle_of, cases, chunksize=4))).reshape(len(grid), n_markets)
    line = np.polynomial.Polynomial.fit(t_EM.mean(axis=1), grid, 2)
    return {t: float(line(t)) for t in targets}


def oracle_of(case: Case) -> float:
    return oracle_t(make_rows(case))


if __name__ == "__main__":
    sys.exit(main(BENCHMARK, measure))
