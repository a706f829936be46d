"""Begin a search with what earlier ones found: ``WarmStartConfig`` as SageMaker takes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

from trademl.errors import ConfigError
from trademl.train.hyperparameters import PLATFORM_KEYS
from trademl.train.ranges import kind_of
from trademl.train.request import choice, expect, optional_section, section
from trademl.train.trials import TrialResult

if TYPE_CHECKING:
    from trademl.train.search_space import TuningConfig

Kind = Literal["IdenticalDataAndAlgorithm", "TransferLearning"]

_KINDS = ("IdenticalDataAndAlgorithm", "TransferLearning")
_MAX_PARENTS = 5
_MAX_CHANGES = 10  # of hyperparameters from tuned to static, or back


@dataclass(frozen=True)
class WarmStart:
    """Which finished searches to begin with, by name or id, and how alike they are."""

    parents: tuple[str, ...]
    kind: Kind


@dataclass(frozen=True)
class Parent:
    """A finished search, as the one that follows it sees it.

    Parameters
    ----------
    name : str
        As the request calls it.
    study_id : str
        Its id in the ledger.
    dataset_id, code_version : str
        What its trials were trained on, and with.
    config : TuningConfig
        Its own.
    trials : tuple of TrialResult
        Its own, without those of its parents.
    """

    name: str
    study_id: str
    dataset_id: str
    code_version: str
    config: TuningConfig
    trials: tuple[TrialResult, ...]


def parse_warm_start(request: Mapping[str, Any]) -> WarmStart | None:
    """Return the warm start of a request, or None.

    Raises
    ------
    ConfigError
        If there are no parents or more than five, or a key or type is unknown.
    """
    if not optional_section(
        request, "WarmStartConfig", ("ParentHyperParameterTuningJobs", "WarmStartType")
    ):
        return None
    config = request["WarmStartConfig"]
    kind = choice(config, "WarmStartType", _KINDS, "")
    listed = expect(
        config.get("ParentHyperParameterTuningJobs"), list, "ParentHyperParameterTuningJobs"
    )
    key = "HyperParameterTuningJobName"
    parents = [str(section({"parent": entry}, "parent", (key,)).get(key, "")) for entry in listed]
    if not 1 <= len(parents) <= _MAX_PARENTS or not all(parents):
        raise ConfigError(
            f"ParentHyperParameterTuningJobs names {len(parents)} jobs, expected 1 to "
            f"{_MAX_PARENTS}, each with its {key}"
        )
    return WarmStart(tuple(dict.fromkeys(parents)), cast("Kind", kind))


def check_parent(
    parent: Parent, config: TuningConfig, *, dataset_id: str, code_version: str
) -> None:
    """Refuse a parent that a search cannot begin with.

    Raises
    ------
    ConfigError
        If it had another objective, other hyperparameters, one of another type, or more than ten
        that were static and are tuned now, or the other way round; or if it is said to have
        identical data and algorithm and has not.
    """
    where, before = f"the parent {parent.name} of WarmStartConfig", parent.config
    if before.objective != config.objective:
        raise ConfigError(
            f"{where} has the objective {before.objective.metric}, expected that of this search, "
            f"{config.objective.metric}"
        )
    if changed := sorted(_names(before) ^ _names(config)):
        raise ConfigError(
            f"{where} must set the hyperparameters of this search, static and tuned together: "
            f"{changed[0]} is set by one of them alone"
        )
    then, now = ({r.name: kind_of(r) for r in c.ranges} for c in (before, config))
    if changed := sorted(n for n in then.keys() & now.keys() if then[n] != now[n]):
        name = changed[0]
        raise ConfigError(f"{where} tuned {name} as {then[name]}, this search as {now[name]}")
    if len(then.keys() ^ now.keys()) > _MAX_CHANGES:
        raise ConfigError(
            f"{where}: {len(then.keys() ^ now.keys())} hyperparameters changed between static and "
            f"tuned, expected at most {_MAX_CHANGES}"
        )
    if config.warm_start and config.warm_start.kind == "IdenticalDataAndAlgorithm":
        _check_identical(parent, where, dataset_id, code_version)


def _check_identical(parent: Parent, where: str, dataset_id: str, code_version: str) -> None:
    for what, found, expected in (
        ("was trained on", parent.dataset_id, dataset_id),
        ("was trained by trademl", parent.code_version, code_version),
    ):
        if found != expected:
            raise ConfigError(
                f"{where} {what} {found}, not {expected}: set WarmStartType to TransferLearning"
            )


def _names(config: TuningConfig) -> set[str]:
    names = {*config.static, *(r.name for r in config.ranges)}
    return names - PLATFORM_KEYS - {"num_models"}
