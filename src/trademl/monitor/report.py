"""One self-contained HTML file of a run: it opens without a network and runs no script."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trademl.backtest.jobs import EQUITY
from trademl.errors import require_extra
from trademl.store.artifacts import ArtifactStore, storage_errors, write_atomically

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / "templates"


def write_report(
    result: Mapping[str, Mapping[str, Any]], store: ArtifactStore, folder: Path
) -> Path:
    """Write the report of a run, named after its model, and return its path.

    Parameters
    ----------
    result : mapping
        What `trademl.pipeline.run.run` returns.

    Raises
    ------
    MissingExtraError
        If the ``monitor`` extra is not installed.
    """
    path = folder / f"report-{result['selected']['id'].removeprefix('model-')}.html"
    with storage_errors(folder):
        write_atomically(path, render(result, store).encode())
    return path


def render(result: Mapping[str, Mapping[str, Any]], store: ArtifactStore) -> str:
    """Return the report's HTML."""
    environment = page_environment()
    from trademl.monitor import charts

    backtest = result["backtest"]["id"] and result["backtest"]
    evaluation = result["evaluation"]["id"] and result["evaluation"]
    return environment.get_template("report.html.j2").render(
        result=result,
        trials=_trials(result),
        tuning_chart=charts.tuning_chart(_trials(result), result["tuning"]["objective"]),
        equity_chart=charts.equity_chart(*_equity(store, backtest["id"])) if backtest else "",
        calibration_chart=charts.calibration_chart(evaluation["calibration"]) if evaluation else "",
        backtest=backtest,
        evaluation=evaluation,
        selected=result["selected"],
        gate=result["gate"],
        dataset=result["dataset"],
        batch=result["batch"],
    )


def page_environment() -> Environment:
    """Return Jinja's environment for pages: everything is escaped, nothing may be undefined.

    Raises
    ------
    MissingExtraError
        If the ``monitor`` extra is not installed.
    """
    require_extra("monitor")
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": _number, "share": _share, "time": _time}
    return environment


def _trials(result: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    reasons = {j["trial"]: j["reasons"] for j in result["selected"]["judgements"]}
    return [
        {**trial, "refused_because": reasons.get(trial["number"], [])}
        for trial in result["tuning"]["trials"]
    ]


def _equity(store: ArtifactStore, backtest_id: str) -> tuple[Any, Any]:
    import pyarrow.parquet as pq

    table = pq.read_table(store.get(backtest_id).file(EQUITY))
    return np.asarray(table["ts_event_ns"]), np.asarray(table["equity"])


def _number(value: float | None, digits: int = 4) -> str:
    return "–" if value is None else f"{value:,.{digits}g}"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _time(ns: int) -> str:
    return datetime.fromtimestamp(ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
