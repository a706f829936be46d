"""Learn the windows of a walk-forward, in processes of their own where there are several cores."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from queue import SimpleQueue

from trademl import errors
from trademl.backtest.walk_windows import LearnSettings, Window, learn_window
from trademl.errors import DataError, TrademlError, TrainError
from trademl.ingest.batch import Batch
from trademl.ledger import Ledger
from trademl.ports import Progress
from trademl.store.artifacts import Artifact, ArtifactStore


@dataclass(frozen=True, slots=True)
class Learned:
    """What came of learning one window: a model's id, or why there is none."""

    model_id: str | None
    why_not: str = ""


def learn_windows(
    batch: Batch,
    artifact: Artifact,
    windows: Sequence[Window],
    settings: LearnSettings,
    store: ArtifactStore,
    ledger: Ledger,
    progress: Progress,
) -> list[Learned]:
    """Return what came of each window, learned side by side; finished ones are not done again.

    Raises
    ------
    TrademlError
        What is wrong with more than one window's data, such as a search that is refused.
    TrainError
        If a process died; what was finished is kept.
    """
    n = min(settings.walk.processes or len(os.sched_getaffinity(0)), len(windows))
    if n <= 1:
        found = []
        for window in windows:
            found.append(_learn_here(batch, artifact.id, window, settings, store, ledger))
            progress.advance(len(found), len(windows))
        return found
    _make_tables(ledger)
    job = {
        "settings": asdict(settings),
        "batch": str(artifact.path),
        "store": str(store.root),
        "ledger": asdict(ledger.database),
    }
    with _processes(json.dumps(job), n) as ask:
        found = []
        for answer in ask([window.number for window in windows]):
            found.append(answer)
            progress.advance(len(found), len(windows))
    return found


def _learn_here(
    batch: Batch,
    batch_id: str,
    window: Window,
    settings: LearnSettings,
    store: ArtifactStore,
    ledger: Ledger,
) -> Learned:
    try:
        return Learned(learn_window(batch, batch_id, window, settings, store, ledger).id)
    except (DataError, TrainError) as error:
        return Learned(None, str(error))


def _make_tables(ledger: Ledger) -> None:
    """Let Optuna make its tables once: processes that make them together would clash."""
    from trademl.train.study import open_storage, study_errors

    with study_errors(ledger.database):
        open_storage(ledger.database).engine.dispose()


class _Ask:
    """Hands out windows to idle processes, and their answers in order."""

    def __init__(self, processes: Sequence[subprocess.Popen[str]]) -> None:
        self._idle: SimpleQueue[subprocess.Popen[str]] = SimpleQueue()
        for process in processes:
            self._idle.put(process)
        self._threads = ThreadPoolExecutor(len(processes))

    def __call__(self, numbers: Sequence[int]) -> Iterator[Learned]:
        return self._threads.map(self._one, numbers)

    def close(self) -> None:
        self._threads.shutdown(cancel_futures=True)

    def _one(self, number: int) -> Learned:
        process = self._idle.get()
        try:
            return _answer(process, number)
        finally:
            self._idle.put(process)


def _answer(process: subprocess.Popen[str], number: int) -> Learned:
    if process.stdin is None or process.stdout is None:
        raise TrainError("a process that learns windows has no pipes")
    with suppress(BrokenPipeError):
        process.stdin.write(f"{number}\n")
        process.stdin.flush()
    if not (line := process.stdout.readline()).endswith("\n"):
        raise TrainError(
            f"the process that learned window {number} ended with {process.wait()}: if memory ran "
            "out, set --processes lower; run again, finished windows are kept"
        )
    answer = json.loads(line)
    if "error" in answer:
        raise getattr(errors, answer["error"], TrademlError)(answer["message"])
    return Learned(answer.get("model"), answer.get("untrained", ""))


@contextmanager
def _processes(job: str, n: int) -> Iterator[_Ask]:
    made = [
        subprocess.Popen(
            [sys.executable, "-m", "trademl.backtest.walk_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for the walk-forward, which then ends them
        )
        for _ in range(n)
    ]
    ask = _Ask(made)
    try:
        for process in made:
            if process.stdin is not None:
                with suppress(BrokenPipeError):
                    process.stdin.write(job + "\n")
        yield ask
    finally:
        for process in made:
            process.kill()
        ask.close()
        for process in made:
            with suppress(BrokenPipeError):
                process.communicate()
