"""The models that one candidate is trained as: the one asked for, and close variants of it.

``num_models`` and ``positive_example_weight_mult = auto`` each ask for several models over the same
pass of the data. How SageMaker draws them is not published; `VARIANTS` and `AUTO_WEIGHT` are ours.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trademl.errors import TrainError
from trademl.train.determinism import Stream, generator
from trademl.train.hyperparameters import LinearLearnerParameters

VARIANTS = (
    "model 0 is as given; for each other one learning_rate and lr_scheduler_step are multiplied by "
    "4**u, wd and l1 by 10**u (where they are 0: 0 or 10**v, v in [-7, -3], with even chances), "
    "1 - lr_scheduler_factor by 2**u, u in [-1, 1] drawn for each, and its weights start elsewhere"
)
AUTO_WEIGHT = (
    "auto trains with the weights r**0, r**(1/4) ... r**1, r = negative / positive rows of train, "
    "and keeps the one that the model selection criterion prefers"
)
_WEIGHT_POWERS: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Member:
    """One model of a candidate.

    Parameters
    ----------
    candidate : int
        Whose model it is.
    number : int
        Position among the candidate's models.
    variant : int
        Which draw of hyperparameters and start it is; 0 is as given.
    parameters : LinearLearnerParameters
        Its own.
    group_weight_G : ndarray of float32
        Weight of the loss: of labels 0 and 1, of each class, or of all rows.
    """

    candidate: int
    number: int
    variant: int
    parameters: LinearLearnerParameters
    group_weight_G: NDArray[np.float32]


def expand(
    candidate: int, parameters: LinearLearnerParameters, label_N: NDArray[Any], *, seed: int
) -> list[Member]:
    """Return a candidate's models; the same seed draws the same ones.

    Raises
    ------
    TrainError
        If ``positive_example_weight_mult`` is balanced or auto and train holds one label alone.
    """
    n, powers = parameters.num_models, _WEIGHT_POWERS[:1]
    is_auto = parameters.positive_example_weight_mult == "auto"
    if is_auto and parameters.predictor_type == "binary_classifier":
        n, powers = max(n, len(_WEIGHT_POWERS)), _WEIGHT_POWERS
    members = []
    for number in range(n):
        own = vary(parameters, number % parameters.num_models, seed=seed)
        if len(powers) > 1:
            ratio = _class_ratio(label_N, "auto")
            own = replace(own, positive_example_weight_mult=ratio ** powers[number % len(powers)])
        weights_G = group_weights(own, label_N)
        members.append(Member(candidate, number, number % parameters.num_models, own, weights_G))
    return members


def vary(
    parameters: LinearLearnerParameters, variant: int, *, seed: int
) -> LinearLearnerParameters:
    """Return the hyperparameters of a variant; see `VARIANTS`."""
    if variant == 0:
        return parameters
    rng = generator(seed, Stream.VARIANT, variant)
    rate, step, wd, l1, factor = rng.uniform(-1.0, 1.0, 5)
    return replace(
        parameters,
        learning_rate=parameters.learning_rate * 4.0**rate,
        lr_scheduler_step=max(round(parameters.lr_scheduler_step * 4.0**step), 1),
        lr_scheduler_factor=1.0 - min((1.0 - parameters.lr_scheduler_factor) * 2.0**factor, 0.99),
        wd=_vary_penalty(parameters.wd, wd, rng),
        l1=_vary_penalty(parameters.l1, l1, rng),
    )


def _vary_penalty(value: float, power: float, rng: np.random.Generator) -> float:
    is_zero, drawn = rng.random() < 0.5, 10.0 ** rng.uniform(-7.0, -3.0)
    if value > 0.0:
        return float(value * 10.0**power)
    return 0.0 if is_zero else float(drawn)


def group_weights(
    parameters: LinearLearnerParameters, label_N: NDArray[Any]
) -> NDArray[np.float32]:
    """Return the weight of the loss for each group of rows, shape (G,).

    A binary classifier's groups are the labels 0 and 1: negatives weigh 1, positives
    ``positive_example_weight_mult``, and ``balanced`` gives both labels the same total weight. With
    ``balance_multiclass_weights`` every class of a multiclass classifier has the same total weight,
    and the mean over all rows is 1.
    """
    if parameters.predictor_type == "regressor":
        return np.ones(1, np.float32)
    if parameters.predictor_type == "multiclass_classifier":
        n = parameters.num_classes
        if not parameters.balance_multiclass_weights:
            return np.ones(n, np.float32)
        count_C = np.bincount(np.asarray(label_N, np.int64), minlength=n)
        n_present = int((count_C > 0).sum())
        return (len(label_N) / (n_present * np.maximum(count_C, 1))).astype(np.float32)
    weight = parameters.positive_example_weight_mult
    positive = _class_ratio(label_N, weight) if isinstance(weight, str) else weight
    return np.array([1.0, positive], np.float32)


def _class_ratio(label_N: NDArray[Any], word: str) -> float:
    """Return negative over positive rows."""
    n_positive = int((label_N > 0.5).sum())
    if n_positive in (0, len(label_N)):
        raise TrainError(
            f"positive_example_weight_mult {word} needs both labels in train, which has "
            f"{n_positive} positive rows of {len(label_N)}: set a number"
        )
    return (len(label_N) - n_positive) / n_positive
