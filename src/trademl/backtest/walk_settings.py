"""The section ``[walk_forward]`` of a strategy: how long to learn, and how long to trade."""

from __future__ import annotations

import re
from dataclasses import dataclass

from trademl.errors import ConfigError
from trademl.market.quotes import NS_PER_S

SECONDS = {"s": 1, "min": 60, "h": 3_600, "d": 86_400, "w": 7 * 86_400}
_LENGTH = re.compile(r"(\d+)\s*([a-z]*)")


@dataclass(frozen=True, slots=True)
class WalkForwardConfig:
    """Windows of a walk-forward. What is learned from is split as ``[split]`` says.

    Parameters
    ----------
    learn, trade : int or str
        Orders to train, validate and test on, and to trade before the model is made anew; or
        durations such as ``"30d"`` (s, min, h, d, w), both. 0: as long as gives ``windows``.
    windows : int
        How many, where no lengths are given; a window then learns from five times what it trades.
    anchored : bool
        Learn from everything before; left out, from the last ``learn``.
    processes : int
        Windows that are learned at the same time; 0 for one a core.
    """

    learn: int | str = 0
    trade: int | str = 0
    windows: int = 5
    anchored: bool = False
    processes: int = 0

    def __post_init__(self) -> None:
        if self.windows < 1 or self.processes < 0:
            raise ConfigError(
                f"windows is {self.windows} and processes {self.processes}: expected 1 or more, "
                "and 0 or more"
            )
        learn, trade = parse_length(self.learn), parse_length(self.trade)
        if learn.unit != trade.unit or (learn.value > 0) != (trade.value > 0):
            raise ConfigError(
                f"learn is {self.learn!r} and trade {self.trade!r}: give both as orders, both as "
                "durations, or neither"
            )


@dataclass(frozen=True, slots=True)
class Length:
    """Orders, or nanoseconds."""

    value: int
    unit: str


def parse_length(given: int | str) -> Length:
    """Return how long ``given`` is.

    Raises
    ------
    ConfigError
        If it is neither a number of orders nor a duration.

    Examples
    --------
    >>> parse_length("2h")
    Length(value=7200000000000, unit='ns')
    """
    found = _LENGTH.fullmatch(str(given).strip().lower())
    if found is None or (found[2] and found[2] not in SECONDS):
        raise ConfigError(
            f"a length of {given!r}: expected orders such as 2000, or a duration such as 30d "
            f"({', '.join(SECONDS)})"
        )
    if not found[2]:
        return Length(int(found[1]), "orders")
    return Length(int(found[1]) * SECONDS[found[2]] * NS_PER_S, "ns")
