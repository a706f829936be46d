"""The threshold on the score, by ``binary_classifier_model_selection_criteria``.

Shape letters: N rows of the calibration sample, C candidate thresholds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trademl.errors import DataError
from trademl.train.hyperparameters import CRITERIA

Floats = NDArray[np.float64]
RULE = (
    "candidates are the distinct scores of the calibration sample, a row is flagged at or above "
    "the threshold; among candidates that meet the target the best of the other quantity, then "
    "the better targeted quantity, then the higher threshold; where none meets it, the nearest"
)


@dataclass(frozen=True)
class Threshold:
    """A calibrated threshold.

    Parameters
    ----------
    value : float
        A row is flagged where its score is at or above it.
    criterion : str
        One of `CRITERIA`.
    criterion_value : float
        The quantity that the criterion maximises, there; the targeted quantity where no candidate
        meets the target.
    is_target_met : bool
        False where no candidate reaches the target: the nearest was taken.
    """

    value: float
    criterion: str
    criterion_value: float
    is_target_met: bool = True


def calibrate_threshold(
    label_N: NDArray[Any],
    score_N: NDArray[Any],
    *,
    criterion: str,
    target_recall: float = 0.8,
    target_precision: float = 0.8,
    beta: float = 1.0,
) -> Threshold:
    """Return the threshold that is best under a criterion, in O(N log N).

    Parameters
    ----------
    label_N : ndarray of shape (N,)
        0 or 1.
    score_N : ndarray of shape (N,)
        Probability of 1.
    criterion : str
        One of `CRITERIA`. ``loss_function`` knows no threshold: it gives 0.5.
    target_recall, target_precision : float
        Met at equality.
    beta : float
        Of the F score.

    Raises
    ------
    DataError
        If the sample is empty.

    Notes
    -----
    SageMaker does not publish its rule; this one is `RULE`, and is recorded in the model. Where
    the sample has no positive row, recall counts as 0.

    Examples
    --------
    >>> calibrate_threshold(
    ...     np.array([1, 0, 1, 0]), np.array([0.9, 0.8, 0.7, 0.1]),
    ...     criterion="precision_at_target_recall", target_recall=0.5,
    ... ).value
    0.9
    """
    if len(label_N) == 0:
        raise DataError("the calibration sample is empty: the threshold needs at least one row")
    if criterion not in CRITERIA:
        raise DataError(f"criterion {criterion!r} is unknown; known: {', '.join(CRITERIA)}")
    if criterion == "loss_function":
        return Threshold(0.5, criterion, 0.0)
    threshold_C, hits_C, flagged_C = _candidates(label_N, score_N)
    n_positive = hits_C[-1]  # at or above the lowest score is everything
    false_C, missed_C = flagged_C - hits_C, n_positive - hits_C
    precision_C, recall_C = hits_C / flagged_C, hits_C / max(n_positive, 1.0)
    targeted_C, target = np.zeros(len(hits_C)), 0.0
    if criterion == "precision_at_target_recall":
        quantity_C, targeted_C, target = precision_C, recall_C, target_recall
    elif criterion == "recall_at_target_precision":
        quantity_C, targeted_C, target = recall_C, precision_C, target_precision
    elif criterion == "f_beta":
        weighted_C = (1.0 + beta**2) * hits_C
        quantity_C = weighted_C / (weighted_C + beta**2 * missed_C + false_C)
    else:
        quantity_C = (len(label_N) - missed_C - false_C) / len(label_N)
    is_met_C = targeted_C >= target
    if not is_met_C.any():
        nearest = int(np.lexsort((threshold_C, quantity_C, targeted_C))[-1])
        return Threshold(float(threshold_C[nearest]), criterion, float(targeted_C[nearest]), False)
    best = int(np.lexsort((threshold_C, targeted_C, quantity_C, is_met_C))[-1])
    return Threshold(float(threshold_C[best]), criterion, float(quantity_C[best]))


def _candidates(label_N: NDArray[Any], score_N: NDArray[Any]) -> tuple[Floats, Floats, Floats]:
    """Return the distinct scores from the highest down, and hits and flagged rows at each."""
    order = np.argsort(score_N)[::-1]  # rows of equal score are counted together, in any order
    sorted_N = np.asarray(score_N)[order]
    hits_N = np.cumsum(np.asarray(label_N)[order] > 0.5, dtype=np.float64)
    last_C = np.flatnonzero(np.append(sorted_N[1:] != sorted_N[:-1], True))
    return sorted_N[last_C].astype(np.float64), hits_N[last_C], (last_C + 1).astype(np.float64)


def calibrate_as(
    hyperparameters: Mapping[str, Any], label_N: NDArray[Any], score_N: NDArray[Any]
) -> Threshold:
    """Return the threshold under the criterion and targets of a model's hyperparameters.

    ``loss_function`` knows no threshold: it gives the score that favours neither label, 0 of the
    hinge loss and 0.5 of a probability.
    """
    found = calibrate_threshold(
        label_N,
        score_N,
        criterion=hyperparameters["binary_classifier_model_selection_criteria"],
        target_recall=hyperparameters["target_recall"],
        target_precision=hyperparameters["target_precision"],
        beta=hyperparameters["f_beta"],
    )
    is_margin = hyperparameters["loss"] == "hinge_loss"
    return replace(found, value=0.0) if is_margin and found.criterion == "loss_function" else found
