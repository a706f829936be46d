"""Charts as inline SVG, drawn without a display."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, GAIN, LOSS, QUIET = "#1f2933", "#0f766e", "#b91c1c", "#94a3b8"


def equity_chart(ts_ns: NDArray[np.int64], equity: NDArray[np.float64]) -> str:
    """Return the equity curve above its drawdown, both in quote currency per unit."""

    def draw(figure: Figure) -> None:
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
        times = ts_ns.astype("datetime64[ns]")
        drawdown = equity - np.maximum.accumulate(np.maximum(equity, 0.0))
        top.axhline(0, color=QUIET, lw=0.8)
        top.plot(times, equity, color=INK, lw=1.2)
        top.set_ylabel("equity")
        bottom.fill_between(times, drawdown, 0, color=LOSS, alpha=0.35, lw=0)
        bottom.set_ylabel("drawdown")
        figure.autofmt_xdate(rotation=0, ha="center")

    return _svg(draw, height=3.6)


def tuning_chart(trials: Sequence[Mapping[str, Any]], objective: str) -> str:
    """Return the objective of every trial in order; refused trials are hollow."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for trial in trials:
            if trial["objective"] is None:
                continue
            is_refused = bool(trial["refused_because"])
            axes.scatter(
                trial["number"],
                trial["objective"],
                facecolors="none" if is_refused else GAIN,
                edgecolors=LOSS if is_refused else GAIN,
                s=36,
            )
        axes.set_xlabel("trial (hollow: refused)")
        axes.set_ylabel(objective)

    return _svg(draw)


def calibration_chart(bins: Sequence[Mapping[str, Any]]) -> str:
    """Return the share of profitable orders against the mean score, bin by bin."""

    def draw(figure: Figure) -> None:
        axes: Axes = figure.subplots()
        filled = [b for b in bins if b["n"]]
        axes.plot([0, 1], [0, 1], color=QUIET, lw=0.8, ls="--")
        axes.plot(
            [b["mean_score"] for b in filled],
            [b["positive_rate"] for b in filled],
            color=INK,
            marker="o",
            ms=4,
            lw=1,
        )
        axes.set_xlabel("mean score")
        axes.set_ylabel("share that earned money")

    return _svg(draw)


def rolling_sharpe_chart(ts_ns: NDArray[np.int64], sharpe: NDArray[np.float64]) -> str:
    """Return the annualised Sharpe ratio of the returns before each moment; NaN is left out."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.axhline(0, color=QUIET, lw=0.8)
        axes.plot(ts_ns.astype("datetime64[ns]"), sharpe, color=INK, lw=1)
        axes.set_ylabel("Sharpe ratio")
        figure.autofmt_xdate(rotation=0, ha="center")

    return _svg(draw, height=2.2)


def trades_chart(held_s: NDArray[np.float64], pnl: NDArray[np.float64]) -> str:
    """Return profit against time held, a point for each trade."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.axhline(0, color=QUIET, lw=0.8)
        axes.scatter(held_s, pnl, c=np.where(pnl > 0, GAIN, LOSS), s=9, alpha=0.6, lw=0)
        axes.set_xlabel("seconds held")
        axes.set_ylabel("net PnL")

    return _svg(draw)


def ladder_chart(ladder: Mapping[str, float]) -> str:
    """Return the profit at each multiple of the costs."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        values = list(ladder.values())
        axes.bar(list(ladder), values, color=[GAIN if v > 0 else LOSS for v in values], width=0.5)
        axes.axhline(0, color=INK, lw=0.8)
        axes.set_ylabel("net PnL")

    return _svg(draw, height=2.2)


def sheet_png(
    ts_ns: NDArray[np.int64],
    equity: NDArray[np.float64],
    held_s: NDArray[np.float64],
    pnl: NDArray[np.float64],
    title: str,
) -> bytes:
    """Return equity, drawdown and trades as one picture, for where no HTML is shown."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 8), layout="constrained", dpi=110)
    canvas = FigureCanvasAgg(figure)
    top, middle, bottom = figure.subplots(3, 1, height_ratios=[3, 1, 2])
    times = ts_ns.astype("datetime64[ns]")
    drawdown = equity - np.maximum.accumulate(np.maximum(equity, 0.0))
    top.plot(times, equity, color=INK, lw=1.2)
    top.set_title(title.replace("$", r"\$"))
    top.set_ylabel("equity")
    middle.fill_between(times, drawdown, 0, color=LOSS, alpha=0.35, lw=0)
    middle.set_ylabel("drawdown")
    bottom.scatter(held_s, pnl, c=np.where(pnl > 0, GAIN, LOSS), s=9, alpha=0.6, lw=0)
    bottom.set_xlabel("seconds held")
    bottom.set_ylabel("net PnL")
    out = io.BytesIO()
    canvas.print_figure(out, format="png")
    return out.getvalue()


def _svg(draw: Callable[[Figure], None], *, height: float = 2.8) -> str:
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    style: Any = {
        "svg.hashsalt": "trademl",
        "svg.fonttype": "none",
        "font.family": "sans-serif",
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    with mpl.rc_context(style):
        figure = Figure(figsize=(7.2, height), layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure)
        out = io.StringIO()
        figure.savefig(
            out, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type"))
        )
    text = out.getvalue()
    return text[text.index("<svg") :]
