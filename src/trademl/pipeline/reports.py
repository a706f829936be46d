"""Write the report of a run that the ledger remembers."""

from __future__ import annotations

from pathlib import Path

from trademl.errors import StoreError
from trademl.ledger import tables
from trademl.monitor.report import write_report
from trademl.monitor.tear_sheet import write_tear_sheet
from trademl.pipeline.workspace import Workspace
from trademl.train.verdicts import gate_entry

_ARTIFACTS = ("batch", "dataset", "tuning", "selected", "evaluation", "backtest")


def report_last_run(workspace: Workspace) -> Path:
    """Write the report of the last finished run again, and return its path.

    Raises
    ------
    StoreError
        If no run has finished in this workspace.
    """
    runs = workspace.ledger.rows(tables.Run, status="done")
    if not runs:
        raise StoreError(f"no run has finished in {workspace.root}: run trademl run")
    ids = runs[-1].artifacts
    if "allocation" in ids:
        return write_tear_sheet(ids["backtest"], workspace.store, workspace.root / "reports")
    result = {
        name: {"id": ids[name], **workspace.store.get(ids[name]).metrics}
        if ids[name]
        else {"id": None}
        for name in _ARTIFACTS
    }
    gate = workspace.ledger.get(tables.Gate, ids["gate"])
    if gate is None:
        raise StoreError(f"the ledger has lost the verdict {ids['gate']}: run trademl run")
    result["gate"] = gate_entry(gate)
    deployment = workspace.ledger.get(tables.Deployment, ids["deployment"] or "")
    result["deployment"] = {
        "id": ids["deployment"],
        "mode": deployment.mode if deployment else None,
    }
    return write_report(result, workspace.store, workspace.root / "reports")
