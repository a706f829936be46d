"""The windows of a walk-forward: what each may learn from, and what it trades.

A window is handed a batch that ends before the first order it trades: there is nothing in it that
a model could read of what it will be measured on.

Shape letter: N orders.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trademl.backtest.walk_settings import WalkForwardConfig, parse_length
from trademl.errors import DataError
from trademl.etl.build import record_dataset, write_dataset
from trademl.etl.folds import Fold, walk_forward, walk_forward_by_time
from trademl.etl.labels import Labelling
from trademl.etl.recipe import FeatureRecipe
from trademl.etl.splits import SplitConfig
from trademl.ingest.batch import Batch
from trademl.ledger import Ledger
from trademl.market.costs import Costs
from trademl.market.health import HealthConfig
from trademl.ports import Silent
from trademl.store.artifacts import Artifact, ArtifactStore
from trademl.store.identity import artifact_id, digest_bytes
from trademl.train.jobs import select_model, tune_dataset
from trademl.train.selection import SelectionFloors

LEARN_TO_TRADE = 5
END_NS = 2**62


@dataclass(frozen=True)
class LearnSettings:
    """What decides a window's model, apart from its orders."""

    features: FeatureRecipe
    split: SplitConfig
    health: HealthConfig
    costs: Costs
    selection: SelectionFloors
    tuning: Mapping[str, Any]
    walk: WalkForwardConfig
    seed: int


@dataclass(frozen=True, slots=True)
class Window:
    """One turn of the wheel.

    Parameters
    ----------
    number : int
        From 0, in order of time.
    learned_N, traded_N : ndarray of int64
        Rows of the batch: orders to learn from, and orders that its model decides on.
    traded_from_ns, traded_to_ns : int
        First and last decision of the orders traded, UTC nanoseconds.
    """

    number: int
    learned_N: NDArray[np.int64]
    traded_N: NDArray[np.int64]
    traded_from_ns: int
    traded_to_ns: int


def plan_windows(batch: Batch, settings: LearnSettings) -> list[Window]:
    """Return the windows of a batch, oldest first.

    An order is learned from only if it had ended before the oldest price that the orders traded
    read: the purge of `walk_forward`, and the embargo of ``[split]`` as a share of what is learned.

    Raises
    ------
    DataError
        If the batch is too short for one window.
    """
    as_of_N = batch.quotes.ts_event[batch.orders.quote_index]
    left = batch.transactions.exit_index
    exit_N = np.where(left >= 0, batch.quotes.ts_event[left], END_NS)
    start_N = settings.features.start_ns(as_of_N)
    folds = _folds(as_of_N, start_N, exit_N, settings)
    return [
        Window(
            number,
            fold.train_rows,
            fold.test_rows,
            int(as_of_N[fold.test_rows[0]]),
            int(as_of_N[fold.test_rows[-1]]),
        )
        for number, fold in enumerate(folds)
    ]


def _folds(
    as_of_N: NDArray[np.int64],
    start_N: NDArray[np.int64],
    exit_N: NDArray[np.int64],
    settings: LearnSettings,
) -> list[Fold]:
    walk, span = settings.walk, (as_of_N, start_N, exit_N)
    learn, trade = parse_length(walk.learn), parse_length(walk.trade)
    n = len(as_of_N)
    if learn.unit == "ns":
        share = settings.split.embargo * learn.value / max(int(as_of_N[-1] - as_of_N[0]), 1)
        by_time = walk_forward_by_time(
            *span,
            train_ns=learn.value,
            test_ns=trade.value,
            anchored=walk.anchored,
            embargo=min(share, settings.split.embargo),
        )
        return list(by_time)
    n_trade = trade.value or n // (LEARN_TO_TRADE + walk.windows)
    n_learn = learn.value or n - n_trade * walk.windows
    if n_trade < 1 or n_learn >= n:
        raise DataError(
            f"{n} orders are too few for one window that learns from {n_learn}: give more orders, "
            "or a shorter --learn and --trade"
        )
    by_rows = walk_forward(
        *span,
        n_train=n_learn,
        n_test=n_trade,
        anchored=walk.anchored,
        embargo=settings.split.embargo * n_learn / n,
    )
    return list(by_rows)


def known_before(batch: Batch, window: Window) -> Batch:
    """Return the orders that a window learns from, on quotes that end before it trades.

    Notes
    -----
    Causal: whatever is changed from ``window.traded_from_ns`` on, this stays as it is.
    """
    stop = int(np.searchsorted(batch.quotes.ts_event, window.traded_from_ns))
    return batch.take(window.learned_N).cut(0, stop)


def learn_window(
    batch: Batch,
    batch_id: str,
    window: Window,
    settings: LearnSettings,
    store: ArtifactStore,
    ledger: Ledger,
) -> Artifact:
    """Build a window's dataset, search on it and select: what exists is not done again.

    Raises
    ------
    DataError, TrainError
        If the window's orders are too few, or no trial could be trained on them.
    """
    if not len(window.learned_N):
        raise DataError("no order had ended before this window: there is nothing to learn from")
    dataset = _dataset(batch, batch_id, window, settings, store, ledger)
    study = tune_dataset(dataset, settings.tuning, store, ledger, seed=settings.seed)
    return select_model(study, settings.selection, store, ledger, seed=settings.seed)


def _dataset(
    batch: Batch,
    batch_id: str,
    window: Window,
    settings: LearnSettings,
    store: ArtifactStore,
    ledger: Ledger,
) -> Artifact:
    known = known_before(batch, window)
    labelling = Labelling(costs=settings.costs)
    parameters = {
        "features": asdict(settings.features),
        "split": asdict(settings.split),
        "labels": asdict(labelling),
        "health": asdict(settings.health),
        "orders": digest_bytes(known.order_id.tobytes()),
        "before_ns": window.traded_from_ns,
    }
    identity = artifact_id("dataset", {"batch": batch_id}, parameters)
    if (dataset := store.find(identity)) is None:
        with store.create(identity, parents=[batch_id], parameters=parameters) as draft:
            draft.metrics.update(
                write_dataset(
                    draft.path,
                    known,
                    settings.features,
                    settings.split,
                    labelling,
                    settings.health,
                    Silent(),
                )
            )
        dataset = store.get(identity)
    record_dataset(dataset, batch_id, ledger)
    return dataset
