"""The card of a quarter's model of an allocation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trademl.pipeline.allocate import AllocationReport, mean_interval
from trademl.pipeline.strategy import Strategy
from trademl.store.identity import digest_file
from trademl.train.card_file import shown_columns
from trademl.train.model import Model


def forecaster_card(
    model_id: str,
    path: Path,
    model: Model,
    told: Mapping[str, Any],
    report: AllocationReport,
    strategy: Strategy,
) -> dict[str, Any]:
    """Return what is known of a quarter's model, and of the walk that it belongs to.

    Parameters
    ----------
    path : Path
        Of its ``model.tar.gz``.
    told : mapping
        The metrics of its artifact.
    """
    return {
        "id": model_id,
        "kind": model.kind,
        "hash": {path.name: digest_file(path), "schema": model.schema_hash},
        "data": _data(told, report, model),
        "costs": asdict(strategy.costs),
        "model": {
            "study": model.parents[0],
            "trial": told["trial"],
            "hyperparameters": told["hyperparameters"],
            "threshold": None,
        },
        "selection": {"verdict": told["verdict"], "reasons": told["reasons"]},
        "figures": _figures(told, report, strategy.seed),
        "limits": [
            *report.metrics["limits"],
            "figures of the walk are of all its quarters and models, not of this one alone",
            f"spread of bars with one price is assumed: {strategy.allocation.spread_bps:g} bps",
        ],
    }


def _data(told: Mapping[str, Any], report: AllocationReport, model: Model) -> dict[str, Any]:
    rows = report.walk.rows
    known = (rows.ends_ns_N <= told["decided_ns"]) & np.isfinite(rows.target_N)
    begins = int(rows.ends_ns_N.min() - report.period_ns)
    return {
        "instrument": ", ".join(report.symbols),
        "dataset": model.parents[1],
        "columns": len(model.columns),
        "names": shown_columns(model.columns),
        "splits": {
            "known at the decision": {
                "rows": int(known.sum()),
                "from_ns": begins,
                "to_ns": told["decided_ns"],
                "label_rate": float((rows.target_N[known] > 0).mean()),
                "mean_pnl": float(rows.target_N[known].mean()),
            }
        },
    }


def _figures(told: Mapping[str, Any], report: AllocationReport, seed: int) -> list[dict[str, Any]]:
    metrics = report.metrics
    ours, equal = metrics["account"], metrics["equal_weights"]
    own_R, equal_R = np.array(metrics["returns"]), np.array(metrics["equal_returns"])

    def figure(name: str, rows: str, value: Any, baseline: Any, versus: str) -> dict[str, Any]:
        return {
            "name": name, "split": rows, "value": value, "low": None, "high": None,
            "baseline": baseline, "versus": versus,
        }  # fmt: skip

    quarter = figure("mean return of a quarter", "walk", _mean(own_R), _mean(equal_R),
                     "equal weights")  # fmt: skip
    excess = figure("mean return beside equal weights", "walk", metrics["excess_per_quarter"], 0.0,
                    "equal weights")  # fmt: skip
    return [
        figure("share of squared error taken off", "validation", told["validation_gain"], 0.0,
               "the mean of the training rows"),
        quarter | _bounds(mean_interval(own_R, seed)),
        excess | _bounds(metrics["excess_interval"]),
        figure("annual return", "walk", ours["annual_return"], equal["annual_return"],
               "equal weights"),
        figure("deepest drawdown", "walk", ours["max_drawdown"], equal["max_drawdown"],
               "equal weights"),
        figure("correlation of forecast and return", "walk", metrics["forecast_correlation"], 0.0,
               "no forecast"),
    ]  # fmt: skip


def _mean(value_R: NDArray[np.float64]) -> float | None:
    return float(value_R.mean()) if len(value_R) else None


def _bounds(interval: Sequence[float] | None) -> dict[str, float | None]:
    low, high = interval or (None, None)
    return {"low": low, "high": high}
