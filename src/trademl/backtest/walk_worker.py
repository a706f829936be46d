"""A process that learns windows of a walk-forward: ``python -m trademl.backtest.walk_worker``.

Reads lines of JSON: first what all windows share, then one window's number after another; writes
one line for each: the id of its model, or why it has none. It ends when its input does, that is,
when the walk-forward ends or is killed, even in the middle of a window.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from trademl.backtest.walk_windows import LearnSettings, learn_window, plan_windows
from trademl.errors import DataError, TrademlError, TrainError
from trademl.ingest.batch import read_batch
from trademl.ledger import Database, Ledger
from trademl.store.artifacts import ArtifactStore, get_artifact


def main() -> None:
    """Serve until the input ends."""
    lines: SimpleQueue[str] = SimpleQueue()
    threading.Thread(target=_read_lines, args=(lines,), daemon=True).start()
    learn = _learner(json.loads(lines.get()))
    while True:
        sys.stdout.write(json.dumps(_answer(learn, json.loads(lines.get()))) + "\n")
        sys.stdout.flush()


def _read_lines(lines: SimpleQueue[str]) -> None:
    for line in sys.stdin:
        lines.put(line)
    os._exit(0)  # nobody waits for an answer any more


def _learner(job: dict[str, Any]) -> Callable[[int], str]:
    import msgspec

    settings = msgspec.convert(job["settings"], LearnSettings)
    artifact = get_artifact(Path(job["batch"]))
    batch, store = read_batch(artifact), ArtifactStore(Path(job["store"]))
    windows = plan_windows(batch, settings)
    opened = Ledger(Database(**job["ledger"]))

    def learn(number: int) -> str:
        return learn_window(batch, artifact.id, windows[number], settings, store, opened).id

    return learn


def _answer(learn: Callable[[int], str], number: int) -> dict[str, str]:
    try:
        return {"model": learn(number)}
    except (DataError, TrainError) as error:
        return {"untrained": str(error)}
    except TrademlError as error:
        return {"error": type(error).__name__, "message": str(error)}


if __name__ == "__main__":
    main()
