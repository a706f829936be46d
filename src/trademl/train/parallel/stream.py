"""Batches of training rows: a fixed order, each rank its share, read before they are needed.

Shape letters: N rows, B rows of one rank in a batch, D features, K targets.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trademl.errors import DataError
from trademl.etl.row_source import RowSource
from trademl.train.determinism import Stream, generator

_AHEAD = 4  # batches read before they are asked for
_READERS = 2  # threads that read them, where the step leaves them a core


@dataclass(frozen=True)
class Batch:
    """One rank's share of a batch.

    Parameters
    ----------
    epoch, number : int
        Which batch of which epoch.
    features_BD : Tensor of float32, shape (B, D)
    target_BK : Tensor of float32, shape (B, K + 1)
        K targets and, last, the weight of the row in the mean over the whole batch: 1 over its
        rows, or 0 for a row that only fills the last batch up.
    """

    epoch: int
    number: int
    features_BD: Tensor
    target_BK: Tensor


@dataclass(frozen=True)
class BatchOrder:
    """Which rows make up each batch of each epoch: a function of seed and numbers alone.

    Blocks of neighbouring rows are shuffled, rows inside a block keep their order, so that reading
    a batch is a few dozen runs and not a thousand. How many ranks share the batch plays no part.

    Parameters
    ----------
    n_rows, batch_size, block_rows : int
        The last block, if it is short, comes last in every epoch; the last batch, if it is short,
        is filled up with its own last row.
    seed : int, optional
        None keeps the rows in their order.
    """

    n_rows: int
    batch_size: int
    block_rows: int = 1
    seed: int | None = None

    @property
    def n_batches(self) -> int:
        """Batches of an epoch."""
        return -(-self.n_rows // self.batch_size)

    def n_real(self, number: int) -> int:
        """Return how many rows of a batch are not there to fill it up."""
        return min(self.batch_size, self.n_rows - number * self.batch_size)

    def blocks(self, epoch: int) -> NDArray[np.int64]:
        """Return the order of the blocks in an epoch."""
        n_full = self.n_rows // self.block_rows
        blocks = np.arange(-(-self.n_rows // self.block_rows))
        if self.seed is not None:
            blocks[:n_full] = generator(self.seed, Stream.SHUFFLE, epoch).permutation(n_full)
        return blocks

    def rows(
        self, blocks: NDArray[np.int64], number: int, *, part: int = 0, n_parts: int = 1
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return row numbers and weights of one of ``n_parts`` equal shares of a batch."""
        share = self.batch_size // n_parts
        place_B = number * self.batch_size + part * share + np.arange(share)
        weight = np.float32(1 / self.n_real(number))
        weight_B = np.where(place_B < self.n_rows, weight, np.float32(0))
        place_B = np.minimum(place_B, self.n_rows - 1)
        block_B, inside_B = np.divmod(place_B, self.block_rows)
        return blocks[block_B] * self.block_rows + inside_B, weight_B


class BatchStream:
    """Batches of one rank, epoch after epoch, read by threads of their own.

    Parameters
    ----------
    source : RowSource
    order : BatchOrder
    part, n_parts : int
        Which of how many equal shares of each batch.
    device : torch.device
        Where batches are wanted.
    is_read : bool
        False gives batches without content to ranks that only pass activations on.
    """

    def __init__(
        self,
        source: RowSource,
        order: BatchOrder,
        *,
        part: int = 0,
        n_parts: int = 1,
        device: torch.device | None = None,
        is_read: bool = True,
    ) -> None:
        self.source = source
        self.order = order
        self._part, self._n_parts = part, n_parts
        self._device = device or torch.device("cpu")
        self._is_read = is_read

    @contextmanager
    def opened(
        self, epoch: int = 0, *, number: int = 0, epochs: int | None = None
    ) -> Iterator[Iterator[Batch]]:
        """Yield an iterator from a batch of an epoch on, over epochs without a pause between them.

        Raises
        ------
        DataError
            On the way, if a row holds a number that is not finite; the message names the row.
        """
        with ThreadPoolExecutor(_READERS, "batches") as reader:
            try:
                yield self._read_ahead(reader, epoch, number, epochs)
            finally:
                reader.shutdown(cancel_futures=True)

    def _read_ahead(
        self, reader: ThreadPoolExecutor, epoch: int, number: int, epochs: int | None
    ) -> Iterator[Batch]:
        ahead: deque[Future[Batch]] = deque()
        for place in self._places(epoch, number, epochs):
            ahead.append(reader.submit(self._batch, *place))
            if len(ahead) > _AHEAD:
                yield self._moved(ahead.popleft().result())
        while ahead:
            yield self._moved(ahead.popleft().result())

    def _places(
        self, epoch: int, number: int, epochs: int | None
    ) -> Iterator[tuple[NDArray[np.int64], int, int]]:
        """Yield the block order, the epoch and the number of each batch."""
        for later in count(epoch) if epochs is None else range(epoch, epoch + epochs):
            blocks = self.order.blocks(later)
            for n in range(number if later == epoch else 0, self.order.n_batches):
                yield blocks, later, n

    def _moved(self, batch: Batch) -> Batch:
        if self._device.type == "cpu":
            return batch
        features, target = (
            tensor.to(self._device, non_blocking=True)
            for tensor in (batch.features_BD, batch.target_BK)
        )
        return Batch(batch.epoch, batch.number, features, target)

    def _batch(self, blocks: NDArray[np.int64], epoch: int, number: int) -> Batch:
        if not self._is_read:
            return Batch(epoch, number, torch.empty(0), torch.empty(0, 2))
        row_B, weight_B = self.order.rows(blocks, number, part=self._part, n_parts=self._n_parts)
        features_BD, target_BK = self.source.read(row_B)
        _check_finite(features_BD, row_B, "feature")
        _check_finite(target_BK, row_B, "target")
        tensors = [
            torch.from_numpy(features_BD),
            torch.from_numpy(np.concatenate([target_BK, weight_B[:, None]], axis=1)),
        ]
        if self._device.type == "cuda":
            tensors = [tensor.pin_memory() for tensor in tensors]
        return Batch(epoch, number, *tensors)


def _check_finite(value_BC: NDArray[np.float32], row_B: NDArray[np.int64], what: str) -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(value_BC.sum()):  # a sum is finite only where all are: the cheap look first
            return
    if not (finite := np.isfinite(value_BC)).all():
        place, column = np.argwhere(~finite)[0]
        raise DataError(f"{what} {column} of row {row_B[place]} is not finite: drop the row")
