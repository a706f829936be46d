"""Proof that two engines traded alike, trade by trade."""

from __future__ import annotations

from dataclasses import astuple

import numpy as np
from numpy.typing import NDArray

from trademl.backtest.trades import OpenPosition, Trades
from trademl.errors import ParityError

EXACT = ("order_id", "side", "entry_index", "exit_index", "reason", "score")
MONEY = ("size", "entry_price", "exit_price", "entry_fees", "fees", "carry", "pnl")
COUNTS = ("skipped_while_in_position", "unfilled", "rejected", "halted")
TOLERANCE = 1e-9  # quote currency, and parts of the value: room for rounding of a sum, for no tick


def check_parity(first: Trades, second: Trades, *, names: tuple[str, str]) -> None:
    """Check that two engines made the same trades.

    Parameters
    ----------
    first, second : Trades
        What each engine made of the same signals.
    names : tuple of str
        Names of the two engines, for the message.

    Raises
    ------
    ParityError
        Naming the first trade that differs and the first thing that differs in it.
    """
    n = min(len(first), len(second))
    differs = {name: _differs(first, second, name, n) for name in EXACT + MONEY}
    if (rows := np.flatnonzero(np.any(list(differs.values()), axis=0))).size:
        row = int(rows[0])
        name = next(name for name, is_different in differs.items() if is_different[row])
        _fail(f"trade {row} (order {first.order_id[row]})", name, first, second, names, row)
    if len(first) != len(second):
        longer = first if len(first) > n else second
        raise ParityError(
            f"{names[0]} made {len(first)} trades and {names[1]} {len(second)}: the first that "
            f"one of them lacks is trade {n} (order {longer.order_id[n]})"
        )
    for name in COUNTS:
        if getattr(first, name) != getattr(second, name):
            _fail("the end of the recording", name, first, second, names)
    if _open_differs(first.open_at_end, second.open_at_end):
        _fail("the end of the recording", "open_at_end", first, second, names)


def _open_differs(one: OpenPosition | None, other: OpenPosition | None) -> bool:
    if one is None or other is None:
        return one is not other
    pairs = zip(astuple(one), astuple(other), strict=True)
    return not all(np.isclose(a, b, rtol=1e-12, atol=TOLERANCE, equal_nan=True) for a, b in pairs)


def _differs(first: Trades, second: Trades, name: str, n: int) -> NDArray[np.bool_]:
    one, other = getattr(first, name)[:n], getattr(second, name)[:n]
    differs: NDArray[np.bool_] = (one != other) & ~((one != one) & (other != other))
    if name in MONEY:
        differs = ~np.isclose(one, other, rtol=1e-12, atol=TOLERANCE)
    return differs


def _fail(
    where: str,
    name: str,
    first: Trades,
    second: Trades,
    engines: tuple[str, str],
    row: int | None = None,
) -> None:
    one, other = (getattr(trades, name) for trades in (first, second))
    if row is not None:
        one, other = one[row], other[row]
    raise ParityError(
        f"engines differ at {where}: {name} is {one} by {engines[0]}, {other} by {engines[1]}"
    )
