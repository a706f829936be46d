"""One strategy as the server answers for it: a ladder of models, a cache, and where it stands.

Everything runs on the event loop; a model that takes longer than `INLINE_S` for a row computes in
a thread, in batches. Shape letters: N rows, D feature columns.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trademl.serve.answer_cache import AnswerCache, Kept
from trademl.serve.at_once import AtOnce
from trademl.serve.batches import Batches, Job, Lane
from trademl.serve.counters import StrategyCounters
from trademl.serve.formats import negotiate, parse_request
from trademl.serve.freshness import Freshness
from trademl.serve.ladder import (
    LONGEST_S,
    Choice,
    LadderPolicy,
    Load,
    Rung,
    Standing,
    choose,
    next_standing,
    tier_names,
    why_fresh,
)
from trademl.serve.messages import Answer, Request, failure
from trademl.serve.model_pool import Held, ModelPool
from trademl.serve.provenance import Provenance, abstention, brief_abstention, decision
from trademl.serve.rows import RequestError, shown
from trademl.serve.served import Scores, ServedModel
from trademl.serve.shares import Shares
from trademl.serve.turns import Turns
from trademl.serve.wants import NOTHING, Wants, read_deadline_s, read_wants

INLINE_S = 0.0002  # handing a batch to a thread and back takes about as long
LEAST_S = 0.002  # before the deadline, in which a request can still be read and answered
FALLBACK_S = 0.01  # before it, when a lower tier takes over: two turns of Python's threads
LATE_SHARE = 0.25  # of its deadline that a request may wait to be read by a server that is behind
TOO_BUSY = "the server is too busy to read it in time"
_SMOOTHING_S = 0.5
_FEWEST = 5  # answers in a look, below which shares say nothing
_ENCODED = (b"", b"identity")

_log = logging.getLogger(__name__)


class TierChange(NamedTuple):
    """A strategy's step on its ladder."""

    strategy: str
    old: str
    new: str
    reason: str
    load: Load


class ModelChange(NamedTuple):
    """A model that took over from another, by their ids."""

    strategy: str
    old: str
    new: str


@dataclass(frozen=True)
class Machine:
    """What the strategies of one process share.

    Parameters
    ----------
    batches : mapping of str to Batches
        By device.
    loop_shares : Shares
        Who used how much of the event loop.
    on_change : callable
        Told of each step on a ladder.
    """

    turns: Turns
    pool: ModelPool
    batches: Mapping[str, Batches]
    loop_shares: Shares
    on_change: Callable[[TierChange], None] = lambda _: None
    wall_ns: Callable[[], int] = time.time_ns


@dataclass(slots=True)
class _Question:
    """A request on its way to an answer."""

    request: Request
    wants: Wants
    deadline_s: float
    features_ND: NDArray[np.float32]
    tried: int = 0  # models before this number were tried, or passed over
    answered: asyncio.Future[Answer] | None = None


class LiveStrategy:
    """Answers the requests for one strategy.

    Parameters
    ----------
    ladder : sequence of Held
        Its models, biggest first; all take the same columns. The last one must be in memory.
    followed : int
        Number of the model that stands for what is deployed.
    """

    def __init__(
        self,
        name: str,
        ladder: Sequence[Held],
        machine: Machine,
        policy: LadderPolicy | None = None,
        freshness: Freshness | None = None,
        *,
        followed: int = 0,
    ) -> None:
        self.name, self.ladder, self._followed = name, list(ladder), followed
        for held in self.ladder:
            held.on_release = self._forget
        self.policy, self._freshness = policy or LadderPolicy(), freshness or Freshness()
        self.tiers = tier_names(len(ladder))
        self.counters = StrategyCounters(self.tiers)
        self.standing = Standing(since_s=machine.turns.now())
        self._machine, self._turns = machine, machine.turns
        self._patience_s = self.policy.patience_ms / 1000
        self._cache = AnswerCache(
            self.policy.cache_max_age_s, self.policy.cache_step, self.policy.cache_entries
        )
        self._usual = AtOnce()
        self._lanes: dict[str, Lane] = {}
        self._in_flight: dict[tuple[ServedModel, bytes], tuple[Lane, Job]] = {}
        self._row_rate = 0.0
        self._seen = _Seen(machine.turns.now(), 0, [0] * len(self.tiers))

    @property
    def level(self) -> int:
        """Tier that is tried first; 0 is the biggest model."""
        return self.standing.level

    @property
    def head(self) -> bytes:
        """Header lines of the biggest model in memory."""
        return next((held.model.head for held in self.ladder if held.model is not None), b"")

    @property
    def followed(self) -> Held:
        """The model that stands for what is deployed."""
        return self.ladder[self._followed]

    def take_over(self, held: Held) -> None:
        """Let a model that is in memory take over from the deployed one.

        It happens between two requests. What the old model has begun it ends, under its own name.
        """
        self.ladder[self._followed] = held
        held.on_release = self._forget
        self.counters.n_swaps += 1

    def _forget(self, model: ServedModel) -> None:
        """Keep nothing that would hold a model in memory which the pool has let go of."""
        self._cache.forget(model)
        self._lanes.pop(model.id, None)

    # Answering

    def answer(self, request: Request) -> Answer | asyncio.Future[Answer]:
        """Return the answer to a request, at once or later; raise `RequestError` for a bad one."""
        began_s = self._turns.now()
        if began_s - request.arrived_s > self._patience_s and self._is_too_much(request, began_s):
            return self._send_away(request, began_s)
        wants = read_wants(request.headers)
        if not self._machine.loop_shares.is_shared:
            return self._answer(request, wants, began_s)
        answer = self._answer(request, wants, began_s)
        now_s = self._turns.now()
        self._machine.loop_shares.charge(self.name, now_s - began_s, now_s)
        return answer

    def _answer(
        self, request: Request, wants: Wants, now_s: float
    ) -> Answer | asyncio.Future[Answer]:
        if wants.sent_ns is not None:
            since_s = (self._machine.wall_ns() - wants.sent_ns) / 1e9
            request.arrived_s = now_s - min(max(since_s, now_s - request.arrived_s), LONGEST_S)
        patience_s = self._time_for(wants.deadline_s)
        deadline_s = request.arrived_s + patience_s
        if deadline_s <= max(now_s + min(LEAST_S, patience_s / 2), self._turns.ends_s):
            return self._send_away(request, now_s, wants)
        level = self.standing.level
        index = min(level, len(self.ladder) - 1)
        held = self.ladder[index]
        is_quick = held.model is not None and held.row_s < INLINE_S  # nothing to choose
        if is_quick and (answer := self._at_once(request, wants, index, now_s)) is not None:
            return answer
        question = self._read(request, wants, deadline_s)
        if reason := wants.staleness(self._freshness, self._machine.wall_ns()):
            return self._abstain(request, wants, reason, is_stale=True)
        if not is_quick:
            return self._descend(question)
        return self._compute(question, held, Choice(index, index, why_fresh(level, index)))

    def _at_once(self, request: Request, wants: Wants, index: int, now_s: float) -> Answer | None:
        """Answer a usual request in a straight line; return None for any other."""
        if wants is not NOTHING or self._freshness.needs_feature_time:
            stale = wants.staleness(self._freshness, self._machine.wall_ns())
            if stale or wants.wants_reasons:
                return None
        held, arrived_s = self.ladder[index], request.arrived_s
        queue_s = now_s - arrived_s
        reason = why_fresh(self.standing.level, index)
        answer = self._usual.answer(request, held, self.tiers[index], reason, queue_s)
        if answer is not None:
            self._machine.pool.touch(held)
            self.counters.n_rows += 1
            self.counters.answer(index, self._turns.now() - arrived_s, queue_s)
        return answer

    def _is_too_much(self, request: Request, now_s: float) -> bool:
        """Return whether a request that waited is better sent away unread."""
        if self._machine.loop_shares.is_crowding(self.name):
            return True
        if not self._turns.is_behind:
            return False
        patience_s = self._time_for(read_deadline_s(request.headers))
        return now_s - request.arrived_s > patience_s * LATE_SHARE

    def _time_for(self, deadline_s: float | None) -> float:
        """Return how long a caller waits; one that says 0 has no time, and not the usual time."""
        return self.policy.deadline_ms / 1000 if deadline_s is None else deadline_s

    def _send_away(self, request: Request, now_s: float, wants: Wants | None = None) -> Answer:
        queue_s = now_s - request.arrived_s
        answer = brief_abstention(request, self.tiers[-1], TOO_BUSY, queue_s)
        if answer is None:
            return self._abstain(request, wants or read_wants(request.headers), TOO_BUSY)
        self.counters.latency[-1].add(queue_s)
        return answer

    def _read(self, request: Request, wants: Wants, deadline_s: float) -> _Question:
        if request.headers.get(b"content-encoding", b"") not in _ENCODED:
            found = shown(request.header(b"content-encoding"))
            raise RequestError(415, f"content encoding is {found}: send the body as it is")
        negotiate(request.header(b"accept"))  # before anything is computed
        features_ND = parse_request(
            request.header(b"content-type"),
            request.body,
            self._feature_dim(),
        )
        self.counters.n_rows += len(features_ND)
        return _Question(request, wants, deadline_s, features_ND)

    def _feature_dim(self) -> int:
        model = self.ladder[-1].model
        if model is None:
            raise RequestError(503, f"{self.name} has no model in memory yet: try again")
        return model.feature_dim

    def _descend(self, question: _Question) -> Answer | asyncio.Future[Answer]:
        """Take the best tier that is possible now, at or below where the strategy stands."""
        now_s = self._turns.now()
        rungs = [self._rung(held, question) for held in self.ladder]
        kept = self._find_kept(question, now_s)
        choice = choose(
            self.standing.level,
            rungs,
            patience_s=self._patience_s,
            left_s=question.deadline_s - now_s,
            has_cached=kept is not None,
            tried=question.tried,
        )
        if choice.model >= 0:
            return self._compute(question, self.ladder[choice.model], choice)
        if kept is not None:
            self.counters.n_cache_hits += 1
            age_s = now_s - kept.made_at_s
            found = Provenance(self.tiers[len(self.ladder)], choice.reason, age_s=age_s)
            return self._decide(question, kept.model, kept.scores, len(self.ladder), found)
        return self._abstain(question.request, question.wants, choice.reason)

    def _find_kept(self, question: _Question, now_s: float) -> Kept | None:
        """Return an answer given before, from the biggest model that gave one."""
        self.counters.n_cache_lookups += 1
        key = self._cache.question(question.features_ND)
        for held in self.ladder:
            if held.model is not None and (kept := self._cache.find(held.model, key, now_s)):
                return kept
        return None

    def _rung(self, held: Held, question: _Question) -> Rung:
        if held.model is None:
            self._machine.pool.wish(held)
            return Rung(0.0, 0.0, is_ready=False)
        if held.row_s < INLINE_S:
            return Rung(0.0, held.row_s * len(question.features_ND))
        lane = self._lane(held)
        n_slots = self._machine.batches[held.file.device].slots_of(self.name)
        return Rung(lane.wait_s(n_slots, self._turns.now()), lane.row_s * len(question.features_ND))

    def _compute(
        self, question: _Question, held: Held, choice: Choice
    ) -> Answer | asyncio.Future[Answer]:
        self._machine.pool.touch(held)
        if held.model is None:  # let go of since it was chosen
            question.tried = choice.model + 1
            return self._descend(question)
        if held.row_s >= INLINE_S:
            return self._compute_later(question, held, choice)
        began_s = self._turns.now()
        try:
            scores = held.model.scores(question.features_ND)
        except Exception:
            return self._after_failure(question, held.model, choice)
        found = Provenance(
            self.tiers[choice.tier],
            choice.reason,
            queue_s=max(0.0, began_s - question.request.arrived_s),
        )
        if self.ladder[-1].row_s >= INLINE_S:  # a quicker one is asked before the cache is
            self._keep(held.model, question, scores, began_s)
        return self._decide(question, held.model, scores, choice.tier, found)

    def _keep(self, model: ServedModel, question: _Question, scores: Scores, at_s: float) -> None:
        self._cache.keep(model, self._cache.question(question.features_ND), scores, at_s)

    def _after_failure(
        self, question: _Question, model: ServedModel, choice: Choice
    ) -> Answer | asyncio.Future[Answer]:
        """Go on with the next smaller model after one that raised, which is a defect of it."""
        self.counters.n_failures += 1
        _log.exception("%s: model %s failed", self.name, model.id)
        question.tried = choice.model + 1
        if question.tried < len(self.ladder):
            return self._descend(question)
        return failure(500, "the server failed to answer: its log says why")

    def _decide(
        self,
        question: _Question,
        model: ServedModel,
        scores: Scores,
        tier: int,
        found: Provenance,
    ) -> Answer:
        answer = decision(question.request, question.wants, model, scores, found)
        arrived_s = question.request.arrived_s
        self.counters.answer(tier, self._turns.now() - arrived_s, found.queue_s)
        return answer

    def _abstain(
        self, request: Request, wants: Wants, reason: str, *, is_stale: bool = False
    ) -> Answer:
        now_s = self._turns.now()
        self.counters.n_stale += is_stale
        self.counters.latency[-1].add(now_s - request.arrived_s)
        found = Provenance(self.tiers[-1], reason, queue_s=max(0.0, now_s - request.arrived_s))
        return abstention(request, wants, found, is_stale=is_stale)

    # Computing in a thread

    def _compute_later(
        self, question: _Question, held: Held, choice: Choice
    ) -> asyncio.Future[Answer]:
        loop = asyncio.get_running_loop()
        lane, job = self._job(question, held)
        answered = question.answered or loop.create_future()
        question.answered = answered
        left_s = max(0.0, question.deadline_s - self._turns.now())
        until_s = left_s - min(FALLBACK_S, left_s / 2)
        timer = loop.call_later(until_s, self._give_up, question, choice, job)

        def finish(done: asyncio.Future[Scores]) -> None:
            timer.cancel()
            if not answered.done() and question.tried <= choice.model:
                self._settle(question, self._finished(question, lane.model, choice, job, done))

        job.done.add_done_callback(finish)
        return answered

    def _job(self, question: _Question, held: Held) -> tuple[Lane, Job]:
        """Queue the question, or join whoever asked the same of the same model."""
        lane, batches = self._lane(held), self._machine.batches[held.file.device]
        if (key := self._cache.question(question.features_ND)) is None:
            return lane, batches.submit(lane, question.features_ND)
        same = (lane.model, key)
        running = self._in_flight.get(same)
        if running is not None and not running[1].done.done():
            self.counters.n_shared += 1
            running[1].n_waiting += 1
            return running
        job = batches.submit(lane, question.features_ND)
        self._in_flight[same] = lane, job
        job.done.add_done_callback(lambda _: self._in_flight.pop(same, None))
        return lane, job

    def _finished(
        self,
        question: _Question,
        model: ServedModel,
        choice: Choice,
        job: Job,
        done: asyncio.Future[Scores],
    ) -> Answer | asyncio.Future[Answer]:
        if done.cancelled():
            return failure(503, "the server is stopping: ask again")
        try:
            scores = done.result()
        except Exception:
            return self._after_failure(question, model, choice)
        if any(held.model is model for held in self.ladder):  # else it was let go of meanwhile
            self._keep(model, question, scores, self._turns.now())
        queue_s = max(0.0, job.began_at_s - question.request.arrived_s)
        found = Provenance(self.tiers[choice.tier], choice.reason, queue_s=queue_s)
        return self._decide(question, model, scores, choice.tier, found)

    def _give_up(self, question: _Question, choice: Choice, job: Job) -> None:
        """Answer from a lower tier: the deadline is near and the model has not answered."""
        if question.answered is not None and not question.answered.done():
            question.tried = choice.model + 1
            job.give_up()
            self._settle(question, self._descend(question))

    def _settle(self, question: _Question, answer: Answer | asyncio.Future[Answer]) -> None:
        answered = question.answered
        if answered is not None and isinstance(answer, Answer) and not answered.done():
            answered.set_result(answer)

    def _lane(self, held: Held) -> Lane:
        model = held.model
        assert model is not None  # noqa: S101  (whoever calls has seen it there)
        lane = self._lanes.get(model.id)
        if lane is None or lane.model is not model:
            lane = self._lanes[model.id] = Lane(self.name, model, held.row_s)
        return lane

    # Standing on the ladder

    def review(self, loop_busy: float) -> None:
        """Look at the load since the last look, and step on the ladder where that is due.

        Parameters
        ----------
        loop_busy : float
            Share of the time for which the event loop was busy, 0 to 1.
        """
        now_s = self._turns.now()
        load = self._load(loop_busy, now_s)
        before, self.standing = (
            self.standing,
            next_standing(self.standing, load, self.policy, now_s),
        )
        if self.standing.level != before.level:
            old, new = self.tiers[before.level], self.tiers[self.standing.level]
            self.counters.change_tier(old, new)
            self._machine.on_change(TierChange(self.name, old, new, self.standing.reason, load))

    def _load(self, loop_busy: float, now_s: float) -> Load:
        counts = [histogram.n for histogram in self.counters.latency]
        counts[-1] -= self.counters.n_stale
        seen, self._seen = self._seen, _Seen(now_s, self.counters.n_rows, counts)
        passed_s = max(now_s - seen.at_s, 1e-6)
        rate = (self.counters.n_rows - seen.n_rows) / passed_s
        self._row_rate += min(1.0, passed_s / _SMOOTHING_S) * (rate - self._row_rate)
        new = [count - before for count, before in zip(counts, seen.counts, strict=True)]
        total = sum(new)
        n = len(self.ladder)
        shares = [part / total if total >= _FEWEST else 0.0 for part in new[n:]]
        wait_s, utilisation = 0.0, []
        for index, held in enumerate(self.ladder):
            busy, waited_s = self._use(held, loop_busy)
            utilisation.append(busy)
            if index >= min(self.standing.level, n - 1):
                wait_s = max(wait_s, waited_s)
        return Load(wait_s, tuple(utilisation), (shares[0], shares[1], shares[2]))

    def _use(self, held: Held, loop_busy: float) -> tuple[float, float]:
        """Return how busy a model would be with all rows that arrive, and its queue's delay."""
        if held.model is None or held.row_s < INLINE_S:
            return loop_busy, 0.0
        lane = self._lane(held)
        n_slots = self._machine.batches[held.file.device].slots_of(self.name)
        now_s = self._turns.now()
        waited_s = max(lane.longest_wait_s, lane.wait_s(n_slots, now_s))
        lane.longest_wait_s = 0.0
        busy = self._row_rate * lane.row_s / n_slots
        if lane.stuck_s(now_s) > self._patience_s:
            busy = max(busy, 1.0)  # whatever the average says
        return busy, waited_s


class _Seen(NamedTuple):
    """What the last look at the counters saw."""

    at_s: float
    n_rows: int
    counts: list[int]
