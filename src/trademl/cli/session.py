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


@contextmanager
def open_session(
    config: Path | None,
    workspace: Path | None,
    *,
    flags: Mapping[str, Any] | None = None,
    needs_file: bool = True,
) -> Iterator[Session]:
    """Yield a session; the workspace is closed when the block ends.

    Parameters
    ----------
    needs_file : bool
        Refuse to go on without a strategy file; else defaults do.
    """
    from trademl.config import find_strategy_file, load_settings
    from trademl.pipeline.workspace import Workspace as Opened

    if config is not None or needs_file:
        config = find_strategy_file(config)
    settings = load_settings(config, workspace=workspace, flags=flags)
    with Opened(settings.workspace) as opened, progress_display() as progress:
        yield Session(settings.strategy, opened, progress)
