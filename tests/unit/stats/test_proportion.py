"""Wilson's lower bound against published intervals."""

from __future__ import annotations

import pytest

from trademl.stats.proportion import wilson_lower_bound


@pytest.mark.parametrize(
    ("hits", "n", "lower"),
    # Newcombe (1998), "Two-sided confidence intervals for the single proportion", table I, method 3
    [(81, 263, 0.2553), (15, 148, 0.0624), (0, 20, 0.0), (1, 29, 0.0061)],
)
def test_published_intervals(hits, n, lower):
    assert wilson_lower_bound(hits / n, n, confidence=0.975) == pytest.approx(lower, abs=5e-5)


def test_precision_1_in_few_orders_is_not_believed():
    # all of n: n / (n + z^2), by hand for n = 5 and z = 1.6449
    found = wilson_lower_bound(1.0, 5, confidence=0.95)

    assert found == pytest.approx(5 / (5 + 1.6449**2), abs=1e-4)


def test_less_evidence_lowers_it():
    assert wilson_lower_bound(0.6, 40.5, confidence=0.95) < wilson_lower_bound(
        0.6, 400, confidence=0.95
    )
