"""A trained network and its file: plain arrays in a ``model.tar.gz``, nothing that runs when read.

Shape letters: N rows, D feature columns, K outputs.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from trademl.errors import ConfigError, DataError, StoreError
from trademl.store.artifacts import storage_errors, write_atomically
from trademl.train.model import NOT_JUDGED, Status, schema_hash, sigmoid
from trademl.train.model_archive import pack, unpack
from trademl.train.network_config import Loss, NetworkConfig
from trademl.train.networks import Layers, build_network

NETWORK_SCHEMA = 1
KINDS: dict[Loss, str] = {
    "logistic": "network binary classifier",
    "squared": "network regressor",
}
_ROWS_AT_ONCE = 1024
_LEVEL = 1  # trained weights hardly shrink


@dataclass(frozen=True, eq=False)
class NetworkModel:
    """A network with weights, and what a server must know about it.

    Parameters
    ----------
    config : NetworkConfig
    weights : mapping of str to ndarray of float32
        Under their names in `Layers`; the first layer's ``mean_D`` and ``scale_D`` among them.
    loss : {"logistic", "squared"}
        Whether outputs are logits of label 1, or values.
    threshold : float
        A row is labelled 1 where its score is at or above it; of no meaning for values.
    columns : tuple of str
        Names of the D features, in order.
    hyperparameters, metrics : mapping
        How it was trained, and what it measured; as JSON can hold them.
    status, reasons
        As in `trademl.train.model.LinearModel`.
    """

    config: NetworkConfig
    weights: Mapping[str, NDArray[np.float32]]
    loss: Loss
    threshold: float
    columns: tuple[str, ...]
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    status: Status = "refused"
    reasons: tuple[str, ...] = (NOT_JUDGED,)

    def __post_init__(self) -> None:
        network = build_network(self.config, len(self.columns), seed=0)
        network.load_state_dict({n: torch.from_numpy(w) for n, w in self.weights.items()})
        object.__setattr__(self, "_network", network.eval().requires_grad_(False))
        object.__setattr__(self, "_device", "cpu")

    def on(self, device: str) -> Self:
        """Let the network compute on a device from now on; rows and scores stay outside."""
        self._network.to(device)  # type: ignore[attr-defined]
        object.__setattr__(self, "_device", device)
        return self

    @property
    def schema_hash(self) -> str:
        """Sixteen hex digits of the columns' names and order."""
        return schema_hash(self.columns)

    @property
    def kind(self) -> str:
        """What the manifest calls it."""
        return KINDS[self.loss]

    def outputs(self, features_ND: NDArray[Any]) -> NDArray[np.float32]:
        """Return what the network says of each row, float32 of shape (N, K).

        Parameters
        ----------
        features_ND : ndarray of shape (N, D)
            Raw features: the network normalises them itself.

        Raises
        ------
        DataError
            If the rows are not D features wide.
        """
        features_ND = np.asarray(features_ND, np.float32)
        if features_ND.ndim != 2 or features_ND.shape[1] != len(self.columns):
            found = features_ND.shape[1] if features_ND.ndim == 2 else f"shape {features_ND.shape}"
            raise DataError(f"rows have {found} features, the model expects {len(self.columns)}")
        network: Layers = self._network  # type: ignore[attr-defined]
        output_NK = np.empty((len(features_ND), self.config.n_outputs), np.float32)
        with torch.inference_mode():
            for start in range(0, len(features_ND), _ROWS_AT_ONCE):
                rows = slice(start, start + _ROWS_AT_ONCE)
                rows_BD = torch.from_numpy(np.ascontiguousarray(features_ND[rows]))
                rows_BD = rows_BD.to(self._device)  # type: ignore[attr-defined]
                output_NK[rows] = network(rows_BD).cpu().numpy()
        return output_NK

    def logits(self, features_ND: NDArray[Any]) -> NDArray[np.float64]:
        """Return the first output of each row as float64, shape (N,): log odds of label 1."""
        return self.outputs(features_ND)[:, 0].astype(np.float64)

    def scores(self, features_ND: NDArray[Any]) -> NDArray[np.float32]:
        """Return each row's probability of label 1, or its value, float32 of shape (N,)."""
        logit_N = self.logits(features_ND)
        return (sigmoid(logit_N) if self.loss == "logistic" else logit_N).astype(np.float32)

    def predict(self, features_ND: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.int8]]:
        """Return each row's score and its label at the threshold."""
        score_N = self.scores(features_ND)
        return score_N, (score_N >= np.float32(self.threshold)).astype(np.int8)


def save_network(model: NetworkModel, path: Path) -> None:
    """Write a network as ``model.tar.gz``: the same network gives the same bytes.

    The archive holds ``model.json`` and ``weights/<name>.npy`` of float32 for each weight.

    Raises
    ------
    StoreError
        If the disk is full or not writable.
    """
    members = {"model.json": _describe(model)}
    for name, weight in model.weights.items():
        buffer = io.BytesIO()
        np.save(buffer, np.asarray(weight, np.float32), allow_pickle=False)
        members[f"weights/{name}.npy"] = buffer.getvalue()
    with storage_errors(path):
        write_atomically(path, pack(members, level=_LEVEL))


def load_network(path: Path) -> NetworkModel:
    """Read a network that `save_network` wrote.

    Raises
    ------
    StoreError
        If the file is missing, damaged, of a newer schema, or no network.
    """
    members = unpack(path)
    try:
        facts = json.loads(members["model.json"])
        _check_head(facts, path)
        return NetworkModel(
            config=msgspec.convert(facts["network"], NetworkConfig),
            weights={
                name.removeprefix("weights/").removesuffix(".npy"): _array(content)
                for name, content in members.items()
                if name.startswith("weights/")
            },
            loss=msgspec.convert(facts["loss"], Literal["logistic", "squared"]),
            threshold=float(facts["threshold"]),
            columns=tuple(facts["columns"]),
            hyperparameters=facts["hyperparameters"],
            metrics=facts["metrics"],
            status="accepted" if facts["status"] == "accepted" else "refused",
            reasons=tuple(facts["reasons"]),
        )
    except KeyError as error:
        raise StoreError(f"{path} is no network of trademl: it holds no {error.args[0]}") from error
    except (ValueError, TypeError, RuntimeError, ConfigError) as error:
        what = str(error).splitlines()[0]
        raise StoreError(f"{path} is damaged ({what}): train again") from error


def _describe(model: NetworkModel) -> bytes:
    facts = {
        "schema_version": NETWORK_SCHEMA,
        "kind": model.kind,
        "network": asdict(model.config),
        "loss": model.loss,
        "threshold": model.threshold,
        "columns": list(model.columns),
        "schema_hash": model.schema_hash,
        "hyperparameters": dict(model.hyperparameters),
        "metrics": dict(model.metrics),
        "status": model.status,
        "reasons": list(model.reasons),
    }
    return json.dumps(facts, indent=1, sort_keys=True, allow_nan=False).encode()


def _check_head(facts: Mapping[str, Any], path: Path) -> None:
    if facts["kind"] not in KINDS.values():
        raise StoreError(f"{path} holds a {facts['kind']}, expected a network")
    if int(facts["schema_version"]) > NETWORK_SCHEMA:
        raise StoreError(
            f"{path} has schema version {facts['schema_version']}, this trademl reads up to "
            f"{NETWORK_SCHEMA}: upgrade trademl"
        )
    if facts["schema_hash"] != (found := schema_hash(tuple(facts["columns"]))):
        raise StoreError(
            f"{path}: its columns hash to {found}, it records {facts['schema_hash']}: it was "
            "edited or damaged; train again"
        )


def _array(content: bytes) -> NDArray[np.float32]:
    return np.asarray(np.load(io.BytesIO(content), allow_pickle=False), dtype=np.float32)
