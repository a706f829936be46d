"""A backtest on one self-contained HTML page, as a picture, and as tables for other tools."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trademl.backtest.figures import Returns, returns_of
from trademl.backtest.jobs import EQUITY, TRADES
from trademl.errors import ConfigError, StoreError, require_extra
from trademl.market.quotes import NS_PER_S
from trademl.monitor.report import page_environment
from trademl.store.artifacts import Artifact, ArtifactStore, storage_errors, write_atomically

if TYPE_CHECKING:
    import pyarrow as pa

MOST_POINTS = 2_000  # of a curve, and of trades drawn
ROLLING = 30  # returns of one rolling Sharpe ratio
LISTED = 200  # trades on the page
KINDS = ("backtest", "walkforward")  # of artifacts with trades and equity


@dataclass(frozen=True, slots=True)
class Sheet:
    """What a tear sheet shows of a backtest; E points of equity, N trades."""

    artifact: Artifact
    ts_ns: NDArray[np.int64]
    equity: NDArray[np.float64]
    trades: pa.Table

    @property
    def capital(self) -> float:
        """What returns are measured against."""
        return float(self.artifact.manifest["parameters"]["backtest"]["capital"])

    @property
    def held_s(self) -> NDArray[np.float64]:
        """How long each trade was held, shape (N,)."""
        opened, closed = (self.column(name) for name in ("opened_at_ns", "closed_at_ns"))
        return np.asarray((closed - opened) / NS_PER_S)

    def column(self, name: str) -> NDArray[Any]:
        """Return a column of the trades."""
        return np.asarray(self.trades[name])


def write_tear_sheet(
    backtest_id: str | None,
    store: ArtifactStore,
    folder: Path,
    *,
    png: Path | None = None,
    csv: Path | None = None,
    parquet: Path | None = None,
    has_picture: bool = False,
) -> Path:
    """Write the tear sheet of a backtest, and the picture and tables asked for.

    Parameters
    ----------
    backtest_id : str, optional
        A backtest or a walk-forward; the newest where left out.
    folder : Path
        Where the page goes; its name is the backtest's.
    png, csv, parquet : Path, optional
        A picture of equity and trades; the trades as a table.
    has_picture : bool
        Write the picture beside the page, under its name, where ``png`` names no other place.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    StoreError
        If there is no such backtest, or a file cannot be written.
    ConfigError
        If the name of a file does not end as its kind does.
    MissingExtraError
        If the ``monitor`` extra is not installed.
    """
    wanted = {".png": png, ".csv": csv, ".parquet": parquet}
    for suffix, path in wanted.items():
        if path is not None and path.suffix != suffix:
            raise ConfigError(f"{path}: expected a name that ends in {suffix}")
    require_extra("monitor")
    sheet = read_sheet(_chosen(backtest_id, store))
    page = folder / f"{sheet.artifact.id}.html"
    if has_picture and png is None:
        wanted[".png"] = page.with_suffix(".png")
    with storage_errors(folder):
        write_atomically(page, render_sheet(sheet).encode())
    for path in wanted.values():
        if path is not None:
            with storage_errors(path.parent, "folder"):
                write_atomically(path, _exported(sheet, path.suffix))
    return page


def _chosen(artifact_id: str | None, store: ArtifactStore) -> Artifact:
    if artifact_id is None:
        made = [store.newest(kind) for kind in KINDS if store.all_of(kind)]
        if made:
            return max(made, key=lambda artifact: artifact.manifest["created_at"])
    found = store.newest("backtest", artifact_id)
    if found.manifest["kind"] not in KINDS:
        raise StoreError(f"{found.id} is no backtest: give the id of one, or of a walk-forward")
    return found


def _exported(sheet: Sheet, suffix: str) -> bytes:
    if suffix == ".png":
        return picture(sheet)
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet as pq

    out = pa.BufferOutputStream()
    if suffix == ".csv":
        pyarrow.csv.write_csv(sheet.trades, out)
    else:
        pq.write_table(sheet.trades, out)
    return out.getvalue().to_pybytes()  # type: ignore[no-any-return]


def read_sheet(backtest: Artifact) -> Sheet:
    """Return what the sheet shows."""
    import pyarrow.parquet as pq

    curve, trades = (pq.read_table(backtest.file(name)) for name in (EQUITY, TRADES))
    return Sheet(
        backtest,
        np.asarray(curve["ts_event_ns"], np.int64),
        np.asarray(curve["equity"], float),
        trades,
    )


def render_sheet(sheet: Sheet) -> str:
    """Return the page: no script, and nothing that a network would have to bring."""
    environment = page_environment()
    from trademl.monitor import charts

    metrics, returns = sheet.artifact.metrics, _returns(sheet)
    pnl, held_s = sheet.column("pnl"), sheet.held_s
    drawn = _thinned(len(pnl))
    seen = _curve_points(sheet.equity)
    ends_ns, sharpe = rolling_sharpe(sheet.ts_ns, returns)
    some = _thinned(len(sharpe))
    has_curve = len(seen) > 1
    return environment.get_template("tear_sheet.html.j2").render(
        id=sheet.artifact.id,
        made_at=sheet.artifact.manifest["created_at"],
        parameters=sheet.artifact.manifest["parameters"],
        parents=sheet.artifact.manifest["parents"],
        metrics=metrics,
        figures={n: v for n, v in metrics["figures"].items() if isinstance(v, Mapping)},
        others={n: v for n, v in metrics["figures"].items() if not isinstance(v, Mapping)},
        benchmarks=metrics.get("benchmarks", {}),
        from_ns=int(sheet.ts_ns[0]) if has_curve else None,
        to_ns=int(sheet.ts_ns[-1]) if has_curve else None,
        equity_chart=charts.equity_chart(sheet.ts_ns[seen], sheet.equity[seen])
        if has_curve
        else "",
        sharpe_chart=charts.rolling_sharpe_chart(ends_ns[some], sharpe[some])
        if len(sharpe) > 1
        else "",
        rolling=ROLLING,
        step_s=returns.step_s,
        trades_chart=charts.trades_chart(held_s[drawn], pnl[drawn]) if len(pnl) else "",
        n_drawn=len(drawn),
        ladder_chart=charts.ladder_chart(metrics["cost_ladder"]) if metrics["cost_ladder"] else "",
        months=monthly(sheet.ts_ns, sheet.equity),
        trades=sheet.trades.slice(0, LISTED).to_pylist(),
        n_listed=min(LISTED, len(pnl)),
    )


def picture(sheet: Sheet) -> bytes:
    """Return equity, drawdown and trades as a PNG."""
    from trademl.monitor import charts

    seen, pnl = _curve_points(sheet.equity), sheet.column("pnl")
    drawn = _thinned(len(pnl))
    return charts.sheet_png(
        sheet.ts_ns[seen], sheet.equity[seen], sheet.held_s[drawn], pnl[drawn], sheet.artifact.id
    )


def _returns(sheet: Sheet) -> Returns:
    return returns_of(sheet.ts_ns, sheet.equity, sheet.capital)


def rolling_sharpe(
    ts_ns: NDArray[np.int64], returns: Returns
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the annualised Sharpe ratio of each `ROLLING` returns, and about when they end."""
    value_T = returns.value_T
    if len(value_T) < ROLLING:
        return np.empty(0, np.int64), np.empty(0)
    window = np.lib.stride_tricks.sliding_window_view(value_T, ROLLING)
    spread = window.std(axis=1, ddof=1)
    is_still = spread <= 1e-12 * np.abs(window).max(axis=1)
    ratio = np.divide(
        window.mean(axis=1), spread, out=np.full(len(window), np.nan), where=~is_still
    )
    step = (ts_ns - ts_ns[0]) // round(returns.step_s * NS_PER_S)
    last = np.append(np.flatnonzero(np.diff(step)), len(step) - 1)
    return ts_ns[last][ROLLING - 1 :], ratio * np.sqrt(returns.per_year)


def monthly(ts_ns: NDArray[np.int64], equity: NDArray[np.float64]) -> dict[int, list[float | None]]:
    """Return the profit of each month: year to twelve numbers, None where nothing was traded."""
    table: dict[int, list[float | None]] = {}
    if not len(ts_ns):
        return table
    month = ts_ns.astype("datetime64[ns]").astype("datetime64[M]").astype(np.int64)
    last = np.append(np.flatnonzero(np.diff(month)), len(month) - 1)
    for at, earned in zip(month[last], np.diff(equity[last], prepend=0.0), strict=True):
        year = table.setdefault(1970 + int(at) // 12, [None] * 12)
        year[int(at) % 12] = float(earned)
    return table


def _thinned(n: int) -> NDArray[np.int64]:
    """Return at most `MOST_POINTS` places, evenly, ends included."""
    return np.unique(np.linspace(0, n - 1, min(n, MOST_POINTS)).round().astype(np.int64))


def _curve_points(equity: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return places of a curve to draw: the lowest and the highest of each stretch, and the ends.

    So no trough and no peak is lost, however few points are drawn.
    """
    n = len(equity)
    if n <= MOST_POINTS:
        return np.arange(n)
    edges = np.linspace(0, n, MOST_POINTS // 2 + 1).astype(np.int64)
    kept = [0, n - 1]
    for start, stop in pairwise(edges):
        stretch = equity[start:stop]
        kept += [int(start + stretch.argmin()), int(start + stretch.argmax())]
    return np.unique(kept)
