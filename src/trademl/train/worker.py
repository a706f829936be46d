"""A process that trains trials for a search: ``python -m trademl.train.worker``.

Reads lines of JSON: first what all trials share, then one group of trials after another; writes
one line for each group. It ends when its input does, that is, when the search ends or is killed,
even in the middle of a group.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from trademl.errors import TrademlError
from trademl.train.batch import Ask, Job, train_group
from trademl.train.early_stopping import StoppingRule
from trademl.train.shared_splits import map_splits
from trademl.train.trials import Objective

_NOT_SENT = ("model_path", "direction")  # the search knows them


def main() -> None:
    """Serve until the input ends."""
    lines: SimpleQueue[str] = SimpleQueue()
    threading.Thread(target=_read_lines, args=(lines,), daemon=True).start()
    job = _job(json.loads(lines.get()))
    while True:
        answer = _answer(job, json.loads(lines.get()))
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _read_lines(lines: SimpleQueue[str]) -> None:
    for line in sys.stdin:
        lines.put(line)
    os._exit(0)  # nobody waits for an answer any more


def _job(facts: Mapping[str, Any]) -> Job:
    splits = map_splits(facts["fd"], facts["splits"])
    return Job(
        train=splits["train"],
        validation=splits["validation"],
        test=splits.get("test"),
        objective=Objective(**facts["objective"]),
        columns=tuple(facts["columns"]),
        seed=facts["seed"],
        folder=Path(facts["folder"]),
    )


def _answer(job: Job, group: list[dict[str, Any]]) -> dict[str, Any]:
    try:
        results = train_group(job, [_ask(facts) for facts in group])
    except TrademlError as error:
        return {"error": type(error).__name__, "message": str(error)}
    return {
        "results": [
            {name: value for name, value in asdict(r).items() if name not in _NOT_SENT}
            for r in results
        ]
    }


def _ask(facts: Mapping[str, Any]) -> Ask:
    rule = facts["rule"] and StoppingRule(
        facts["rule"]["kind"],
        tuple(tuple(curve) for curve in facts["rule"]["curves"]),
        tuple(facts["rule"]["rungs"]),
    )
    return Ask(facts["number"], facts["hyperparameters"], rule)


if __name__ == "__main__":
    main()
