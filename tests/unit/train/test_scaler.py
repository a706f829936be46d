"""Normalisation from training rows alone."""

from __future__ import annotations

import numpy as np
import pytest

from trademl.train.engine import Threads, normalised_rows
from trademl.train.hyperparameters import LinearLearnerParameters
from trademl.train.scaler import fit_scaler


def fit(features, **values):
    job = LinearLearnerParameters.from_strings({"predictor_type": "binary_classifier", **values})
    return fit_scaler(np.asarray(features, np.float32), job, seed=0)


def apply(scaler, features):
    features = np.asarray(features, np.float32)
    with Threads(1) as threads:
        return normalised_rows(features, np.arange(len(features)), scaler, threads)


def test_mean_and_deviation_by_hand():
    scaler = fit([[1.0, 10.0], [3.0, 10.0], [5.0, 40.0]])

    np.testing.assert_allclose(scaler.mean_D, [3.0, 20.0])
    np.testing.assert_allclose(scaler.scale_D, [np.sqrt(8 / 3), np.sqrt(200)])


def test_a_constant_column_is_shifted_and_not_blown_up():
    features = np.full((1000, 1), 0.1, np.float32)

    scaler = fit(features)

    assert scaler.scale_D.tolist() == [1.0]
    assert np.abs(apply(scaler, features)[:, 0]).max() < 1e-6


@pytest.mark.parametrize(
    ("values", "is_shifted"),
    [
        ({"use_bias": "true"}, True),
        ({"use_bias": "false"}, False),
        ({"use_bias": "false", "unbias_data": "true"}, True),
        ({"use_bias": "true", "unbias_data": "false"}, False),
    ],
)
def test_without_normalisation_only_the_mean_may_go(values, is_shifted):
    scaler = fit([[1.0], [3.0]], normalize_data="false", **values)

    assert (scaler.mean_D.tolist(), scaler.scale_D.tolist()) == (
        [2.0 if is_shifted else 0.0],
        [1.0],
    )


def test_only_the_sample_is_read():
    features = np.random.default_rng(0).normal(size=(1000, 1))

    sampled = fit(features, num_point_for_scaler="10")

    assert sampled.mean_D != fit(features).mean_D
    assert sampled.mean_D == fit(features, num_point_for_scaler="10").mean_D


def test_large_offsets_do_not_cost_precision():
    features = np.float32(2**14) + np.arange(8, dtype=np.float32)[:, None] / 1024

    normalised = apply(fit(features), features)[:, 0]

    np.testing.assert_allclose(normalised.std(), 1.0, rtol=1e-6)
