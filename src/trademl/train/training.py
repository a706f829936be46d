"""The loop: epochs over all models of all candidates, each ranked on held-out rows, until all stop.

Shape letters: N rows, D features, P columns, K weight vectors, V rows held out.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trademl.etl.dataset import Split
from trademl.ports import Progress
from trademl.train.checkpoints import check_identity, restore_runners, runner_state
from trademl.train.determinism import Stream, generator
from trademl.train.engine import (
    Float32,
    Models,
    Rows,
    Threads,
    logits_of,
    normalised_rows,
    row_order,
)
from trademl.train.hyperparameters import LinearLearnerParameters
from trademl.train.inputs import sample_rows
from trademl.train.members import Member
from trademl.train.observing import (
    Checkpoint,
    EpochReport,
    ShouldStop,
    TrainingObserver,
    TrainingState,
)
from trademl.train.races import Found, Runner, judge_epoch, watches_criterion
from trademl.train.scaler import LabelScaler, Scaler


@dataclass(frozen=True)
class Holdout:
    """The rows that rank epochs: those of validation or, without it, of train.

    Parameters
    ----------
    split : Split
        As given.
    x_VP : ndarray of float32
        Normalised, in the order of ``at_V``, or of the split where that is None.
    """

    split: Split
    x_VP: Float32
    at_V: NDArray[np.int64] | None
    is_validation: bool


@dataclass(frozen=True)
class Listeners:
    """Who is told of training, and who may end it."""

    progress: Progress
    observer: TrainingObserver | None
    checkpoint: Checkpoint | None
    should_stop: ShouldStop


class Training:
    """All candidates of one pass, from the first epoch to the last."""

    def __init__(
        self,
        train: Split,
        validation: Split | None,
        candidates: Sequence[LinearLearnerParameters],
        members: Sequence[Member],
        scalers: tuple[Scaler, LabelScaler],
        listeners: Listeners,
        threads: Threads,
        *,
        seed: int,
    ) -> None:
        self.candidates, self.seed, self.threads = candidates, seed, threads
        self.listeners = listeners
        self.scaler, self.label_scaler = scalers
        self.batch = candidates[0].mini_batch_size
        layout_N = generator(seed, Stream.LAYOUT).permutation(len(train))
        self.rows = self._rows(train, layout_N)
        self.holdout = self._holdout(train, validation, layout_N)
        self.runners = [Runner(member) for member in members]
        self.models = Models(
            members,
            train.features_ND.shape[1],
            self.rows.x_NP.shape[1],
            self.label_scaler,
            seed=seed,
        )
        self.racing = list(self.runners)  # one for each of self.models, in their order
        self.epoch = 0
        self.is_stopped = False

    def run(self, identity: str) -> None:
        """Train until every model has stopped, or somebody asks to stop."""
        self._resume(identity)
        self._tell_started()
        last = max(parameters.epochs for parameters in self.candidates)
        while self.racing and not self.is_stopped:
            if not self._run_epoch():
                break
            self.listeners.progress.advance(self.epoch, last)
            if self.listeners.checkpoint is not None and not self.is_stopped:
                self.listeners.checkpoint.save(self._state(identity))

    def _rows(self, train: Split, layout_N: NDArray[np.int64]) -> Rows:
        label_N = np.asarray(train.label_N, np.float64)[layout_N]
        is_regression = self.candidates[0].predictor_type == "regressor"
        group_N = np.zeros(len(label_N)) if is_regression else label_N
        target_N = (label_N - self.label_scaler.mean) / self.label_scaler.scale
        return Rows(
            normalised_rows(train.features_ND, layout_N, self.scaler, self.threads),
            target_N.astype(np.float32),
            group_N.astype(np.int64),
        )

    def _holdout(
        self, train: Split, validation: Split | None, layout_N: NDArray[np.int64]
    ) -> Holdout:
        if validation is None:
            return Holdout(train, self.rows.x_NP, np.argsort(layout_N), is_validation=False)
        every_V = np.arange(len(validation))
        x_VP = normalised_rows(validation.features_ND, every_V, self.scaler, self.threads)
        return Holdout(validation, x_VP, None, is_validation=True)

    def _run_epoch(self) -> bool:
        """Train and rank one epoch; return False where somebody asked to stop before its end."""
        began = time.perf_counter()
        order_N = row_order(len(self.rows.target_N), self.epoch, seed=self.seed)
        loss_M = self.models.run_epoch(
            self.rows, order_N, self.batch, self.threads, self.listeners.should_stop
        )
        self.is_stopped = loss_M is None
        if loss_M is None:
            if self.epoch > 0:
                return False  # a part of an epoch is dropped: there is a whole one to keep
            loss_M = np.full(len(self.models), np.nan)
        best_before = [self._best_of(c) for c in range(len(self.candidates))]
        self._rank(loss_M)
        if not self.is_stopped:
            self._report(best_before, len(order_N), time.perf_counter() - began)
        self._let_go()
        self.epoch += 1
        return True

    def _rank(self, loss_M: NDArray[np.float64]) -> None:
        score_KV = self.scores(self.models.theta_KP)
        n = self.models.n_outputs

        def look(m: int) -> None:
            theta_CP, runner = self.models.theta(m), self.racing[m]
            if not np.isfinite(theta_CP).all():
                runner.fail(self.epoch)
                return
            found = self.judge(runner, score_KV[m * n : (m + 1) * n])
            loss = loss_M[m] * self.label_scaler.loss_unit(runner.member.parameters.loss)
            runner.look(self.epoch, found, float(loss), theta_CP)

        self.threads.each(look, len(self.racing))

    def scores(self, theta_KP: Float32) -> Float32:
        """Return the held-out rows' scores, in their split's order and label's units: (K, V)."""
        score_KV = logits_of(self.holdout.x_VP, theta_KP, self.threads)
        if self.holdout.at_V is not None:
            score_KV = score_KV[:, self.holdout.at_V]
        if (label := self.label_scaler) != LabelScaler():
            score_KV = score_KV * np.float32(label.scale) + np.float32(label.mean)
        return score_KV

    def judge(self, runner: Runner, score_CV: Float32) -> Found:
        """Rank a model's scores of the held-out rows."""
        parameters = runner.member.parameters
        split = self.holdout.split
        return judge_epoch(
            parameters,
            split.label_N,
            score_CV,
            sample_rows(len(split), parameters.num_calibration_samples, self.seed),
            is_validation=self.holdout.is_validation,
        )

    def _let_go(self) -> None:
        is_kept_M = np.array([not runner.is_done for runner in self.racing])
        if not is_kept_M.all():
            self.racing = [runner for runner in self.racing if not runner.is_done]
            self.models.keep(is_kept_M)

    def _best_of(self, candidate: int) -> tuple[bool, float] | None:
        ranks = [
            runner.best.found.rank
            for runner in self.runners
            if runner.best and runner.member.candidate == candidate
        ]
        return max(ranks, default=None)

    def _tell_started(self) -> None:
        if self.listeners.observer is None:
            return
        for c, parameters in enumerate(self.candidates):
            n_models = sum(runner.member.candidate == c for runner in self.runners)
            self.listeners.observer.started(c, parameters, n_models)

    def _report(
        self,
        best_before: Sequence[tuple[bool, float] | None],
        n_records: int,
        seconds: float,
    ) -> None:
        if self.listeners.observer is None:
            return
        for c, parameters in enumerate(self.candidates):
            own = [runner for runner in self.racing if runner.member.candidate == c]
            logs = [runner.history[-1] for runner in own if runner.failure is None]
            if not logs:
                continue
            is_validation = self.holdout.is_validation
            is_criterion = watches_criterion(parameters, is_validation=is_validation)
            name = parameters.binary_classifier_model_selection_criteria
            watched = [log.watched for log in logs]
            self.listeners.observer.epoch_ended(
                EpochReport(
                    candidate=c,
                    epoch=self.epoch,
                    epochs=parameters.epochs,
                    train_loss_M=tuple(log.train_loss for log in logs),
                    validation_loss_M=(
                        tuple(log.validation_loss for log in logs) if is_validation else ()
                    ),
                    model_M=tuple(r.member.number for r in own if r.failure is None),
                    criterion=f"sampled_{name}" if is_criterion else "loss",
                    watched=max(watched) if is_criterion else min(watched),
                    is_improved=self._best_of(c) != best_before[c],
                    n_records=n_records,
                    seconds=seconds,
                )
            )

    def _state(self, identity: str) -> TrainingState:
        facts, arrays = runner_state(self.runners)
        return TrainingState(
            {
                "identity": identity,
                "epoch": self.epoch,
                "n_steps": self.models.n_steps,
                "runners": facts,
            },
            {
                **arrays,
                "theta_KP": self.models.theta_KP,
                "first_KP": self.models.first_KP,
                "second_KP": self.models.second_KP,
            },
        )

    def _resume(self, identity: str) -> None:
        checkpoint = self.listeners.checkpoint
        if checkpoint is None or (state := checkpoint.load()) is None:
            return
        check_identity(state, identity)
        restore_runners(self.runners, state)
        self.epoch = state.facts["epoch"]
        self._let_go()
        self.models.n_steps = state.facts["n_steps"]
        for name in ("theta_KP", "first_KP", "second_KP"):
            setattr(self.models, name, np.array(state.arrays[name]))
