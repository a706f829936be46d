"""Sums of products, held to numpy's."""

from __future__ import annotations

import numpy as np
import pytest

from trademl.serve.row_sum import sum_of_products


@pytest.mark.parametrize("n", [1, 7, 8, 9, 127, 128, 129, 137, 605, 1000, 4096])
def test_a_row_adds_up_in_the_order_of_numpy(n):
    rng = np.random.default_rng(n)
    rows_ND = rng.normal(0, 10, (50, n)).astype(np.float32)
    weights_D = rng.normal(0, 1, n)

    found = [sum_of_products(row_D, weights_D, 0, n) for row_D in rows_ND]

    products_ND = np.multiply(rows_ND, weights_D, dtype=np.float64)
    np.testing.assert_array_equal(found, products_ND.sum(axis=1))
