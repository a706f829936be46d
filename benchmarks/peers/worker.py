"""The worker's half of the protocol: one JSON object a line in, one out."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any


def serve(*jobs: Callable[..., Any]) -> None:
    """Answer requests ``{"job": name, argument: value}`` until the input ends.

    What a peer prints goes to stderr, so that it cannot be taken for an answer.
    """
    by_name = {job.__name__: job for job in jobs}
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            reply = {"answer": by_name[request.pop("job")](**request)}
        except Exception as error:
            reply = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(reply), file=replies, flush=True)
