"""The log of a job, read back with the expressions that SageMaker reads it with."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from trademl.train.hyperparameters import LinearLearnerParameters
from trademl.train.linear_learner import fit
from trademl.train.log_lines import LogLines
from trademl.train.metric_regexes import METRIC_REGEXES, read_metrics, regexes_of

# As a tuning job on SageMaker describes them (2020), word for word.
VERBATIM = {
    "train:progress": r"#progress_metric: host=\S+, completed (\S+) %",
    "train:throughput": r"#throughput_metric: host=\S+, train throughput=(\S+) records/second",
    "train:objective_loss": r"#quality_metric: host=\S+, epoch=\S+, train \S+_objective <loss>=(\S+)",
    "validation:objective_loss": (
        r"#quality_metric: host=\S+, epoch=\S+, validation \S+_objective <loss>=(\S+)"
    ),
    "train:objective_loss:final": r"#quality_metric: host=\S+, train \S+_objective <loss>=(\S+)",
    "validation:objective_loss:final": (
        r"#quality_metric: host=\S+, validation \S+_objective <loss>=(\S+)"
    ),
    "test:objective_loss": r"#quality_metric: host=\S+, test \S+_objective <loss>=(\S+)",
    "test:binary_classification_accuracy": (
        r"#quality_metric: host=\S+, test binary_classification_accuracy <score>=(\S+)"
    ),
    "validation:binary_f_beta": r"#quality_metric: host=\S+, validation binary_f_\S+ <score>=(\S+)",
    "test:precision": r"#quality_metric: host=\S+, test precision <score>=(\S+)",
    "test:recall": r"#quality_metric: host=\S+, test recall <score>=(\S+)",
    "train:precision": r"#quality_metric: host=\S+, train precision <score>=(\S+)",
    "validation:multiclass_accuracy": (
        r"#quality_metric: host=\S+, validation multiclass_accuracy <score>=(\S+)"
    ),
    "test:multiclass_top_k_accuracy": (
        r"#quality_metric: host=\S+, test multiclass_top_k_accuracy_\S+ <score>=(\S+)"
    ),
    "validation:dcg": r"#quality_metric: host=\S+, validation dcg <score>=(\S+)",
    "validation:macro_precision": (
        r"#quality_metric: host=\S+, validation macro_precision <score>=(\S+)"
    ),
    "test:macro_recall": r"#quality_metric: host=\S+, test macro_recall <score>=(\S+)",
    "test:macro_f_beta": r"#quality_metric: host=\S+, test macro_f_\S+ <score>=(\S+)",
    "validation:mse": r"#quality_metric: host=\S+, validation mse <loss>=(\S+)",
    "test:absolute_loss": r"#quality_metric: host=\S+, test absolute_loss <loss>=(\S+)",
    "test:roc_auc_score": r"#quality_metric: host=\S+, test roc_auc_score <score>=(\S+)",
}
KINDS = {
    "binary_classifier": {},
    "multiclass_classifier": {"num_classes": "3"},
    "regressor": {},
}


def log_of(split_of, kind="binary_classifier", *, splits=(1, 2, 3), **values):
    """Train and return the log and what was trained; the clock ticks once a call."""

    def draw(seed):
        if seed is None:
            return None
        rng = np.random.default_rng(seed)
        features = rng.normal(size=(500, 3))
        score = 2.0 * features[:, 0] + rng.normal(size=500)
        label = {"regressor": score, "multiclass_classifier": np.digitize(score, [-1, 1])}
        return split_of(features, label.get(kind, score > 0))

    settings = {"predictor_type": kind, "epochs": "2", "num_models": "3", **KINDS[kind], **values}
    lines: list[str] = []
    ticks = iter(range(1_600_000_000, 2_000_000_000))
    found = fit(
        draw(splits[0]),
        draw(splits[1]),
        LinearLearnerParameters.from_strings(settings),
        seed=0,
        test=draw(splits[2]),
        observer=LogLines(lines.append, clock=lambda: float(next(ticks))),
    )
    return lines, found


@pytest.mark.parametrize("name", VERBATIM)
def test_the_expressions_are_those_of_sagemaker(name):
    assert METRIC_REGEXES[name] == VERBATIM[name]


@pytest.mark.parametrize("kind", KINDS)
def test_every_metric_of_a_job_is_found_in_its_log(split_of, kind):
    lines, found = log_of(split_of, kind)

    values = read_metrics(lines)

    assert set(values) == set(regexes_of(kind))
    for name, value in found.metrics.items():
        logged = (
            f"{name}:final"
            if name in ("train:objective_loss", "validation:objective_loss")
            else name
        )
        assert values[logged] == [pytest.approx(value, rel=1e-11)]


def test_epoch_lines_tell_the_losses_of_model_0(split_of):
    lines, found = log_of(split_of, num_models="1")

    values = read_metrics(lines)

    assert values["train:objective_loss"] == pytest.approx([e.train_loss for e in found.history])
    assert values["validation:objective_loss"] == pytest.approx(
        [e.validation_loss for e in found.history]
    )
    assert values["train:progress"] == [50.0, 100.0]


def test_lines_come_in_the_documented_order(split_of):
    lines, _ = log_of(split_of)

    kinds = [re.sub(r"^\[[^]]*\] ", "", line) for line in lines]
    starts = [
        "Reading default configuration",
        "Merging with provided configuration",
        "Final configuration",
        "#metrics",
        "#quality_metric: host=algo-1, epoch=0, train",
        "#quality_metric: host=algo-1, epoch=0, validation",
        "#early_stopping_criteria_metric: host=algo-1, epoch=0, criteria=loss, value=",
        "Epoch 0: Loss improved. Updating best model",
        "#progress_metric: host=algo-1, completed 50 % of epochs",
        "#throughput_metric: host=algo-1, train throughput=",
        "#quality_metric: host=algo-1, epoch=1, train",
        "#validation_score (algo-1) : ('binary_classification_cross_entropy_objective', ",
        "#quality_metric: host=algo-1, validation binary_classification_accuracy <score>=",
        "Best model found for hyperparameters: {",
        "#test_score (algo-1) : ('binary_f_1.000', ",
        "#quality_metric: host=algo-1, test roc_auc_score <score>=",
    ]
    at = [next(i for i, line in enumerate(kinds) if line.startswith(text)) for text in starts]
    assert at == sorted(at)


def test_each_model_has_its_metrics_as_json(split_of):
    lines, _ = log_of(split_of)
    records = [
        json.loads(line[len("#metrics ") :]) for line in lines if line.startswith("#metrics")
    ]

    first = [r for r in records if r["Dimensions"]["epoch"] == 0]

    assert [(next(iter(r["Metrics"])).split("_")[0], r["Dimensions"]["model"]) for r in first] == [
        ("train", 0),
        ("train", 1),
        ("train", 2),
        ("validation", 0),
        ("validation", 1),
        ("validation", 2),
    ]
    assert first[0]["Dimensions"]["Algorithm"] == "Linear Learner"
    (values,) = first[0]["Metrics"].values()
    assert values["sum"] == values["min"] == values["max"]
    assert first[0]["StartTime"] < first[0]["EndTime"]


def test_the_criterion_is_told_where_it_is_watched(split_of):
    name = "binary_classifier_model_selection_criteria"

    lines, _ = log_of(split_of, **{name: "accuracy"})

    assert any("criteria=sampled_accuracy, value=0." in line for line in lines)


def test_a_missing_split_is_told_and_has_no_lines(split_of):
    lines, _ = log_of(split_of, splits=(1, None, None))

    assert not any("validation" in line for line in lines if "#quality" in line or "_score" in line)
    assert lines[-1].endswith("Test data is not provided.")
