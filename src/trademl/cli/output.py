"""Print a verb's result: words for people, one JSON object for machines."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterable, Mapping
from typing import Any, Literal

LogFormat = Literal["text", "json"]


def check_lines(gate: Mapping[str, Any]) -> list[str]:
    """Return one line for each thing that the gate looked at."""
    word = {"promote": "pass"}
    return [
        f"  {word.get(c['verdict'], c['verdict']):<6} {c['name']}: {c['says']}"
        for c in gate["checks"]
    ]


def emit(result: Mapping[str, Any], *, as_json: bool, lines: Iterable[str]) -> None:
    """Print ``result`` as one JSON object, or ``lines``, on stdout."""
    if as_json:
        sys.stdout.write(json.dumps(result, indent=1, allow_nan=False) + "\n")
    else:
        sys.stdout.writelines(f"{line}\n" for line in lines)


def announce(text: str, form: LogFormat) -> None:
    """Say on stderr what answers where, as the log's readers expect it."""
    if form == "text":
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()
    else:
        logging.getLogger(__name__).info("%s", text)
