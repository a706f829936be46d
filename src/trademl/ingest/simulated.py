"""A simulated feed whose truth is known: a random walk with jumps, regimes and a planted edge.

Shape letters: P quotes, N orders.

Without an edge the mid is a martingale: nothing that reads the past earns anything before costs.
With one, a signal shows itself in the spread, and each move is a little more likely to go its way.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trademl.errors import ConfigError
from trademl.ingest.sessions import session_extremes
from trademl.market.quotes import NS_PER_S, Quotes, flag_quotes
from trademl.store.artifacts import storage_errors, write_atomically

BEGIN_NS = 1_704_067_200 * NS_PER_S  # 2024-01-01 00:00 UTC
SIGNAL_IN_SPREAD = 0.2  # the spread is wider or narrower by this share, as the signal is +1 or -1
CALM, BUSY = 0.25, 0.85  # probability that a quote moves the mid, by regime


@dataclass(frozen=True, slots=True)
class SimulatedMarket:
    """What a simulated recording is made of.

    Parameters
    ----------
    n_quotes : int
        Length of the recording.
    seed : int
        The same seed gives the same quotes.
    interval_s : float
        Time between two quotes.
    start_price, tick_size : float
        Mid of the first quote and size of a move, in quote currency.
    spread_ticks : float
        Mean spread in ticks; 0 is a market without costs.
    edge : float
        A move goes the signal's way with probability ``(1 + edge) / 2``; 0 is a martingale.
    signal_s : float
        Time for which a signal, +1 or -1 by the toss of a coin, lasts.
    jumps_per_hour : float
        Jumps of ``jump_ticks`` up or down, each as likely.
    jump_ticks : int
        Size of a jump.
    regime_s : float
        Time after which calm and busy markets take turns; 0 for one regime throughout.
    """

    n_quotes: int = 20_000
    seed: int = 7
    interval_s: float = 1.0
    start_price: float = 5_000.0
    tick_size: float = 0.25
    spread_ticks: float = 1.0
    edge: float = 0.0
    signal_s: float = 300.0
    jumps_per_hour: float = 0.0
    jump_ticks: int = 12
    regime_s: float = 0.0

    def __post_init__(self) -> None:
        for name in ("n_quotes", "interval_s", "start_price", "tick_size", "signal_s"):
            if not 0 < (value := getattr(self, name)) < float("inf"):
                raise ConfigError(f"{name} is {value}, expected a finite number above 0")
        for name in ("seed", "spread_ticks", "jumps_per_hour", "jump_ticks", "regime_s"):
            if not 0 <= (value := getattr(self, name)) < float("inf"):
                raise ConfigError(f"{name} is {value}, expected a finite number of at least 0")
        if not 0 <= self.edge < 1:
            raise ConfigError(f"edge is {self.edge}, expected from 0 to below 1")
        if self.edge and not self.spread_ticks:
            raise ConfigError(
                "edge is planted and spread_ticks is 0: the signal shows itself in the spread, "
                "give spread_ticks above 0"
            )


@dataclass(frozen=True, slots=True)
class Simulation:
    """A recording, and the truth behind it.

    Parameters
    ----------
    quotes : Quotes
    signal_P : ndarray of int8, shape (P,)
        +1 or -1: which way the next moves lean while it lasts, where an edge is planted.
    """

    quotes: Quotes
    signal_P: NDArray[np.int8]


def simulate(market: SimulatedMarket) -> Simulation:
    """Return a simulated recording.

    Raises
    ------
    ConfigError
        If the price falls to 0 or below.

    Notes
    -----
    A quote's move is drawn with the signal of the quote before: what is seen comes first.
    """
    rng = np.random.default_rng(market.seed)
    n = market.n_quotes
    second_P = np.arange(n) * market.interval_s
    period_P = (second_P // market.signal_s).astype(np.int64)
    signal_P = (2 * rng.integers(0, 2, int(period_P[-1]) + 1) - 1)[period_P]
    moved_P = np.cumsum(_moves(market, signal_P, rng), dtype=np.float64)
    mid_P = market.start_price + market.tick_size * moved_P
    half_P = market.tick_size * market.spread_ticks * (1 + SIGNAL_IN_SPREAD * signal_P) / 2
    bid_P, ask_P = mid_P - half_P, mid_P + half_P
    if bid_P.min() <= 0:
        raise ConfigError(
            f"the simulated bid falls to {bid_P.min():g}: raise start_price, or lower tick_size"
        )
    ts_event = BEGIN_NS + np.round(second_P * NS_PER_S).astype(np.int64)
    extremes = session_extremes(ts_event, mid_P, timezone="UTC", session_open="00:00")
    quotes = Quotes(ts_event, bid_P, ask_P, *extremes, flag_quotes(bid_P, ask_P))
    return Simulation(quotes, signal_P.astype(np.int8))


def _moves(
    market: SimulatedMarket, signal_P: NDArray[Any], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Return each quote's change of the mid in ticks; the first is 0."""
    n = market.n_quotes
    second_P = np.arange(n) * market.interval_s
    activity_P = np.full(n, BUSY)
    if market.regime_s:
        activity_P[(second_P // market.regime_s) % 2 == 1] = CALM
    is_move_P = rng.random(n) < activity_P
    is_up_P = rng.random(n) < (1.0 + market.edge * np.roll(signal_P, 1)) / 2.0
    step_P = is_move_P * (2 * is_up_P.astype(np.int64) - 1)
    is_jump_P = rng.random(n) < market.jumps_per_hour * market.interval_s / 3600.0
    step_P += is_jump_P * market.jump_ticks * (2 * rng.integers(0, 2, n) - 1)
    step_P[0] = 0
    return step_P


def true_win_probability(
    lean_N: NDArray[np.float64], up_N: NDArray[np.int64], down_N: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the probability that the mid rises ``up`` ticks before it falls ``down``.

    The oracle's knowledge. It is exact while no jump comes and the signal lasts.

    Parameters
    ----------
    lean_N : ndarray of float64, shape (N,)
        Edge times signal: a move goes up with probability ``(1 + lean) / 2``.
    up_N, down_N : ndarray of int64, shape (N,)
        Distances in ticks, above 0.

    Notes
    -----
    Source: the gambler's ruin, Feller (1968), "An Introduction to Probability Theory and Its
    Applications", volume 1, section XIV.2. Moves of 0 change nothing but the time that it takes.

    Examples
    --------
    >>> true_win_probability(np.array([0.0]), np.array([3]), np.array([1]))
    array([0.25])
    """
    fair_N = down_N / (up_N + down_N)
    leaning = lean_N != 0.0
    odds_N = np.where(leaning, (1.0 - lean_N) / (1.0 + lean_N), 0.5)
    ruin_N = (1.0 - odds_N**down_N) / (1.0 - odds_N ** (up_N + down_N))
    return np.where(leaning, ruin_N, fair_N)


def write_simulation(path: Path, market: SimulatedMarket) -> int:
    """Write a simulated recording as a Parquet file of quotes, and return their number.

    `trademl.ingest.replay.replay` reads it like any other; the truth is not in the file.

    Raises
    ------
    ConfigError
        If the file's name does not end in ``.parquet``, or a setting is refused.
    StoreError
        If it cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if path.suffix != ".parquet":
        raise ConfigError(f"--out is {path}, expected a name that ends in .parquet")
    quotes = simulate(market).quotes
    table = pa.table({"ts_event": quotes.ts_event, "bid": quotes.bid, "ask": quotes.ask})
    content = io.BytesIO()
    pq.write_table(table, content)
    with storage_errors(path, "--out"):
        write_atomically(path, content.getvalue())
    return len(quotes)
