"""Cut completed orders into batches, without censoring at the edge.

Shape letter: N orders.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trademl.errors import DataError
from trademl.ingest.order_bot import OrderBotConfig
from trademl.market.costs import Costs
from trademl.market.orders import Transactions
from trademl.market.quotes import Quotes


def cut_batches(
    quotes: Quotes,
    transactions: Transactions,
    config: OrderBotConfig,
    costs: Costs,
    *,
    is_finished: bool,
) -> list[tuple[int, int]]:
    """Return the row ranges (start, stop) of the batches, in order.

    When ``export_after`` orders have completed, the batch holds every order entered up to the last
    completion minus the time limit and the latency of the exit. All of them are resolved; later
    entries wait for the next batch. (A batch of the orders that completed would hold only the fast
    movers at its end.)

    Parameters
    ----------
    is_finished : bool
        The recording has ended: if no batch was cut, what is resolved makes one.

    Raises
    ------
    DataError
        If the recording ended and not one order is resolved.
    """
    filled = transactions.entry_index >= 0
    entry_ns = np.where(filled, quotes.ts_event[transactions.entry_index], np.iinfo(np.int64).max)
    exited = transactions.exit_index >= 0
    exit_ns = np.where(exited, quotes.ts_event[transactions.exit_index], np.iinfo(np.int64).max)
    life_ns = config.time_limit_ns + costs.seen_ns
    batches: list[tuple[int, int]] = []
    start = 0
    while (
        stop := _next_cut(entry_ns, exit_ns, exited, start, config.export_after, life_ns)
    ) is not None:
        batches.append((start, stop))
        start = stop
    if not batches and is_finished:
        last_ns = int(quotes.ts_event[quotes.is_executable][-1])
        stop = int(np.searchsorted(entry_ns, last_ns - life_ns, side="right"))
        if stop == 0:
            raise DataError(
                f"the recording is shorter than the time limit of {config.time_limit_s:g} s: no "
                "order could be resolved; give a longer recording or lower orders.time_limit_s"
            )
        batches.append((0, stop))
    return batches


def _next_cut(
    entry_ns: NDArray[np.int64],
    exit_ns: NDArray[np.int64],
    exited: NDArray[np.bool_],
    start: int,
    export_after: int,
    life_ns: int,
) -> int | None:
    completed_ns = np.sort(exit_ns[start:][exited[start:]])
    if len(completed_ns) < export_after:
        return None
    first_useful_ns = max(int(completed_ns[export_after - 1]), int(entry_ns[start]) + life_ns)
    at = int(np.searchsorted(completed_ns, first_useful_ns))
    if at == len(completed_ns):
        return None
    cutoff_ns = int(completed_ns[at]) - life_ns
    return int(np.searchsorted(entry_ns, cutoff_ns, side="right"))
