"""The hyperparameters of Linear Learner: names, ranges and defaults, as SageMaker sends them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from difflib import get_close_matches
from typing import Any

from trademl.errors import ConfigError

CRITERIA = (
    "accuracy",
    "f_beta",
    "precision_at_target_recall",
    "recall_at_target_precision",
    "loss_function",
)
LOSSES = {
    "binary_classifier": ("logistic", "hinge_loss"),
    "multiclass_classifier": ("softmax_loss",),
    "regressor": (
        "squared_loss",
        "absolute_loss",
        "eps_insensitive_squared_loss",
        "eps_insensitive_absolute_loss",
        "quantile_loss",
        "huber_loss",
    ),
}
AUTO = 0.0  # stands for a learning rate that is still to be resolved
AUTO_LEARNING_RATE = {"adam": 0.1, "sgd": 0.001, "rmsprop": 0.01}
# Keys that the platform adds by itself to a job's hyperparameters; they say nothing to the model.
PLATFORM_KEYS = frozenset(
    {
        "_log_level",
        "_kvstore",
        "_num_gpus",
        "_num_kv_servers",
        "_enable_profiler",
        "_tuning_objective_metric",
    }
)
Scalar = str | int | float | bool


@dataclass(frozen=True)
class _Rule:
    """What a value may be: ``read`` raises ValueError on anything that is not ``allowed``."""

    read: Callable[[str], Any]
    allowed: str


def _refuse(text: str) -> Any:
    raise ValueError(text)


def _flag(text: str) -> bool:
    return {"true": True, "false": False}[text] if text in ("true", "false") else _refuse(text)


def _number(kind: type[int] | type[float], holds: Callable[[float], bool], allowed: str) -> _Rule:
    def read(text: str) -> float:
        value = kind(text)
        return value if math.isfinite(value) and holds(value) else float(_refuse(text))

    return _Rule(read, allowed)


def _rule_field(default: Any, rule: _Rule, **words: Any) -> Any:
    """Return a dataclass field read by ``rule``; ``words`` are texts that stand for a value."""
    allowed = " or ".join([*words, *([rule.allowed] if rule.allowed else [])])
    read = lambda text: words[text] if text in words else rule.read(text)  # noqa: E731
    return field(default=default, metadata={"rule": _Rule(read, allowed)})


def _one_of(default: str, *others: str) -> Any:
    """Return a field whose value is one of these words."""
    words = {word: word for word in (default, *others)}
    return _rule_field(default, _Rule(_refuse, ""), **words)


_COUNT = _number(int, lambda v: v > 0, "an integer above 0")
_POSITIVE = _number(float, lambda v: v > 0, "a number above 0")
_NOT_NEGATIVE = _number(float, lambda v: v >= 0, "a number of at least 0")
_REAL = _number(float, lambda _: True, "a number")
_DECAY = _number(float, lambda v: 0 <= v < 1, "a number of at least 0 and below 1")
_SHARE = _number(float, lambda v: 0 < v < 1, "a number between 0 and 1, both excluded")
_CLASSES = _number(int, lambda v: v == 1 or 3 <= v <= 1_000_000, "an integer from 3 to 1000000")
_FLAG = _Rule(_flag, "true or false")


def _criterion(text: str) -> str:
    named = {"f1": "f_beta", "cross_entropy_loss": "loss_function"}.get(text, text)
    return named if named in CRITERIA else str(_refuse(text))


@dataclass(frozen=True, kw_only=True)
class LinearLearnerParameters:
    """Hyperparameters of one training job, typed, with every ``auto`` resolved.

    Build it with `from_strings`, which checks each value.

    Notes
    -----
    SageMaker does not publish what ``auto`` means. Here it means: Adam; ``learning_rate`` 0.1
    (0.01 for rmsprop, 0.001 for sgd), ``wd`` 1e-4 and ``l1`` 0, the rate multiplied by 0.99 every
    100 steps down to 1e-5 (the values in the published log of a binary job); ``beta_1`` 0.9 and
    ``beta_2`` 0.999 (Kingma and Ba, 2015); ``momentum`` 0.9; the bias at the common learning rate
    and not regularised; 32 models; labels of a regression shifted and scaled. ``feature_dim`` None
    is the width of the data; ``unbias_data`` follows ``use_bias``.

    Fields that a job never reads (``margin`` without the hinge loss ...) are checked and kept, as
    the original does. ``given`` names the fields that were set explicitly: early stopping watches
    the criterion only then.
    """

    predictor_type: str = _one_of(*LOSSES)
    feature_dim: int | None = _rule_field(None, _COUNT, auto=None)
    num_classes: int = _rule_field(1, _CLASSES)
    mini_batch_size: int = _rule_field(1000, _COUNT)
    epochs: int = _rule_field(15, _COUNT)
    use_bias: bool = _rule_field(True, _FLAG)
    num_models: int = _rule_field(32, _COUNT, auto=32)
    num_calibration_samples: int = _rule_field(10_000_000, _COUNT, auto=10_000_000)
    num_point_for_scaler: int = _rule_field(10_000, _COUNT)
    normalize_data: bool = _rule_field(True, _FLAG, auto=True)
    normalize_label: bool | None = _rule_field(None, _FLAG, auto=None)
    unbias_data: bool | None = _rule_field(None, _FLAG, auto=None)
    unbias_label: bool | None = _rule_field(None, _FLAG, auto=None)
    loss: str = _one_of("auto", *(loss for losses in LOSSES.values() for loss in losses))
    optimizer: str = _rule_field(
        "adam", _Rule(_refuse, ""), auto="adam", **{name: name for name in AUTO_LEARNING_RATE}
    )
    learning_rate: float = _rule_field(AUTO, _POSITIVE, auto=AUTO)
    wd: float = _rule_field(1e-4, _NOT_NEGATIVE, auto=1e-4)
    l1: float = _rule_field(0.0, _NOT_NEGATIVE, auto=0.0)
    momentum: float = _rule_field(0.9, _DECAY, auto=0.9)
    beta_1: float = _rule_field(0.9, _DECAY, auto=0.9)
    beta_2: float = _rule_field(0.999, _DECAY, auto=0.999)
    bias_lr_mult: float = _rule_field(1.0, _POSITIVE, auto=1.0)
    bias_wd_mult: float = _rule_field(0.0, _NOT_NEGATIVE, auto=0.0)
    use_lr_scheduler: bool = _rule_field(True, _FLAG)
    lr_scheduler_step: int = _rule_field(100, _COUNT, auto=100)
    lr_scheduler_factor: float = _rule_field(0.99, _SHARE, auto=0.99)
    lr_scheduler_minimum_lr: float = _rule_field(1e-5, _POSITIVE, auto=1e-5)
    init_method: str = _one_of("uniform", "normal")
    init_scale: float = _rule_field(0.07, _POSITIVE)
    init_sigma: float = _rule_field(0.01, _POSITIVE)
    init_bias: float = _rule_field(0.0, _REAL)
    early_stopping_patience: int = _rule_field(3, _COUNT)
    early_stopping_tolerance: float = _rule_field(0.001, _POSITIVE)
    binary_classifier_model_selection_criteria: str = _rule_field(
        "accuracy", _Rule(_criterion, ", ".join(CRITERIA))
    )
    target_recall: float = _rule_field(0.8, _SHARE)
    target_precision: float = _rule_field(0.8, _SHARE)
    f_beta: float = _rule_field(1.0, _POSITIVE)
    positive_example_weight_mult: float | str = _rule_field(
        1.0, _POSITIVE, auto="auto", balanced="balanced"
    )
    accuracy_top_k: int = _rule_field(3, _COUNT)
    balance_multiclass_weights: bool = _rule_field(False, _FLAG)
    margin: float = _rule_field(1.0, _NOT_NEGATIVE)
    quantile: float = _rule_field(0.5, _SHARE)
    huber_delta: float = _rule_field(1.0, _NOT_NEGATIVE)
    loss_insensitivity: float = _rule_field(0.01, _POSITIVE)
    given: frozenset[str] = frozenset()

    @classmethod
    def from_strings(cls, mapping: Mapping[str, Scalar]) -> LinearLearnerParameters:
        """Return the hyperparameters of a job.

        Parameters
        ----------
        mapping : mapping of str to str
            As SageMaker sends them; Python numbers and booleans are read as their text.

        Raises
        ------
        ConfigError
            If a name is unknown, a value out of range, or two values contradict one another.

        Examples
        --------
        >>> job = LinearLearnerParameters.from_strings(
        ...     {"predictor_type": "binary_classifier", "l1": "auto", "epochs": "7"}
        ... )
        >>> job.l1, job.epochs, job.mini_batch_size
        (0.0, 7, 1000)
        """
        values = {
            name: read_value(name, value)
            for name, value in mapping.items()
            if name not in PLATFORM_KEYS
        }
        if "predictor_type" not in values:
            raise ConfigError(f"predictor_type is missing: set it to one of {', '.join(LOSSES)}")
        parameters = cls(**values, given=frozenset(values))
        is_f1 = mapping.get("binary_classifier_model_selection_criteria") == "f1"
        if is_f1 and parameters.f_beta != 1.0:
            raise ConfigError(
                f"the criterion f1 contradicts f_beta {parameters.f_beta}: use the criterion f_beta"
            )
        return parameters._resolved()

    def _resolved(self) -> LinearLearnerParameters:
        """Return the same with every ``auto`` replaced that depends on another hyperparameter."""
        is_regression = self.predictor_type == "regressor"
        losses = LOSSES[self.predictor_type]
        if self.loss not in ("auto", *losses):
            known = ", ".join(("auto", *losses))
            raise ConfigError(
                f"loss is {self.loss!r}, a {self.predictor_type} expects one of {known}"
            )
        if self.predictor_type == "multiclass_classifier" and self.num_classes < 3:
            raise ConfigError("num_classes is missing: a multiclass_classifier needs 3 or more")
        if is_regression and self.unbias_label and not self.use_bias:
            raise ConfigError("unbias_label is true and use_bias false: expected use_bias true")
        is_rate_given = self.learning_rate != AUTO
        unbias = self.use_bias if self.unbias_label is None else self.unbias_label
        return replace(
            self,
            loss=losses[0] if self.loss == "auto" else self.loss,
            learning_rate=(
                self.learning_rate if is_rate_given else AUTO_LEARNING_RATE[self.optimizer]
            ),
            normalize_label=is_regression and self.normalize_label is not False,
            unbias_label=is_regression and unbias,
        )

    def as_dict(self) -> dict[str, Any]:
        """Return every field but ``given``, as JSON can hold it."""
        return {name: value for name, value in asdict(self).items() if name != "given"}


_RULES: dict[str, _Rule] = {
    f.name: f.metadata["rule"] for f in fields(LinearLearnerParameters) if "rule" in f.metadata
}


def read_value(name: str, value: Scalar) -> Any:
    """Return one hyperparameter's typed value.

    Raises
    ------
    ConfigError
        If the name is unknown (with the closest known one), or the value is not allowed.
    """
    if name not in _RULES:
        raise ConfigError(f"hyperparameter {name!r} is unknown{closest(name, _RULES)}")
    rule, text = _RULES[name], as_text(value)
    try:
        return rule.read(text)
    except ValueError:
        raise ConfigError(f"{name} is {text!r}, expected {rule.allowed}") from None


def as_text(value: Scalar) -> str:
    """Return a value as SageMaker would send it: ``True`` is ``"true"``."""
    return str(value).lower() if isinstance(value, bool) else str(value).strip()


def closest(name: str, known: Mapping[str, Any] | tuple[str, ...]) -> str:
    """Return ``": did you mean X?"``, or the known names where none is close."""
    near = get_close_matches(name, known, n=1)
    return f": did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}"
