"""What a caller says beside its rows: how long it waits, and how old and sound its input is.

Each is a header ``X-Trademl-Name: value``. SageMaker passes on none of them but one header of its
own; there it is ``trademl-name=value`` in ``X-Amzn-SageMaker-Custom-Attributes``, with semicolons
between several.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from trademl.serve.freshness import Freshness
from trademl.serve.ladder import LONGEST_S
from trademl.serve.rows import RequestError, shown

ATTRIBUTES = b"x-amzn-sagemaker-custom-attributes"
_DEADLINE = b"x-trademl-deadline-ms"
_SOUND = ("0", "ok")
_NS_PER_S = 1_000_000_000


class Wants(NamedTuple):
    """What one caller said.

    Parameters
    ----------
    deadline_s : float or None
        How long it waits for its answer.
    wants_errors : bool
        It wants an error where the server abstains, not an answer without a decision.
    wants_reasons : bool
        It wants tier, model and reason in a JSON body too.
    feature_time_ns : int or None
        The latest tick that its features read, UTC.
    feed_health : str
        What is wrong with its feed; ``0`` or ``ok`` if nothing is.
    spread : float or None
        Between bid and ask, in quote currency; 0 or more.
    sent_ns : int or None
        When it sent the request, UTC: its deadline then counts from there, so that time spent in
        queues before the server counts too. It takes clocks that agree.
    """

    deadline_s: float | None = None
    wants_errors: bool = False
    wants_reasons: bool = False
    feature_time_ns: int | None = None
    feed_health: str = ""
    spread: float | None = None
    sent_ns: int | None = None

    def staleness(self, rule: Freshness, now_ns: int) -> str:
        """Return why its input is too stale to decide on, empty if it is not."""
        if self.feed_health and self.feed_health.lower() not in _SOUND:
            return f"the feed is unhealthy: {self.feed_health}"
        if rule.max_spread and self.spread is not None and self.spread > rule.max_spread:
            return f"the spread is {self.spread:g}, wider than {rule.max_spread:g}"
        if self.feature_time_ns is None:
            return "the features have no time" if rule.needs_feature_time else ""
        age_s = (now_ns - self.feature_time_ns) / _NS_PER_S
        if -age_s > rule.max_clock_ahead_s:
            return f"the feature time is {-age_s:.3f} s in the future, by the server's clock"
        if rule.max_feature_age_s and age_s > rule.max_feature_age_s:
            return f"the features are {age_s:.3f} s old, more than {rule.max_feature_age_s:g} s"
        return ""


NOTHING = Wants()


def read_wants(headers: Mapping[bytes, bytes]) -> Wants:
    """Return what the headers of a request say.

    Raises
    ------
    RequestError
        400 for a value that cannot be understood, naming it.
    """
    if HEADERS.isdisjoint(headers) and b"trademl-" not in headers.get(ATTRIBUTES, b""):
        return NOTHING
    said: dict[str, Any] = {}
    for header, value in _attributes(headers.get(ATTRIBUTES, b"")):
        name, read = _READERS[header]
        said[name] = read(header, value)
    for header in HEADERS.intersection(headers):  # its own header goes before an attribute
        name, read = _READERS[header]
        said[name] = read(header, headers[header])
    return Wants(**said)


def read_deadline_s(headers: Mapping[bytes, bytes]) -> float | None:
    """Return the deadline alone, None where there is none that can be understood."""
    try:
        if ATTRIBUTES in headers:
            return read_wants(headers).deadline_s
        value = headers.get(_DEADLINE)
        return None if value is None else _seconds(_DEADLINE, value)
    except RequestError:
        return None


def _attributes(value: bytes) -> Iterator[tuple[bytes, bytes]]:
    for part in value.split(b";") if value else ():
        name, _, given = part.strip().partition(b"=")
        if (header := b"x-" + name.lower()) in HEADERS:
            yield header, given


@lru_cache(maxsize=256)  # callers say the same again and again
def _seconds(header: bytes, value: bytes) -> float:
    expected = f"milliseconds from 0 to {LONGEST_S * 1000:.0f}"
    return _number(header, value, float, LONGEST_S * 1000, expected) / 1000


def _nanoseconds(header: bytes, value: bytes) -> int:
    return int(_number(header, value, int, 2**63 - 1, "whole nanoseconds since 1970"))


def _spread(header: bytes, value: bytes) -> float:
    return _number(header, value, float, sys.float_info.max, "a finite number of 0 or more")


def _number(
    header: bytes, value: bytes, kind: Callable[[bytes], float], most: float, expected: str
) -> float:
    try:
        number = kind(value)
    except ValueError:
        number = math.nan
    if not 0 <= number <= most:  # NaN neither
        found = shown(value.decode("latin-1"))
        raise RequestError(400, f"{_title(header)} is {found}: expected {expected}")
    return number


def _text(_: bytes, value: bytes) -> str:
    return value.decode("latin-1").strip()[:100]


def _is(wanted: bytes, other: bytes) -> Callable[[bytes, bytes], bool]:
    """Return what reads a choice between a word and another one, which is the default."""

    def read(header: bytes, value: bytes) -> bool:
        word = value.strip().lower()
        if word not in (wanted, other, b""):
            expected = f"{other.decode()} or {wanted.decode()}"
            found = shown(value.decode("latin-1"))
            raise RequestError(400, f"{_title(header)} is {found}: expected {expected}")
        return word == wanted

    return read


def _title(header: bytes) -> str:
    return header.decode().title()


_READERS: dict[bytes, tuple[str, Callable[[bytes, bytes], Any]]] = {
    _DEADLINE: ("deadline_s", _seconds),
    b"x-trademl-on-abstain": ("wants_errors", _is(b"error", b"answer")),
    b"x-trademl-explain": ("wants_reasons", _is(b"true", b"false")),
    b"x-trademl-feature-time-ns": ("feature_time_ns", _nanoseconds),
    b"x-trademl-feed-health": ("feed_health", _text),
    b"x-trademl-spread": ("spread", _spread),
    b"x-trademl-sent-ns": ("sent_ns", _nanoseconds),
}
HEADERS = frozenset(_READERS)
