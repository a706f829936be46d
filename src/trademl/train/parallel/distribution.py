"""How training is divided among processes, as a strategy says it.

Three spellings give one value:

- a word: ``"ddp"``, ``"fsdp"``, ``"pipeline"`` or ``"auto"``;
- a table of one of these words, with its settings;
- the ``distribution`` argument of SageMaker's estimators: see
  `trademl.train.parallel.smdistributed`.
"""

from __future__ import annotations

import ast
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

import msgspec

from trademl.errors import ConfigError
from trademl.train.hyperparameters import closest
from trademl.train.parallel.schedules import Schedule

Technique = Literal["ddp", "fsdp", "pipeline", "auto"]
Placement = Literal["cluster", "spread"]


@dataclass(frozen=True)
class Distribution:
    """What is divided, and how.

    Parameters
    ----------
    technique : {"ddp", "fsdp", "pipeline", "auto"}
        Rows over whole copies of the network; rows over one copy in shards; layers; or whichever
        `trademl.train.parallel.plan` chooses.
    stages : int
        Ranks that one pipeline spans, 2 or more for ``pipeline``; else 1.
    microbatches : int
        Pieces that a pipeline cuts a batch into.
    schedule : {"1f1b", "gpipe", "interleaved_1f1b"}
        In which order a pipeline's forwards and backwards run.
    stages_per_rank : int
        Stages on each rank of a pipeline, 2 or more for ``interleaved_1f1b``; else 1.
    placement : {"cluster", "spread"}
        Whether the stages of one pipeline lie on neighbouring ranks, or its copies do.
    memory_weight : float
        Balance stages by bytes (1) or by arithmetic (0), or in between.
    split_at : tuple of int
        First layer of the second and every later stage; empty for an automatic partition.
    replicate : bool
        Whether a world larger than one pipeline holds copies of it.
    processes_per_host : int
        Processes on each host; 0 leaves it to the launcher.
    environment : mapping
        Variables for every process.
    notes : tuple of str
        What a translation left out or took in another meaning, one sentence each.

    Raises
    ------
    ConfigError
        If two settings cannot go together in any world.
    """

    technique: Technique = "ddp"
    stages: int = 1
    microbatches: int = 1
    schedule: Schedule = "1f1b"
    stages_per_rank: int = 1
    placement: Placement = "cluster"
    memory_weight: float = 0.5
    split_at: tuple[int, ...] = ()
    replicate: bool = True
    processes_per_host: int = 0
    environment: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("stages", "microbatches", "stages_per_rank"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected 1 or more")
        if self.processes_per_host < 0:
            raise ConfigError(
                f"processes_per_host is {self.processes_per_host}, expected 1 or more"
            )
        if not 0.0 <= self.memory_weight <= 1.0:
            raise ConfigError(f"memory_weight is {self.memory_weight}, expected from 0 to 1")
        if (self.technique == "pipeline") != (self.stages > 1):
            raise ConfigError(
                f"technique {self.technique} has {self.stages} stages: a pipeline has 2 or more, "
                "every other technique 1"
            )
        self._check_split()

    @property
    def n_stages(self) -> int:
        """Stages of one pipeline, over all of its ranks."""
        return self.stages * self.stages_per_rank

    def _check_split(self) -> None:
        if not self.split_at:
            return
        if len(self.split_at) != self.n_stages - 1:
            raise ConfigError(
                f"split_at names {len(self.split_at)} layers, expected {self.n_stages - 1}: the "
                "first of the second and every later stage"
            )
        if list(self.split_at) != sorted(set(self.split_at)) or self.split_at[0] < 1:
            raise ConfigError(
                f"split_at is {list(self.split_at)}, expected rising numbers from 1: layer 0 "
                "begins the first stage"
            )


# The keys that a table of settings may hold, by technique; those of the last set go with any.
_KEYS: dict[str, tuple[str, ...]] = {
    "ddp": (),
    "fsdp": (),
    "auto": (),
    "pipeline": (
        "stages",
        "microbatches",
        "schedule",
        "stages_per_rank",
        "placement",
        "memory_weight",
        "split_at",
        "replicate",
    ),
}
_BESIDE = ("processes_per_host", "environment")
_OF_SAGEMAKER = ("smdistributed", "torch_distributed", "mpi")


def parse_distribution(value: Mapping[str, Any] | str) -> Distribution:
    """Return the distribution that a strategy file or a ``distribution`` argument spells.

    Raises
    ------
    ConfigError
        If a key is unknown, a value of the wrong kind, or two settings cannot go together.

    Examples
    --------
    >>> parse_distribution({"pipeline": {"stages": 2, "microbatches": 8}}).schedule
    '1f1b'
    """
    if isinstance(value, str):
        value = {value: {}}
    if any(key in value for key in _OF_SAGEMAKER):
        from trademl.train.parallel.smdistributed import translate

        return translate(value)
    for key in value:
        if key not in (*_KEYS, *_BESIDE):
            known = (*_KEYS, *_BESIDE, *_OF_SAGEMAKER)
            raise ConfigError(f"distribution: {key!r} is unknown{closest(str(key), known)}")
    named = [key for key in value if key in _KEYS]
    if len(named) != 1:
        raise ConfigError(
            f"distribution names {', '.join(named) or 'no technique'}, expected one of "
            f"{', '.join(_KEYS)}"
        )
    return _native(named[0], value)


def _native(technique: str, value: Mapping[str, Any]) -> Distribution:
    table = {} if value[technique] is True else value[technique]
    if not isinstance(table, Mapping):
        raise ConfigError(f"distribution: {technique} is {table!r}, expected a table of settings")
    for key in table:
        if key not in _KEYS[technique]:
            if not _KEYS[technique]:
                raise ConfigError(f"distribution: {technique} takes no settings, found {key!r}")
            raise ConfigError(
                f"distribution: {key!r} of {technique} is unknown"
                f"{closest(str(key), _KEYS[technique])}"
            )
    settings = {"technique": technique, **table, **{k: value[k] for k in _BESIDE if k in value}}
    if settings.get("schedule") == "interleaved_1f1b":
        settings.setdefault("stages_per_rank", 2)
    if technique == "pipeline":
        settings.setdefault("stages", 2)
        settings.setdefault("microbatches", 4 * settings["stages"])
    return build_distribution(settings)


def build_distribution(settings: Mapping[str, Any]) -> Distribution:
    """Return a `Distribution` of values whose kinds have not been looked at yet."""
    try:
        return msgspec.convert(dict(settings), Distribution)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$.")
        place = f" {where.rstrip('`')}" if where else ""
        raise ConfigError(f"distribution:{place} {what[:1].lower()}{what[1:]}") from error


def read_distribution(path: Path) -> Distribution:
    """Return the distribution that a file holds: TOML, JSON, or a Python literal.

    Parameters
    ----------
    path : Path
        ``.toml`` and ``.json`` say what they are; any other name is read as Python: a dictionary,
        or ``distribution = {...}``, with a comma after it or not. Nothing in it is run.

    Raises
    ------
    ConfigError
        If the file cannot be read, or holds something else.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"{path}: the distribution cannot be read: {reason}") from error
    try:
        found = _parsers().get(path.suffix, _python_literal)(text)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError) as error:
        raise ConfigError(
            f"{path}: expected a distribution as {_language(path)} of constants: {error}"
        ) from error
    if isinstance(found, Mapping) and list(found) == ["distribution"]:
        found = found["distribution"]
    if not isinstance(found, Mapping | str):
        raise ConfigError(f"{path}: holds {found!r:.60}, expected a dictionary")
    try:
        return parse_distribution(found)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _parsers() -> dict[str, Any]:
    return {".toml": tomllib.loads, ".json": json.loads}


def _language(path: Path) -> str:
    return {".toml": "TOML", ".json": "JSON"}.get(path.suffix, "a Python literal")


def _python_literal(text: str) -> Any:
    """Return the constant that a statement spells: bare, assigned, or in the midst of a call."""
    statements = ast.parse(text.strip()).body
    if len(statements) != 1 or not isinstance(statements[0], ast.Expr | ast.Assign):
        raise ValueError("expected one dictionary")
    node = statements[0].value
    if isinstance(node, ast.Tuple) and len(node.elts) == 1:
        node = node.elts[0]
    return ast.literal_eval(node)


def with_processes(distribution: Distribution, n_processes: int | None) -> Distribution:
    """Return the distribution with a count of processes from the command line, if one is given."""
    if n_processes is None or n_processes == distribution.processes_per_host:
        return distribution
    notes = distribution.notes
    if distribution.processes_per_host:
        notes += (
            f"--nproc {n_processes} takes the place of processes_per_host "
            f"{distribution.processes_per_host}",
        )
    return replace(distribution, processes_per_host=n_processes, notes=notes)


def as_dict(distribution: Distribution) -> dict[str, Any]:
    """Return what decides the result of a training, as JSON can hold it."""
    found = {f.name: getattr(distribution, f.name) for f in fields(distribution)}
    del found["notes"], found["environment"]
    return found | {"split_at": list(distribution.split_at)}
