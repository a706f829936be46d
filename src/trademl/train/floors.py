"""The floors that a trial must clear before it may trade, and the sentence for each it misses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from trademl.errors import ConfigError
from trademl.stats.bootstrap import MIN_BLOCKS


@dataclass(frozen=True)
class SelectionFloors:
    """What a trial must reach on validation rows.

    Parameters
    ----------
    min_recall : float
        Share of the profitable orders that it must flag.
    min_predicted_positives : int
        Orders that it must flag.
    confidence : float
        Of the one-sided lower bound of the mean net PnL per flagged order, for the whole search:
        with k epochs ranked on validation rows over all trials, each bound is taken at
        ``1 - (1 - confidence) / k`` (Bonferroni), because the best of many is good by luck alone.
    n_folds : int
        The bound is taken over orders flagged at thresholds of other rows: validation is cut into
        this many stretches of time, and each is flagged at the threshold that the others give. A
        threshold flatters itself on the rows that it was calibrated on.
    """

    min_recall: float = 0.05
    min_predicted_positives: int = 30
    confidence: float = 0.95
    n_folds: int = 5

    def __post_init__(self) -> None:
        if not 0.0 <= self.min_recall <= 1.0:
            raise ConfigError(f"min_recall is {self.min_recall}, expected between 0 and 1")
        if self.min_predicted_positives < 1:
            raise ConfigError(
                f"min_predicted_positives is {self.min_predicted_positives}, expected at least 1"
            )
        if not 0.5 <= self.confidence < 1.0:
            raise ConfigError(f"confidence is {self.confidence}, expected from 0.5 to below 1")
        if self.n_folds < 2:
            raise ConfigError(f"n_folds is {self.n_folds}, expected at least 2")


@dataclass(frozen=True)
class Figures:
    """What selection measured of a trial on validation rows; PnL in quote currency per unit.

    The first five are at the model's own threshold; the others, ``out_of_fold``, at thresholds of
    other rows.
    """

    n_flagged: int
    recall: float | None
    precision: float | None
    base_rate: float
    mean_pnl: float | None
    n_out_of_fold: int
    pnl_lower_bound: float | None
    confidence: float
    block_length: int


def missed_floors(found: Figures, floors: SelectionFloors) -> tuple[str, ...]:
    """Return one plain sentence per floor that the figures miss; none where they clear all."""
    checks: tuple[Callable[[Figures, SelectionFloors], str | None], ...] = (
        _recall_reason,
        _count_reason,
        _precision_reason,
        _mean_reason,
        _bound_reason,
    )
    sentences = (check(found, floors) for check in checks)
    return tuple(sentence for sentence in sentences if sentence)


def _recall_reason(found: Figures, floors: SelectionFloors) -> str | None:
    if found.recall is None:
        return "recall is undefined: no validation order was profitable"
    if found.recall >= floors.min_recall:
        return None
    return f"recall {found.recall:.3g} is below the floor of {floors.min_recall:g}"


def _count_reason(found: Figures, floors: SelectionFloors) -> str | None:
    if found.n_flagged >= floors.min_predicted_positives:
        return None
    return (
        f"{found.n_flagged} validation orders are flagged, fewer than the floor of "
        f"{floors.min_predicted_positives}"
    )


def _precision_reason(found: Figures, _: Any) -> str | None:
    if found.precision is None:
        return "precision is undefined: no validation order is flagged"
    if found.precision > found.base_rate:
        return None
    return f"precision {found.precision:.3g} is not above the base rate of {found.base_rate:.3g}"


def _mean_reason(found: Figures, _: Any) -> str | None:
    if found.mean_pnl is None:
        return "net PnL per flagged order is undefined: no validation order is flagged"
    if found.mean_pnl > 0.0:
        return None
    return f"mean net PnL per flagged order is {found.mean_pnl:.4g}, not above 0"


def _bound_reason(found: Figures, _: Any) -> str | None:
    name = f"{100 * found.confidence:.4g}% lower bound of the mean net PnL per flagged order"
    if found.pnl_lower_bound is None:
        return (
            f"the {name} is undefined: {found.n_out_of_fold} orders flagged out of fold, in blocks "
            f"of {found.block_length} that depend on each other, are fewer than {MIN_BLOCKS} blocks"
        )
    if found.pnl_lower_bound > 0.0:
        return None
    return f"the {name} is {found.pnl_lower_bound:.4g}, not above 0"
