"""Stop a trial of a search when earlier trials say that it will not win: median rule, Hyperband.

Both look at one figure, the validation loss after each epoch, for Linear Learner reports no other;
lower is better. Both compare with trials of finished batches alone, so that a search that was
killed and gone on with stops the same trials after the same epochs.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from trademl.errors import ConfigError
from trademl.train.request import optional_count, optional_section

Curve = Sequence[float]  # the validation loss after each epoch, in nats

_MAX_EPOCHS = 2**31 - 1
_ETA = 3  # of each rung's trials, one in three goes on (Li et al. 2018, section 3.5)
_FEWEST_JUDGES = 4  # earlier trials that the median needs; they are drawn at random


@dataclass(frozen=True)
class Hyperband:
    """The epochs between which Hyperband spreads its rungs.

    Parameters
    ----------
    min_epochs, max_epochs : int
        A trial is first judged after ``min_epochs`` (or a later rung, by its bracket), and trains
        for ``max_epochs`` at most.
    """

    min_epochs: int
    max_epochs: int

    @property
    def n_brackets(self) -> int:
        """How many ways to trade the number of trials against their length."""
        brackets = 1
        while self.min_epochs * _ETA**brackets <= self.max_epochs:
            brackets += 1
        return brackets

    def bracket(self, number: int) -> int:
        """Return a trial's bracket: the number of rungs on which it is judged.

        Notes
        -----
        Brackets come in the paper's order and size, the most eager one first, over and over.
        """
        n = self.n_brackets
        cycle = [s for s in reversed(range(n)) for _ in range(math.ceil(n / (s + 1) * _ETA**s))]
        return cycle[number % len(cycle)]

    def rungs(self, bracket: int) -> tuple[int, ...]:
        """Return after how many epochs a bracket's trials are judged."""
        return tuple(max(self.max_epochs // _ETA**k, 1) for k in range(bracket, 0, -1))


@dataclass(frozen=True)
class StoppingRule:
    """What a trial is held against, epoch by epoch.

    Parameters
    ----------
    kind : {"median", "hyperband"}
    curves : tuple of tuple of float
        Losses of the earlier trials that it is compared with.
    rungs : tuple of int
        Numbers of epochs after which it is judged; empty stands for each of them.
    """

    kind: Literal["median", "hyperband"]
    curves: tuple[tuple[float, ...], ...]
    rungs: tuple[int, ...] = ()

    def stops(self, curve: Curve) -> bool:
        """Say whether a trial with these losses so far should train no further."""
        if not curve:
            return False
        return self._is_above_median(curve) if self.kind == "median" else self._is_cut(curve)

    def _is_above_median(self, curve: Curve) -> bool:
        """Compare the last loss with the median of the others' running means up to its epoch."""
        epoch = len(curve)
        if len(self.curves) < _FEWEST_JUDGES:
            return False
        means = [sum(c[:epoch]) / len(c[:epoch]) for c in self.curves]
        return curve[-1] > statistics.median(means)

    def _is_cut(self, curve: Curve) -> bool:
        """Say whether others on this rung leave a trial outside the best third."""
        epoch = len(curve)
        if epoch not in self.rungs:
            return False
        others = [min(c[:epoch]) for c in self.curves if len(c) >= epoch]
        n_go_on = (len(others) + 1) // _ETA
        if n_go_on == 0:  # too few to tell
            return False
        return sum(other <= min(curve) for other in others) >= n_go_on


def parse_hyperband(job: Mapping[str, Any], epochs: int) -> Hyperband:
    """Return the rungs of a request whose ``Strategy`` is Hyperband.

    Parameters
    ----------
    job : mapping
        May hold ``StrategyConfig``; without ``MinResource`` and ``MaxResource`` the rungs lie
        between 1 and ``epochs``.
    epochs : int
        Of every trial, at most.

    Raises
    ------
    ConfigError
        If the ends are out of order, or beyond ``epochs``.
    """
    held = optional_section(job, "StrategyConfig", ("HyperbandStrategyConfig",))
    found = optional_section(held, "HyperbandStrategyConfig", ("MinResource", "MaxResource"))
    low = optional_count(found, "MinResource", _MAX_EPOCHS) or 1
    high = optional_count(found, "MaxResource", _MAX_EPOCHS) or epochs
    if low >= high:
        raise ConfigError(f"MinResource is {low} epochs, expected below the MaxResource of {high}")
    if high > epochs:
        raise ConfigError(
            f"MaxResource is {high} epochs, StaticHyperParameters have {epochs}: raise epochs"
        )
    return Hyperband(low, high)


def rule_for(
    number: int,
    curves: Mapping[int, Curve],
    *,
    hyperband: Hyperband | None,
    has_median_rule: bool,
) -> StoppingRule | None:
    """Return what a trial is held against.

    Parameters
    ----------
    number : int
        The trial's.
    curves : mapping of int to sequence of float
        Losses of the trials of finished batches, by their numbers.
    """
    if hyperband is not None:
        bracket = hyperband.bracket(number)
        mates = [c for n, c in sorted(curves.items()) if hyperband.bracket(n) == bracket]
        return StoppingRule("hyperband", tuple(map(tuple, mates)), hyperband.rungs(bracket))
    if has_median_rule:
        return StoppingRule("median", tuple(tuple(c) for _, c in sorted(curves.items())))
    return None
