"""The order of rows, the share of each rank, and reading ahead."""

from __future__ import annotations

import threading
from itertools import islice

import numpy as np
import pytest

from trademl.errors import DataError
from trademl.etl.row_source import MappedRows
from trademl.train.parallel.stream import BatchOrder, BatchStream


def source(n_rows: int, width: int = 2) -> MappedRows:
    """Rows that say their own number."""
    number_N = np.arange(n_rows, dtype=np.float32)
    return MappedRows(np.repeat(number_N[:, None], width, axis=1), number_N[:, None] % 2)


def numbers(order: BatchOrder, epoch: int, *, n_parts: int = 1) -> list[int]:
    """Return the rows of an epoch in order of batches, then of ranks, without those that fill up."""
    blocks, found = order.blocks(epoch), []
    for number in range(order.n_batches):
        for part in range(n_parts):
            row_B, weight_B = order.rows(blocks, number, part=part, n_parts=n_parts)
            found += row_B[weight_B > 0].tolist()
    return found


@pytest.mark.parametrize("n_rows", [64, 100, 101, 7])
@pytest.mark.parametrize("block_rows", [1, 3, 16])
def test_an_epoch_shows_every_row_once(n_rows, block_rows):
    order = BatchOrder(n_rows, 16, block_rows, seed=1)

    assert sorted(numbers(order, epoch=2)) == list(range(n_rows))


@pytest.mark.parametrize("n_parts", [2, 4, 8])
def test_batches_are_the_same_however_many_ranks_share_them(n_parts):
    order = BatchOrder(101, 16, 3, seed=1)

    assert numbers(order, 0, n_parts=n_parts) == numbers(order, 0)


def test_every_epoch_has_another_order_and_the_same_seed_the_same():
    order, again = BatchOrder(100, 16, 4, seed=1), BatchOrder(100, 16, 4, seed=1)

    assert numbers(order, 0) != numbers(order, 1)
    assert numbers(order, 1) == numbers(again, 1)
    assert numbers(BatchOrder(100, 16, 4), 0) == list(range(100))


def test_weights_of_a_batch_add_up_to_one_over_all_ranks():
    order = BatchOrder(37, 16, 4, seed=1)
    shares = [order.rows(order.blocks(0), 2, part=p, n_parts=4)[1] for p in range(4)]

    assert np.concatenate(shares).sum() == pytest.approx(1.0)
    assert (np.concatenate(shares) > 0).sum() == 37 - 2 * 16


def test_a_stream_goes_on_from_the_middle_of_an_epoch():
    stream = BatchStream(source(50), BatchOrder(50, 8, 2, seed=3))
    with stream.opened(epochs=3) as batches:
        whole = [(b.epoch, b.number, b.features_BD[:, 0].tolist()) for b in batches]
    with stream.opened(1, number=4, epochs=2) as batches:
        later = [(b.epoch, b.number, b.features_BD[:, 0].tolist()) for b in batches]

    assert later == [b for b in whole if (b[0], b[1]) >= (1, 4)]


class Gate(MappedRows):
    """Rows that can be read as often as a gate was opened."""

    def __init__(self, n_rows: int) -> None:
        found = np.zeros((n_rows, 1), np.float32)
        super().__init__(found, found)
        self.read_so_far = threading.Semaphore(0)

    def read(self, number_M):
        self.read_so_far.release()
        return super().read(number_M)


def test_the_next_epoch_is_read_before_this_one_ends():
    rows = Gate(16)
    with BatchStream(rows, BatchOrder(16, 8)).opened() as batches:
        next(batches)  # batch 0 of 2: while the loop works on it, batches of later epochs are read
        ahead = [rows.read_so_far.acquire(timeout=60) for _ in range(5)]

    assert all(ahead)


def test_a_row_that_is_not_finite_is_named():
    features = np.zeros((40, 3), np.float32)
    features[29, 1] = np.nan
    stream = BatchStream(MappedRows(features, np.zeros((40, 1), np.float32)), BatchOrder(40, 8))

    with stream.opened(epochs=1) as batches, pytest.raises(DataError, match="feature 1 of row 29"):
        list(batches)


def test_large_but_finite_rows_pass():
    features = np.full((8, 3), 3e38, np.float32)  # their sum is not finite in float32
    stream = BatchStream(MappedRows(features, np.zeros((8, 1), np.float32)), BatchOrder(8, 8))

    with stream.opened(epochs=1) as batches:
        assert len(list(batches)) == 1


def test_leaving_early_ends_the_reader():
    before = set(threading.enumerate())
    with BatchStream(source(1000), BatchOrder(1000, 8)).opened() as batches:
        list(islice(batches, 3))

    assert set(threading.enumerate()) <= before
