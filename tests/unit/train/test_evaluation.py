"""The evaluation report, against figures done by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest

from trademl.errors import DataError
from trademl.train.evaluation import evaluate

LABEL = np.array([1, 0, 1, 0])
SCORE = np.array([0.9, 0.8, 0.6, 0.2], np.float32)
PNL = np.array([3.0, -2.0, 1.0, -2.0])


def test_every_figure_has_the_base_rate_beside_it():
    report = evaluate(LABEL, SCORE, PNL, threshold=0.85)

    assert (report["n"], report["base_rate"], report["base_mean_pnl"]) == (4, 0.5, 0.0)
    assert report["roc_auc"] == 3 / 4
    assert sum(b["n"] for b in report["calibration"]) == 4


def test_the_calibrated_threshold_and_each_cut_are_reported():
    found = {
        t["name"]: (t["n_flagged"], t["precision"], t["recall"], t["sum_pnl"], t["mean_pnl"])
        for t in evaluate(LABEL, SCORE, PNL, threshold=0.85)["thresholds"]
    }

    assert found == {
        "calibrated": (1, 1.0, 0.5, 3.0, 3.0),
        "0.5": (3, 2 / 3, 1.0, 2.0, pytest.approx(2 / 3)),
        "0.75": (2, 0.5, 0.5, 1.0, 0.5),
    }


@pytest.mark.parametrize("n", [0, 3])
@pytest.mark.parametrize("label", [0, 1])
def test_degenerate_rows_are_json_without_nan(n, label):
    report = evaluate(np.full(n, label), np.zeros(n), np.zeros(n), threshold=0.5)

    assert json.loads(json.dumps(report, allow_nan=False))["roc_auc"] is None


def test_arrays_of_unequal_length_are_refused():
    with pytest.raises(DataError, match="4 labels, 4 scores and 3 profits"):
        evaluate(LABEL, SCORE, PNL[:3], threshold=0.5)
