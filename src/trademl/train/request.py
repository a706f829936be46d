"""Reading a request as SageMaker takes it: unknown keys, missing parts and wrong types refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trademl.errors import ConfigError
from trademl.train.hyperparameters import as_text, closest


def section(parent: Mapping[str, Any], key: str, known: tuple[str, ...]) -> Mapping[str, Any]:
    """Return the object under ``key``, which must be there and hold ``known`` keys only."""
    found: Mapping[str, Any] = expect(parent.get(key), dict, key)
    check_keys(found, known, key)
    return found


def optional_section(
    parent: Mapping[str, Any], key: str, known: tuple[str, ...]
) -> Mapping[str, Any]:
    """Return the object under ``key``, or an empty one where it is left out; see `section`."""
    return section(parent, key, known) if key in parent else {}


def check_keys(found: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    """Refuse a key that is unknown, naming the closest known one."""
    for key in found:
        if key not in known:
            raise ConfigError(f"key {key!r} in {where} is unknown{closest(key, known)}")


def expect(value: Any, kind: type[dict[Any, Any]] | type[list[Any]], what: str) -> Any:
    """Return ``value`` if it is an object (dict) or a list, as asked."""
    if value is None:
        raise ConfigError(f"{what} is missing")
    if not isinstance(value, kind):
        words = "an object" if kind is dict else "a list"
        raise ConfigError(f"{what} is {value!r}, expected {words}")
    return value


def count(parent: Mapping[str, Any], key: str, high: int, *, low: int = 1) -> int:
    """Return the integer under ``key``, from ``low`` to ``high``."""
    value = parent.get(key)
    try:
        number = int(as_text(value)) if value is not None else low - 1
    except ValueError:
        number = low - 1
    if not low <= number <= high:
        raise ConfigError(f"{key} is {value!r}, expected an integer from {low} to {high}")
    return number


def optional_count(parent: Mapping[str, Any], key: str, high: int, *, low: int = 1) -> int | None:
    """Return the integer under ``key``, or None where it is left out; see `count`."""
    return count(parent, key, high, low=low) if key in parent else None


def choice(parent: Mapping[str, Any], key: str, known: tuple[str, ...], default: str) -> str:
    """Return the word under ``key``, one of ``known``; ``default`` where it is left out."""
    word = parent.get(key, default)
    if word not in known:
        raise ConfigError(f"{key} is {word!r}, expected {', '.join(known)}")
    return str(word)
