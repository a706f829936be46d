"""Allocation over several assets: weights at rebalances, drift between them, every cost paid.

Rules
-----
* Rows are times at which at least one asset has a price. On a row, in this order: what holding pays
  (dividends, rolls, nights); fills; the account is valued and held against limits; decisions.
* A decision reads rows at or before its time. It values the account at the exit touch that each
  asset last had, and sizes its orders by the mid that each last had.
* Weights whose gross exposure is above the limit are scaled down to it. What is not invested is
  cash, which earns nothing; it may fall below 0 by costs and by moves between decision and fill.
* An asset is left alone where its weight is within the band of its target; a target of 0 is not.
  Else it is ordered to its target in full.
* An order arrives latency and quote delay after its decision and fills, all of it, on the first row
  from then on on which its asset has a price. An asset without one waits, whatever the others do;
  one that never had a price is sized by the mid on which it fills.
* A decision withdraws what earlier ones have not filled.
* A limit on risk that is broken on a row orders everything to 0 as a decision of that row would.
  Decisions until it ends are of 0 too; a drawdown ends for good.

Shape letters: T rows, A assets, R rebalances, F fills.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from trademl.backtest.compiled import NO_LIMITS
from trademl.backtest.limits import Limits, account_value, is_rejected, may_hold, new_account
from trademl.backtest.panel import Panel
from trademl.errors import DataError
from trademl.market.compiling import fill_kernel
from trademl.market.costs import Costs
from trademl.market.fills import entry_price, exit_touch, later
from trademl.market.friction import friction_of, slippage_on

ROOM = 1_024
NEVER = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Weights:
    """What to hold from each rebalance on.

    Parameters
    ----------
    ts_ns : ndarray of int64, shape (R,)
        When each is decided, UTC nanoseconds, strictly increasing.
    weight : ndarray of float64, shape (R, A)
        Share of the account in each asset, negative for a sold one; what is left of 1 is cash.
    """

    ts_ns: NDArray[np.int64]
    weight: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.ts_ns)


@dataclass(frozen=True, slots=True)
class AllocationRules:
    """How weights become orders.

    Parameters
    ----------
    capital : float
        Cash at the beginning, in quote currency; profits are put back.
    band : float
        Difference of a weight from its target up to which nothing is traded.
    gross_limit : float
        Largest sum of absolute weights.
    long_only : bool
        Refuse negative weights.
    normalise : bool
        Scale weights up to the limit too, not only down.
    """

    capital: float = 100_000.0
    band: float = 0.0
    gross_limit: float = 1.0
    long_only: bool = True
    normalise: bool = False

    def __post_init__(self) -> None:
        if not (self.capital > 0 and self.gross_limit > 0 and 0 <= self.band < 1):
            raise ValueError(
                f"capital is {self.capital}, gross_limit {self.gross_limit} and band {self.band}: "
                "expected the first two above 0, and the band from 0 to below 1"
            )


@dataclass(frozen=True, slots=True)
class Allocation:
    """What an allocation did.

    Parameters
    ----------
    ts_ns : ndarray of int64, shape (T,)
        Rows, UTC nanoseconds.
    equity, cash : ndarray of float64, shape (T,)
        Account after each row, positions at their exit touch, and its cash; quote currency.
    fill_row, fill_asset, fill_decision : ndarray of int64, shape (F,)
        Row of ``ts_ns``, column of the prices, and rebalance of each fill; -1 where a limit on risk
        brought it about.
    units, price, mid, fee : ndarray of float64, shape (F,)
        Units bought (negative where sold), price filled, mid on which it filled, and fee.
    decided_equity : ndarray of float64, shape (R,)
        Account as each rebalance valued it; NaN where the rows ended before.
    halted, rejected : int
        Rebalances that limits on risk set to 0, and orders that the venue rejected.
    waiting : int
        Orders that had not filled when the rows ended.
    """

    ts_ns: NDArray[np.int64]
    equity: NDArray[np.float64]
    cash: NDArray[np.float64]
    fill_row: NDArray[np.int64]
    fill_asset: NDArray[np.int64]
    fill_decision: NDArray[np.int64]
    units: NDArray[np.float64]
    price: NDArray[np.float64]
    mid: NDArray[np.float64]
    fee: NDArray[np.float64]
    decided_equity: NDArray[np.float64]
    halted: int
    rejected: int
    waiting: int

    def __len__(self) -> int:
        return len(self.fill_row)

    def rebalances(self, multiplier: float = 1.0) -> dict[str, NDArray[np.float64]]:
        """Return of each rebalance its ``turnover``, ``fees`` and ``slippage``, each shape (R,).

        Turnover is the value bought and sold as a share of the account. Slippage is what fills
        were worse than the mid, half the spread included, in quote currency.
        """
        n = len(self.decided_equity)
        own = self.fill_decision >= 0
        at = self.fill_decision[own]
        value = np.abs(self.units[own]) * self.price[own] * multiplier
        worse = self.units[own] * (self.price[own] - self.mid[own]) * multiplier
        traded, fees, slipped = (
            np.asarray(np.bincount(at, v, n), float) for v in (value, self.fee[own], worse)
        )
        return {"turnover": traded / self.decided_equity, "fees": fees, "slippage": slipped}


def run_allocation(
    prices: Panel,
    weights: Weights,
    costs: Costs,
    *,
    rules: AllocationRules = AllocationRules(),
    limits: Limits = NO_LIMITS,
) -> Allocation:
    """Hold what the weights say, from rebalance to rebalance.

    Parameters
    ----------
    prices : Panel
        T rows of A assets, in one currency; see `trademl.backtest.panel.panel_of`.
    weights : Weights
        R rebalances; none may be decided before the first row.
    costs : Costs
        What trading costs, the same for each asset. Sizes shown do not count.
    limits : Limits
        ``max_units`` holds for each asset.

    Raises
    ------
    DataError
        If weights are out of order, of another width than the prices, not finite, decided before
        the first row, or negative where only bought positions are allowed.

    Notes
    -----
    Causal: a fill reads rows up to its own, a decision rows up to its time.
    """
    row_R = _check(prices, weights, rules)
    bid, ask = prices.touches(costs)
    found = _allocate(
        prices.ts_event,
        bid,
        ask,
        prices.book(costs),
        prices.paid_bought,
        prices.paid_sold,
        friction_of(costs),
        limits.numbers,
        new_account(),
        weights.ts_ns,
        row_R,
        _scaled(weights.weight, rules),
        float(rules.capital),
        float(rules.band),
    )
    return Allocation(prices.ts_event, *found)


def _check(prices: Panel, weights: Weights, rules: AllocationRules) -> NDArray[np.int64]:
    """Return the last row that each rebalance may read."""
    shape = (len(weights.ts_ns), prices.n_assets)
    if weights.weight.shape != shape:
        raise DataError(f"weights have shape {weights.weight.shape}, expected {shape}")
    row_R = np.searchsorted(prices.ts_event, weights.ts_ns, side="right") - 1
    for is_bad, what in (
        (np.diff(weights.ts_ns, prepend=-(2**62)) <= 0, "not after the one above it"),
        (row_R < 0, "before the first price"),
        (~np.isfinite(weights.weight).all(axis=1), "of weights that are not finite"),
        (
            (weights.weight < 0).any(axis=1) & rules.long_only,
            "of a negative weight: set long_only to false to sell short",
        ),
    ):
        if is_bad.any():
            r = int(np.flatnonzero(is_bad)[0])
            raise DataError(f"rebalance {r} at {weights.ts_ns[r]} ns is {what}")
    return row_R


def _scaled(weight_RA: NDArray[np.float64], rules: AllocationRules) -> NDArray[np.float64]:
    gross_R = np.abs(weight_RA).sum(axis=1)
    is_scaled = gross_R > (0 if rules.normalise else rules.gross_limit)
    factor_R = np.divide(rules.gross_limit, gross_R, out=np.ones(len(gross_R)), where=is_scaled)
    return np.ascontiguousarray(weight_RA * factor_R[:, None])


@fill_kernel
def _allocate(  # type: ignore[no-untyped-def]
    ts, bid, ask, book, paid_bought, paid_sold, friction, limits, account,
    decided_ns, row_R, weight_RA, capital, band,
):  # fmt: skip
    """Return equity, cash, the columns of the fills, the account at each decision, and counts."""
    n_assets, n_rows = bid.shape
    units = np.zeros(n_assets)
    seen = np.full(n_assets, -1)  # last row with a price
    orders = _no_orders(n_assets)
    equity, cash_T = np.empty(n_rows), np.empty(n_rows)
    where_F, money_F = np.empty((ROOM, 3), np.int64), np.empty((ROOM, 4))
    decided = np.full(len(row_R), np.nan)
    n, r, halted, rejected, cash, base, is_out = 0, 0, 0, 0, capital, capital, False
    for t in range(n_rows):
        cash += _hold(t, bid, ask, paid_bought, paid_sold, units, seen)
        is_settled = False
        while not is_settled:
            while n + n_assets > len(where_F):
                where_F, money_F = _longer(where_F), _longer(money_F)
            n, paid = _fill(
                t, ts, bid, ask, book, friction, limits, orders, base, units, seen,
                where_F, money_F, n,
            )  # fmt: skip
            cash -= paid
            worth = cash + _worth(bid, ask, friction, units, seen)
            account_value(account, ts[t], worth - capital)
            may = may_hold(limits, account)
            is_settled = True
            if not may and not is_out:
                is_out, is_settled = True, False
                _order_all_out(orders, units, later(ts[t], friction.seen_ns))
            elif r < len(row_R) and row_R[r] == t:
                decided[r], base, is_out, is_settled = worth, worth, not may, False
                halted += not may
                target_A = weight_RA[r] if may and worth > 0 else np.zeros(n_assets)
                rejected += _decide(
                    target_A, bid, ask, friction, limits, orders, units, seen, worth, band,
                    decided_ns[r], r,
                )  # fmt: skip
                r += 1
        equity[t], cash_T[t] = worth, cash
    waiting = (orders[0] != NEVER).sum()
    return (
        equity, cash_T, where_F[:n, 0].copy(), where_F[:n, 1].copy(), where_F[:n, 2].copy(),
        money_F[:n, 0].copy(), money_F[:n, 1].copy(), money_F[:n, 2].copy(), money_F[:n, 3].copy(),
        decided, halted, rejected, waiting,
    )  # fmt: skip


@njit(nogil=True, inline="always")
def _no_orders(n_assets):  # type: ignore[no-untyped-def]
    """Return of each asset's order: arrival, decision, units wanted, and a share not yet sized."""
    return (
        np.full(n_assets, NEVER),
        np.full(n_assets, -1),
        np.zeros(n_assets),
        np.full(n_assets, np.nan),
    )


@njit(nogil=True)
def _hold(t, bid, ask, paid_bought, paid_sold, units, seen):  # type: ignore[no-untyped-def]
    """Note which assets have a price on a row, and return what positions were paid until then."""
    paid = 0.0
    for a in range(len(units)):
        if units[a] != 0:
            paid += abs(units[a]) * (paid_bought[a, t] if units[a] > 0 else paid_sold[a, t])
        if bid[a, t] == bid[a, t] and ask[a, t] == ask[a, t]:
            seen[a] = t
    return paid


@njit(nogil=True)
def _fill(  # type: ignore[no-untyped-def]
    t, ts, bid, ask, book, friction, limits, orders, base, units, seen, where_F, money_F, n
):  # fmt: skip
    """Fill the orders that have arrived and find a price; return the fills so far and the cash."""
    arrives, source, wanted, share = orders
    paid = 0.0
    for a in range(len(units)):
        if arrives[a] > ts[t] or seen[a] != t:
            continue
        mid = (bid[a, t] + ask[a, t]) / 2
        if share[a] == share[a]:
            wanted[a] = _sized(share[a], base, mid, friction, limits)
        ordered = wanted[a] - units[a]
        arrives[a], share[a] = NEVER, np.nan
        if ordered == 0:
            continue
        worse = slippage_on(bid[a], ask[a], book[a], friction, t, abs(ordered))
        price = entry_price(1 if ordered > 0 else -1, bid[a, t], ask[a, t], worse)
        fee = abs(ordered) * (friction.fee_rate * price + friction.fee_per_unit)
        paid += ordered * price * friction.multiplier + fee
        units[a] = wanted[a]
        where_F[n, 0], where_F[n, 1], where_F[n, 2] = t, a, source[a]
        money_F[n, 0], money_F[n, 1], money_F[n, 2], money_F[n, 3] = ordered, price, mid, fee
        n += 1
    return n, paid


@njit(nogil=True)
def _worth(bid, ask, friction, units, seen):  # type: ignore[no-untyped-def]
    """Return what positions are worth at the exit touch that each asset last had."""
    worth = 0.0
    for a in range(len(units)):
        if units[a] != 0:
            touch = exit_touch(1 if units[a] > 0 else -1, bid[a, seen[a]], ask[a, seen[a]])
            worth += units[a] * touch * friction.multiplier
    return worth


@njit(nogil=True)
def _order_all_out(orders, units, arrives_ns):  # type: ignore[no-untyped-def]
    arrives, source, wanted, share = orders
    for a in range(len(units)):
        wanted[a], share[a], source[a] = 0.0, np.nan, -1
        arrives[a] = arrives_ns if units[a] != 0 else NEVER


@njit(nogil=True)
def _decide(  # type: ignore[no-untyped-def]
    target_A, bid, ask, friction, limits, orders, units, seen, worth, band, decided_ns, r
):
    """Replace every order by what a rebalance wants, and return how many the venue rejects."""
    arrives, source, wanted, share = orders
    rejected = 0
    for a in range(len(units)):
        target = target_A[a]
        arrives[a], share[a] = NEVER, np.nan
        if target == 0.0 and units[a] == 0.0:
            continue
        mid = np.nan
        if seen[a] >= 0:
            mid = (bid[a, seen[a]] + ask[a, seen[a]]) / 2
            held = units[a] * mid * friction.multiplier
            if target != 0.0 and abs(held / worth - target) <= band:
                continue
        if is_rejected(limits, decided_ns + a):
            rejected += 1
            continue
        if mid == mid:
            wanted[a] = _sized(target, worth, mid, friction, limits)
        else:
            share[a] = target
        arrives[a], source[a] = later(decided_ns, friction.seen_ns), r
    return rejected


@njit(nogil=True)
def _sized(share, worth, mid, friction, limits):  # type: ignore[no-untyped-def]
    """Return the units that are a share of an account."""
    units = share * worth / (mid * friction.multiplier)
    return min(max(units, -limits.max_units), limits.max_units)


@njit(nogil=True)
def _longer(table):  # type: ignore[no-untyped-def]
    larger = np.empty((2 * table.shape[0], table.shape[1]), table.dtype)
    larger[: table.shape[0]] = table
    return larger
