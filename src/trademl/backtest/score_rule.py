"""One rule over a score on every quote, compiled: single runs, sweeps and walk-forward.

The policy is that of `trademl.backtest.compiled`: wherever nothing is open and the score reaches
the threshold, enter between a take profit, a stop and a time limit.

Shape letters: P quotes, R rules.
"""

from __future__ import annotations

import os
from collections.abc import Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from trademl.backtest.compiled import NO_LIMITS, net_of
from trademl.backtest.limits import GO, REJECTED, Limits, account_for, may_enter, new_account
from trademl.backtest.trades import Trades, Trips
from trademl.errors import ConfigError, DataError
from trademl.market.adjustments import payments
from trademl.market.carry import Carry
from trademl.market.compiling import fill_kernel
from trademl.market.costs import Costs
from trademl.market.fills import settle_one
from trademl.market.friction import friction_of, tape_of
from trademl.market.orders import Side
from trademl.market.quotes import NS_PER_S, Quotes

ROOM = 8_192  # trades that a run has room for at first
STRETCH = 16_384  # quotes that rules of a sweep walk one after the other


@dataclass(frozen=True, slots=True)
class ScoreRule:
    """Enter where a score reaches a threshold.

    Parameters
    ----------
    threshold : float
        Lowest score that is traded.
    take_profit, stop_loss : float
        Barrier distances from the entry price, in quote currency.
    time_limit_s : float
        Longest life of a position after its entry.
    side : Side
        Which way to trade.
    size : float
        Units.
    rest_quotes : int
        Quotes after an exit on which nothing is entered; 0 lets one quote end a trade and begin
        another.
    """

    threshold: float
    take_profit: float
    stop_loss: float
    time_limit_s: float
    side: Side = Side.BUY
    size: float = 1.0
    rest_quotes: int = 0

    def __post_init__(self) -> None:
        for name in ("take_profit", "stop_loss", "size"):
            if not (value := getattr(self, name)) > 0:
                raise ConfigError(f"{name} is {value}, expected more than 0")
        if not self.time_limit_s >= 0:
            raise ConfigError(f"time_limit_s is {self.time_limit_s}, expected 0 or more")

    @property
    def numbers(self) -> tuple[float, int, float, float, int, float, int]:
        """The rule as compiled code reads it."""
        return (
            float(self.threshold),
            int(self.side),
            float(self.take_profit),
            float(self.stop_loss),
            round(self.time_limit_s * NS_PER_S),
            float(self.size),
            int(self.rest_quotes),
        )


@dataclass(frozen=True, slots=True)
class Sweep:
    """What each of R rules came to; arrays of shape (R,).

    Parameters
    ----------
    n_trades : ndarray of int64
        Round trips that ended within the recording.
    net_pnl : ndarray of float64
        Their profit after all costs, in quote currency.
    hit_rate : ndarray of float64
        Share of them that earned money; NaN where there are none.
    max_drawdown : ndarray of float64
        Deepest fall of the sum of profits below its peak, from trade to trade.
    """

    n_trades: NDArray[np.int64]
    net_pnl: NDArray[np.float64]
    hit_rate: NDArray[np.float64]
    max_drawdown: NDArray[np.float64]


def trade_scores(
    quotes: Quotes,
    score_P: NDArray[np.float64],
    rule: ScoreRule,
    costs: Costs,
    *,
    limits: Limits = NO_LIMITS,
    carry: Carry | None = None,
) -> Trades:
    """Trade a score by one rule, and return the trades; `Trades.order_id` is the decision's quote.

    Parameters
    ----------
    score_P : ndarray of float64, shape (P,)
        What the model thinks on each quote, known on that quote; NaN is never traded.

    Raises
    ------
    DataError
        If there is not one score for each quote.

    Notes
    -----
    Causal: a trade reads scores up to its decision and quotes up to its exit.
    """
    _check_scores(quotes, score_P)
    carry = payments(quotes, costs) if carry is None else carry
    decided, index, price, reason, units, counts = scores_in_turn(
        *tape_of(quotes, costs),
        friction_of(costs),
        carry,
        limits.numbers,
        new_account(),
        score_P,
        rule.numbers,
        0,
    )
    side = np.full(len(decided), rule.side, np.int8)
    trips = Trips(decided, side, index, price, reason, units, score_P[decided], decided)
    skipped, rejected, halted, _, open_skipped = counts
    return trips.trades(
        quotes.ts_event,
        costs,
        carry,
        skipped_while_in_position=skipped + open_skipped,
        rejected=rejected,
        halted=halted,
    )


def sweep_scores(
    quotes: Quotes,
    score_P: NDArray[np.float64],
    rules: Sequence[ScoreRule],
    costs: Costs,
    *,
    limits: Limits = NO_LIMITS,
    carry: Carry | None = None,
    n_threads: int | None = None,
) -> Sweep:
    """Trade a score by many rules, each on its own, on every core.

    Rules that differ in nothing but threshold and rest share what becomes of an order, which does
    not depend on either: each is carried once. Memory grows with neither R nor P.

    Raises
    ------
    DataError
        If there is not one score for each quote.
    """
    _check_scores(quotes, score_P)
    carry = payments(quotes, costs) if carry is None else carry
    tape, friction, numbers = tape_of(quotes, costs), friction_of(costs), limits.numbers
    n = len(rules)
    found = Sweep(np.empty(n, np.int64), np.empty(n), np.empty(n), np.empty(n))

    n_threads = n_threads or len(os.sched_getaffinity(0))

    def work(rows: list[int]) -> None:
        told = [rules[row].numbers for row in rows]
        threshold_R, rest_R = np.array([t[0] for t in told]), np.array([t[-1] for t in told])
        summary_R = _summaries(
            *tape, friction, carry, numbers, score_P, told[0][1:-1], threshold_R, rest_R
        )
        found.n_trades[rows], found.net_pnl[rows] = summary_R[0], summary_R[1]
        found.hit_rate[rows], found.max_drawdown[rows] = summary_R[2], summary_R[3]

    with ThreadPoolExecutor(n_threads) as pool:
        list(pool.map(work, _that_share_orders(rules, n_threads)))
    return found


def _that_share_orders(rules: Sequence[ScoreRule], n_threads: int) -> list[list[int]]:
    """Return rows of rules with the same orders together, in as many lists as keep all at work."""
    alike: dict[Hashable, list[int]] = {}
    for row, rule in enumerate(rules):
        alike.setdefault(rule.numbers[1:-1], []).append(row)
    most = max(1, -(-len(rules) // n_threads))
    return [rows[k : k + most] for rows in alike.values() for k in range(0, len(rows), most)]


def _check_scores(quotes: Quotes, score_P: NDArray[np.float64]) -> None:
    if len(score_P) != len(quotes):
        raise DataError(f"{len(score_P)} scores for {len(quotes)} quotes, expected one for each")


@njit(nogil=True, inline="always")
def _is_watched(limits):  # type: ignore[no-untyped-def]
    """Say whether any entry may be refused: where none is, no account is kept."""
    return limits.daily_loss < np.inf or limits.drawdown < np.inf or limits.reject_share > 0


@njit(nogil=True, inline="always")
def _next_decision(score, threshold, ts, k, limits, account, is_watched):  # type: ignore[no-untyped-def]
    """Return the first quote from ``k`` on that is traded, and how many wishes were refused."""
    rejected, halted = 0, 0
    while k < len(score):
        if score[k] >= threshold:
            if not is_watched:
                break
            answer = may_enter(limits, account, ts[k])
            if answer == GO:
                break
            rejected += answer == REJECTED
            halted += answer != REJECTED
        k += 1
    return k, rejected, halted


@fill_kernel
def scores_in_turn(  # type: ignore[no-untyped-def]
    ts, bid, ask, flags, book, friction, carry, limits, account, score, rule, start
):
    """Return decisions, entry and exit quotes and prices, reasons, units, and counts.

    Counts are the wishes skipped, rejected and halted, the quote from which to go on, and the
    wishes skipped for a trade that is still open.
    """
    threshold, side, take_profit, stop_loss, limit_ns, size, rest = rule
    size = min(size, limits.max_units)
    room = ROOM
    decided, reason, units = np.empty(room, np.int64), np.empty(room, np.int8), np.empty(room)
    index, price = np.empty((room, 2), np.int64), np.empty((room, 2))
    n, k, rejected, halted, skipped, open_skipped = 0, start, 0, 0, 0, 0
    is_watched = _is_watched(limits)
    while True:
        k, n_rejected, n_halted = _next_decision(
            score, threshold, ts, k, limits, account, is_watched
        )
        rejected, halted = rejected + n_rejected, halted + n_halted
        if k >= len(score):
            break
        if n == room:
            decided, units = _twice(decided), _twice(units)
            reason, index, price = _twice(reason), _twice(index), _twice(price)
            room *= 2
        entered, paid, left, got, why, filled = settle_one(
            ts,
            bid,
            ask,
            flags,
            book,
            friction,
            k,
            side,
            take_profit,
            stop_loss,
            limit_ns,
            size,
        )
        decided[n], reason[n], units[n] = k, why, filled
        index[n, 0], index[n, 1], price[n, 0], price[n, 1] = entered, left, paid, got
        n += 1
        free_from = left if left >= 0 else len(score)
        passed = _n_at_least(score, k + 1, min(free_from + rest, len(score)), threshold)
        if left < 0:
            open_skipped = passed
            break
        skipped += passed
        k = left + rest
        if is_watched:
            net = net_of(ts, friction, carry, side, entered, left, paid, got, filled)
            account_for(account, ts[left], net)
    counts = (skipped, rejected, halted, k, open_skipped)
    return decided[:n], index[:n], price[:n], reason[:n], units[:n], counts


@njit(nogil=True, inline="always")
def _n_at_least(score, start, stop, threshold):  # type: ignore[no-untyped-def]
    n = np.int64(0)
    for k in range(start, stop):
        n += np.int64(score[np.uint64(k)] >= threshold)
    return n


@njit(nogil=True, inline="always")
def _twice(column):  # type: ignore[no-untyped-def]
    larger = np.empty((2 * len(column), *column.shape[1:]), column.dtype)
    larger[: len(column)] = column
    return larger


@fill_kernel
def _summaries(  # type: ignore[no-untyped-def]
    ts, bid, ask, flags, book, friction, carry, limits, score, order, threshold_R, rest_R
):
    """Return trades, net profit, hit rate and drawdown of rules that send the same orders.

    All of them walk a stretch of the recording before the next one, while it is in the cache:
    ``span`` keeps how many quotes an order that is decided there lives, 0 where none was carried
    yet and -1 where it never ends, ``earned`` what it earns.
    """
    side, take_profit, stop_loss, limit_ns, size = order
    size = min(size, limits.max_units)
    n_rules, is_watched = len(threshold_R), _is_watched(limits)
    told, account_R = np.zeros((5, n_rules)), np.zeros((n_rules, 5))
    next_R = np.zeros(n_rules, np.int64)
    span, earned = np.zeros(STRETCH, np.int64), np.zeros(STRETCH)
    for start in range(0, len(score), STRETCH):
        stop = min(start + STRETCH, len(score))
        span[:] = 0
        for r in range(n_rules):
            n, won, net = told[0, r], told[1, r], told[2, r]
            peak, depth = told[3, r], told[4, r]
            account, k = account_R[r], next_R[r]
            while k < stop:
                k, _, _ = _next_decision(score, threshold_R[r], ts, k, limits, account, is_watched)
                if k >= stop:
                    break
                lives, pnl = span[k - start], earned[k - start]
                if lives == 0:
                    entered, paid, left, got, _, filled = settle_one(
                        ts,
                        bid,
                        ask,
                        flags,
                        book,
                        friction,
                        k,
                        side,
                        take_profit,
                        stop_loss,
                        limit_ns,
                        size,
                    )
                    lives, pnl = left - k if left >= 0 else -1, 0.0
                    if left >= 0:
                        pnl = net_of(ts, friction, carry, side, entered, left, paid, got, filled)
                    span[k - start], earned[k - start] = lives, pnl
                if lives < 0:
                    k = len(score)
                    break
                if is_watched:
                    account_for(account, ts[k + lives], pnl)
                n, won, net, k = n + 1, won + (pnl > 0), net + pnl, k + lives + rest_R[r]
                peak = max(peak, net)
                depth = max(depth, peak - net)
            told[0, r], told[1, r], told[2, r], told[3, r], told[4, r] = n, won, net, peak, depth
            next_R[r] = k
    hit_rate = np.where(told[0] > 0, told[1] / np.maximum(told[0], 1), np.nan)
    return told[0], told[2], hit_rate, told[4]
