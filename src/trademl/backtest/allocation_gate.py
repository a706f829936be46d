"""Whether an allocation may be believed: its quarters beside those of equal weights.

Shape letters: R quarters, none of which overlap.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from trademl.stats.bootstrap import lower_bound_of_mean
from trademl.stats.sharpe import deflated_sharpe_ratio, expected_maximum, sharpe_ratio
from trademl.train.gate import Check, GateConfig, GateResult

LEAST_QUARTERS = 20  # five years: fewer are one mood of the market
DEARER = "2x"


def judge_quarters(
    ours_R: NDArray[np.float64],
    equal_R: NDArray[np.float64],
    annual_by_cost: Mapping[str, float],
    config: GateConfig,
    *,
    n_tried: int,
    seed: int,
) -> GateResult:
    """Judge returns after costs, quarter by quarter.

    Parameters
    ----------
    ours_R, equal_R : ndarray of float64, shape (R,)
        Returns of the account and of equal weights over the same quarters.
    annual_by_cost : mapping
        Annual return at ``1x``, ``2x``, ``3x`` the costs.
    n_tried : int
        Allocations tried on this span, this one included; see `trademl.train.looks`.
    seed : int
        Of the bootstrap.

    Returns
    -------
    GateResult
        As of a model of orders: a point estimate that fails is a reject, a bound that fails a hold.
    """
    excess_R = ours_R - equal_R
    return GateResult(
        (
            _count(len(excess_R)),
            _costs(annual_by_cost),
            _excess(excess_R, config, seed),
            _luck(excess_R, config, n_tried),
        )
    )


def _count(n: int) -> Check:
    says = f"{n} independent quarters, floor {LEAST_QUARTERS}"
    return Check("count", "promote" if n >= LEAST_QUARTERS else "hold", says)


def _costs(annual_by_cost: Mapping[str, float]) -> Check:
    now, dearer = annual_by_cost["1x"], annual_by_cost[DEARER]
    says = f"{now:+.2%} a year after costs, {dearer:+.2%} at twice the costs"
    if now <= 0:
        return Check("net return", "reject", f"{says}: not above 0")
    return Check("net return", "promote" if dearer > 0 else "hold", says)


def _excess(excess_R: NDArray[np.float64], config: GateConfig, seed: int) -> Check:
    name = "beside equal weights"
    mean = float(excess_R.mean()) if len(excess_R) else 0.0
    says = f"a quarter earned {mean:+.2%} beside equal weights"
    if mean <= 0:
        return Check(name, "reject", f"{says}: not above 0")
    bound = lower_bound_of_mean(excess_R, block_length=1, confidence=config.confidence, seed=seed)
    if bound is None:
        return Check(name, "hold", f"{says}; too few quarters for a bound")
    says = f"{says}; its {100 * config.confidence:.4g}% lower bound is {bound:+.2%}"
    return Check(name, "promote" if bound > 0 else "hold", says)


def _luck(excess_R: NDArray[np.float64], config: GateConfig, n_tried: int) -> Check:
    name = "deflated Sharpe"
    found = sharpe_ratio(excess_R, n=float(len(excess_R)))
    if found is None or found.n <= 1:
        return Check(name, "hold", "the Sharpe ratio of the excess is undefined")
    lucky = expected_maximum(n_tried, variance=1.0 / (found.n - 1.0))
    probability = deflated_sharpe_ratio(found, n_tried)
    says = (
        f"after {n_tried} tries on this span luck alone reaches a Sharpe ratio of {lucky:.3g} a "
        f"quarter; that of {found.ratio:.3g} is above it with probability {probability:.4g}"
    )
    if probability < config.confidence:
        return Check(name, "hold", f"{says}, less than {config.confidence:g}")
    return Check(name, "promote", says)
