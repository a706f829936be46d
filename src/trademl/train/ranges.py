"""What a search may tune, and between which ends: ``ParameterRanges`` as SageMaker takes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from trademl.errors import ConfigError
from trademl.train.hyperparameters import as_text, closest, read_value
from trademl.train.request import check_keys, expect, section

Scaling = Literal["Linear", "Logarithmic", "ReverseLogarithmic"]

TUNABLE = {
    "wd": "Continuous",
    "l1": "Continuous",
    "learning_rate": "Continuous",
    "mini_batch_size": "Integer",
    "use_bias": "Categorical",
    "positive_example_weight_mult": "Continuous",
}
_KINDS = {
    "CategoricalParameterRanges": "Categorical",
    "ContinuousParameterRanges": "Continuous",
    "IntegerParameterRanges": "Integer",
}
_MAX_RANGES = 30  # of each kind, and values of a category
_AUTO_IS_LOG_FROM = 100.0  # ScalingType Auto: a range this many times its low end is logarithmic


@dataclass(frozen=True)
class NumberRange:
    """A continuous or integer range, both ends included."""

    name: str
    low: float
    high: float
    scaling: Scaling
    is_integer: bool = False


@dataclass(frozen=True)
class CategoryRange:
    """A choice between values, as SageMaker would send them."""

    name: str
    values: tuple[str, ...]


Range = NumberRange | CategoryRange


def parse_ranges(job: Mapping[str, Any]) -> tuple[Range, ...]:
    """Return the ranges of a job, in the order of their names.

    Raises
    ------
    ConfigError
        If a hyperparameter cannot be tuned, is of another kind, or its ends are not in order or
        not among its values.
    """
    listed = section(job, "ParameterRanges", (*_KINDS, "AutoParameters"))
    if listed.get("AutoParameters"):
        raise ConfigError(
            "AutoParameters leaves ranges to SageMaker's Autotune, which has no local twin: give "
            "each parameter a range"
        )
    found: dict[str, Range] = {}
    for key, kind in _KINDS.items():
        entries = expect(listed.get(key, []), list, key)
        if len(entries) > _MAX_RANGES:
            raise ConfigError(f"{key} has {len(entries)} ranges, expected at most {_MAX_RANGES}")
        for entry in entries:
            one = _range(expect(entry, dict, f"an entry of {key}"), kind)
            if one.name in found:
                raise ConfigError(f"{one.name} has two ranges in ParameterRanges: keep one")
            found[one.name] = one
    if not found:
        raise ConfigError("ParameterRanges is empty: a search needs at least one range")
    return tuple(found[name] for name in sorted(found))


def kind_of(one: Range) -> str:
    """Return ``Continuous``, ``Integer`` or ``Categorical``."""
    if isinstance(one, CategoryRange):
        return "Categorical"
    return "Integer" if one.is_integer else "Continuous"


def only_local(ranges: tuple[Range, ...]) -> list[str]:
    """Return the names of numbers that are listed as categories, which Linear Learner refuses."""
    return [r.name for r in ranges if kind_of(r) != TUNABLE[r.name]]


def _range(entry: Mapping[str, Any], kind: str) -> Range:
    own = ("Values",) if kind == "Categorical" else ("MinValue", "MaxValue", "ScalingType")
    check_keys(entry, ("Name", *own), f"a {kind.lower()} range")
    name = str(entry.get("Name"))
    if name not in TUNABLE:
        raise ConfigError(f"{name!r} cannot be tuned{closest(name, TUNABLE)}")
    if kind == "Categorical":
        return _category_range(name, entry)
    if TUNABLE[name] != kind:
        raise ConfigError(f"{name} is in {kind}ParameterRanges, expected {TUNABLE[name]}")
    return _number_range(name, entry, is_integer=kind == "Integer")


def _category_range(name: str, entry: Mapping[str, Any]) -> CategoryRange:
    values = tuple(as_text(v) for v in expect(entry.get("Values"), list, f"{name} Values"))
    if not values or len(set(values)) < len(values):
        raise ConfigError(f"Values of {name} are {list(values)}, expected different ones")
    if len(values) > _MAX_RANGES:
        raise ConfigError(f"{name} has {len(values)} Values, expected at most {_MAX_RANGES}")
    for value in values:
        read_value(name, value)
    return CategoryRange(name, values)


def _number_range(name: str, entry: Mapping[str, Any], *, is_integer: bool) -> NumberRange:
    ends = {}
    for key in ("MinValue", "MaxValue"):
        if key not in entry:
            raise ConfigError(f"{key} of {name} is missing")
        try:
            read_value(name, entry[key])
            ends[key] = float(as_text(entry[key]))
        except (ConfigError, ValueError) as error:
            raise ConfigError(f"{key} of the range of {name}: {error}") from error
    low, high = ends["MinValue"], ends["MaxValue"]
    if low >= high:
        raise ConfigError(f"MinValue of {name} is {low:g}, expected below its MaxValue {high:g}")
    scaling = _scaling(name, str(entry.get("ScalingType", "Auto")), low, high, is_integer)
    return NumberRange(name, low, high, scaling, is_integer)


def _scaling(name: str, scaling: str, low: float, high: float, is_integer: bool) -> Scaling:
    if scaling == "Auto":
        return "Logarithmic" if low > 0 and high / low >= _AUTO_IS_LOG_FROM else "Linear"
    if scaling == "Linear":
        return "Linear"
    if scaling == "Logarithmic":
        if low <= 0:
            raise ConfigError(f"ScalingType Logarithmic of {name} needs MinValue above 0")
        return "Logarithmic"
    if scaling == "ReverseLogarithmic":
        if is_integer or not 0 <= low < high < 1:
            raise ConfigError(
                f"ScalingType ReverseLogarithmic of {name} needs a continuous range within 0 "
                "and 1, 1 excluded"
            )
        return "ReverseLogarithmic"
    known = ("Auto", "Linear", "Logarithmic", "ReverseLogarithmic")
    raise ConfigError(f"ScalingType {scaling!r} of {name} is unknown{closest(scaling, known)}")
