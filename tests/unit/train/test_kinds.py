"""Multiclass classifiers, regressions and margins: what each loss is for, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from trademl.errors import DataError
from trademl.train.hyperparameters import LinearLearnerParameters
from trademl.train.linear_learner import fit
from trademl.train.metrics import multiclass_metrics, regression_metrics
from trademl.train.model import load_binary_model, load_model, save_model

FAST = {"mini_batch_size": "100", "epochs": "12", "num_models": "1"}


def read(kind, **values):
    more = {"num_classes": "3"} if kind == "multiclass_classifier" else {}
    return LinearLearnerParameters.from_strings({"predictor_type": kind, **FAST, **more, **values})


def draw_numbers(split_of, seed, *, n=3000, noise=None):
    """Return labels 200 + 30 x0 - 15 x1 with skewed noise of standard deviation 10."""
    rng = np.random.default_rng(seed)
    features = rng.normal(5.0, 3.0, (n, 4))
    noise = rng.exponential(10.0, n) if noise is None else noise(rng, n)
    return split_of(features, 200.0 + 30.0 * features[:, 0] - 15.0 * features[:, 1] + noise)


def draw_classes(split_of, seed, *, n=3000, shift=(0.0, 0.0, 0.0)):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, 4))
    score = features @ np.array([[2.0, -1.0, -1.0], [0.0, 2.0, -2.0], [0, 0, 0], [0, 0, 0]]) + shift
    return split_of(features, (score + rng.gumbel(size=(n, 3))).argmax(axis=1))


def train(make, split_of, kind, *, seed=0, **values):
    return fit(make(split_of, 1), make(split_of, 2), read(kind, **values), seed=seed)


def test_squared_loss_is_least_squares(split_of):
    found = train(draw_numbers, split_of, "regressor", wd="0")
    rows = draw_numbers(split_of, 1)
    x = np.append(rows.features_ND, np.ones((len(rows), 1)), axis=1).astype(float)
    weights, *_ = np.linalg.lstsq(x, rows.label_N.astype(float), rcond=None)

    model = found.model

    np.testing.assert_allclose(model.weights_D / model.scale_D, weights[:4], atol=0.5)
    assert found.metrics["validation:rmse"] == pytest.approx(10.0, rel=0.1)
    assert found.metrics["validation:mse"] == found.metrics["validation:objective_loss"]


@pytest.mark.parametrize("quantile", [0.1, 0.5, 0.9])
def test_a_quantile_leaves_its_share_of_labels_below_the_prediction(split_of, quantile):
    settings = {"loss": "quantile_loss", "learning_rate": "0.02", "epochs": "30"}
    found = train(draw_numbers, split_of, "regressor", quantile=str(quantile), **settings)
    unseen = draw_numbers(split_of, 3)

    share = (unseen.label_N < found.model.scores(unseen.features_ND)).mean()

    assert share == pytest.approx(quantile, abs=0.04)


def test_absolute_loss_finds_the_median_and_squared_loss_the_mean(split_of):
    unseen = draw_numbers(split_of, 3)
    errors = {
        loss: unseen.label_N
        - train(draw_numbers, split_of, "regressor", loss=loss).model.scores(unseen.features_ND)
        for loss in ("absolute_loss", "squared_loss")
    }

    # an exponential of mean 10 has its median at 10 ln 2
    assert errors["squared_loss"].mean() == pytest.approx(0.0, abs=1.0)
    assert errors["absolute_loss"].mean() == pytest.approx(10 - 10 * np.log(2), abs=1.0)


@pytest.mark.parametrize("loss", ["huber_loss", "absolute_loss", "eps_insensitive_absolute_loss"])
def test_robust_losses_are_not_moved_by_wild_labels(split_of, loss):
    def wild(rng, n):
        return rng.normal(0, 1, n) + np.where(rng.random(n) < 0.05, 10_000.0, 0.0)

    rows = draw_numbers(split_of, 1, noise=wild)
    clean = draw_numbers(split_of, 3, noise=lambda rng, n: rng.normal(0, 1, n))
    rmse = {}
    for name in (loss, "squared_loss"):
        parameters = read("regressor", loss=name, huber_delta="2", epochs="40")
        model = fit(rows, None, parameters, seed=0).model
        error = model.scores(clean.features_ND) - clean.label_N
        rmse[name] = float(np.sqrt(np.mean(error**2)))

    assert rmse[loss] < 30 < 300 < rmse["squared_loss"]


def test_errors_below_the_insensitivity_cost_nothing(split_of):
    found = train(
        draw_numbers,
        split_of,
        "regressor",
        loss="eps_insensitive_squared_loss",
        loss_insensitivity="1000",
    )

    assert found.metrics["validation:objective_loss"] == 0.0


def test_without_bias_a_regression_goes_through_the_origin(split_of):
    found = train(
        draw_numbers, split_of, "regressor", use_bias="false", normalize_data="false", wd="0"
    )

    assert found.model.bias == 0.0
    assert found.model.scores(np.zeros((1, 4)))[0] == 0.0


def test_a_constant_label_is_learnt(split_of):
    rows = split_of(np.random.default_rng(0).normal(size=(500, 2)), np.full(500, 7.0))

    found = fit(rows, None, read("regressor", epochs="30"), seed=0)

    assert found.metrics["train:absolute_loss"] < 0.5


def test_classes_are_told_apart(split_of):
    found = train(draw_classes, split_of, "multiclass_classifier")
    unseen = draw_classes(split_of, 3)

    score_NC, label_N = found.model.predict(unseen.features_ND)

    assert score_NC.shape == (3000, 3)
    np.testing.assert_allclose(score_NC.sum(axis=1), 1.0, atol=1e-6)
    assert (label_N == unseen.label_N).mean() > 0.7
    # probabilities are honest: the log loss is near that of the true model
    assert found.metrics["validation:objective_loss"] < 0.65


def test_balanced_classes_find_the_rare_one(split_of):
    def rare(split_of, seed):
        return draw_classes(split_of, seed, shift=(0.0, 0.0, -5.0))

    recalls = {
        balance: train(
            rare, split_of, "multiclass_classifier", balance_multiclass_weights=balance
        ).metrics["validation:macro_recall"]
        for balance in ("false", "true")
    }

    assert recalls["true"] > recalls["false"] + 0.05


def test_a_hinge_model_scores_a_margin(split_of, draw):
    parameters = read(
        "binary_classifier",
        loss="hinge_loss",
        binary_classifier_model_selection_criteria="loss_function",
    )
    found = fit(draw(1), draw(2), parameters, seed=0)

    score = found.model.scores(draw(3).features_ND)

    assert score.min() < 0.0 < 1.0 < score.max()
    assert found.model.threshold == 0.0
    assert found.metrics["validation:roc_auc_score"] > 0.8


@pytest.mark.parametrize("kind", ["binary_classifier", "multiclass_classifier", "regressor"])
def test_a_model_of_any_kind_comes_back_whole(split_of, draw, tmp_path, kind):
    make = {"multiclass_classifier": draw_classes, "regressor": draw_numbers}
    rows = make[kind](split_of, 1) if kind in make else draw(1)
    model = fit(rows, None, read(kind, epochs="1"), seed=0).model
    save_model(model, tmp_path / "model.tar.gz")

    found = load_model(str(tmp_path / "model.tar.gz"))

    for ours, theirs in zip(
        model.predict(rows.features_ND), found.predict(rows.features_ND), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
    assert found.rules == model.rules
    assert found.code_version
    assert found.metrics == model.metrics


@pytest.mark.parametrize("kind", ["multiclass_classifier", "regressor"])
def test_a_row_scores_the_same_alone_and_in_a_batch(split_of, kind):
    make = draw_classes if kind == "multiclass_classifier" else draw_numbers
    rows = make(split_of, 1)
    model = fit(rows, None, read(kind, epochs="1"), seed=0).model

    batch = model.scores(rows.features_ND)

    for row in (0, 7, 2999):
        np.testing.assert_array_equal(model.scores(rows.features_ND[row : row + 1])[0], batch[row])


def test_a_model_of_another_kind_is_no_binary_one(split_of, tmp_path):
    save_model(train(draw_numbers, split_of, "regressor").model, tmp_path / "m.tar.gz")

    with pytest.raises(Exception, match="is a linear regression, expected a binary classifier"):
        load_binary_model(tmp_path / "m.tar.gz")


@pytest.mark.parametrize(
    ("label", "message"),
    [(3.0, r"3\.0, expected a class from 0 to 2, by num_classes"), (0.5, r"0\.5"), (-1, "-1")],
)
def test_a_label_that_is_no_class_names_its_row(split_of, label, message):
    rows = draw_classes(split_of, 1)
    rows.label_N[9] = label

    with pytest.raises(DataError, match=f"label of train row 9 is {message}"):
        fit(rows, None, read("multiclass_classifier"), seed=0)


def test_a_label_that_is_not_finite_names_its_row(split_of):
    rows = draw_numbers(split_of, 1)
    rows.label_N[4] = np.nan

    with pytest.raises(DataError, match="label of train row 4 is nan, expected a finite number"):
        fit(rows, None, read("regressor"), seed=0)


def test_multiclass_metrics_by_hand():
    label = np.array([0, 1, 2, 1])
    score = np.array([[0.6, 0.3, 0.1], [0.5, 0.4, 0.1], [0.2, 0.7, 0.1], [0.1, 0.8, 0.1]])

    found = multiclass_metrics(label, score, beta=1.0, top_k=2, loss=0.25)

    # ranks of the own class: 1, 2, 3, 1; predictions: 0, 0, 1, 1
    assert found == pytest.approx(
        {
            "objective_loss": 0.25,
            "multiclass_accuracy": 2 / 4,
            "multiclass_top_k_accuracy": 3 / 4,
            "dcg": (1 + 1 / np.log2(3) + 1 / 2 + 1) / 4,
            "macro_recall": (1 + 1 / 2 + 0) / 3,
            "macro_precision": (1 / 2 + 1 / 2 + 0) / 3,
            "macro_f_beta": (2 / 3 + 1 / 2 + 0) / 3,
        }
    )


def test_of_equal_scores_the_lower_class_comes_first():
    found = multiclass_metrics(
        np.array([0, 2]), np.full((2, 3), 1 / 3), beta=1.0, top_k=2, loss=0.0
    )

    assert found["dcg"] == pytest.approx((1 + 1 / np.log2(4)) / 2)
    assert found["multiclass_top_k_accuracy"] == 0.5


def test_regression_metrics_by_hand():
    found = regression_metrics(np.array([1.0, 2.0]), np.array([4.0, 1.0]), loss=9.0)

    assert found == pytest.approx(
        {"objective_loss": 9.0, "mse": 5.0, "absolute_loss": 2.0, "rmse": np.sqrt(5.0)}
    )
