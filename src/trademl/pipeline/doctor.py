"""Examine an installation and a workspace: what is there, what is missing, what mends it."""

from __future__ import annotations

import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from trademl.errors import EXTRAS, TrademlError
from trademl.ledger import Database
from trademl.pipeline.ledger_upkeep import ledger_status
from trademl.pipeline.workspace import Workspace
from trademl.store.artifacts import ArtifactStore

NEEDED_TO_RUN = ("train", "serve", "backtest", "monitor")
PACKAGES = {
    **EXTRAS,
    "indicators": ("TA-Lib",),
}
MIN_FREE_GB = 1.0


@dataclass(frozen=True)
class Check:
    """One thing looked at: ``missing`` is an option not taken, ``failed`` stops `trademl run`."""

    name: str
    status: Literal["ok", "missing", "failed"]
    found: str
    mend: str = ""


def examine(root: Path, ledger: Database | None = None) -> list[Check]:
    """Look at the interpreter, every extra, and the workspace at ``root``; change nothing in it."""
    database = (ledger or Database()).at(root)
    return [_python(), *_extras(), *_workspace(root, database), *_server(root, database)]


def _python() -> Check:
    is_known = (3, 11) <= sys.version_info[:2] <= (3, 13)
    mend = "" if is_known else "install Python 3.11 to 3.13 and make a new environment with it"
    return Check("python", "ok" if is_known else "failed", platform.python_version(), mend)


def _extras() -> Iterator[Check]:
    for extra, packages in PACKAGES.items():
        found = {package: _version(package) for package in packages}
        absent = [package for package, version in found.items() if version is None]
        shown = ", ".join(f"{p} {v}" for p, v in found.items() if v) or "nothing"
        if not absent:
            yield Check(extra, "ok", shown)
            continue
        status: Literal["failed", "missing"] = "failed" if extra in NEEDED_TO_RUN else "missing"
        yield Check(
            extra,
            status,
            f"{shown}; lacks {', '.join(absent)}",
            f"pip install 'trademl[{extra}]'",
        )


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _server(root: Path, database: Database) -> Iterator[Check]:
    if database.is_file:
        return
    try:
        found = ledger_status(root, database)
    except TrademlError as error:
        yield Check("ledger", "failed", str(error), "see the message")
        return
    waiting = f"; {found.n_waiting + found.n_refused} results wait for it" if found.says else ""
    if found.is_usable:
        yield Check("ledger", "ok", f"{found.database}: {found.state}{waiting}", found.says)
    else:
        yield Check("ledger", "failed", f"{found.database}: {found.state}", found.says)


def _workspace(root: Path, database: Database) -> Iterator[Check]:
    where = next(p for p in (root.resolve(), *root.resolve().parents) if p.exists())
    free_gb = shutil.disk_usage(where).free / 1e9
    is_roomy = free_gb >= MIN_FREE_GB
    yield Check(
        "disk",
        "ok" if is_roomy else "failed",
        f"{free_gb:.1f} GB free at {where}",
        "" if is_roomy else f"free {MIN_FREE_GB:g} GB, or choose another --workspace",
    )
    if not root.exists():
        yield Check("workspace", "ok", f"{root} will be made")
        return
    if not database.is_file:
        n_batches = len(ArtifactStore(root / "artifacts").all_of("batch"))
        yield Check("workspace", "ok", f"{root}: {n_batches} batches")
        return
    try:
        with Workspace(root, database) as workspace:
            n_batches = len(workspace.store.all_of("batch"))
            yield Check("workspace", "ok", f"{workspace.root}: {n_batches} batches")
    except TrademlError as error:
        yield Check("workspace", "failed", str(error), "see the message")
