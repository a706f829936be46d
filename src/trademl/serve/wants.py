"""What a caller says beside its rows: how long it waits, and how old and sound its input is.

Each is a header ``X-Trademl-Name: value``. SageMaker passes on none of them but one header of its
own; there it is ``trademl-name=value`` in ``X-Amzn-SageMaker-Custom-Attributes``, with semicolons
between several.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from trademl.serve.freshness import Freshness
from trademl.serve.ladder import LONGEST_S
from trademl.serve.rows import RequestError, shown

ATTRIBUTES = b"x-amzn-sagemaker-custom-attributes"
_PREFIX = b"x-trademl-"
_NAMES = (
    b"deadline-ms",
    b"on-abstain",
    b"explain",
    b"feature-time-ns",
    b"feed-health",
    b"spread",
    b"sent-ns",
)
HEADERS = frozenset(_PREFIX + name for name in _NAMES)
_SOUND = ("", "0", "ok")
_NS_PER_S = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Wants:
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
        Between bid and ask, in quote currency.
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
        if self.feed_health.lower() not in _SOUND:
            return f"the feed is unhealthy: {self.feed_health}"
        if rule.max_spread and self.spread is not None and self.spread > rule.max_spread:
            return f"the spread is {self.spread:g}, wider than {rule.max_spread:g}"
        if self.feature_time_ns is None:
            return "the features have no time" if rule.needs_feature_time else ""
        age_s = (now_ns - self.feature_time_ns) / _NS_PER_S
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
    said = dict(_attributes(headers.get(ATTRIBUTES, b"")))
    said |= {name: headers[_PREFIX + name] for name in _NAMES if _PREFIX + name in headers}
    text = {name.decode(): value.decode("latin-1").strip() for name, value in said.items()}
    deadline_ms = _number(text, "deadline-ms", 0.0, LONGEST_S * 1000)
    feature_time = _number(text, "feature-time-ns", 0, 2**63)
    sent = _number(text, "sent-ns", 0, 2**63)
    return Wants(
        None if deadline_ms is None else deadline_ms / 1000,
        _choice(text, "on-abstain", {"": False, "answer": False, "error": True}),
        _choice(text, "explain", {"": False, "false": False, "true": True}),
        None if feature_time is None else int(feature_time),
        text.get("feed-health", "")[:100],
        _number(text, "spread", -math.inf, math.inf),
        None if sent is None else int(sent),
    )


def _attributes(value: bytes) -> list[tuple[bytes, bytes]]:
    found = []
    for part in value.split(b";"):
        name, _, given = part.strip().partition(b"=")
        if name.lower().startswith(b"trademl-") and name[8:].lower() in _NAMES:
            found.append((name[8:].lower(), given))
    return found


def _number(text: Mapping[str, str], name: str, least: float, most: float) -> float | None:
    if name not in text:
        return None
    value: float
    try:
        value = int(text[name]) if name.endswith("-ns") else float(text[name])
    except ValueError:
        value = math.nan
    if not least <= value <= most:  # NaN neither
        raise RequestError(400, f"X-Trademl-{name.title()} is {shown(text[name])}: no such number")
    return value


def _choice(text: Mapping[str, str], name: str, known: Mapping[str, bool]) -> bool:
    value = text.get(name, "").lower()
    if value not in known:
        expected = " or ".join(word for word in known if word)
        raise RequestError(400, f"X-Trademl-{name.title()} is {shown(value)}: expected {expected}")
    return known[value]
