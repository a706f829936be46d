"""Which orders touch a bad stretch of the feed, in their history or while they were held.

Shape letter: N orders.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trademl.etl.labels import LabelFigures, Labels
from trademl.ingest.batch import Batch
from trademl.market.health import HealthConfig, health_marks, marks_between
from trademl.market.quotes import QuoteFlag


@dataclass(frozen=True, slots=True)
class OrderHealth:
    """Bits of `QuoteFlag` that quotes carried, for each order; arrays of shape (N,).

    Parameters
    ----------
    history_N : ndarray of uint8
        From the longest lookback to the quote of the decision: known when the order is decided.
    holding_N : ndarray of uint8
        After the decision, up to the exit: known only then.
    """

    history_N: NDArray[np.uint8]
    holding_N: NDArray[np.uint8]

    @property
    def touches(self) -> NDArray[np.bool_]:
        """Whether an order touches anything bad."""
        touched: NDArray[np.bool_] = (self.history_N | self.holding_N) != 0
        return touched


def order_health(
    batch: Batch, labels: Labels, lookback_ns: int, config: HealthConfig
) -> OrderHealth:
    """Return what each order of a batch touches.

    Parameters
    ----------
    lookback_ns : int
        Longest time before its decision from which an order's features read.
    """
    marks = health_marks(batch.quotes, config)
    decided_N, ts_event = batch.orders.quote_index, batch.quotes.ts_event
    first_N = np.searchsorted(ts_event, ts_event[decided_N] - lookback_ns, side="left")
    last_N = np.searchsorted(ts_event, labels.exit_ns_N, side="right") - 1
    return OrderHealth(
        marks_between(marks, first_N, decided_N), marks_between(marks, decided_N + 1, last_N)
    )


def health_facts(health: OrderHealth, labels: LabelFigures, config: HealthConfig) -> dict[str, Any]:
    """Return how many orders touch what, and how those that do differ from those that do not.

    An order may count under several reasons. The figures of profit are those of labelled orders:
    their difference is what dropping would do to the dataset.
    """
    touched_N, either_N = health.touches, health.history_N | health.holding_N
    facts: dict[str, Any] = {
        "policy": config.policy,
        "n_touched": int(touched_N.sum()),
        "n_in_history": int((health.history_N != 0).sum()),
        "n_in_holding": int((health.holding_N != 0).sum()),
        "by_reason": {str(f.name).lower(): int(((either_N & f) != 0).sum()) for f in QuoteFlag},
    }
    for name, of_N in (("touched", touched_N), ("untouched", ~touched_N)):
        of_N = of_N & labels.is_labelled
        has_any = of_N.any()
        facts[f"label_rate_{name}"] = float(labels.label_N[of_N].mean()) if has_any else None
        facts[f"mean_pnl_{name}"] = float(labels.pnl_N[of_N].mean()) if has_any else None
    return facts
