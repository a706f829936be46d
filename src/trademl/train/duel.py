"""Challenger against champion, order by order, on rows later than all data of both.

Shape letters: N test rows of the challenger, L later ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trademl.errors import DataError
from trademl.etl.dataset import Split
from trademl.etl.features import feature_matrix, usable_rows
from trademl.etl.recipe import FeatureRecipe
from trademl.ingest.batch import Batch
from trademl.stats.bootstrap import MIN_BLOCKS, lower_bound_of_mean, overlap_length
from trademl.train.determinism import Stream, generator
from trademl.train.model import BinaryModel


@dataclass(frozen=True)
class Duel:
    """What a challenger earned beside the champion; PnL in quote currency per unit.

    Parameters
    ----------
    champion : str
        Id of its model.
    n_later : int
        Orders of the challenger's test rows that were decided after the last exit of the
        champion's dataset.
    n_flagged, n_flagged_champion : int
        Of those.
    mean_gain : float or None
        Mean over the later orders of what the challenger earned more, 0 for an order that neither
        or both took.
    gain_lower_bound : float or None
        By a block bootstrap of the pairs; None where there are too few blocks.
    is_won : bool
        Whether that bound is above 0.
    says : str
        In words.
    """

    champion: str
    n_later: int
    n_flagged: int
    n_flagged_champion: int
    mean_gain: float | None
    gain_lower_bound: float | None
    is_won: bool
    says: str


def fight(
    champion: str,
    test: Split,
    is_flagged_N: NDArray[np.bool_],
    is_flagged_champion_N: NDArray[np.bool_],
    is_later_N: NDArray[np.bool_],
    *,
    confidence: float,
    seed: int,
) -> Duel:
    """Compare what two models earned on the same orders.

    Parameters
    ----------
    test : Split
        The challenger's.
    is_later_N : ndarray of bool, shape (N,)
        Rows that may be compared: later than all data of both, and scored by both.
    """
    rows_L = np.flatnonzero(is_later_N)
    rows_L = rows_L[np.argsort(test.as_of_N[rows_L], kind="stable")]
    ours_L, theirs_L = is_flagged_N[rows_L], is_flagged_champion_N[rows_L]
    gain_L = test.pnl_N[rows_L] * (ours_L.astype(np.float64) - theirs_L)
    bound = lower_bound_of_mean(
        gain_L,
        block_length=overlap_length(test.as_of_N[rows_L], test.exit_N[rows_L]),
        confidence=confidence,
        seed=int(generator(seed, Stream.BOOTSTRAP, 1).integers(2**31)),
    )
    mean = float(gain_L.mean()) if len(gain_L) else None
    is_won = bound is not None and bound > 0.0
    return Duel(
        champion,
        n_later=len(rows_L),
        n_flagged=int(ours_L.sum()),
        n_flagged_champion=int(theirs_L.sum()),
        mean_gain=mean,
        gain_lower_bound=bound,
        is_won=is_won,
        says=_words(champion, len(rows_L), mean, bound, confidence),
    )


def no_duel(champion: str, why: str) -> Duel:
    """Return a comparison that could not be made: the champion stays."""
    return Duel(champion, 0, 0, 0, None, None, is_won=False, says=why)


def _words(
    champion: str, n_later: int, mean: float | None, bound: float | None, confidence: float
) -> str:
    if mean is None or bound is None:
        return (
            f"{n_later} test orders are later than all data of the champion {champion}, fewer than "
            f"{MIN_BLOCKS} blocks that do not depend on each other: too little to compare"
        )
    says = (
        f"on {n_later} orders later than all data of both it earned {mean:.4g} an order more than "
        f"the champion {champion}, {100 * confidence:.4g}% lower bound {bound:.4g}"
    )
    return says if bound > 0.0 else f"{says}: not above 0"


def champion_flags(
    champion: BinaryModel, recipe: FeatureRecipe, test: Split, batch: Batch
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return what the champion flags among a challenger's rows, and which it can score at all.

    Its features are made from the challenger's prices by the champion's own recipe, so that
    models of different recipes can be compared.

    Parameters
    ----------
    recipe : FeatureRecipe
        Of the champion's dataset.
    batch : Batch
        From which the challenger's dataset was made.

    Raises
    ------
    DataError
        If the rows are not orders of the batch.

    Notes
    -----
    Causal: as the recipe's features, up to each row's as-of time.
    """
    row_N = np.searchsorted(batch.order_id, test.order_id_N)
    known_N = batch.order_id[np.minimum(row_N, len(batch) - 1)] == test.order_id_N
    if not known_N.all():
        raise DataError("the dataset's rows are not orders of its batch: build it again")
    index_N = batch.orders.quote_index[row_N]
    can_score_N = usable_rows(batch.quotes, index_N, recipe)
    is_flagged_N = np.zeros(len(test), np.bool_)
    if can_score_N.any():
        features = feature_matrix(batch.quotes, index_N[can_score_N], recipe)
        is_flagged_N[can_score_N] = champion.flags(champion.scores(features)) == 1
    return is_flagged_N, can_score_N
