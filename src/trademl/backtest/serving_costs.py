"""What each degradation of serving cost: the same orders, answered as if it had not happened.

Every variant trades the same orders on the same quotes with the same costs; only what was answered,
when, and by which model differs. The cost of a degradation is what the account earns more with that
one switched off; what is left of the difference to ideal serving is named interaction. The cost of
a tier is what it earns more with the answers of that tier as ideal serving gives them.

Shape letters: N orders, M models of the ladder.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trademl.backtest.compiled import run_compiled
from trademl.backtest.late import delayed
from trademl.backtest.served_answers import Answers
from trademl.backtest.settings import BacktestConfig
from trademl.backtest.signals import Signals
from trademl.backtest.sizing import sized
from trademl.backtest.trades import Trades
from trademl.market.costs import Costs
from trademl.market.quotes import Quotes

OF_ANSWERS = ("latency", "smaller tier", "stale cache", "abstention")
DEGRADATIONS = (*OF_ANSWERS, "model changes")
Answered = tuple[Answers, NDArray[np.float64]]


@dataclass(frozen=True)
class Served:
    """Answers of serving, and what would have been answered instead.

    Parameters
    ----------
    answers : Answers
        As they were given.
    given_N, live_N : ndarray of float64, shape (N,)
        Scores of the model that is asked about, and of the one that was live at each order; NaN
        where nothing was.
    smaller_MN : ndarray of float64, shape (M - 1, N)
        Scores of the smaller models.
    given_cut : float
        Threshold of the first.
    live_cut_N, smaller_cut_M : ndarray of float64
        Thresholds of the others.
    """

    answers: Answers
    given_N: NDArray[np.float64]
    live_N: NDArray[np.float64]
    smaller_MN: NDArray[np.float64]
    given_cut: float
    live_cut_N: NDArray[np.float64]
    smaller_cut_M: NDArray[np.float64]

    def without(self, *off: str) -> Answered:
        """Return answers and thresholds with degradations switched off.

        An answer that none of them touches stays as it was given, and so does what was made of it.
        """
        now, own = self.answers, "model changes" not in off
        model, latency_ns = now.model.copy(), now.latency_ns.copy()
        was_absent, is_stale = now.is_abstention, now.is_cached.copy()
        if "abstention" in off:
            model[was_absent] = 0
            answered = now.latency_ns[~was_absent]
            latency_ns[was_absent] = int(np.median(answered)) if len(answered) else 0
        if "smaller tier" in off:
            model = np.minimum(model, 0)
        if "stale cache" in off:
            is_stale[:] = False
        if "latency" in off:
            latency_ns[:] = 0
        score, cut_N = self._asked(model, own=own)
        as_given = (model == now.model) & (is_stale == now.is_cached)
        as_given &= own | is_stale | (model != 0)
        score[as_given] = now.score[as_given]
        if now.took is not None:
            cut_N[as_given] = np.where(now.took[as_given], -np.inf, np.inf)
        cut_N[np.isnan(score)] = np.inf
        age_ns = np.where(is_stale, now.age_ns, 0)
        return Answers(score, model, latency_ns, age_ns, now.tier), cut_N

    def restored(self, rows_N: NDArray[np.bool_]) -> Answered:
        """Return answers and thresholds, of some rows as ideal serving gives them."""
        (now, cut_N), (ideal, ideal_cut_N) = self.without(), self.without(*OF_ANSWERS)

        def mixed(one: NDArray[Any], other: NDArray[Any]) -> NDArray[Any]:
            return np.where(rows_N, one, other)

        answers = Answers(
            mixed(ideal.score, now.score),
            mixed(ideal.model, now.model),
            mixed(ideal.latency_ns, now.latency_ns),
            mixed(ideal.age_ns, now.age_ns),
            now.tier,
        )
        return answers, mixed(ideal_cut_N, cut_N)

    def _asked(self, model: NDArray[np.int64], *, own: bool) -> tuple[NDArray[np.float64], ...]:
        """Return what models say when they are asked afresh, and their thresholds."""
        n = np.arange(len(model))
        biggest_N = self.live_N if own else self.given_N
        biggest_cut_N = self.live_cut_N if own else np.full(len(model), self.given_cut)
        of_smaller = np.repeat(self.smaller_cut_M[:, None], len(model), axis=1)
        score_MN = np.concatenate([biggest_N[None], self.smaller_MN])
        cut_MN = np.concatenate([biggest_cut_N[None], of_smaller])
        return np.where(model < 0, np.nan, score_MN[model, n]), cut_MN[model, n]


def serving_costs(
    quotes: Quotes,
    signals: Signals,
    serving: Served,
    costs: Costs,
    config: BacktestConfig,
    seed: int,
) -> dict[str, Any]:
    """Return what each degradation cost, in quote currency; negative where it paid.

    Returns
    -------
    dict
        ``ideal`` and ``served`` net PnL, where the venue rejects nothing, their ``difference``,
        under ``by`` the cost of each of `DEGRADATIONS`, ``interaction``: the difference less
        their sum, and under ``tiers`` the answers, trades, profit and cost of each tier.
    """
    limits = replace(config.limits(seed), reject_share=0.0)  # chance would tell of other orders

    def traded(answers: Answers, cut_N: NDArray[np.float64]) -> Trades:
        span, taken = as_served(quotes, signals, answers, cut_N)
        wanted = sized(span, taken, costs, config).flagged(0.0)
        return run_compiled(span, wanted, costs, limits=limits)

    def net(*off: str) -> float:
        return float(traded(*serving.without(*off)).pnl.sum())

    made = traded(*serving.without())
    ideal, real = net(*DEGRADATIONS), float(made.pnl.sum())
    by = {name: net(name) - real for name in DEGRADATIONS}
    told = {"ideal": ideal, "served": real, "difference": ideal - real, "by": by}
    tier_N = serving.answers.tiers
    of_trade = tier_N[np.searchsorted(signals.order_id, made.order_id)] if len(made) else tier_N[:0]
    return {
        **told,
        "interaction": ideal - real - sum(by.values()),
        "tiers": [
            {
                "tier": tier,
                "n_answers": int((tier_N == tier).sum()),
                "n_trades": int((of_trade == tier).sum()),
                "net_pnl": float(made.pnl[of_trade == tier].sum()),
                "cost": float(traded(*serving.restored(tier_N == tier)).pnl.sum()) - real,
            }
            for tier in sorted(set(tier_N.tolist()))
        ],
    }


def as_served(
    quotes: Quotes, signals: Signals, answers: Answers, cut_N: NDArray[np.float64]
) -> tuple[Quotes, Signals]:
    """Return quotes and signals in which each score arrives when its answer did."""
    scored = replace(signals, score=np.nan_to_num(answers.score), threshold=cut_N)
    return delayed(quotes, scored, answers.latency_ns)
