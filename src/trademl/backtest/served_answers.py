"""What serving says of each order, and when: at once, or as a modelled load makes it.

Shape letters: N orders in order of time, M models of the ladder, biggest first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from trademl.errors import ConfigError
from trademl.market.quotes import NS_PER_S
from trademl.serve.answer_cache import AnswerCache
from trademl.serve.ladder import (
    ABSTAIN,
    CACHED,
    LadderPolicy,
    Load,
    Rung,
    Standing,
    choose,
    next_standing,
    tier_names,
)
from trademl.serve.served import Scores, ServedModel

ServingKind = Literal["ideal", "modelled", "recorded"]
NS_PER_MS = 1_000_000


@dataclass(frozen=True, slots=True)
class ReplayConfig:
    """How serving is modelled: the section ``[replay]`` of a strategy.

    Parameters
    ----------
    latency_ms : float
        Median time that the biggest model computes for an answer.
    latency_sigma : float
        Spread of its logarithm; 0 for a constant latency.
    queue_ms, queue_sigma : float
        Median time in a queue before it, and the spread of its logarithm; drawn for each order.
    utilisation : float
        Share of what it may use for which the biggest model would be busy: above 1 it cannot keep
        up, and the ladder steps down.
    smaller_cost : float
        Time that a model of the ladder takes as a share of the one above it.
    """

    latency_ms: float = 20.0
    latency_sigma: float = 0.5
    queue_ms: float = 2.0
    queue_sigma: float = 1.0
    utilisation: float = 0.5
    smaller_cost: float = 0.2

    def __post_init__(self) -> None:
        for name in ("latency_ms", "latency_sigma", "queue_ms", "queue_sigma", "utilisation"):
            if not (value := getattr(self, name)) >= 0:
                raise ConfigError(f"{name} is {value}, expected 0 or more")
        if not 0 < self.smaller_cost <= 1:
            raise ConfigError(f"smaller_cost is {self.smaller_cost}, expected above 0, up to 1")


@dataclass(frozen=True, slots=True)
class Answers:
    """What was answered; arrays of shape (N,). `trademl.backtest.recorded_answers` reads them too.

    Parameters
    ----------
    score : ndarray of float64
        As it was answered; NaN for an abstention.
    model : ndarray of int64
        Which model of the ladder computed it, 0 for the biggest; -1 for an abstention.
    latency_ns : ndarray of int64
        From the order's decision to the answer.
    age_ns : ndarray of int64
        How old an answer from the cache was; 0 for a fresh one.
    tier : ndarray of object, optional
        Name of the tier that answered; made of the others where left out.
    took : ndarray of bool, optional
        Whether the score was taken for a yes, where that is known; a threshold says so otherwise.
    """

    score: NDArray[np.float64]
    model: NDArray[np.int64]
    latency_ns: NDArray[np.int64]
    age_ns: NDArray[np.int64]
    tier: NDArray[np.object_] | None = None
    took: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.score)

    @property
    def is_abstention(self) -> NDArray[np.bool_]:
        """Which orders got no decision."""
        return self.model < 0

    @property
    def is_cached(self) -> NDArray[np.bool_]:
        """Which answers had been given before."""
        return self.age_ns > 0

    @property
    def tiers(self) -> NDArray[np.object_]:
        """Name of the tier that gave each answer."""
        if self.tier is not None:
            return self.tier
        word = np.where(self.is_cached, CACHED, np.where(self.model > 0, "smaller", "biggest"))
        return np.where(self.is_abstention, ABSTAIN, word).astype(object)

    def take(self, rows: NDArray[np.bool_]) -> Answers:
        """Return the answers about some of the orders."""
        return Answers(
            self.score[rows],
            self.model[rows],
            self.latency_ns[rows],
            self.age_ns[rows],
            None if self.tier is None else self.tier[rows],
            None if self.took is None else self.took[rows],
        )


def ideal_answers(score_N: NDArray[np.float64]) -> Answers:
    """Return the answers of a biggest model that takes no time."""
    zero = np.zeros(len(score_N), np.int64)
    return Answers(score_N, zero, zero, zero)


def modelled_answers(
    as_of_N: NDArray[np.int64],
    features_ND: NDArray[np.float32],
    score_MN: NDArray[np.float64],
    models: Sequence[ServedModel],
    policy: LadderPolicy,
    config: ReplayConfig,
    *,
    seed: int,
) -> Answers:
    """Send each order through the ladder as its load is modelled.

    Parameters
    ----------
    as_of_N : ndarray of int64
        When each order asks, UTC nanoseconds, never decreasing.
    features_ND : ndarray of float32, shape (N, D)
        What it asks about: equal ones, by ``policy.cache_step``, share a cached answer.
    score_MN : ndarray of float64, shape (M, N)
        What each model would answer.
    seed : int
        Of latencies and queues.

    Notes
    -----
    Causal: an answer depends on its order and on those before it.
    """
    rng, n, m = np.random.default_rng(seed), len(as_of_N), len(models)
    share_M = config.smaller_cost ** np.arange(m)
    drawn_N2 = rng.standard_normal((n, 2))  # order by order: later ones change no earlier one
    cost_N = np.exp(config.latency_sigma * drawn_N2[:, 0]) * config.latency_ms / 1000
    wait_N = np.exp(config.queue_sigma * drawn_N2[:, 1]) * config.queue_ms / 1000
    cost_NM, wait_NM = cost_N[:, None] * share_M, wait_N[:, None] * share_M
    load = tuple(float(config.utilisation * share) for share in share_M)
    cache = AnswerCache(policy.cache_max_age_s, policy.cache_step, policy.cache_entries)
    standing = Standing()
    model, score = np.full(n, -1), np.full(n, np.nan)
    latency_ns, age_ns = np.zeros(n, np.int64), np.zeros(n, np.int64)
    names, tier = tier_names(m), np.full(n, ABSTAIN, object)
    for k in range(n):
        at_s = float(as_of_N[k]) / NS_PER_S
        level = min(standing.level, m - 1)
        now = Load(float(wait_NM[k, level]), load)
        standing = next_standing(standing, now, policy, at_s)
        rungs = [Rung(float(w), float(c)) for w, c in zip(wait_NM[k], cost_NM[k], strict=True)]
        question = cache.question(features_ND[k : k + 1])
        level = min(standing.level, m - 1)
        kept = cache.find(models[level], question, at_s)
        choice = choose(
            standing.level,
            rungs,
            patience_s=policy.patience_ms / 1000,
            left_s=policy.deadline_ms / 1000,
            has_cached=kept is not None,
        )
        if choice.model >= 0:
            tier[k] = names[choice.tier]
            took_s = rungs[choice.model].wait_s + rungs[choice.model].cost_s
            model[k], score[k] = choice.model, score_MN[choice.model, k]
            latency_ns[k] = round(took_s * NS_PER_S)
            fresh = Scores(score[k : k + 1].astype(np.float32), None)
            cache.keep(models[choice.model], question, fresh, at_s + took_s)
        elif choice.tier == m and kept is not None:
            model[k], score[k], tier[k] = level, float(kept.scores.score_N[0]), CACHED
            age_ns[k] = max(round((at_s - kept.made_at_s) * NS_PER_S), 1)
    return Answers(score, model, latency_ns, age_ns, tier)
