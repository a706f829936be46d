"""Resolve settings: defaults, then the strategy file, then the environment, then flags.

A strategy file is TOML with one table for each section of `trademl.pipeline.strategy.Strategy`.
The environment sets ``TRADEML_<SECTION>__<KEY>``, for example ``TRADEML_ORDERS__INTERVAL_S=5``,
``TRADEML_SEED`` and ``TRADEML_WORKSPACE``. This is the only module that reads the environment.
"""

from __future__ import annotations

import difflib
import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from importlib import resources
from pathlib import Path
from typing import Any, get_type_hints

import msgspec

from trademl.errors import ConfigError
from trademl.ingest.sources import SAMPLE
from trademl.pipeline.strategy import Strategy

ENV_PREFIX = "TRADEML_"
SEED_VARIABLE = f"{ENV_PREFIX}SEED"  # the one setting outside a section that a container needs
DEFAULT_FILE = "strategy.toml"
DEFAULT_WORKSPACE = "trademl-workspace"
BUNDLED_TUNING = "the bundled tuning job"


@dataclass(frozen=True)
class Setting:
    """One resolved value and where it came from."""

    value: Any
    source: str


@dataclass(frozen=True)
class Settings:
    """A resolved strategy, its workspace, and the origin of every value."""

    strategy: Strategy
    workspace: Path
    origin: Mapping[str, Setting]


def sample_file(name: str) -> Path:
    """Return the path of a bundled file."""
    return Path(str(resources.files("trademl") / "sample" / name))


def load_settings(
    file: Path | None = None,
    *,
    workspace: Path | None = None,
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Resolve a strategy.

    Parameters
    ----------
    file : Path, optional
        Strategy file; defaults alone where None.
    workspace : Path, optional
        Folder of the ledger, the tick store and the artifacts.
    flags : mapping, optional
        Dotted key to value, for example ``{"feed.timezone": "UTC"}``; None values are passed over.
    environ : mapping, optional
        The environment; the process's own by default.

    Raises
    ------
    ConfigError
        If a file cannot be read, or a key or value is not known.
    """
    environ = os.environ if environ is None else environ
    origin = dict(_defaults())
    if file is not None:
        origin |= _beside(file, _from_file(file))
    origin |= _from_environment(environ)
    given = {k: v for k, v in (flags or {}).items() if v is not None}
    origin |= {_known(key, "flags"): Setting(value, "flag") for key, value in given.items()}
    origin["tuning"] = _tuning_job(origin["tuning"], file)
    root = workspace or Path(environ.get(f"{ENV_PREFIX}WORKSPACE", DEFAULT_WORKSPACE))
    return Settings(_build(origin), root.expanduser(), origin)


def find_strategy_file(file: Path | None) -> Path:
    """Return the strategy file asked for, or ``strategy.toml`` of the current folder.

    Raises
    ------
    ConfigError
        If there is none.
    """
    path = file or Path(DEFAULT_FILE)
    if not path.is_file():
        raise ConfigError(
            f"{path}: no such strategy file; give --config FILE, or run: trademl init"
        )
    return path


def bind_port(environ: Mapping[str, str] | None = None) -> int:
    """Return the port that a SageMaker container must bind to: 8080 unless told otherwise.

    Raises
    ------
    ConfigError
        If ``SAGEMAKER_BIND_TO_PORT`` is no number.
    """
    text = (os.environ if environ is None else environ).get("SAGEMAKER_BIND_TO_PORT", "8080")
    if not text.isdecimal():
        raise ConfigError(f"SAGEMAKER_BIND_TO_PORT is {text!r}, expected a port number")
    return int(text)


def process_environment() -> dict[str, str]:
    """Return this process's environment, to hand on to processes that it starts."""
    return dict(os.environ)


def _sections() -> dict[str, Any]:
    return {n: t for n, t in get_type_hints(Strategy).items() if is_dataclass(t)}


def _defaults() -> dict[str, Setting]:
    found: dict[str, Setting] = {}
    sections, plain = _sections(), Strategy()
    for top in fields(Strategy):
        if top.name not in sections:
            value = top.default if top.default is not MISSING else None
            found[top.name] = Setting(value, "default")
            continue
        for key in fields(sections[top.name]):
            value = getattr(getattr(plain, top.name), key.name)
            found[f"{top.name}.{key.name}"] = Setting(value, "default")
    return found


def _from_file(path: Path) -> dict[str, Setting]:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is not valid TOML: {error}") from error
    found: dict[str, Setting] = {}
    for key, value in document.items():
        if key in _sections() and isinstance(value, dict):
            for name, inner in value.items():
                found[_known(f"{key}.{name}", str(path))] = Setting(inner, str(path))
        else:
            found[_known(key, str(path))] = Setting(value, str(path))
    return found


def _beside(file: Path, found: dict[str, Setting]) -> dict[str, Setting]:
    """Take a file's relative paths of recordings as relative to the file itself."""
    quotes = found.get("feed.quotes")
    if quotes is not None and quotes.value != SAMPLE:
        found["feed.quotes"] = Setting(str(file.parent / str(quotes.value)), quotes.source)
    if (events := found.get("feed.adjustments", Setting("", ""))).value:
        found["feed.adjustments"] = Setting(str(file.parent / str(events.value)), events.source)
    if isinstance((bars := found.get("allocation.bars", Setting(None, ""))).value, list):
        found["allocation.bars"] = Setting(
            [str(file.parent / str(b)) for b in bars.value], bars.source
        )
    if (factors := found.get("allocation.factors", Setting("", ""))).value:
        found["allocation.factors"] = Setting(str(file.parent / str(factors.value)), factors.source)
    return found


def _from_environment(environ: Mapping[str, str]) -> dict[str, Setting]:
    found: dict[str, Setting] = {}
    for name, text in environ.items():
        if name.startswith(ENV_PREFIX) and ("__" in name or name == SEED_VARIABLE):
            key = name.removeprefix(ENV_PREFIX).lower().replace("__", ".", 1)
            found[_known(key, f"environment variable {name}")] = Setting(_scalar(text), name)
    return found


def _scalar(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _known(key: str, where: str) -> str:
    known = _defaults()
    if key in known:
        return key
    close = difflib.get_close_matches(key, [*known, *_sections()], n=1)
    hint = f"; did you mean {close[0]}?" if close else f"; expected one of {', '.join(known)}"
    raise ConfigError(f"{where}: unknown key {key}{hint}")


def _tuning_job(setting: Setting, file: Path | None) -> Setting:
    """Replace a path, or nothing, by the tuning job's JSON that it stands for."""
    if isinstance(setting.value, dict):
        return setting
    if setting.value is None:
        path, source = sample_file("tuning.json"), BUNDLED_TUNING
    else:
        path = (file.parent if file else Path()) / str(setting.value)
        source = str(path)
    try:
        return Setting(json.loads(path.read_text(encoding="utf-8")), source)
    except OSError as error:
        raise ConfigError(f"{path}: the tuning job cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{path}: the tuning job is not valid JSON: {error}") from error


def _build(origin: Mapping[str, Setting]) -> Strategy:
    values: dict[str, Any] = {}
    sections = _sections()
    for name, hint in get_type_hints(Strategy).items():
        if name not in sections:
            values[name] = _convert(origin[name].value, hint, {name: origin[name]})
            continue
        of_section = {k: s for k, s in origin.items() if k.startswith(f"{name}.")}
        table = {k.partition(".")[2]: s.value for k, s in of_section.items()}
        values[name] = _convert(table, hint, of_section, name)
    return Strategy(**values)


def _convert(value: Any, kind: Any, origin: Mapping[str, Setting], section: str = "") -> Any:
    try:
        return msgspec.convert(value, kind)
    except ConfigError as error:
        raise ConfigError(
            f"{section or next(iter(origin))}: {error} (from {_sources(origin)})"
        ) from error
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$")
        key = f"{section}{where.rstrip('`')}" or ", ".join(origin)
        source = origin[key].source if key in origin else _sources(origin)
        raise ConfigError(f"{key}: {what[:1].lower()}{what[1:]} (from {source})") from error


def _sources(origin: Mapping[str, Setting]) -> str:
    return ", ".join(sorted({s.source for s in origin.values()} - {"default"})) or "default"
