"""What happens to an instrument between two quotes: splits, dividends, rolls."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

from trademl.errors import DataError


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happens to an instrument between two quotes.

    Parameters
    ----------
    ts_event : int
        From this time on prices are those after the event, UTC nanoseconds.
    split : float
        New shares for an old one; 4 divides the price by 4.
    dividend : float
        Cash for each old share, paid by who has sold it; in quote currency.
    roll_gap : float
        Price of the new contract minus that of the old one, at the moment of the roll.
    is_roll : bool
        A position is moved into the next contract, at the costs of leaving and entering.
    """

    ts_event: int
    split: float = 1.0
    dividend: float = 0.0
    roll_gap: float = 0.0
    is_roll: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.split < float("inf"):
            raise DataError(
                f"a split of {self.split} at {self.ts_event} ns, expected a number above 0"
            )
        if not (isfinite(self.dividend) and isfinite(self.roll_gap)):
            raise DataError(
                f"the event at {self.ts_event} ns has dividend {self.dividend} and roll gap "
                f"{self.roll_gap}, expected numbers"
            )
