"""Sums of products, held to numpy's."""

from __future__ import annotations

import numpy as np
import pytest

from trademl.serve.row_sum import score_row, sum_of_products
from trademl.train.model import LinearModel


@pytest.mark.parametrize("n", [1, 7, 8, 9, 127, 128, 129, 137, 605, 1000, 4096])
def test_a_row_adds_up_in_the_order_of_numpy(n):
    rng = np.random.default_rng(n)
    rows_ND = rng.normal(0, 10, (50, n)).astype(np.float32)
    weights_D = rng.normal(0, 1, n)

    found = [sum_of_products(row_D, weights_D) for row_D in rows_ND]

    products_ND = np.multiply(rows_ND, weights_D, dtype=np.float64)
    np.testing.assert_array_equal(found, products_ND.sum(axis=1))


@pytest.mark.parametrize("link", ["logistic", "identity"])
def test_a_score_is_that_of_a_batch_or_none(link):
    rng = np.random.default_rng(1)
    model = LinearModel(
        rng.normal(0, 0.3, 9), 0.1, np.zeros(9), np.ones(9), 0.5, tuple("abcdefghi"), link=link
    )
    rows_ND = rng.normal(0, 5, (20_000, 9)).astype(np.float32)

    found = [score_row(row_D, model.weights_D, 0.1, link == "logistic") for row_D in rows_ND]

    score_N = np.float32(found)
    is_given = ~np.isnan(score_N)
    np.testing.assert_array_equal(score_N[is_given], model.scores(rows_ND)[is_given])
    assert is_given.sum() > 19_990
