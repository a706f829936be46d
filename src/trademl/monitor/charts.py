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
        figure.savefig(out, format="svg", metadata={"Date": None})
    text = out.getvalue()
    return text[text.index("<svg") :]
