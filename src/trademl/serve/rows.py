"""One reader per content type: the bytes of a body to feature rows.

Rows are counted from 1 in messages, as in the body. Values may still be infinite or NaN.
Shape letters: N rows, D feature columns.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NoReturn

import numpy as np
import orjson
from numpy.typing import NDArray

from trademl.errors import DataError, ServeError
from trademl.etl.recordio import decode_records, encode_records

# A small body can name many rows (sparse ones, or very short ones): what they would grow to is
# bounded too, to 64 MiB of features and an answer of about the largest body.
MAX_ROWS = 100_000
MAX_CELLS = 2**24

_NUMBER = re.compile(rb"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*")
_RECORD_MAGIC = bytes.fromhex("0a23d7ce")
_SHOWN = 40

Features = NDArray[np.float32]


class RequestError(ServeError):
    """A request cannot be answered; ``status`` is the HTTP status that says so."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def shown(value: Any) -> str:
    """Return a value as a message quotes it: short, and never the inside of a list."""
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    quoted = repr(value)
    return quoted if len(quoted) <= _SHOWN else quoted[: _SHOWN - 3] + "..."


def rows_from_csv(body: bytes, feature_dim: int) -> Features:
    lines = _lines(body, feature_dim)
    # JSON reads a list of plain numbers several times faster than any CSV reader; what JSON knows
    # beyond numbers (strings, lists, objects, true, false, null) shows in one of these bytes.
    if not any(mark in body for mark in (b'"', b"[", b"{", b"u", b"l")):
        try:
            rows = orjson.loads(b"[[" + b"],[".join(lines) + b"]]")
            return _pack(rows, feature_dim)
        except (orjson.JSONDecodeError, struct.error):
            pass  # numbers that JSON does not know (+1, .5, 007), or an error: read it slowly
    return _pack([_csv_row(n, line, feature_dim) for n, line in enumerate(lines, 1)], feature_dim)


def _csv_row(row: int, line: bytes, feature_dim: int) -> list[float]:
    if not line.strip():
        _refuse(f"row {row} is blank, expected {feature_dim} features")
    cells = line.split(b",")
    _check_width(row, len(cells), feature_dim)
    for column, cell in enumerate(cells, 1):
        if not _NUMBER.fullmatch(cell):
            found = shown(cell.strip().decode("utf-8", "replace")) if cell.strip() else "empty"
            _refuse(f"row {row}, feature {column} is {found}, expected a number")
    return [float(cell) for cell in cells]


def rows_from_json(body: bytes, feature_dim: int) -> Features:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        _refuse(f"the body is not JSON: {error}")
    instances = document.get("instances") if isinstance(document, dict) else None
    if not isinstance(instances, list) or not instances:
        _refuse('expected {"instances": [{"features": [...]}, ...]} with at least one instance')
    _check_size(len(instances), feature_dim)
    return _pack_instances(instances, feature_dim, _may_hold_bool(body))


def rows_from_json_lines(body: bytes, feature_dim: int) -> Features:
    instances = []
    for row, line in enumerate(_lines(body, feature_dim), 1):
        try:
            instances.append(orjson.loads(line))
        except orjson.JSONDecodeError as error:
            _refuse(f"row {row} is not JSON: {error}")
    return _pack_instances(instances, feature_dim, _may_hold_bool(body))


def rows_from_recordio(body: bytes, feature_dim: int) -> Features:
    head, tail = around_features(feature_dim)
    is_one = len(body) == len(head) + 4 * feature_dim + len(tail)
    if is_one and body.startswith(head) and body.endswith(tail):
        row_D: Features = np.frombuffer(body, np.float32, feature_dim, len(head))
        return row_D.reshape(1, feature_dim)
    _check_size(body.count(_RECORD_MAGIC), feature_dim)
    try:
        features_ND, _ = decode_records(body, feature_dim=feature_dim)
    except DataError as error:
        _refuse(str(error))
    return features_ND


@lru_cache(maxsize=16)
def around_features(feature_dim: int) -> tuple[bytes, bytes]:
    """Return the bytes of a record before and behind its features, where it has no label."""
    features_ND = np.full((1, feature_dim), np.float32(np.nan))
    record = encode_records(features_ND)
    head, found, tail = record.partition(features_ND.tobytes())
    assert found  # noqa: S101  (a record holds its features as they are)
    return head, tail


def _lines(body: bytes, feature_dim: int) -> list[bytes]:
    text = body.rstrip()
    if not text:
        _refuse("the body is empty, expected at least one row")
    _check_size(text.count(b"\n") + 1, feature_dim)
    return text.split(b"\n")


def _pack_instances(instances: list[Any], feature_dim: int, check_each: bool) -> Features:
    if not check_each:
        try:
            return _pack([instance["features"] for instance in instances], feature_dim)
        except (TypeError, KeyError, struct.error):
            pass  # another of the documented forms, or an error: look at each instance
    rows = [_instance_row(n, instance, feature_dim) for n, instance in enumerate(instances, 1)]
    return _pack(rows, feature_dim)


def _pack(rows: Sequence[Sequence[float]], feature_dim: int) -> Features:
    # struct is three times as fast as numpy's own conversion of a list, and refuses both
    # a wrong count and anything that is not a number
    pack = struct.Struct(f"{feature_dim}f").pack
    packed = b"".join([pack(*row) for row in rows])
    return np.frombuffer(packed, np.float32).reshape(len(rows), feature_dim)


def _instance_row(row: int, instance: Any, feature_dim: int) -> list[float]:
    features = instance.get("features") if isinstance(instance, dict) else None
    if features is None:
        try:
            features = instance["data"]["features"]
        except (TypeError, KeyError):
            _refuse(f'row {row} has no features, expected {{"features": [...]}}')
    if isinstance(features, dict):
        if "keys" in features or "shape" in features:
            return _sparse_row(row, features, feature_dim)
        features = features.get("values")
    if not isinstance(features, list):
        _refuse(f"row {row} has features that are no list of numbers")
    _check_width(row, len(features), feature_dim)
    _check_numbers(row, features)
    return features


def _sparse_row(row: int, features: dict[str, Any], feature_dim: int) -> list[float]:
    keys, shape, values = (features.get(name) for name in ("keys", "shape", "values"))
    if shape != [feature_dim]:
        _refuse(f"row {row} is sparse with another shape than [{feature_dim}]")
    if not isinstance(keys, list) or not isinstance(values, list) or len(keys) != len(values):
        _refuse(f"row {row} is sparse, expected as many keys as values")
    for key in keys:
        if type(key) is not int or not 0 <= key < feature_dim:
            _refuse(f"row {row} has the key {shown(key)}, expected 0 to {feature_dim - 1}")
    if len(set(keys)) != len(keys):
        _refuse(f"row {row} has a key twice, expected each once")
    _check_numbers(row, values, "value")
    dense = [0.0] * feature_dim
    for key, value in zip(keys, values, strict=True):
        dense[key] = value
    return dense


def _check_numbers(row: int, values: list[Any], name: str = "feature") -> None:
    for column, value in enumerate(values, 1):
        if type(value) not in (float, int):
            _refuse(f"row {row}, {name} {column} is {shown(value)}, expected a number")


def _check_width(row: int, found: int, feature_dim: int) -> None:
    if found != feature_dim:
        _refuse(f"row {row} has {found} features, expected {feature_dim}")


def most_rows(feature_dim: int) -> int:
    """Return how many rows of D features one request may have."""
    return max(1, min(MAX_ROWS, MAX_CELLS // feature_dim))


def _check_size(rows: int, feature_dim: int) -> None:
    if rows > (most := most_rows(feature_dim)):
        raise RequestError(413, f"{rows} rows, at most {most} in one request: send several")


def _may_hold_bool(body: bytes) -> bool:
    return b"true" in body or b"false" in body  # Python takes them for 1 and 0


def _refuse(message: str) -> NoReturn:
    raise RequestError(400, message)
