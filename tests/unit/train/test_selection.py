"""Lucky models are refused, with the reason in plain words."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from trademl.errors import ConfigError, TrainError
from trademl.train.hyperparameters import LinearLearnerParameters
from trademl.train.linear_learner import fit
from trademl.train.model import LinearModel, save_model
from trademl.train.selection import SelectionFloors, out_of_fold_flags, select
from trademl.train.trials import TrialResult

PLAIN = LinearLearnerParameters.from_strings(
    {
        "predictor_type": "binary_classifier",
        "binary_classifier_model_selection_criteria": "precision_at_target_recall",
        "target_recall": "0.25",
    }
).as_dict()


@pytest.fixture
def trial(tmp_path):
    """Return a trial whose model flags rows with a single feature at or above a cut."""

    def make(number=0, *, cut=0.0, objective=0.5, direction="Maximize", epochs=1):
        one = np.ones(1)
        cut_score = float(1.0 / (1.0 + np.exp(-np.float64(cut))))
        model = LinearModel(
            weights_D=one,
            bias=0.0,
            mean_D=0 * one,
            scale_D=one,
            threshold=float(np.float32(cut_score)),
            columns=("x",),
            hyperparameters=PLAIN,
            metrics={"epochs": epochs},
        )
        path = tmp_path / f"trial-{number:02d}.tar.gz"
        save_model(model, path)
        return TrialResult(number, {}, objective, direction, {}, path)

    return make


def failed(number):
    return TrialResult(number, {}, None, "Maximize", failure="the weights are not finite")


def winning(split_of, n=600, *, share=0.9, seed=0):
    """Return orders of which those with feature 1 win ``share`` of the time, the others rarely."""
    rng = np.random.default_rng(seed)
    feature = np.tile([1.0, -1.0, -1.0], n // 3)
    label = rng.random(n) < np.where(feature > 0, share, 0.3)
    return split_of(feature[:, None], label, np.where(label, 1.0, -1.0))


def test_the_original_winner_is_refused(trial, split_of):
    # 1000 positives, of which the model flags 17, and nothing else: precision 1, recall 0.017
    label = np.arange(2000) % 2
    feature = np.where((label == 1) & (np.arange(2000) < 34), 1.0, -1.0)
    validation = split_of(feature[:, None], label)

    found = select([trial(objective=1.0)], validation, seed=0)

    (judgement,) = found.judgements
    assert (judgement.figures.precision, judgement.figures.recall) == (1.0, 0.017)
    assert found.verdict == "no edge after costs"
    assert found.winner is None
    assert found.best_refused is judgement.trial
    assert "recall 0.017 is below the floor of 0.05" in judgement.reasons
    assert "17 validation orders are flagged, fewer than the floor of 30" in judgement.reasons


def test_an_honest_edge_is_accepted(trial, split_of):
    found = select([trial()], winning(split_of), seed=0)

    assert (found.verdict, found.winner.number, found.best_refused) == ("accepted", 0, None)
    model = found.model()
    assert (model.status, model.reasons) == ("accepted", ())


def test_the_best_objective_wins_among_the_accepted(trial, split_of):
    trials = [trial(0, objective=0.6), trial(1, objective=0.7), trial(2, cut=5.0, objective=0.99)]

    found = select(trials, winning(split_of), seed=0)

    assert found.winner.number == 1
    assert [j.is_accepted for j in found.judgements] == [True, True, False]


def test_a_loss_is_better_when_lower(trial, split_of):
    trials = [trial(n, objective=v, direction="Minimize") for n, v in enumerate((0.6, 0.4))]

    assert select(trials, winning(split_of), seed=0).winner.number == 1


def test_equal_objectives_take_the_lower_number(trial, split_of):
    assert select([trial(0), trial(1)], winning(split_of), seed=0).winner.number == 0


def test_costs_that_eat_the_edge_refuse_it(trial, split_of):
    rows = winning(split_of)
    costly = split_of(rows.features_ND, rows.label_N, rows.pnl_N - 0.9)

    (judgement,) = select([trial()], costly, seed=0).judgements

    mean = costly.pnl_N[rows.features_ND[:, 0] > 0].mean()
    assert f"mean net PnL per flagged order is {mean:.4g}, not above 0" in judgement.reasons


def test_a_mean_that_luck_explains_is_refused(trial, split_of):
    feature = np.tile([1.0, -1.0], 200)
    drawn = np.random.default_rng(0).permutation(np.tile([5.0, -4.9], 100))
    pnl = np.full(400, -1.0)
    pnl[feature > 0] = drawn
    rows = split_of(feature[:, None], pnl > 0, pnl)

    (judgement,) = select([trial()], rows, seed=0).judgements

    assert judgement.figures.mean_pnl == pytest.approx(0.05)
    (reason,) = judgement.reasons
    assert reason.startswith("the 95% lower bound of the mean net PnL per flagged order is -")


def test_a_few_long_stretches_are_too_little_evidence(trial, split_of):
    rows = winning(split_of)
    day_ns = 24 * 3600 * 1_000_000_000
    overlapping = split_of(rows.features_ND, rows.label_N, rows.pnl_N, hold_ns=day_ns)

    (judgement,) = select([trial()], overlapping, seed=0).judgements

    assert judgement.reasons[0].endswith("that depend on each other, are fewer than 5 blocks")


def test_flagging_everything_is_no_better_than_the_base_rate(trial, split_of):
    (judgement,) = select([trial(cut=-5.0)], winning(split_of), seed=0).judgements

    base = judgement.figures.base_rate
    assert f"precision {base:.3g} is not above the base rate of {base:.3g}" in judgement.reasons


def test_flagging_nothing_is_refused_without_a_crash(trial, split_of):
    (judgement,) = select([trial(cut=5.0)], winning(split_of), seed=0).judgements

    assert "precision is undefined: no validation order is flagged" in judgement.reasons


@pytest.mark.parametrize("label", [0.0, 1.0])
@pytest.mark.parametrize("n", [1, 40])
def test_one_class_alone_is_refused_without_a_crash(trial, split_of, label, n):
    rows = split_of(np.ones((n, 1)), np.full(n, label))

    assert select([trial()], rows, seed=0).verdict == "no edge after costs"


def test_the_best_refused_misses_the_fewest_floors(trial, split_of):
    rows = winning(split_of)
    costly = split_of(rows.features_ND, rows.label_N, rows.pnl_N - 0.9)

    found = select([trial(0, cut=5.0, objective=0.9), failed(1), trial(2)], costly, seed=0)

    assert found.best_refused.number == 2
    assert found.model().status == "refused"
    assert found.judgements[1].reasons == ("training failed: the weights are not finite",)


def test_more_looks_at_the_rows_demand_more_confidence(trial, split_of):
    rows = winning(split_of)

    one = select([trial()], rows, seed=0).judgements[0].figures
    ten = select([trial(n, epochs=5) for n in range(2)], rows, seed=0).judgements[0].figures

    assert (one.confidence, ten.confidence) == (0.95, pytest.approx(0.995))
    assert ten.pnl_lower_bound < one.pnl_lower_bound


def test_the_same_seed_judges_alike(trial, split_of):
    rows = winning(split_of)

    first, second = (select([trial()], rows, seed=3).judgements[0] for _ in range(2))

    assert first == second


def test_folds_are_flagged_at_thresholds_of_other_rows(split_of):
    # in sample the best accuracy is at 0.6, thanks to the first half alone
    label = np.array([1, 1, 1, 1, 1, 0, 0, 0])
    score = np.array([0.6, 0.6, 0.6, 0.6, 0.9, 0.6, 0.6, 0.6], np.float32)
    rows = split_of(score[:, None], label)
    settings = {**PLAIN, "binary_classifier_model_selection_criteria": "accuracy"}

    flags = out_of_fold_flags(rows, score, settings, n_folds=2)

    assert flags.tolist() == [False] * 4 + [True] * 4


def test_noise_that_pays_costs_is_refused(draw, tmp_path):
    parameters = LinearLearnerParameters.from_strings(
        {k: v for k, v in PLAIN.items() if k.startswith(("predictor", "binary", "target_r"))}
    )
    train, validation = draw(11, signal=0.0), draw(12, signal=0.0)
    costly = replace(validation, pnl_N=validation.pnl_N - 0.1)
    path = tmp_path / "0.tar.gz"
    save_model(fit(train, validation, parameters, seed=0).model, path)

    found = select([TrialResult(0, {}, 0.5, "Maximize", {}, path)], costly, seed=0)

    assert found.judgements[0].figures.mean_pnl > 0.0  # in sample it looks like an edge
    assert found.verdict == "no edge after costs"


def test_a_planted_signal_is_accepted(draw, tmp_path):
    parameters = LinearLearnerParameters.from_strings(
        {"predictor_type": "binary_classifier", "mini_batch_size": "100"}
    )
    save_model(fit(draw(1), draw(2), parameters, seed=0).model, tmp_path / "0.tar.gz")
    found = TrialResult(0, {}, 0.5, "Maximize", {}, tmp_path / "0.tar.gz")

    assert select([found], draw(2), seed=0).verdict == "accepted"


def test_no_trained_trial_is_an_error(split_of):
    with pytest.raises(TrainError, match="no trained trial"):
        select([failed(0)], winning(split_of), seed=0)


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"min_recall": 1.5}, "min_recall is 1.5"),
        ({"min_predicted_positives": 0}, "min_predicted_positives is 0"),
        ({"confidence": 1.0}, "confidence is 1.0"),
        ({"n_folds": 1}, "n_folds is 1"),
    ],
)
def test_floors_out_of_range_are_refused(values, name):
    with pytest.raises(ConfigError, match=name):
        SelectionFloors(**values)
