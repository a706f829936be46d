"""A trained network and its file: plain arrays in a ``model.tar.gz``, nothing that runs when read.

Shape letters: N rows, D feature columns, K outputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from trademl.errors import ConfigError, DataError, StoreError
from trademl.store.artifacts import storage_errors, write_atomically
from trademl.train.archive import Members, pack
from trademl.train.model import MODEL_SCHEMA, Described, load_model, schema_hash, sigmoid
from trademl.train.network_config import NETWORK_KINDS, Loss, NetworkConfig
from trademl.train.networks import Layers, build_network

_ROWS_AT_ONCE = 1024
_FOLDER = "weights/"
_SCALE = "layers.0."


@dataclass(frozen=True, eq=False)
class NetworkModel(Described):
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
    """

    config: NetworkConfig
    weights: Mapping[str, NDArray[np.float32]]
    loss: Loss
    threshold: float
    columns: tuple[str, ...]

    def __post_init__(self) -> None:
        network = _empty(self.config, len(self.columns))
        weights = {n: torch.from_numpy(np.ascontiguousarray(w)) for n, w in self.weights.items()}
        network.load_state_dict(weights, assign=True)
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
        return NETWORK_KINDS[self.loss]

    @property
    def mean_D(self) -> NDArray[np.float32]:  # noqa: N802  (shape letters)
        """What each feature is shifted by, taken from training rows."""
        return self.weights[f"{_SCALE}mean_D"]

    @property
    def scale_D(self) -> NDArray[np.float32]:  # noqa: N802
        """What each feature is divided by."""
        return self.weights[f"{_SCALE}scale_D"]

    @property
    def n_weights(self) -> int:
        """Numbers that training changed."""
        return sum(w.size for n, w in self.weights.items() if n not in _scale_names())

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
                rows_BD = torch.tensor(features_ND[rows])  # a copy: a request's bytes are read-only
                rows_BD = rows_BD.to(self._device)  # type: ignore[attr-defined]
                output_NK[rows] = network(rows_BD).cpu().numpy()
        return output_NK

    def logits(self, features_ND: NDArray[Any]) -> NDArray[np.float64]:
        """Return the first output of each row as float64, shape (N,): log odds of label 1."""
        return self.outputs(features_ND)[:, 0].astype(np.float64)

    def scores(self, features_ND: NDArray[Any]) -> NDArray[np.float32]:
        """Return each row's probability of label 1, or its value, float32 of shape (N,)."""
        return self.scores_of(self.logits(features_ND))

    def scores_of(self, logit_N: NDArray[np.float64]) -> NDArray[np.float32]:
        """Return the scores that `logits` lead to."""
        return (sigmoid(logit_N) if self.loss == "logistic" else logit_N).astype(np.float32)

    def flags(self, score_N: NDArray[np.float32]) -> NDArray[np.int8]:
        """Return 1 where a score is at or above the calibrated threshold, else 0."""
        return (score_N >= np.float32(self.threshold)).astype(np.int8)

    def predict(
        self, features_ND: NDArray[Any]
    ) -> tuple[NDArray[np.float32], NDArray[np.int8] | None]:
        """Return each row's score, and its label at the threshold; a value has no label."""
        score_N = self.scores(features_ND)
        return score_N, self.flags(score_N) if self.loss == "logistic" else None


def save_network(model: NetworkModel, path: Path) -> None:
    """Write a network as ``model.tar.gz``: the same network gives the same bytes.

    The archive holds ``model.json`` and ``weights/<name>.npy`` of float32 for each weight.

    Raises
    ------
    StoreError
        If the disk is full or not writable.
    """
    described = {one.name: getattr(model, one.name) for one in fields(Described)}
    document = {
        **described,
        "schema_version": MODEL_SCHEMA,
        "kind": model.kind,
        "network": asdict(model.config),
        "loss": model.loss,
        "threshold": model.threshold,
        "columns": list(model.columns),
        "schema_hash": model.schema_hash,
    }
    arrays = {_FOLDER + name: weight for name, weight in model.weights.items()}
    with storage_errors(path):
        write_atomically(path, pack(document, arrays, dtype=np.float32))


def load_network(where: Path | str) -> NetworkModel:
    """Read a network that `save_network` wrote, from a path or a URL.

    Raises
    ------
    StoreError
        If the file is missing, damaged, of a newer schema, or no network.
    """
    model = load_model(where)
    if not isinstance(model, NetworkModel):
        raise StoreError(f"{where} holds a linear model, expected a network: read it by load_model")
    return model


def restore_network(facts: Mapping[str, Any], members: Members) -> NetworkModel:
    """Return the network that an archive holds; `trademl.train.model.load_model` calls it.

    Raises
    ------
    KeyError, TypeError, ValueError
        If a fact is missing or of another kind.
    StoreError
        If an array is missing, damaged, or of another shape than the facts say.
    """
    try:
        config = msgspec.convert(facts["network"], NetworkConfig)
        columns = tuple(str(name) for name in facts["columns"])
        _check_depth(config, members)
        shapes = {n: tuple(w.shape) for n, w in _empty(config, len(columns)).state_dict().items()}
    except (ConfigError, RuntimeError) as error:
        raise ValueError(str(error).splitlines()[0]) from error
    return NetworkModel(
        config=config,
        weights={n: members.array(_FOLDER + n, s, np.float32) for n, s in shapes.items()},
        loss=msgspec.convert(facts["loss"], Loss),
        threshold=float(facts["threshold"]),
        columns=columns,
        hyperparameters=facts["hyperparameters"],
        metrics=facts["metrics"],
        status="accepted" if facts["status"] == "accepted" else "refused",
        reasons=tuple(str(reason) for reason in facts["reasons"]),
        parents=tuple(str(one) for one in facts.get("parents", ())),
        code_version=str(facts.get("code_version", "")),
        rules=facts.get("rules", {}),
    )


def _empty(config: NetworkConfig, feature_dim: int) -> Layers:
    """Return the network without memory for its weights: shapes alone."""
    with torch.device("meta"):
        return build_network(config, feature_dim, seed=0)


def _check_depth(config: NetworkConfig, members: Members) -> None:
    """Refuse, before they are made, layers which the archive does not hold."""
    held = {name.split(".")[1] for name in members.arrays if name.startswith(_FOLDER)}
    if len(held) != config.n_layers:
        raise ValueError(f"{len(held)} layers of weights, the network has {config.n_layers}")


def _scale_names() -> tuple[str, str]:
    return f"{_SCALE}mean_D", f"{_SCALE}scale_D"
