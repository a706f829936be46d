"""What a container serves, as one folder: models, and one plain file that says how.

``serving.json`` lists the strategies, the first of which answers who names none::

    {"version": 1, "strategies": [{
      "name": "btc",
      "models": [
        {"id": "network-...", "file": "models/0a1b....tar.gz", "sha256": "...", "device": "cuda"},
        {"id": "model-...", "file": "models/2c3d....tar.gz", "sha256": "...", "mode": "live"}],
      "followed": 1,
      "ladder": {"deadline_ms": 500.0}, "freshness": {"max_spread": 0.5},
      "quota": {"share": 0.6, "priority": 1}}]}

Models stand from the biggest to the smallest. What is left out is as in a strategy file.
"""

from __future__ import annotations

import gzip
import io
import re
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path, PurePosixPath
from typing import Any, get_args, get_type_hints

import msgspec

from trademl.errors import ConfigError, StoreError
from trademl.serve.freshness import Freshness
from trademl.serve.ladder import LadderPolicy
from trademl.serve.model_pool import ModelFile
from trademl.serve.placement import CPU, check_device_name
from trademl.serve.served import Mode
from trademl.serve.shares import Quota, Shares
from trademl.serve.strategies import ServedStrategy
from trademl.store.identity import digest_file

SERVING_FILE = "serving.json"
VERSION = 1
_NAME = re.compile(r"[!-~]{1,128}")  # it is sent as a header


@dataclass(frozen=True)
class _Model:
    id: str
    file: str
    sha256: str
    mode: Mode | None = None
    device: str = CPU
    made_at_s: float | None = None


@dataclass(frozen=True)
class _Strategy:
    name: str
    models: tuple[_Model, ...]
    followed: int = 0
    ladder: LadderPolicy = field(default_factory=LadderPolicy)
    freshness: Freshness = field(default_factory=Freshness)
    quota: Quota = field(default_factory=Quota)


@dataclass(frozen=True)
class _Serving:
    strategies: tuple[_Strategy, ...]
    version: int = VERSION


def read_serving(folder: Path) -> tuple[ServedStrategy, ...]:
    """Return the strategies of a folder; its models are read when they are needed.

    Raises
    ------
    ConfigError
        If ``serving.json`` says something that is not known, or cannot be.
    StoreError
        If it cannot be read, is of a newer version, or a model is missing.
    """
    path = folder / SERVING_FILE
    try:
        document = msgspec.json.decode(path.read_bytes())
        version = document["version"]
        if version != VERSION:
            raise StoreError(
                f"{path} has version {version}, this trademl reads {VERSION}: use the image that "
                "belongs to the trademl that wrote it"
            )
        _refuse_unknown(document, _Serving, str(path))
        serving = msgspec.convert(document, _Serving)
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror or error}") from error
    except ConfigError as error:
        raise error if str(path) in str(error) else ConfigError(f"{path}: {error}") from error
    except (msgspec.MsgspecError, KeyError, TypeError) as error:
        raise StoreError(f"{path} is no list of strategies: {error}") from error
    strategies = tuple(_read(strategy, folder) for strategy in serving.strategies)
    check_together(strategies)
    return strategies


def check_together(strategies: Sequence[ServedStrategy]) -> None:
    """Refuse strategies that one server cannot serve.

    Raises
    ------
    ConfigError
        If there is none, two have one name, a name cannot be sent as a header, or the quotas add
        up to more than 1.
    """
    names = [strategy.name for strategy in strategies]
    if not names:
        raise ConfigError("no strategy is to be served: expected one or more")
    for name in names:
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"strategy {name!r}: expected 1 to 128 printable ASCII characters without spaces"
            )
        if names.count(name) > 1:
            raise ConfigError(
                f"two strategies would be served as {name}: give each a [serving] endpoint of its "
                "own"
            )
    Shares({strategy.name: strategy.quota for strategy in strategies})


def write_serving(
    strategies: Sequence[ServedStrategy], target: Path, more: Mapping[str, bytes]
) -> None:
    """Write the folder of strategies as a tar.gz, which depends on what is served alone.

    Parameters
    ----------
    strategies : sequence of ServedStrategy
        Whose models all lie in files, with their digests.
    more : mapping of str to bytes
        Other files of the folder.

    Raises
    ------
    ConfigError
        As `check_together`.
    """
    check_together(strategies)
    serving = msgspec.json.format(serving_document(strategies), indent=1)
    with (
        target.open("wb") as raw,
        gzip.GzipFile("", "wb", compresslevel=1, fileobj=raw, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for name, content in sorted({SERVING_FILE: serving, **more}.items()):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
        for name, path in sorted(_archives(strategies).items()):
            entry = tarfile.TarInfo(name)
            entry.size = path.stat().st_size
            with path.open("rb") as model:
                tar.addfile(entry, model)


def serving_document(strategies: Sequence[ServedStrategy]) -> bytes:
    """Return the bytes of ``serving.json``."""
    written = [
        _Strategy(
            strategy.name,
            tuple(
                _Model(m.id, _name(m), m.sha256, m.mode, m.device, m.made_at_s)
                for m in model_files(strategy)
            ),
            strategy.followed,
            strategy.policy,
            strategy.freshness,
            strategy.quota,
        )
        for strategy in strategies
    ]
    return msgspec.json.encode(_Serving(tuple(written)))


def model_files(strategy: ServedStrategy) -> list[ModelFile]:
    """Return a strategy's models, all of which lie in files."""
    return [entry for entry in strategy.ladder if isinstance(entry, ModelFile)]


def _archives(strategies: Sequence[ServedStrategy]) -> dict[str, Path]:
    """Return the archives by their names in the folder; one that two strategies share is one."""
    return {_name(m): Path(m.location) for strategy in strategies for m in model_files(strategy)}


def _name(model: ModelFile) -> str:
    return f"models/{model.sha256 or digest_file(Path(model.location))}.tar.gz"


def _read(strategy: _Strategy, folder: Path) -> ServedStrategy:
    ladder = tuple(_model_file(model, strategy.name, folder) for model in strategy.models)
    return ServedStrategy(
        strategy.name,
        ladder,
        strategy.ladder,
        strategy.freshness,
        strategy.quota,
        strategy.followed,
    )


def _model_file(model: _Model, strategy: str, folder: Path) -> ModelFile:
    check_device_name(model.device)
    inside = PurePosixPath(model.file)
    if inside.is_absolute() or ".." in inside.parts:
        raise StoreError(f"{strategy}: {model.file} leads out of {folder}")
    path = folder / inside
    if not path.is_file():
        raise StoreError(f"{strategy}: {path} is missing; expected the archive of {model.id}")
    if not re.fullmatch(r"[0-9a-f]{64}", model.sha256):
        raise ConfigError(f"{strategy}: {model.id} has sha256 {model.sha256!r}, expected 64 digits")
    return ModelFile(
        model.id,
        str(path),
        model.sha256,
        model.mode,
        device=model.device,
        made_at_s=model.made_at_s,
    )


def _refuse_unknown(given: Any, kind: Any, where: str) -> None:
    """Refuse a key that would be passed over: a rule that is not followed is worse than none."""
    if is_dataclass(kind) and isinstance(given, dict):
        hints = get_type_hints(kind)
        for key, value in given.items():
            if key not in hints:
                known = ", ".join(one.name for one in fields(kind))
                raise ConfigError(f"{where}: unknown key {key}; expected one of {known}")
            _refuse_unknown(value, hints[key], f"{where}: {key}")
    elif isinstance(given, list) and get_args(kind):
        for entry in given:
            _refuse_unknown(entry, get_args(kind)[0], where)
