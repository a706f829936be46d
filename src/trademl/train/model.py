"""A trained model and its file: a linear one needs no torch, a network loads it when read.

Shape letters: N rows, D feature columns, C classes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from trademl.errors import DataError, StoreError, require_extra
from trademl.store.artifacts import storage_errors, write_atomically
from trademl.store.identity import digest_bytes
from trademl.train.archive import Members, pack
from trademl.train.fetch import read_bytes
from trademl.train.network_config import NETWORK_KINDS

if TYPE_CHECKING:
    from trademl.train.network_file import NetworkModel

MODEL_SCHEMA = 2
NOT_JUDGED = "selection has not judged it yet"
Floats = NDArray[np.float64]
Scores = NDArray[np.float32]
Status = Literal["accepted", "refused"]
Link = Literal["logistic", "identity"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Described:
    """What every model says of itself, as JSON can hold it.

    Parameters
    ----------
    hyperparameters, metrics : mapping
        How it was made, and what it measured.
    status : {"accepted", "refused"}
        What selection said; refused until it has spoken.
    reasons : tuple of str
        Why it is refused.
    parents : tuple of str
        Ids of the artifacts that it was made from.
    code_version : str
        Of the trademl that trained it; empty where not known.
    rules : mapping of str to str
        What this trademl does where SageMaker does not publish what it does.
    """

    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    status: Status = "refused"
    reasons: tuple[str, ...] = (NOT_JUDGED,)
    parents: tuple[str, ...] = ()
    code_version: str = ""
    rules: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class LinearModel(Described):
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
    link : {"logistic", "identity"}
        ``identity`` leaves the sigmoid out: the score of a hinge loss is no probability.
    """

    kind: ClassVar[str] = "linear binary classifier"

    weights_D: Floats
    bias: float
    mean_D: Floats
    scale_D: Floats
    threshold: float
    columns: tuple[str, ...]
    link: Link = "logistic"

    @property
    def schema_hash(self) -> str:
        """Sixteen hex digits of the columns' names and order."""
        return schema_hash(self.columns)

    def logits(self, features_ND: NDArray[Any]) -> Floats:
        """Return the score of each row before the sigmoid, the log odds of a logistic model.

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
        return _row_sums(features_ND, self.weights_D, self.bias, self.mean_D, self.scale_D)

    def scores(self, features_ND: NDArray[Any]) -> Scores:
        """Return each row's score, float32 of shape (N,): the probability of label 1."""
        return self.scores_of(self.logits(features_ND))

    def scores_of(self, logit_N: Floats) -> Scores:
        """Return the scores that `logits` lead to."""
        return (sigmoid(logit_N) if self.link == "logistic" else logit_N).astype(np.float32)

    def flags(self, score_N: Scores) -> NDArray[np.int8]:
        """Return 1 where a score is at or above the calibrated threshold, else 0."""
        return (score_N >= np.float32(self.threshold)).astype(np.int8)

    def predict(self, features_ND: NDArray[Any]) -> tuple[Scores, NDArray[np.int8]]:
        """Return each row's score and its label at the calibrated threshold."""
        score_N = self.scores(features_ND)
        return score_N, self.flags(score_N)


@dataclass(frozen=True, eq=False)
class MulticlassModel(Described):
    """A classifier of C classes: the scores are the softmax of one linear score per class.

    Parameters
    ----------
    weights_CD : ndarray of float64, shape (C, D)
    bias_C : ndarray of float64, shape (C,)
    mean_D, scale_D, columns
        As in `LinearModel`.
    """

    kind: ClassVar[str] = "linear multiclass classifier"

    weights_CD: Floats
    bias_C: Floats
    mean_D: Floats
    scale_D: Floats
    columns: tuple[str, ...]

    @property
    def schema_hash(self) -> str:
        """Sixteen hex digits of the columns' names and order."""
        return schema_hash(self.columns)

    def logits(self, features_ND: NDArray[Any]) -> Floats:
        """Return the linear scores, float64 of shape (N, C); row by row, as `LinearModel.logits`.

        Raises
        ------
        DataError
            If the rows are not D features wide.
        """
        scaling = self.mean_D, self.scale_D
        return np.stack(
            [
                _row_sums(features_ND, weights_D, float(bias), *scaling)
                for weights_D, bias in zip(self.weights_CD, self.bias_C, strict=True)
            ],
            axis=1,
        )

    def scores(self, features_ND: NDArray[Any]) -> Scores:
        """Return the probability of each class, float32 of shape (N, C)."""
        logit_NC = self.logits(features_ND)
        power_NC = np.exp(logit_NC - logit_NC.max(axis=1, keepdims=True))
        return np.asarray(power_NC / power_NC.sum(axis=1, keepdims=True), dtype=np.float32)

    def predict(self, features_ND: NDArray[Any]) -> tuple[Scores, NDArray[np.int32]]:
        """Return each row's scores and its likeliest class, the lowest of equals."""
        score_NC = self.scores(features_ND)
        return score_NC, score_NC.argmax(axis=1).astype(np.int32)


@dataclass(frozen=True, eq=False)
class RegressionModel(Described):
    """A linear regression: the score is ``weights . (x - mean) / scale + bias``, in label units.

    Parameters
    ----------
    weights_D, bias, mean_D, scale_D, columns
        As in `LinearModel`; the normalisation of the label is part of weights and bias.
    """

    kind: ClassVar[str] = "linear regression"

    weights_D: Floats
    bias: float
    mean_D: Floats
    scale_D: Floats
    columns: tuple[str, ...]

    @property
    def schema_hash(self) -> str:
        """Sixteen hex digits of the columns' names and order."""
        return schema_hash(self.columns)

    def logits(self, features_ND: NDArray[Any]) -> Floats:
        """Return the predicted label of each row, float64 of shape (N,).

        Raises
        ------
        DataError
            If the rows are not D features wide.
        """
        return _row_sums(features_ND, self.weights_D, self.bias, self.mean_D, self.scale_D)

    def scores(self, features_ND: NDArray[Any]) -> Scores:
        """Return the predicted label of each row, float32 of shape (N,)."""
        return self.logits(features_ND).astype(np.float32)

    def predict(self, features_ND: NDArray[Any]) -> tuple[Scores, None]:
        """Return each row's score; a regression has no label beside it."""
        return self.scores(features_ND), None


LinearKind = LinearModel | MulticlassModel | RegressionModel
Model: TypeAlias = "LinearKind | NetworkModel"
BinaryModel: TypeAlias = "LinearModel | NetworkModel"
BINARY_KINDS = (LinearModel.kind, NETWORK_KINDS["logistic"])
_KINDS: dict[str, type[LinearKind]] = {
    one.kind: one for one in (LinearModel, MulticlassModel, RegressionModel)
}


def _row_sums(
    features_ND: NDArray[Any], weights_D: Floats, bias: float, mean_D: Floats, scale_D: Floats
) -> Floats:
    from trademl.train.row_sums import weighted_sums  # it loads LLVM

    features_ND = np.asarray(features_ND)
    if features_ND.ndim != 2 or features_ND.shape[1] != len(weights_D):
        found = features_ND.shape[1] if features_ND.ndim == 2 else f"shape {features_ND.shape}"
        raise DataError(f"rows have {found} features, the model expects {len(weights_D)}")
    weights_D = weights_D / scale_D
    offset = bias - float((weights_D * mean_D).sum())
    return weighted_sums(features_ND, weights_D) + offset


def sigmoid(logit_N: Floats) -> Floats:
    """Return ``1 / (1 + exp(-logit))`` without overflow."""
    decay_N = np.exp(-np.abs(logit_N))
    return np.asarray(np.where(logit_N >= 0, 1.0, decay_N) / (1.0 + decay_N))


def schema_hash(columns: tuple[str, ...]) -> str:
    """Return sixteen hex digits that two feature schemas share only if they are the same."""
    return digest_bytes(json.dumps(list(columns)).encode())[:16]


def save_model(model: Model, path: Path) -> None:
    """Write a model as ``model.tar.gz``: the same model gives the same bytes.

    The archive holds ``model.json`` and one ``.npy`` of float64 per array; of a network see
    `trademl.train.network_file.save_network`.

    Raises
    ------
    StoreError
        If the disk is full or not writable.
    """
    if not isinstance(model, LinearKind):
        from trademl.train.network_file import save_network

        save_network(model, path)
        return
    held = {one.name: getattr(model, one.name) for one in fields(model)}
    arrays = {name: value for name, value in held.items() if isinstance(value, np.ndarray)}
    facts = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in held.items()
        if name not in arrays
    }
    document = {
        **facts,
        "schema_version": MODEL_SCHEMA,
        "kind": model.kind,
        "schema_hash": model.schema_hash,
    }
    with storage_errors(path):
        write_atomically(path, pack(document, {_member(name): a for name, a in arrays.items()}))


def load_model(where: Path | str) -> Model:
    """Read a model from a path or a URL (see `trademl.train.fetch`).

    It is one that `save_model` wrote; an artifact of SageMaker's own Linear Learner is read too, as
    an experiment: see `trademl.train.import_linear_learner`.

    Raises
    ------
    ConfigError
        If the URL's scheme is not known.
    MissingExtraError
        If it is a network, and torch is not installed.
    StoreError
        If the file is missing, damaged, or of a newer schema.

    Examples
    --------
    >>> score_N, label_N = load_model("model.tar.gz").predict(features_ND)  # doctest: +SKIP
    """
    from trademl.train.import_linear_learner import import_linear_learner, is_linear_learner

    content = read_bytes(where)
    if is_linear_learner(content):
        return import_linear_learner(content, str(where))
    members = Members(content, str(where))
    facts = members.document()
    try:
        version = int(facts["schema_version"])
        if version > MODEL_SCHEMA:
            raise StoreError(
                f"{where} has schema version {version}, this trademl reads up to {MODEL_SCHEMA}: "
                "upgrade trademl"
            )
        model: Model = _restore(facts, members)
        recorded_hash = str(facts["schema_hash"])
    except KeyError as error:
        raise StoreError(f"{where} is no model of trademl: it holds no {error.args[0]}") from error
    except (ValueError, TypeError) as error:
        raise StoreError(f"{where} is damaged ({error}): train again") from error
    if recorded_hash != model.schema_hash:
        raise StoreError(
            f"{where}: its columns hash to {model.schema_hash}, it records {recorded_hash}: it was "
            "edited or damaged; train again"
        )
    return model


def load_binary_model(where: Path | str) -> BinaryModel:
    """Read a binary classifier, linear or a network: what selection, backtests and signals take.

    Raises
    ------
    StoreError
        As `load_model`, and if it is a model of another kind.
    """
    model = load_model(where)
    if model.kind not in BINARY_KINDS:
        raise StoreError(f"{where} is a {model.kind}, expected a binary classifier")
    return cast("BinaryModel", model)


def _restore(facts: Mapping[str, Any], members: Members) -> Model:
    """Build a model from its file; torch is loaded where it is a network."""
    if facts["kind"] in NETWORK_KINDS.values():
        require_extra("train")
        from trademl.train.network_file import restore_network

        return restore_network(facts, members)
    return _restore_linear(_KINDS[facts["kind"]], facts, members)


def _restore_linear(
    cls: type[LinearKind], facts: Mapping[str, Any], members: Members
) -> LinearKind:
    """Build a linear model from its file; a field that older files lack keeps its default."""
    columns = tuple(str(name) for name in facts["columns"])
    sizes = {"D": len(columns), "C": int(facts["hyperparameters"].get("num_classes", 1))}
    values: dict[str, Any] = {}
    for one in fields(cls):
        shape = one.name.rpartition("_")[2]
        if shape in ("C", "D", "CD"):
            values[one.name] = members.array(_member(one.name), tuple(sizes[s] for s in shape))
        elif one.name in facts or one.name in ("bias", "threshold", "columns"):
            values[one.name] = _read_fact(one.name, facts[one.name])
    return cls(**values)


def _read_fact(name: str, value: Any) -> Any:
    if name in ("bias", "threshold"):
        return float(value)
    if name == "status":
        return "accepted" if value == "accepted" else "refused"
    if name == "link":
        return "identity" if value == "identity" else "logistic"
    return tuple(str(item) for item in value) if isinstance(value, list) else value


def _member(name: str) -> str:
    """Return the name of an array's file: ``weights_D`` and ``weights_CD`` are ``weights``."""
    return name.rpartition("_")[0]
