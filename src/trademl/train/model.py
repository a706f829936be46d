"""A trained linear model and its file: numpy only, so that a server need not load torch.

Shape letters: N rows, D feature columns.
"""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from trademl.errors import DataError, StoreError
from trademl.store.artifacts import storage_errors, write_atomically
from trademl.store.identity import digest_bytes

MODEL_SCHEMA = 1
NOT_JUDGED = "selection has not judged it yet"
Floats = NDArray[np.float64]
Status = Literal["accepted", "refused"]

_ARRAYS = ("weights", "mean", "scale")
_CHUNK = 4096  # rows scored at once, to bound the memory of their float64 products


@dataclass(frozen=True, eq=False)
class LinearModel:
    """A binary classifier: the score is ``sigmoid(weights . (x - mean) / scale + bias)``.

    Parameters
    ----------
    weights_D : ndarray of float64, shape (D,)
        Per standardised feature.
    bias : float
        Of standardised features.
    mean_D, scale_D : ndarray of float64, shape (D,)
        Taken from training rows; 0 and 1 where the data were not normalised.
    threshold : float
        A row is labelled 1 where its score is at or above it.
    columns : tuple of str
        Names of the D features, in order.
    hyperparameters, metrics : mapping
        How it was made, and what it measured; as JSON can hold them.
    status : {"accepted", "refused"}
        What selection said; refused until it has spoken.
    reasons : tuple of str
        Why it is refused.
    """

    weights_D: Floats
    bias: float
    mean_D: Floats
    scale_D: Floats
    threshold: float
    columns: tuple[str, ...]
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    status: Status = "refused"
    reasons: tuple[str, ...] = (NOT_JUDGED,)

    @property
    def schema_hash(self) -> str:
        """Sixteen hex digits of the columns' names and order."""
        return schema_hash(self.columns)

    def logits(self, features_ND: NDArray[Any]) -> Floats:
        """Return the log odds of each row.

        Parameters
        ----------
        features_ND : ndarray of shape (N, D)
            Raw features: the model normalises them itself.

        Returns
        -------
        ndarray of float64, shape (N,)

        Raises
        ------
        DataError
            If the rows are not D features wide.

        Notes
        -----
        Row by row the same sum in the same order, never a matrix product: the row of a batch
        gets bit for bit the score that it gets alone, which BLAS does not promise.
        """
        features_ND = np.asarray(features_ND)
        if features_ND.ndim != 2 or features_ND.shape[1] != len(self.weights_D):
            found = features_ND.shape[1] if features_ND.ndim == 2 else f"shape {features_ND.shape}"
            raise DataError(f"rows have {found} features, the model expects {len(self.weights_D)}")
        weights_D = self.weights_D / self.scale_D
        offset = self.bias - float((weights_D * self.mean_D).sum())
        logit_N = np.empty(len(features_ND))
        for start in range(0, len(features_ND), _CHUNK):
            rows = np.ascontiguousarray(features_ND[start : start + _CHUNK])
            products = np.multiply(rows, weights_D, dtype=np.float64)
            logit_N[start : start + _CHUNK] = products.sum(axis=1) + offset
        return logit_N

    def scores(self, features_ND: NDArray[Any]) -> NDArray[np.float32]:
        """Return each row's probability of label 1, float32 of shape (N,); see `logits`."""
        return sigmoid(self.logits(features_ND)).astype(np.float32)

    def predict(self, features_ND: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.int8]]:
        """Return each row's score and its label at the calibrated threshold."""
        score_N = self.scores(features_ND)
        return score_N, (score_N >= np.float32(self.threshold)).astype(np.int8)


def sigmoid(logit_N: Floats) -> Floats:
    """Return ``1 / (1 + exp(-logit))`` without overflow."""
    decay_N = np.exp(-np.abs(logit_N))
    return np.asarray(np.where(logit_N >= 0, 1.0, decay_N) / (1.0 + decay_N))


def schema_hash(columns: tuple[str, ...]) -> str:
    """Return sixteen hex digits that two feature schemas share only if they are the same."""
    return digest_bytes(json.dumps(list(columns)).encode())[:16]


def save_model(model: LinearModel, path: Path) -> None:
    """Write a model as ``model.tar.gz``: the same model gives the same bytes.

    The archive holds ``model.json`` and one ``.npy`` of float64 per array.

    Raises
    ------
    StoreError
        If the disk is full or not writable.
    """
    members = {"model.json": _describe(model)}
    for name in _ARRAYS:
        buffer = io.BytesIO()
        np.save(buffer, np.asarray(getattr(model, f"{name}_D"), dtype=np.float64))
        members[f"{name}.npy"] = buffer.getvalue()
    with storage_errors(path):
        write_atomically(path, _pack(members))


def load_model(path: Path) -> LinearModel:
    """Read a model that `save_model` wrote.

    Raises
    ------
    StoreError
        If the file is missing, damaged, or of a newer schema.
    """
    members = _unpack(path)
    try:
        facts = json.loads(members["model.json"])
        version = int(facts["schema_version"])
        if version > MODEL_SCHEMA:
            raise StoreError(
                f"{path} has schema version {version}, this trademl reads up to {MODEL_SCHEMA}: "
                "upgrade trademl"
            )
        arrays = {f"{n}_D": _array(members[f"{n}.npy"]) for n in _ARRAYS}
        model = LinearModel(
            **arrays,
            bias=float(facts["bias"]),
            threshold=float(facts["threshold"]),
            columns=tuple(facts["columns"]),
            hyperparameters=facts["hyperparameters"],
            metrics=facts["metrics"],
            status="accepted" if facts["status"] == "accepted" else "refused",
            reasons=tuple(facts["reasons"]),
        )
    except KeyError as error:
        raise StoreError(f"{path} is no model of trademl: it holds no {error.args[0]}") from error
    except (ValueError, TypeError) as error:
        raise StoreError(f"{path} is damaged ({error}): train again") from error
    _check(model, path, str(facts.get("schema_hash")))
    return model


def _describe(model: LinearModel) -> bytes:
    facts = {
        "schema_version": MODEL_SCHEMA,
        "kind": "linear binary classifier",
        "bias": model.bias,
        "threshold": model.threshold,
        "columns": list(model.columns),
        "schema_hash": model.schema_hash,
        "hyperparameters": dict(model.hyperparameters),
        "metrics": dict(model.metrics),
        "status": model.status,
        "reasons": list(model.reasons),
    }
    return json.dumps(facts, indent=1, sort_keys=True, allow_nan=False).encode()


def _pack(members: Mapping[str, bytes]) -> bytes:
    """Return a tar.gz of files whose bytes depend on names and contents alone."""
    tar_bytes = io.BytesIO()
    with tarfile.open(fileobj=tar_bytes, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name in sorted(members):
            entry = tarfile.TarInfo(name)  # owner, mode and time of day at their fixed defaults
            entry.size = len(members[name])
            tar.addfile(entry, io.BytesIO(members[name]))
    return gzip.compress(tar_bytes.getvalue(), compresslevel=6, mtime=0)


def _unpack(path: Path) -> dict[str, bytes]:
    try:
        with tarfile.open(path, mode="r:gz") as tar:
            files = {entry.name: tar.extractfile(entry) for entry in tar if entry.isfile()}
            return {name: file.read() for name, file in files.items() if file}
    except FileNotFoundError as error:
        raise StoreError(f"{path} does not exist: train again") from error
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        raise StoreError(f"{path} is not a model.tar.gz ({error}): train again") from error


def _array(content: bytes) -> Floats:
    return np.asarray(np.load(io.BytesIO(content), allow_pickle=False), dtype=np.float64)


def _check(model: LinearModel, path: Path, recorded_hash: str) -> None:
    d = len(model.columns)
    for name in _ARRAYS:
        if (found := getattr(model, f"{name}_D").shape) != (d,):
            raise StoreError(f"{path}: {name}.npy has shape {found}, expected ({d},): train again")
    if recorded_hash != model.schema_hash:
        raise StoreError(
            f"{path}: its columns hash to {model.schema_hash}, it records {recorded_hash}: it was "
            "edited or damaged; train again"
        )
