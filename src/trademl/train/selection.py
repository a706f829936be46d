"""Which trial deserves to trade, if any: floors that a lucky model does not clear.

Shape letters: N validation rows, F flagged ones in order of time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from trademl.errors import DataError, TrainError
from trademl.etl.dataset import Split
from trademl.stats.bootstrap import lower_bound_of_mean, overlap_length
from trademl.stats.overfitting import Overfitting, overfitting
from trademl.train.determinism import Stream, generator
from trademl.train.floors import Figures, SelectionFloors, missed_floors
from trademl.train.metrics import confusion, precision, recall
from trademl.train.model import NOT_JUDGED, BinaryModel, Status
from trademl.train.thresholds import calibrate_as
from trademl.train.trials import TrialResult

__all__ = [
    "NO_EDGE",
    "Judgement",
    "Selection",
    "SelectionFloors",
    "Verdict",
    "judge",
    "out_of_fold_flags",
    "select",
]

Verdict = Literal["accepted", "no edge after costs"]
NO_EDGE: Verdict = "no edge after costs"


@dataclass(frozen=True)
class Judgement:
    """A trial and why it is refused; accepted where there is no reason.

    ``earned_N`` is what each validation order earned it, in order of time, 0 where it was not
    flagged out of fold; None where training failed.
    """

    trial: TrialResult
    reasons: tuple[str, ...]
    figures: Figures | None = None
    earned_N: NDArray[np.float64] | None = field(default=None, compare=False, repr=False)

    @property
    def is_accepted(self) -> bool:
        """Whether it cleared every floor."""
        return not self.reasons


@dataclass(frozen=True)
class Selection:
    """What came out of a search.

    Parameters
    ----------
    verdict : {"accepted", "no edge after costs"}
    winner : TrialResult or None
        The accepted trial with the best objective.
    best_refused : TrialResult or None
        Where none is accepted: the one that misses the fewest floors, then the best objective,
        then the lower number. It may be looked at, not traded.
    judgements : tuple of Judgement
        One per trial, in the trials' order.
    overfitting : Overfitting or None
        Whether the trial that is best on one half of validation time is good on the other; None
        where there are too few trials or rows to tell.
    """

    verdict: Verdict
    winner: TrialResult | None
    best_refused: TrialResult | None
    judgements: tuple[Judgement, ...]
    overfitting: Overfitting | None = None

    @property
    def chosen(self) -> Judgement:
        """The judgement of the winner, or of the best refused trial."""
        trial = self.winner or self.best_refused
        return next(j for j in self.judgements if j.trial is trial)

    def model(self) -> BinaryModel:
        """Return the chosen trial's model, carrying its verdict and reasons."""
        status: Status = "accepted" if self.winner else "refused"
        return replace(self.chosen.trial.model(), status=status, reasons=self.chosen.reasons)


def select(
    trials: Sequence[TrialResult],
    validation: Split,
    floors: SelectionFloors | None = None,
    *,
    seed: int,
) -> Selection:
    """Judge every trial by its floors and choose one.

    Parameters
    ----------
    trials : sequence of TrialResult
        Of one search; their models are read from their files.
    validation : Split
        The rows that calibrated the thresholds. Test rows stay unseen.
    floors : SelectionFloors, optional
    seed : int
        Of the bootstrap.

    Returns
    -------
    Selection
        A trial whose objective is best wins only among those that cleared every floor.

    Raises
    ------
    TrainError
        If there is no trained trial.
    DataError
        If there are no validation rows, or they do not fit the models.

    Notes
    -----
    These rows have been looked at before: each epoch of each trial was ranked on them, and they
    calibrated the model's own threshold. The bound answers the first with its confidence and the
    second with thresholds of other rows; see `SelectionFloors`.
    """
    floors = floors or SelectionFloors()
    trained = [trial for trial in trials if trial.failure is None]
    if not trained:
        raise TrainError("there is no trained trial to select from")
    if len(validation) == 0:
        raise DataError("the validation split has no rows to select on")
    n_looks = sum(_epochs(trial) for trial in trained)
    confidence = 1.0 - (1.0 - floors.confidence) / n_looks
    judgements = tuple(judge(trial, validation, floors, confidence, seed) for trial in trials)
    earned = [j.earned_N for j in judgements if j.earned_N is not None]
    found = overfitting(np.stack(earned, axis=1))
    accepted = [j.trial for j in judgements if j.is_accepted]
    if accepted:
        winner = max(accepted, key=lambda t: (t.rank, -t.number))
        return Selection("accepted", winner, None, judgements, found)
    nearest = max(
        (j for j in judgements if j.figures),
        key=lambda j: (-len(j.reasons), j.trial.rank, -j.trial.number),
    )
    return Selection(NO_EDGE, None, nearest.trial, judgements, found)


def judge(
    trial: TrialResult,
    validation: Split,
    floors: SelectionFloors,
    confidence: float,
    seed: int,
) -> Judgement:
    """Return why a trial is refused: what its model brings along, and each floor that it misses."""
    if trial.failure is not None:
        return Judgement(trial, (f"training failed: {trial.failure}",))
    model = trial.model()
    score_N = model.scores(validation.features_ND)
    flag_N = model.flags(score_N)
    honest_N = out_of_fold_flags(validation, score_N, model.hyperparameters, n_folds=floors.n_folds)
    bound, block = _pnl_bound(validation, honest_N, confidence, seed)
    counts = confusion(validation.label_N, flag_N)
    figures = Figures(
        n_flagged=counts.flagged,
        recall=recall(counts),
        precision=precision(counts),
        base_rate=counts.positives / counts.total,
        mean_pnl=float(validation.pnl_N[flag_N == 1].mean()) if counts.flagged else None,
        n_out_of_fold=int(honest_N.sum()),
        pnl_lower_bound=bound,
        confidence=confidence,
        block_length=block,
    )
    by_time = np.argsort(validation.as_of_N, kind="stable")
    earned_N = np.where(honest_N, validation.pnl_N, 0.0)[by_time]
    inherited = tuple(reason for reason in model.reasons if reason != NOT_JUDGED)
    reasons = (*inherited, *missed_floors(figures, floors))
    return Judgement(trial, reasons, figures, earned_N)


def _epochs(trial: TrialResult) -> int:
    """Return how often training ranked weights of this trial on validation rows."""
    metrics = trial.model().metrics
    return int(metrics.get("n_looks", metrics.get("epochs", 1)))


def out_of_fold_flags(
    validation: Split,
    score_N: NDArray[np.float32],
    hyperparameters: Mapping[str, Any],
    *,
    n_folds: int,
) -> NDArray[np.bool_]:
    """Flag each stretch of time at the threshold that the other stretches give.

    Parameters
    ----------
    hyperparameters : mapping
        The model's: criterion and targets of the calibration.

    Returns
    -------
    ndarray of bool, shape (N,)
    """
    is_flagged_N = np.zeros(len(validation), dtype=np.bool_)
    by_time = np.argsort(validation.as_of_N, kind="stable")
    for fold in np.array_split(by_time, min(n_folds, len(by_time))):
        others = np.setdiff1d(by_time, fold)
        if len(others) and len(fold):
            found = calibrate_as(hyperparameters, validation.label_N[others], score_N[others])
            is_flagged_N[fold] = score_N[fold] >= np.float32(found.value)
    return is_flagged_N


def _pnl_bound(
    validation: Split, is_flagged_N: NDArray[np.bool_], confidence: float, seed: int
) -> tuple[float | None, int]:
    """Return the lower bound of the mean PnL of flagged orders, and the length of its blocks."""
    rows_F = np.flatnonzero(is_flagged_N)
    rows_F = rows_F[np.argsort(validation.as_of_N[rows_F], kind="stable")]
    block = overlap_length(validation.as_of_N[rows_F], validation.exit_N[rows_F])
    bound = lower_bound_of_mean(
        validation.pnl_N[rows_F],
        block_length=block,
        confidence=confidence,
        seed=int(generator(seed, Stream.BOOTSTRAP).integers(2**31)),
    )
    return bound, block
