"""What a model got right, under the names that Linear Learner publishes.

Shape letters: N rows, C classes. A figure that is undefined, such as the precision of a model that
flags nothing, is None.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trademl.stats.probability import logistic_loss, roc_auc

Metrics = dict[str, float | None]

BINARY = {
    "objective_loss": "Minimize",
    "binary_classification_accuracy": "Maximize",
    "binary_f_beta": "Maximize",
    "precision": "Maximize",
    "recall": "Maximize",
    "roc_auc_score": "Maximize",
}
MULTICLASS = {
    "objective_loss": "Minimize",
    "multiclass_accuracy": "Maximize",
    "multiclass_top_k_accuracy": "Maximize",
    "dcg": "Maximize",
    "macro_recall": "Maximize",
    "macro_precision": "Maximize",
    "macro_f_beta": "Maximize",
}
REGRESSION = {
    "objective_loss": "Minimize",
    "mse": "Minimize",
    "absolute_loss": "Minimize",
    "rmse": "Minimize",
}
PUBLISHED = {
    "binary_classifier": BINARY,
    "multiclass_classifier": MULTICLASS,
    "regressor": REGRESSION,
}
DIRECTIONS = BINARY | MULTICLASS | REGRESSION


@dataclass(frozen=True)
class Confusion:
    """Counts of rows by what was predicted and what came true."""

    true_positives: int
    false_positives: int
    false_negatives: int
    true_negatives: int

    @property
    def flagged(self) -> int:
        """Rows predicted positive."""
        return self.true_positives + self.false_positives

    @property
    def positives(self) -> int:
        """Rows that are positive."""
        return self.true_positives + self.false_negatives

    @property
    def total(self) -> int:
        """All rows."""
        return self.flagged + self.false_negatives + self.true_negatives


def confusion(label_N: NDArray[Any], predicted_N: NDArray[Any]) -> Confusion:
    """Count rows by predicted and actual class; both arrays hold 0 and 1, or booleans."""
    is_positive, is_flagged = np.asarray(label_N) > 0.5, np.asarray(predicted_N) > 0.5
    return Confusion(
        true_positives=int((is_positive & is_flagged).sum()),
        false_positives=int((~is_positive & is_flagged).sum()),
        false_negatives=int((is_positive & ~is_flagged).sum()),
        true_negatives=int((~is_positive & ~is_flagged).sum()),
    )


def precision(counts: Confusion) -> float | None:
    """Return the share of flagged rows that are positive; None where none is flagged."""
    return _share(counts.true_positives, counts.flagged)


def recall(counts: Confusion) -> float | None:
    """Return the share of positive rows that are flagged; None where none is positive."""
    return _share(counts.true_positives, counts.positives)


def accuracy(counts: Confusion) -> float | None:
    """Return the share of rows predicted right; None without rows."""
    return _share(counts.true_positives + counts.true_negatives, counts.total)


def f_beta(counts: Confusion, *, beta: float = 1.0) -> float | None:
    """Return the F score that weighs recall ``beta`` times as much as precision.

    None where no row is flagged and none is positive.
    """
    hits = (1.0 + beta**2) * counts.true_positives
    return _share(hits, hits + beta**2 * counts.false_negatives + counts.false_positives)


def binary_metrics(
    label_N: NDArray[Any],
    logit_N: NDArray[Any],
    predicted_N: NDArray[Any],
    *,
    beta: float,
    loss: float | None = None,
) -> Metrics:
    """Return the six metrics of a binary Linear Learner.

    Parameters
    ----------
    loss : float, optional
        Mean loss of the rows; the logistic one by default.

    Notes
    -----
    ``objective_loss`` weighs every row 1, whatever ``positive_example_weight_mult`` says: a
    weighted loss shrinks with the weight, and a search that minimised it would only find the
    smallest weight.
    """
    counts = confusion(label_N, predicted_N)
    if loss is None and len(label_N):
        loss = logistic_loss(label_N, logit_N)
    return {
        "objective_loss": loss,
        "binary_classification_accuracy": accuracy(counts),
        "binary_f_beta": f_beta(counts, beta=beta),
        "precision": precision(counts),
        "recall": recall(counts),
        "roc_auc_score": roc_auc(label_N, logit_N),
    }


def multiclass_metrics(
    label_N: NDArray[Any], score_NC: NDArray[Any], *, beta: float, top_k: int, loss: float
) -> Metrics:
    """Return the seven metrics of a multiclass Linear Learner.

    Parameters
    ----------
    label_N : ndarray of shape (N,)
        0 to C - 1; at least one row.
    score_NC : ndarray of shape (N, C)
        Higher is likelier; of equal scores the lower class comes first.
    top_k : int
        A row counts in ``multiclass_top_k_accuracy`` if its class is among the k likeliest.

    Notes
    -----
    ``dcg`` is the mean of ``1 / log2(1 + rank)``, the rank of the row's own class counted from 1
    (Jarvelin and Kekalainen, 2002, with one relevant answer). The macro metrics are plain means
    over the classes that occur among labels or predictions; an undefined share counts as 0.
    """
    label_N, n_classes = np.asarray(label_N, np.int64), score_NC.shape[1]
    own_N1 = score_NC[np.arange(len(label_N)), label_N][:, None]
    is_before_NC = (score_NC == own_N1) & (np.arange(n_classes) < label_N[:, None])
    rank_N = 1 + ((score_NC > own_N1) | is_before_NC).sum(axis=1)
    predicted_N = score_NC.argmax(axis=1)
    counts_C = [confusion(label_N == c, predicted_N == c) for c in range(n_classes)]
    seen = [counts for counts in counts_C if counts.positives or counts.flagged]
    return {
        "objective_loss": loss,
        "multiclass_accuracy": float((rank_N == 1).mean()),
        "multiclass_top_k_accuracy": float((rank_N <= top_k).mean()),
        "dcg": float((1.0 / np.log2(1.0 + rank_N)).mean()),
        "macro_recall": _mean([recall(counts) for counts in seen]),
        "macro_precision": _mean([precision(counts) for counts in seen]),
        "macro_f_beta": _mean([f_beta(counts, beta=beta) for counts in seen]),
    }


def regression_metrics(label_N: NDArray[Any], predicted_N: NDArray[Any], *, loss: float) -> Metrics:
    """Return the metrics of a regression on at least one row, in the label's units."""
    error_N = np.asarray(predicted_N, np.float64) - np.asarray(label_N, np.float64)
    mse = float((error_N**2).mean())
    return {
        "objective_loss": loss,
        "mse": mse,
        "absolute_loss": float(np.abs(error_N).mean()),
        "rmse": mse**0.5,
    }


def _mean(shares: list[float | None]) -> float:
    return sum(share or 0.0 for share in shares) / len(shares)


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None
