"""What a binary classifier got right at a threshold, under the names Linear Learner publishes.

Shape letters: N rows. A figure that is undefined, such as the precision of a model that flags
nothing, is None.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trademl.stats.probability import logistic_loss, roc_auc

Metrics = dict[str, float | None]

DIRECTIONS = {
    "objective_loss": "Minimize",
    "binary_classification_accuracy": "Maximize",
    "binary_f_beta": "Maximize",
    "precision": "Maximize",
    "recall": "Maximize",
    "roc_auc_score": "Maximize",
}


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
    label_N: NDArray[Any], logit_N: NDArray[Any], predicted_N: NDArray[Any], *, beta: float
) -> Metrics:
    """Return the six metrics of a binary Linear Learner.

    Notes
    -----
    ``objective_loss`` is the mean logistic loss with every row weighing 1, whatever
    ``positive_example_weight_mult`` says: a weighted loss shrinks with the weight, and a search
    that minimised it would only find the smallest weight.
    """
    counts = confusion(label_N, predicted_N)
    return {
        "objective_loss": logistic_loss(label_N, logit_N) if len(label_N) else None,
        "binary_classification_accuracy": accuracy(counts),
        "binary_f_beta": f_beta(counts, beta=beta),
        "precision": precision(counts),
        "recall": recall(counts),
        "roc_auc_score": roc_auc(label_N, logit_N),
    }


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None
