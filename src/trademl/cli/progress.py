"""Show progress on stderr: a live line on a terminal, plain log lines without one."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from trademl.ports import Progress

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID


@contextmanager
def progress_display() -> Iterator[Progress]:
    """Yield a `Progress` that suits stderr."""
    if not sys.stderr.isatty():
        yield LogProgress()
        return
    from rich.console import Console
    from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (
        SpinnerColumn(finished_text="[green]✓"),
        TextColumn("{task.description:<10}"),
        BarColumn(bar_width=24),
        TimeElapsedColumn(),
        TextColumn("{task.fields[detail]}"),
    )
    with Bars(*columns, console=Console(stderr=True)) as bars:
        yield TerminalProgress(bars)


class LogProgress:
    """One line when a step begins, one when it ends."""

    def __init__(self) -> None:
        self._name = ""
        self._began = time.monotonic()

    def step(self, name: str, detail: str = "") -> None:
        """Print the step's name."""
        self._name, self._began = name, time.monotonic()
        self._print("..." if not detail else f"... {detail}")

    def advance(self, done: int, total: int) -> None:
        """Print nothing: a log needs no ticks."""

    def done(self, detail: str = "") -> None:
        """Print how long the step took, and its result."""
        self._print(f"done in {time.monotonic() - self._began:.1f} s  {detail}".rstrip())

    def _print(self, text: str) -> None:
        sys.stderr.write(f"{self._name:<10} {text}\n")
        sys.stderr.flush()


class TerminalProgress:
    """A line with a bar for each step."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._task: TaskID | None = None

    def step(self, name: str, detail: str = "") -> None:
        """Add a line."""
        self._task = self._bars.add_task(name, total=None, detail=detail)

    def advance(self, done: int, total: int) -> None:
        """Move the bar."""
        if self._task is not None:
            self._bars.update(self._task, completed=done, total=total)

    def done(self, detail: str = "") -> None:
        """Fill the bar and show the result."""
        if self._task is not None:
            self._bars.update(self._task, completed=1, total=1, detail=detail)
            self._bars.stop_task(self._task)
