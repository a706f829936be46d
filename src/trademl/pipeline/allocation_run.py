"""The life cycle of an allocation: read, walk by quarters, prove, publish, gate, keep.

Each quarter's model is an artifact with a card, its trades and weights are a backtest like any
other, and the verdict stands beside those of models of orders.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from trademl.backtest.allocation import Allocation, AllocationRules
from trademl.backtest.allocation_gate import judge_quarters
from trademl.backtest.allocation_report import allocation_figures
from trademl.backtest.jobs import EQUITY, TRADES, settings_of, write_rows
from trademl.backtest.quarterly_proof import prove_rows
from trademl.backtest.round_trips import round_trips
from trademl.errors import require_extra
from trademl.ledger import tables
from trademl.monitor.tear_sheet import write_tear_sheet
from trademl.pipeline.allocate import AllocationReport, allocate, read_market
from trademl.pipeline.allocation_card import forecaster_card
from trademl.pipeline.allocation_ledger import allocation_look, record_allocation
from trademl.pipeline.recorded import Result, recorded
from trademl.pipeline.strategy import Strategy
from trademl.pipeline.workspace import Workspace
from trademl.ports import Progress, Silent
from trademl.store.artifacts import Artifact, ArtifactStore, Draft
from trademl.store.identity import artifact_id, digest_bytes, digest_file
from trademl.train.card_file import write_card
from trademl.train.looks import count_looks
from trademl.train.model import save_model
from trademl.train.model_archive import MODEL_FILE
from trademl.train.network_config import NETWORK
from trademl.train.proof import FORECASTER, check_proof
from trademl.train.registry import promote
from trademl.train.verdicts import gate_entry

REALISM = {
    "prices": "bars; half of an assumed spread on either side where they have one price",
    "adjustments": "splits and dividends forward only, never by later factors",
    "fills": "the first bar that ends after decision, delay and latency",
}


def run_allocation_strategy(
    strategy: Strategy,
    workspace: Workspace,
    *,
    environment: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> Result:
    """Take a strategy with ``[allocation]`` from its bars to a verdict, all of it in the ledger.

    Parameters
    ----------
    environment : mapping, optional
        Of the processes that train a network.

    Returns
    -------
    dict
        One entry for each of ``allocation`` (what `trademl.pipeline.allocate.allocate` measures),
        ``selected`` (the newest quarter's model), ``gate``, ``backtest``, ``report`` and
        ``ledger``, each with its ``id``.

    Raises
    ------
    ConfigError, DataError
        As `allocate`.
    LockedError
        If another run holds the workspace.
    """
    require_extra("backtest", "monitor")
    progress = progress or Silent()
    with workspace.lock(), recorded(strategy, workspace) as result:
        store, ledger = workspace.store, workspace.ledger
        allocation = _published(strategy, store, environment or {}, progress)
        backtest = store.get(allocation.metrics["backtest"])
        record_allocation(allocation, backtest, store, ledger)
        newest = store.get(allocation.metrics["fits"][-1]["model"])
        gate = _gate(allocation, newest, strategy, workspace)
        if gate.verdict == "promote":
            check_proof(newest, store, ledger)
            promote(ledger, strategy.name, newest.id, how="gate")
        result["allocation"] = {"id": allocation.id, **allocation.metrics}
        result["selected"] = {"id": newest.id, **newest.metrics}
        result["gate"] = gate_entry(gate)
        result["backtest"] = {"id": backtest.id, **backtest.metrics}
        page = write_tear_sheet(backtest.id, store, workspace.root / "reports")
        result["report"] = {"id": str(page)}
        result["ledger"] = {"id": str(workspace.ledger.database)}
    return result


def _gate(
    allocation: Artifact, newest: Artifact, strategy: Strategy, workspace: Workspace
) -> tables.Gate:
    """Judge the walk, whose verdict is that of its newest model; the first answer stands."""
    ledger, found = workspace.ledger, allocation.metrics
    parameters = {"gate": asdict(strategy.gate), "seed": strategy.seed, "strategy": strategy.name}
    identity = artifact_id("gate", {"model": newest.id, "champion": ""}, parameters)
    if (kept := ledger.get(tables.Gate, identity)) is not None:
        return kept
    judged = judge_quarters(
        np.array(found["returns"]),
        np.array(found["equal_returns"]),
        found["annual_return_by_cost"],
        strategy.gate,
        n_tried=count_looks(allocation_look(allocation, ledger), ledger),
        seed=strategy.seed,
    )
    row = tables.Gate(
        id=identity,
        strategy=strategy.name,
        model_id=newest.id,
        champion_id=None,
        verdict=judged.verdict,
        reasons=judged.reasons,
        report={**judged.as_dict(), "config": asdict(strategy.gate), "seed": strategy.seed},
    )
    return ledger.first(row)


def _published(
    strategy: Strategy, store: ArtifactStore, environment: Mapping[str, str], progress: Progress
) -> Artifact:
    inputs, parameters = _inputs(strategy), _parameters(strategy)
    identity = artifact_id("allocation", inputs, parameters)
    if (kept := store.find(identity)) is not None:
        progress.step("walk")
        progress.done(f"kept {kept.id}")
        return kept
    report = allocate(strategy, environment=environment, progress=progress)
    progress.step("prove")
    evidence = prove_rows(*read_market(strategy.allocation), strategy.allocation)
    progress.done(f"{evidence.n_cells} cells made again from bars cut off at a decision")
    data_id = f"snapshots-{digest_bytes('|'.join(sorted(inputs.values())).encode())[:12]}"
    with store.create(identity, parents=[data_id], parameters=parameters) as draft:
        _write_backtest(draft, report, strategy, store)
        draft.metrics.update(report.metrics)
        draft.metrics["data"] = _data(data_id, report)
        draft.metrics["proof"] = {"is_proven": evidence.is_proven, **vars(evidence)}
        draft.metrics["fits"] = [
            _write_forecaster(k, draft, report, strategy, store)
            for k in range(len(report.walk.fits))
        ]
        draft.metrics["quarters"] = _quarters(draft, report)
    return store.get(identity)


def _inputs(strategy: Strategy) -> dict[str, str]:
    config = strategy.allocation
    files = [Path(name) for name in config.bars]
    if config.factors:
        files += sorted(Path(config.factors).glob("*.csv"))
    return {f"{n} {path.name}": digest_file(path) for n, path in enumerate(files) if path.is_file()}


def _parameters(strategy: Strategy) -> dict[str, Any]:
    told = asdict(strategy.allocation)
    told["bars"] = [Path(name).name for name in strategy.allocation.bars]
    told["factors"] = Path(strategy.allocation.factors).name
    found: dict[str, Any] = {
        **settings_of(
            strategy.costs, replace(strategy.backtest, capital=AllocationRules().capital)
        ),
        "allocation": told,
        "seed": strategy.seed,
    }
    if strategy.allocation.model == NETWORK:
        found |= {"network": asdict(strategy.network), "training": asdict(strategy.training)}
    return found


def _data(data_id: str, report: AllocationReport) -> dict[str, Any]:
    rows = report.walk.rows
    known = np.isfinite(rows.target_N)
    return {
        "id": data_id,
        "bars": f"bars-{data_id.rpartition('-')[2]}",
        "columns": list(rows.columns),
        "rows": int(known.sum()),
        "share_up": float((rows.target_N[known] > 0).mean()),
        "from_ns": int(rows.ends_ns_N.min() - report.period_ns),
        "to_ns": int(rows.ends_ns_N[known].max()),
    }


def _write_backtest(
    draft: Draft, report: AllocationReport, strategy: Strategy, store: ArtifactStore
) -> None:
    """Publish trades, equity and figures as a backtest, as other strategies have them."""
    rules = AllocationRules(band=strategy.allocation.band)
    told = allocation_figures(
        report.prices, report.walk.weights, strategy.costs, rules=rules, seed=strategy.seed
    )
    trades = round_trips(
        report.model, report.prices, report.walk.weights, strategy.costs, report.symbols
    )
    identity = artifact_id("backtest", {"allocation": draft.id}, {})
    parameters = _parameters(strategy)
    with store.create(identity, parents=[draft.id], parameters=parameters) as made:
        write_rows(made.path / TRADES, trades, tables.Trade)
        write_rows(made.path / EQUITY, _equity_rows(report.model, rules.capital), tables.Equity)
        made.metrics.update(told | _performance(trades, report.model, rules.capital))
        made.metrics.update(
            benchmarks={"equal_weights": _performance([], report.equal, rules.capital)},
            skipped_while_in_position=0,
            unfilled=told["waiting"],
            is_open_at_end=False,
            stopped=None,
            realism=REALISM,
        )
    draft.metrics["backtest"] = identity


def _equity_rows(account: Allocation, capital: float) -> list[dict[str, object]]:
    return [
        {"ts_event_ns": int(ts), "equity": float(value - capital)}
        for ts, value in zip(account.ts_ns, account.equity, strict=True)
    ]


def _performance(
    trades: Sequence[Mapping[str, Any]], account: Allocation, capital: float
) -> dict[str, Any]:
    """Return what backtests of every kind say first; None of what was not counted."""
    pnl = np.array([trade["pnl"] for trade in trades])
    depth = (np.maximum.accumulate(account.equity) - account.equity).max()
    lost = -float(pnl[pnl <= 0].sum())
    return {
        "n_trades": len(trades) if trades else None,
        "net_pnl": float(account.equity[-1] - capital),
        "fees": float(account.fee.sum()),
        "carry": 0.0,
        "hit_rate": float((pnl > 0).mean()) if len(pnl) else None,
        "profit_factor": float(pnl[pnl > 0].sum()) / lost if lost > 0 else None,
        "max_drawdown": float(depth),
        "exposure": float((account.cash < account.equity).mean()),
    }


def _write_forecaster(
    number: int, draft: Draft, report: AllocationReport, strategy: Strategy, store: ArtifactStore
) -> dict[str, Any]:
    """Publish a quarter's model with its card; return what the allocation says of it."""
    walk, fitted = report.walk, report.walk.fits[number]
    first = int(np.flatnonzero(walk.fit_R == number)[0])
    parents = [draft.id, draft.metrics["data"]["id"]]
    identity = artifact_id(FORECASTER, {"allocation": draft.id}, {"number": number})
    verdict, reasons = str(report.metrics["verdict"]), report.reasons
    model = replace(
        fitted.model,
        status="refused" if reasons else "accepted",
        reasons=reasons,
        parents=tuple(parents),
    )
    told = {
        "trial": number,
        "status": model.status,
        "verdict": verdict,
        "reasons": list(reasons),
        "decided_ns": int(walk.weights.ts_ns[first]),
        "n_rows": int(walk.n_rows_R[first]),
        "validation_gain": fitted.gain,
        "hyperparameters": {n: str(v) for n, v in model.hyperparameters.items()},
    }
    with store.create(identity, parents=parents, parameters={"number": number}) as made:
        save_model(model, made.path / MODEL_FILE)
        made.metrics.update(told)
        card = forecaster_card(identity, made.path / MODEL_FILE, model, told, report, strategy)
        write_card(card, made.path)
    return {"model": identity, **told}


def _quarters(draft: Draft, report: AllocationReport) -> list[dict[str, Any]]:
    """Return what each decision gave each asset: rows of the ledger, without the backtest's id."""
    walk = report.walk

    def number(value: float) -> float | None:
        return float(value) if np.isfinite(value) else None

    return [
        {
            "number": r,
            "instrument": symbol,
            "decided_at_ns": int(walk.weights.ts_ns[r]),
            "model_id": draft.metrics["fits"][int(walk.fit_R[r])]["model"],
            "weight": float(walk.weights.weight[r, a]),
            "equal_weight": float(walk.equal.weight[r, a]),
            "forecast": number(walk.forecast_RA[r, a]),
            "realised": number(walk.realised_RA[r, a]),
        }
        for r in range(len(walk.weights))
        for a, symbol in enumerate(report.symbols)
    ]
