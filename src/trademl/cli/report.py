"""``trademl report``: the HTML file of the last finished run."""

from __future__ import annotations

from trademl.cli import options
from trademl.cli.output import emit
from trademl.cli.session import open_session


def report(workspace: options.Workspace = None, json: options.Json = False) -> None:
    """Write the report of the last finished run again, and print its path."""
    from trademl.pipeline.reports import report_last_run

    with open_session(None, workspace, needs_file=False) as session:
        path = report_last_run(session.workspace)
    emit({"id": str(path)}, as_json=json, lines=[f"report: {path}"])
