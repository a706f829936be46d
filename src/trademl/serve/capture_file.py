"""Captured requests read again: ours and those of a SageMaker endpoint alike.

Shape letters: N rows, D feature columns.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trademl.errors import DataError
from trademl.serve.formats import parse_request
from trademl.serve.rows import RequestError
from trademl.store.artifacts import storage_errors


@dataclass(frozen=True)
class Captured:
    """One request with its answer; bodies as they were on the wire.

    Parameters
    ----------
    where : str
        File and line, for messages.
    event_id, inference_id : str
        Of the event; the caller's own id, empty where it sent none.
    time : str
        When it was answered, UTC.
    """

    where: str
    event_id: str
    inference_id: str
    time: str
    input_type: str
    input: bytes
    output_type: str
    output: bytes

    def features(self, feature_dim: int) -> NDArray[np.float32]:
        """Return the rows that were asked about, shape (N, D).

        Raises
        ------
        DataError
            If they cannot be read, or have another number of features.
        """
        try:
            return parse_request(self.input_type, self.input, feature_dim)
        except RequestError as error:
            raise DataError(f"{self.where}: {error}") from error


def read_captures(path: Path) -> Iterator[Captured]:
    """Yield what a file of captured requests holds, in its order.

    Raises
    ------
    DataError
        If there is no such file, or a line is no captured request; the message names the line.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file of captured requests")
    with storage_errors(path), path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield _captured(line, f"{path}, line {number}")


def captured_rows(path: Path, feature_dim: int) -> Iterator[NDArray[np.float32]]:
    """Yield the rows of each captured request of a file, shape (N, D)."""
    for captured in read_captures(path):
        yield captured.features(feature_dim)


def _captured(line: str, where: str) -> Captured:
    try:
        document = json.loads(line)
        data, meta = document["captureData"], document["eventMetadata"]
        asked, answered = data["endpointInput"], data.get("endpointOutput", {})
        return Captured(
            where,
            meta["eventId"],
            meta.get("inferenceId", ""),
            meta["inferenceTime"],
            asked["observedContentType"],
            _body(asked),
            answered.get("observedContentType", ""),
            _body(answered),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{where}: no captured request ({error!r}): expected an object with captureData, "
            "endpointInput in it, and eventMetadata"
        ) from error


def _body(side: Mapping[str, Any]) -> bytes:
    text = side.get("data", "")
    return (
        base64.b64decode(text, validate=True) if side.get("encoding") == "BASE64" else text.encode()
    )
