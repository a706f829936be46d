"""A model card as Markdown, its verdict first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any


def card_markdown(card: Mapping[str, Any]) -> str:
    """Return a card as a page of Markdown; sections that the card lacks are left out."""
    parts = [
        _head(card),
        _data(card["data"]),
        _section("Costs", _table(("assumed", "value"), card["costs"].items())),
        _training(card["model"]),
        _figures(card.get("figures", [])),
        *(_gate(gate) for gate in card.get("gates", [])),
        _backtests(card.get("backtests", [])),
        _section("Champion", [f"- of {r['strategy']}: {_span(r)}" for r in card.get("reigns", [])]),
        _section("Limits", [f"- {limit}" for limit in card["limits"]]),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(card: Mapping[str, Any]) -> str:
    selection = card["selection"]
    lines = [f"# {card['id']}", "", f"**{selection['verdict']}**"]
    lines += [f"- {reason}" for reason in selection["reasons"]]
    lines += ["", f"A {card['kind']}.", ""]
    return "\n".join([*lines, *(f"- `{n}`: `{h}`" for n, h in card["hash"].items())])


def _data(data: Mapping[str, Any]) -> str:
    lines = [f"{data['instrument']}, {data['columns']} columns, `{data['dataset']}`.", ""]
    if names := data.get("names"):
        lines += ["Columns: " + ", ".join(f"`{n}`" if n != "..." else n for n in names), ""]
    rows = (
        (name, part["rows"], _day(part["from_ns"]), _day(part["to_ns"]),
         _number(part["label_rate"]), _number(part["mean_pnl"]))
        for name, part in data["splits"].items()
    )  # fmt: skip
    heads = ("split", "rows", "from (UTC)", "to (UTC)", "base rate", "mean net PnL of every row")
    return _section("Data", [*lines, *_table(heads, rows)])


def _training(model: Mapping[str, Any]) -> str:
    cut = model["threshold"]
    threshold = "" if cut is None else f", threshold {_number(cut)}"
    lines = [f"Trial {model['trial']} of `{model['study']}`{threshold}."]
    return _section(
        "Training", [*lines, "", *_table(("setting", "value"), model["hyperparameters"].items())]
    )


def _figures(figures: Sequence[Mapping[str, Any]]) -> str:
    rows = (
        (
            f["name"],
            f["split"],
            _number(f["value"]),
            _interval(f),
            _number(f["baseline"]),
            f["versus"],
        )
        for f in figures
    )
    heads = ("figure", "rows", "value", "95 % interval", "baseline", "which is")
    return _section("Figures", _table(heads, rows))


def _gate(gate: Mapping[str, Any]) -> str:
    rows = ((c["name"], c["verdict"], c["says"]) for c in gate["checks"])
    lines = [f"**{gate['verdict']}** for strategy {gate['strategy']}: {gate['headline']}.", ""]
    return _section("Gate", [*lines, *_table(("check", "verdict", "says"), rows)])


def _backtests(found: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for one in found:
        sharpe = (one["figures"] or {}).get("sharpe") or dict.fromkeys(("value", "low", "high"))
        plain = one["baseline"] or {}
        rows.append(
            (f"`{one['id']}`", one["n_trades"], _number(one["net_pnl"]), _number(sharpe["value"]),
             _interval(sharpe), _number(plain.get("net_pnl")))
        )  # fmt: skip
    heads = (
        "backtest",
        "trades",
        "net PnL",
        "Sharpe",
        "95 % interval",
        "net PnL of every signal, or of equal weights",
    )
    return _section("Backtests", _table(heads, rows))


def _section(title: str, lines: Sequence[str]) -> str:
    return "\n".join([f"## {title}", "", *lines]) if lines else ""


def _table(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    body = ["| " + " | ".join(_cell(value) for value in row) + " |" for row in rows]
    if not body:
        return []
    return ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads), *body]


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")


def _day(ns: int | None) -> str:
    return "" if ns is None else f"{datetime.fromtimestamp(ns / 1e9, UTC):%Y-%m-%d %H:%M}"


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4g}"


def _interval(figure: Mapping[str, Any]) -> str:
    if figure["low"] is None:
        return "none"
    return f"{_number(figure['low'])} to {_number(figure['high'])}"


def _span(reign: Mapping[str, Any]) -> str:
    until = (reign["to_at"] or "now")[:19]
    return f"{reign['from_at'][:19]} to {until}, {reign['how']}: {reign['why']}"
