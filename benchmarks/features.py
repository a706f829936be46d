"""Features: trademl against the ways of pandas, and against copying the same bytes.

Shape letters: N orders, T seconds, L lags, D columns.
"""

from __future__ import annotations

import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness import Benchmark, Measurement, Seconds, alternate, main, ratio, timed
from trademl.etl.build import write_split
from trademl.etl.features import FeatureSource, prepare
from trademl.etl.recipe import QUOTE_COLUMNS, FeatureRecipe
from trademl.etl.recordio import encode_records
from trademl.market.quotes import NS_PER_S, Quotes

N_SECONDS = 7 * 86_400
BENCHMARK = Benchmark(
    name="features",
    goals={
        "features_vs_memcpy2": {"min": 0.7},
        "features_vs_pandas_gather": {"min": 12},
        "features_vs_pandas_shift": {"min": 25},
        "end_to_end_vs_raw": {"min": 0.65},
    },
    libraries=("numpy", "numba", "pandas"),
    does_not_show=(
        "Prices are a seeded random walk with one quote a second for seven days.",
        "trademl and the copy write into memory that was written before; pandas allocates its own.",
        "pandas is handed the second grid ready-made, as trademl is; making it is not timed.",
        "end_to_end goes from grid and orders to a RecordIO file in the page cache, not to disk.",
        "Reading ticks from SQL or CSV is not part of it.",
    ),
)
Matrix = NDArray[np.float32]


def measure(quick: bool) -> Measurement:
    n_orders, rounds = (5_000, 3) if quick else (200_000, 7)
    quotes = make_quotes()
    at_N = np.sort(np.random.default_rng(1).choice(np.arange(600, N_SECONDS), n_orders))
    recipe = FeatureRecipe()
    source = prepare(quotes, at_N, recipe)
    out_ND = np.ones((n_orders, recipe.feature_dim), np.float32)
    source.fill_parallel(out_ND)
    # to a file first: pandas gives gigabytes back to the system, which are slow to get again
    seconds = time_end_to_end(source, out_ND, 2 * rounds)
    seconds |= time_features(source, quotes, at_N, out_ND, rounds)
    source.fill_parallel(out_ND)
    checks = {
        "equal_to_pandas_gather": np.array_equal(out_ND, pandas_gather(quotes, at_N)),
        "equal_to_pandas_shift": np.array_equal(out_ND, pandas_shift(quotes, at_N)),
    }
    ratios = {
        "features_vs_memcpy2": ratio(seconds["memcpy2"], seconds["trademl"]),
        "features_vs_pandas_gather": ratio(seconds["pandas_gather"], seconds["trademl"]),
        "features_vs_pandas_shift": ratio(seconds["pandas_shift"], seconds["trademl"]),
        "end_to_end_vs_raw": ratio(seconds["raw_write"], seconds["to_recordio"]),
    }
    return Measurement(ratios, seconds, checks)


def make_quotes() -> Quotes:
    rng = np.random.default_rng(7)
    bid = 1640 + 0.25 * np.cumsum(rng.integers(-1, 2, N_SECONDS))
    mid = bid + 0.125
    ts_event = (1_700_000_000 + np.arange(N_SECONDS)) * NS_PER_S
    high, low = np.maximum.accumulate(mid), np.minimum.accumulate(mid)
    opened, flags = np.full(N_SECONDS, mid[0]), np.zeros(N_SECONDS, np.uint8)
    return Quotes(ts_event, bid, bid + 0.25, opened, high, low, flags)


def quote_columns(quotes: Quotes, at_N: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    return {name: getattr(quotes, name)[at_N] - quotes.mid[at_N] for name in QUOTE_COLUMNS}


def pandas_gather(quotes: Quotes, at_N: NDArray[np.int64]) -> Matrix:
    """One fancy gather per lag: the best that a careful pandas user writes."""
    mid = quotes.mid
    at_entry = mid[at_N]
    columns = quote_columns(quotes, at_N)
    for lag in range(600, 0, -1):
        columns[f"lag_{lag}"] = (mid[at_N - lag] - at_entry).astype(np.float32)
    return pd.DataFrame(columns).to_numpy(np.float32)


def pandas_shift(quotes: Quotes, at_N: NDArray[np.int64]) -> Matrix:
    """Shift the whole series once per lag, then take the orders' rows."""
    series = pd.Series(quotes.mid)
    shifted = pd.concat({lag: series.shift(lag) for lag in range(600, 0, -1)}, axis=1)
    lags = shifted.iloc[at_N].sub(quotes.mid[at_N], axis=0)
    quote = pd.DataFrame(quote_columns(quotes, at_N), index=lags.index)
    return pd.concat([quote, lags], axis=1).to_numpy(np.float32)


def time_features(
    source: FeatureSource,
    quotes: Quotes,
    at_N: NDArray[np.int64],
    out_ND: Matrix,
    rounds: int,
) -> dict[str, Seconds]:
    other_ND = np.ones_like(out_ND)
    pool = ThreadPoolExecutor(2)
    halves = np.array_split(np.arange(len(out_ND)), 2)
    slices = [slice(int(h[0]), int(h[-1]) + 1) for h in halves]

    def memcpy2() -> None:
        list(pool.map(lambda rows: np.copyto(out_ND[rows], other_ND[rows]), slices))

    fast = alternate(
        {
            "trademl": lambda: timed(lambda: source.fill_parallel(out_ND)),
            "memcpy2": lambda: timed(memcpy2),
        },
        rounds * 3,
    )
    slow = alternate(
        {
            "trademl_beside_pandas": lambda: timed(lambda: source.fill_parallel(out_ND)),
            "pandas_gather": lambda: timed(lambda: pandas_gather(quotes, at_N)),
            "pandas_shift": lambda: timed(lambda: pandas_shift(quotes, at_N)),
        },
        max(rounds // 2, 2),
    )
    return fast | slow


def time_end_to_end(source: FeatureSource, out_ND: Matrix, rounds: int) -> dict[str, Seconds]:
    label_N = (np.arange(len(out_ND)) % 2).astype(np.float32)
    finished = memoryview(encode_records(out_ND, label_N))
    step = 1024 * (len(finished) // len(out_ND))

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows"

        def write_raw() -> None:
            with path.open("wb", buffering=0) as file:
                for start in range(0, len(finished), step):
                    file.write(finished[start : start + step])

        def removing(seconds: Seconds) -> Seconds:
            path.unlink()
            return seconds

        return alternate(
            {
                "to_recordio": lambda: removing(timed(lambda: write_split(path, source, label_N))),
                "raw_write": lambda: removing(timed(write_raw)),
            },
            rounds,
            before=lambda: (write_raw(), path.unlink()),
        )


if __name__ == "__main__":
    sys.exit(main(BENCHMARK, measure))
