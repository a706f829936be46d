"""Resolve settings: defaults, then the strategy file, then the environment, then flags.

A strategy file is TOML with one table for each section of `trademl.pipeline.strategy.Strategy`.
The environment sets ``TRADEML_<SECTION>__<KEY>``, for example ``TRADEML_ORDERS__INTERVAL_S=5``,
``TRADEML_SEED``, ``TRADEML_LEDGER_URL`` and ``TRADEML_WORKSPACE``. This is the only module that
reads the environment.
"""

from __future__ import annotations

import difflib
import json
import os
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

import msgspec

from trademl.errors import ConfigError

if TYPE_CHECKING:
    from trademl.ledger import Database
    from trademl.pipeline.strategy import Strategy
    from trademl.pipeline.workspace import Workspace

ENV_PREFIX = "TRADEML_"
SEED_VARIABLE = f"{ENV_PREFIX}SEED"  # the one setting outside a section that a container needs
_ALSO = {SEED_VARIABLE: "seed", f"{ENV_PREFIX}LEDGER_URL": "ledger.url"}
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
    ledger_of: Path | None = None,
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
    ledger_of : Path, optional
        Strategy file of which ``[ledger]`` alone is read, where ``file`` is None.

    Raises
    ------
    ConfigError
        If a file cannot be read, or a key or value is not known.
    """
    environ = os.environ if environ is None else environ
    origin = dict(_defaults())
    if file is None and ledger_of is not None:
        found = _beside(ledger_of, _from_file(ledger_of, sections={"ledger"}))
        origin |= {key: setting for key, setting in found.items() if key.startswith("ledger.")}
    if file is not None:
        origin |= _beside(file, _from_file(file))
    origin |= _from_environment(environ)
    given = {k: v for k, v in (flags or {}).items() if v is not None}
    origin |= {_known(key, "flags"): Setting(value, "flag") for key, value in given.items()}
    origin["tuning"] = _tuning_job(origin["tuning"], file)
    root = workspace or Path(environ.get(f"{ENV_PREFIX}WORKSPACE", DEFAULT_WORKSPACE))
    strategy = _build(origin)
    origin["ledger.url"] = replace(origin["ledger.url"], value=_shown_url(strategy.ledger))
    strategy = replace(strategy, ledger=strategy.ledger.with_password(environ))
    return Settings(strategy, root.expanduser(), origin)


def open_workspace(settings: Settings) -> Workspace:
    """Open the workspace of settings, with the ledger that they name; a context manager.

    Raises
    ------
    StoreError
        See `trademl.Workspace`.
    """
    from trademl.pipeline.workspace import Workspace

    return Workspace(settings.workspace, settings.strategy.ledger)


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


def container_workers(environ: Mapping[str, str] | None = None) -> int:
    """Return how many worker processes a SageMaker container is to run: one unless told otherwise.

    Raises
    ------
    ConfigError
        If ``SAGEMAKER_MODEL_SERVER_WORKERS`` is no number.
    """
    name = "SAGEMAKER_MODEL_SERVER_WORKERS"
    text = (os.environ if environ is None else environ).get(name, "1")
    if not text.isdecimal() or not int(text):
        raise ConfigError(f"{name} is {text!r}, expected a number of processes")
    return int(text)


def process_environment() -> dict[str, str]:
    """Return this process's environment, to hand on to processes that it starts."""
    return dict(os.environ)


def _strategy_type() -> type[Strategy]:
    """Return the type of strategies; it brings most of trademl, which not every process needs."""
    from trademl.pipeline.strategy import Strategy

    return Strategy


def _sections() -> dict[str, Any]:
    return {n: t for n, t in get_type_hints(_strategy_type()).items() if is_dataclass(t)}


def _defaults() -> dict[str, Setting]:
    found: dict[str, Setting] = {}
    sections, plain = _sections(), _strategy_type()()
    for top in fields(plain):
        if top.name not in sections:
            value = top.default if top.default is not MISSING else None
            found[top.name] = Setting(value, "default")
            continue
        for key in fields(sections[top.name]):
            value = getattr(getattr(plain, top.name), key.name)
            found[f"{top.name}.{key.name}"] = Setting(value, "default")
    return found


def _shown_url(database: Database) -> str:
    """Return the URL as it may be printed, empty where the ledger is the workspace's own file."""
    return str(database) if database.url else ""


def _from_file(path: Path, *, sections: Collection[str] | None = None) -> dict[str, Setting]:
    """Return the settings of a file; of some sections alone, whatever the others say."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is not valid TOML: {error}") from error
    found: dict[str, Setting] = {}
    for key, value in document.items():
        if sections is not None and key not in sections:
            continue
        if key in _sections() and isinstance(value, dict):
            for name, inner in value.items():
                found[_known(f"{key}.{name}", str(path))] = Setting(inner, str(path))
        else:
            found[_known(key, str(path))] = Setting(value, str(path))
    return found


def _beside(file: Path, found: dict[str, Setting]) -> dict[str, Setting]:
    """Take a file's relative paths of recordings as relative to the file itself."""
    from trademl.ingest.sources import SAMPLE

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
    if (trusted := found.get("ledger.ca_file", Setting("", ""))).value:
        found["ledger.ca_file"] = Setting(str(file.parent / str(trusted.value)), trusted.source)
    return found


def _from_environment(environ: Mapping[str, str]) -> dict[str, Setting]:
    found: dict[str, Setting] = {}
    for name, text in environ.items():
        if name in _ALSO:
            found[_ALSO[name]] = Setting(_scalar(text), name)
        elif name.startswith(ENV_PREFIX) and "__" in name:
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
    for name, hint in get_type_hints(_strategy_type()).items():
        if name not in sections:
            values[name] = _convert(origin[name].value, hint, {name: origin[name]})
            continue
        of_section = {k: s for k, s in origin.items() if k.startswith(f"{name}.")}
        table = {k.partition(".")[2]: s.value for k, s in of_section.items()}
        values[name] = _convert(table, hint, of_section, name)
    return _strategy_type()(**values)


def _convert(value: Any, kind: Any, origin: Mapping[str, Setting], section: str = "") -> Any:
    _refuse_unknown(value, kind, section, _sources(origin))
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


def _refuse_unknown(value: Any, kind: Any, key: str, source: str) -> None:
    """Refuse a key that a table within a section does not have; msgspec would pass it over."""
    if is_dataclass(kind) and isinstance(value, Mapping):
        hints = get_type_hints(kind)
        for name, inner in value.items():
            if name not in hints:
                raise ConfigError(
                    f"{key}: unknown key {name}; expected one of {', '.join(hints)} (from {source})"
                )
            _refuse_unknown(inner, hints[name], f"{key}.{name}", source)
        return
    inside = [arg for arg in get_args(kind) if arg is not Ellipsis]
    if get_origin(kind) in (tuple, list, Sequence, Mapping, dict) and inside:
        pairs: list[tuple[Any, Any]] = []
        if isinstance(value, Mapping | list):
            pairs = list(value.items() if isinstance(value, Mapping) else enumerate(value))
        for name, inner in pairs:
            _refuse_unknown(inner, inside[-1], f"{key}.{name}", source)


def _sources(origin: Mapping[str, Setting]) -> str:
    return ", ".join(sorted({s.source for s in origin.values()} - {"default"})) or "default"
