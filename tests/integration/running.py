"""What integration tests ask of a finished command."""

from __future__ import annotations

import subprocess


def artifact_ids(result: dict) -> dict[str, str]:
    """Return what must not depend on where and when a run took place."""
    return {name: entry["id"] for name, entry in result.items() if name not in ("report", "ledger")}


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    """Return the error of a failed command, which must be one line and no traceback."""
    errors = [line for line in done.stderr.splitlines() if line.startswith("trademl:")]
    assert len(errors) == 1, done.stderr
    assert "Traceback" not in done.stderr
    return errors[0]
