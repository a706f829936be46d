"""Two histories of one strategy, trade by trade, and what each difference of profit is due to.

The difference of a pair is a sum of parts that are exact: its fees and carry, its units, its entry
price and its exit price. Each part is put down to one cause, so the causes add up to the whole.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from typing import Any, Literal, get_args

from trademl.backtest.histories import BEST, History, in_common, read_histories
from trademl.backtest.pairing import paired
from trademl.backtest.trade_rows import TradeRow
from trademl.errors import ConfigError
from trademl.ingest.tick_store import TickStore
from trademl.ledger import Ledger
from trademl.market.quotes import NS_PER_S
from trademl.store.artifacts import ArtifactStore

Cause = Literal["signal", "data revision", "latency", "tier", "fill", "missed tick", "costs"]
CAUSES: tuple[Cause, ...] = get_args(Cause)
LATE = ("latency_ms", "quote_delay_ms")
DEAR = ("slippage", "slippage_spreads", "slippage_volatility", "impact", "spread_scale")
Parts = dict[Cause, float]


def compare(
    one: str,
    other: str,
    store: ArtifactStore,
    ledger: Ledger,
    *,
    ticks: TickStore | None = None,
    tolerance_s: float = 60.0,
) -> dict[str, Any]:
    """Compare two backtests, or a backtest and a live run or the fills of a file, trade by trade.

    Parameters
    ----------
    one, other : str
        Ids of backtests or of live runs of the ledger, or CSV or Parquet files of round trips: see
        `trademl.backtest.trade_rows.rows_of_file`. With a live run, only the time counts in which
        both decided.
    ticks : TickStore, optional
        Where the recording of a live run may be.
    tolerance_s : float
        How far apart partners may begin.

    Returns
    -------
    dict
        Safe for JSON. ``difference`` is the profit of ``other`` minus that of ``one``, and the sum
        of ``pnl`` over ``causes``; ``trades`` has a line for each pair that differs and each
        trade without a partner; ``settings`` what the two were told differently.

    Raises
    ------
    ConfigError
        If the tolerance is not 0 or more.
    StoreError
        If the ledger has no such backtest.
    DataError
        If a file cannot be read as trades.
    """
    if not 0 <= tolerance_s < 2**31:
        raise ConfigError(f"the tolerance is {tolerance_s} s, expected 0 or more")
    sides = read_histories(one, other, store, ledger, ticks)
    return compare_histories(*sides, tolerance_s=tolerance_s)


def compare_histories(one: History, other: History, *, tolerance_s: float = 60.0) -> dict[str, Any]:
    """Compare two histories: see `compare`."""
    tolerance_ns = round(tolerance_s * NS_PER_S)
    whole, (one, other) = (one, other), in_common(one, other)
    pairs, alone_one, alone_other = paired(one.trades, other.trades, tolerance_ns)
    found: list[tuple[TradeRow | None, TradeRow | None, Parts]] = [
        (one.trades[i], other.trades[j], parts_of(one, other, one.trades[i], other.trades[j]))
        for i, j in pairs
    ]
    causes = [(a, b, _main_cause(parts)) for a, b, parts in found if a and b]
    of_one = _by_time([(a, cause) for a, _, cause in causes])
    of_other = _by_time([(b, cause) for _, b, cause in causes])
    for i in alone_one:
        trade = one.trades[i]
        why = _why_alone(trade, one, other, of_other)
        found.append((trade, None, {why: -trade.pnl}))
    for j in alone_other:
        trade = other.trades[j]
        found.append((None, trade, {_why_alone(trade, other, one, of_one): trade.pnl}))
    lines = [_line(a, b, parts) for a, b, parts in found if parts]
    lines.sort(key=lambda line: line["at_ns"])
    pnl_one, pnl_other = (sum(row.pnl for row in side.trades) for side in (one, other))
    n_outside = [len(a.trades) - len(b.trades) for a, b in zip(whole, (one, other), strict=True)]
    return {
        "one": {
            "id": one.name,
            "n_trades": len(one.trades),
            "net_pnl": pnl_one,
            "n_outside": n_outside[0],
        },
        "other": {
            "id": other.name,
            "n_trades": len(other.trades),
            "net_pnl": pnl_other,
            "n_outside": n_outside[1],
        },
        "difference": pnl_other - pnl_one,
        "n_paired": len(pairs),
        "n_alike": sum(not parts for _, _, parts in found),
        "n_only_one": len(alone_one),
        "n_only_other": len(alone_other),
        "causes": {
            cause: {
                "n": sum(cause in line["causes"] for line in lines),
                "pnl": float(sum(line["causes"].get(cause, 0.0) for line in lines)),
            }
            for cause in CAUSES
        },
        "settings": _settings_that_differ(one.settings, other.settings),
        "not_known": [
            f"{side.name}: the quotes that it was made on; a revision cannot be told from a fill"
            for side in (one, other)
            if side.quotes is None
        ],
        "trades": lines,
    }


def _line(a: TradeRow | None, b: TradeRow | None, parts: Parts) -> dict[str, Any]:
    return {
        "one": None if a is None else a.number,
        "other": None if b is None else b.number,
        "order_id": next((row.order_id for row in (a, b) if row), None),
        "at_ns": min(row.opened_at_ns for row in (a, b) if row),
        "side": "buy" if next(row.side for row in (a, b) if row) > 0 else "sell",
        "pnl_one": None if a is None else a.pnl,
        "pnl_other": None if b is None else b.pnl,
        "difference": (b.pnl if b else 0.0) - (a.pnl if a else 0.0),
        "cause": _main_cause(parts),
        "causes": dict(parts),
    }


def _main_cause(parts: Parts) -> Cause | None:
    return max(parts.items(), key=lambda item: abs(item[1]))[0] if parts else None


def parts_of(one: History, other: History, a: TradeRow, b: TradeRow) -> Parts:
    """Return what a pair's difference of profit is due to; empty where the two are alike."""
    parts: Parts = {}

    def put(cause: Cause, pnl: float, *, differs: bool) -> None:
        if differs:
            parts[cause] = parts.get(cause, 0.0) + pnl

    worth = _worth_of_point(a) or _worth_of_point(b) or 1.0
    entry = -b.side * b.size * worth * (b.entry_price - a.entry_price)
    leave = b.side * b.size * worth * (b.exit_price - a.exit_price)
    units = a.side * (b.size - a.size) * worth * (a.exit_price - a.entry_price)
    paid = (a.fees - b.fees) + (b.carry - a.carry)
    rounding = (b.gross - a.gross) - entry - leave - units  # and another multiplier
    put("costs", paid + rounding, differs=abs(paid + rounding) > _slack(a, b))
    put(_why_units(one, other), units, differs=a.size != b.size)
    moved = a.opened_at_ns != b.opened_at_ns
    cause = _why_entry(one, other, a, b)
    for part, pnl in _late_and_filled(one, a, b, entry, cause, at="entry").items():
        put(part, pnl, differs=moved or a.entry_price != b.entry_price)
    is_late = a.closed_at_ns != b.closed_at_ns or a.exit_reason != b.exit_reason
    why = cause if is_late and moved else _why_exit(one, other, a, b)
    for part, pnl in _late_and_filled(one, a, b, leave, why, at="exit").items():
        put(part, pnl, differs=is_late or a.exit_price != b.exit_price)
    return parts


def _slack(a: TradeRow, b: TradeRow) -> float:
    return 1e-9 * max(1.0, abs(a.gross), abs(b.gross), a.fees, b.fees)


def _worth_of_point(row: TradeRow) -> float | None:
    points = (row.exit_price - row.entry_price) * row.side * row.size
    return row.gross / points if points else None


def _late_and_filled(
    one: History, a: TradeRow, b: TradeRow, pnl: float, cause: Cause, *, at: str
) -> Parts:
    """Split what being late cost from what the fill was worse by, where the market is known."""
    if cause != "latency":
        return {cause: pnl}
    is_entry = at == "entry"
    side = b.side if is_entry else -b.side
    first, then = (a.opened_at_ns, b.opened_at_ns) if is_entry else (a.closed_at_ns, b.closed_at_ns)
    before, after = one.touch(first, side), one.touch(then, side)
    if before is None or after is None:
        return {"latency": pnl}
    worth = _worth_of_point(a) or _worth_of_point(b) or 1.0
    late = -side * b.size * worth * (after - before)
    if abs(pnl - late) <= _slack(a, b):
        return {"latency": pnl}
    return {"latency": late, "fill": pnl - late}


def _why_units(one: History, other: History) -> Cause:
    """Return why two trades of one order differ in units."""
    told = [side.settings.get("backtest") for side in (one, other)]
    return "signal" if None not in told and told[0] != told[1] else "fill"


def _why_entry(one: History, other: History, a: TradeRow, b: TradeRow) -> Cause:
    tiers = one.tier(a), other.tier(b)
    if None not in tiers and tiers[0] != tiers[1]:
        return "tier"
    if a.decided_at_ns != b.decided_at_ns and a.decided_at_ns and b.decided_at_ns:
        return _tick_or(one, other, a.decided_at_ns, b.decided_at_ns, "signal")
    return _why_fill(one, other, a, b, (a.opened_at_ns, b.opened_at_ns))


def _why_exit(one: History, other: History, a: TradeRow, b: TradeRow) -> Cause:
    if "signal" in (a.exit_reason, b.exit_reason) and a.exit_reason != b.exit_reason:
        return "signal"
    return _why_fill(one, other, a, b, (a.closed_at_ns, b.closed_at_ns))


def _why_fill(
    one: History, other: History, a: TradeRow, b: TradeRow, at_ns: tuple[int, int]
) -> Cause:
    """Return why one order filled at another time, or at another price."""
    if at_ns[0] != at_ns[1]:
        late = a.latency_ms != b.latency_ms or one.costs(LATE) != other.costs(LATE)
        return _tick_or(one, other, *at_ns, "latency" if late else "fill")
    ticks = one.tick(at_ns[0]), other.tick(at_ns[0])
    if None not in ticks and ticks[0] != ticks[1]:
        return "data revision"
    known = [side.costs(DEAR) for side in (one, other)]
    return "costs" if None not in known and known[0] != known[1] else "fill"


def _tick_or(one: History, other: History, one_ns: int, other_ns: int, else_: Cause) -> Cause:
    """Return ``missed tick`` or ``data revision`` where recordings differ there, else a cause."""
    if one.quotes is None or other.quotes is None:
        return else_
    for at_ns in (one_ns, other_ns):
        ticks = one.tick(at_ns), other.tick(at_ns)
        if ticks[0] != ticks[1]:
            return "missed tick" if None in ticks else "data revision"
    return else_


def _by_time(trades: list[tuple[TradeRow, Cause | None]]) -> list[tuple[TradeRow, Cause | None]]:
    return sorted(trades, key=lambda pair: pair[0].seen_ns)


def _why_alone(
    trade: TradeRow,
    here: History,
    there: History,
    others: list[tuple[TradeRow, Cause | None]],
) -> Cause:
    """Return why the other side has no such trade."""
    if there.decided and trade.decided_at_ns and (why := _why_not(trade.decided_at_ns, there)):
        return why
    if there.quotes is not None and trade.decided_at_ns and there.tick(trade.decided_at_ns) is None:
        return "missed tick"
    at = bisect_right(others, trade.seen_ns, key=lambda pair: pair[0].seen_ns) - 1
    if at >= 0:  # the other side may have been in a position that began or ended differently
        row, cause = others[at]
        if cause and trade.seen_ns < row.closed_at_ns:
            return cause
    return "tier" if here.tier(trade) not in (None, BEST) else "signal"


def _why_not(at_ns: int, run: History) -> Cause | None:
    """Return why a live run did not trade on a quote; None where it was in a position."""
    if (said := run.decided.get(at_ns)) is None:
        return "missed tick"
    if said.outcome == "busy":
        return None
    if said.outcome in ("order", "rejected"):  # sent, and not filled, or not for good yet
        return "fill"
    return "signal" if said.tier == BEST else "tier"


def _settings_that_differ(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, list[Any]]:
    flat = [
        {
            f"{section}.{name}" if isinstance(values, Mapping) else section: value
            for section, values in side.items()
            for name, value in (values.items() if isinstance(values, Mapping) else (("", values),))
        }
        for side in (one, other)
    ]
    if not one or not other:
        return {}
    return {
        name: [flat[0].get(name), flat[1].get(name)]
        for name in sorted(flat[0].keys() | flat[1].keys())
        if flat[0].get(name) != flat[1].get(name)
    }
