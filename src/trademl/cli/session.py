"""What most verbs begin with: resolved settings, an opened workspace, a progress display."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trademl.cli.progress import progress_display

if TYPE_CHECKING:
    from trademl.pipeline.strategy import Strategy
    from trademl.pipeline.workspace import Workspace
    from trademl.ports import Progress


@dataclass(frozen=True)
class Session:
    """Everything a verb hands to its library function."""

    strategy: Strategy
    workspace: Workspace
    progress: Progress


def default_file() -> Path | None:
    """Return ``strategy.toml`` of the current folder, or None where there is none."""
    from trademl.config import DEFAULT_FILE

    path = Path(DEFAULT_FILE)
    return path if path.is_file() else None


@contextmanager
def open_session(
    config: Path | None,
    workspace: Path | None,
    *,
    flags: Mapping[str, Any] | None = None,
    needs_file: bool = True,
    finds_ledger: bool = True,
) -> Iterator[Session]:
    """Yield a session; the workspace is closed when the block ends.

    Parameters
    ----------
    needs_file : bool
        Refuse to go on without a strategy file; else defaults do.
    finds_ledger : bool
        Where no file is given, open the ledger that ``strategy.toml`` of this folder names.
    """
    from trademl.config import find_strategy_file, load_settings, open_workspace

    if config is not None or needs_file:
        config = find_strategy_file(config)
    settings = load_settings(
        config,
        workspace=workspace,
        flags=flags,
        ledger_of=default_file() if finds_ledger else None,
    )
    with open_workspace(settings) as opened, progress_display() as progress:
        yield Session(settings.strategy, opened, progress)
