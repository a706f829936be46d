"""Names, ranges and defaults of Linear Learner, as strings."""

from __future__ import annotations

import pytest

from trademl.errors import ConfigError
from trademl.train.hyperparameters import LinearLearnerParameters, read_value

BINARY = {"predictor_type": "binary_classifier"}
DOCUMENTED_DEFAULTS = {
    "feature_dim": None,
    "num_classes": 1,
    "mini_batch_size": 1000,
    "epochs": 15,
    "use_bias": True,
    "num_point_for_scaler": 10000,
    "normalize_data": True,
    "use_lr_scheduler": True,
    "init_method": "uniform",
    "init_scale": 0.07,
    "init_sigma": 0.01,
    "init_bias": 0,
    "early_stopping_patience": 3,
    "early_stopping_tolerance": 0.001,
    "binary_classifier_model_selection_criteria": "accuracy",
    "target_recall": 0.8,
    "target_precision": 0.8,
    "f_beta": 1.0,
    "positive_example_weight_mult": 1.0,
    "accuracy_top_k": 3,
    "balance_multiclass_weights": False,
    "margin": 1.0,
    "quantile": 0.5,
    "huber_delta": 1.0,
    "loss_insensitivity": 0.01,
    # what auto stands for
    "optimizer": "adam",
    "loss": "logistic",
    "learning_rate": 0.1,
    "wd": 1e-4,
    "l1": 0.0,
    "lr_scheduler_step": 100,
    "lr_scheduler_factor": 0.99,
    "lr_scheduler_minimum_lr": 1e-5,
    "num_models": 32,
}


def read(**values):
    return LinearLearnerParameters.from_strings({**BINARY, **values})


def test_defaults_are_the_documented_ones():
    found = read().as_dict()

    assert {name: found[name] for name in DOCUMENTED_DEFAULTS} == DOCUMENTED_DEFAULTS


def test_the_original_job_is_read_as_typed_values():
    job = read(feature_dim="605", normalize_label="false", target_recall="0.25", l1="0.0000001")

    assert (job.feature_dim, job.normalize_label, job.target_recall, job.l1) == (
        605,
        False,
        0.25,
        1e-7,
    )


def test_python_scalars_are_read_as_their_text():
    assert (
        read(use_bias=False, epochs=3, wd=0.5).as_dict()
        == read(use_bias="false", epochs="3", wd="0.5").as_dict()
    )


@pytest.mark.parametrize("name", ["feature_dim", "learning_rate", "l1", "num_models", "loss"])
def test_auto_is_the_default(name):
    assert getattr(read(**{name: "auto"}), name) == getattr(read(), name)


def test_given_names_what_was_set():
    assert read(l1="auto").given == {"predictor_type", "l1"}


def test_keys_that_the_platform_adds_are_passed_over():
    assert read(_tuning_objective_metric="test:precision").as_dict() == read().as_dict()


def test_unknown_name_suggests_the_closest():
    with pytest.raises(
        ConfigError, match="'learning_rat' is unknown: did you mean 'learning_rate'"
    ):
        read(learning_rat="0.1")


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("epochs", "0", "an integer above 0"),
        ("epochs", "1.5", "an integer above 0"),
        ("target_recall", "1", "between 0 and 1, both excluded"),
        ("beta_1", "1", "auto or a number of at least 0 and below 1"),
        ("wd", "-0.1", "auto or a number of at least 0"),
        ("learning_rate", "0", "auto or a number above 0"),
        ("learning_rate", "nan", "auto or a number above 0"),
        ("l1", "inf", "auto or a number of at least 0"),
        ("use_bias", "yes", "true or false"),
        ("use_bias", "auto", "true or false"),
        ("num_classes", "2", "from 3 to 1000000"),
        ("init_method", "zeros", "uniform or normal"),
        ("positive_example_weight_mult", "-1", "balanced or a number above 0"),
        ("binary_classifier_model_selection_criteria", "auc", "precision_at_target_recall"),
        ("predictor_type", "ranker", "binary_classifier"),
    ],
)
def test_a_value_out_of_range_names_key_value_and_range(name, value, allowed):
    with pytest.raises(ConfigError, match=f"{name} is '{value}', expected .*{allowed}"):
        read(**{name: value})


def test_predictor_type_is_required():
    with pytest.raises(ConfigError, match="predictor_type is missing"):
        LinearLearnerParameters.from_strings({"epochs": "1"})


def test_older_names_of_criteria_are_known():
    name = "binary_classifier_model_selection_criteria"

    assert read_value(name, "cross_entropy_loss") == "loss_function"
    assert read_value(name, "f1") == "f_beta"
    with pytest.raises(ConfigError, match="f1 contradicts f_beta 2"):
        read(**{name: "f1", "f_beta": "2"})
