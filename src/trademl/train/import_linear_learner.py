"""EXPERIMENTAL: read a binary model that SageMaker's own Linear Learner trained.

Its ``model.tar.gz`` holds ``model_algo-1``, a zip of MXNet files of which ``mx-mod-0000.params``
has the weights. AWS documents neither the names in it nor where the scaler and the calibrated
threshold are kept; the names here come from published listings, and no score has been compared
with an endpoint's. So what is read is marked experimental and counts as refused.
"""

from __future__ import annotations

import io
import itertools
import json
import tarfile
import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trademl.errors import CodecError, StoreError
from trademl.train.model import LinearModel
from trademl.train.mxnet_params import read_params

EXPERIMENTAL = (
    "experimental: imported from an artifact of SageMaker's Linear Learner, whose format is not "
    "documented; compare its scores with the endpoint's before you rely on it"
)
_MEMBER = "model_algo-1"
_PARAMS, _MORE = "mx-mod-0000.params", "additional-params.json"
_WEIGHT, _BIAS = "fc0_weight", "fc0_bias"
_GUESSED_THRESHOLD = 0.5
_FIRST_ENTRIES = 2  # of the archive: a folder may come before the one file
_LARGEST_BYTES = 1 << 30


def is_linear_learner(content: bytes) -> bool:
    """Say whether bytes are ``model_algo-1``, or a ``model.tar.gz`` that holds it."""
    if content[:2] == b"PK":
        return True
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:*") as tar:
            return any(_is_model(entry.name) for entry in itertools.islice(tar, _FIRST_ENTRIES))
    except (tarfile.TarError, EOFError, OSError):
        return False


def import_linear_learner(content: bytes, where: str) -> LinearModel:
    """Return the model in an artifact of SageMaker's Linear Learner.

    Parameters
    ----------
    content : bytes
        A ``model.tar.gz``, or the ``model_algo-1`` in it.
    where : str
        How messages call it.

    Returns
    -------
    LinearModel
        Refused, with reasons that say that it is experimental and what was guessed. Its weights
        are taken to be those of raw features, for AWS asks callers for raw features.

    Raises
    ------
    StoreError
        If it is damaged, not of a binary classifier, or holds arrays that may be a scaler.
    """
    try:
        files = _unzip(_model_file(content), where)
        arrays = {
            name.partition(":")[2]: array for name, array in read_params(files[_PARAMS]).items()
        }
        more = json.loads(files.get(_MORE, b"{}"))
    except KeyError as error:
        raise StoreError(f"{where} is no artifact of Linear Learner: no {_PARAMS}") from error
    except (CodecError, tarfile.TarError, zipfile.BadZipFile, OSError, ValueError) as error:
        raise StoreError(f"{where} is damaged: {error}") from error
    weights_D, bias = _coefficients(arrays, where)
    threshold, reasons = _threshold(more)
    n_columns = len(weights_D)
    return LinearModel(
        weights_D=weights_D,
        bias=bias,
        mean_D=np.zeros(n_columns),
        scale_D=np.ones(n_columns),
        threshold=threshold,
        columns=tuple(f"x{i}" for i in range(n_columns)),
        hyperparameters={"predictor_type": "binary_classifier"},
        status="refused",
        reasons=(EXPERIMENTAL, *reasons),
    )


def _model_file(content: bytes) -> bytes:
    """Return the zip itself, taken out of its archive where it lies in one."""
    if content[:2] == b"PK":
        return content
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:*") as tar:
        for entry in tar:
            if _is_model(entry.name) and entry.size <= _LARGEST_BYTES:
                file = tar.extractfile(entry)
                return file.read() if file else b""
    raise CodecError(f"it holds no {_MEMBER}")


def _is_model(name: str) -> bool:
    return name.removeprefix("./") == _MEMBER


def _unzip(content: bytes, where: str) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        wanted = [info for info in file.infolist() if info.filename in (_PARAMS, _MORE)]
        if sum(info.file_size for info in wanted) > _LARGEST_BYTES:
            raise StoreError(f"{where} unpacks to more than {_LARGEST_BYTES >> 20} MiB")
        return {info.filename: file.read(info) for info in wanted}


def _coefficients(arrays: dict[str, NDArray[Any]], where: str) -> tuple[NDArray[np.float64], float]:
    if _WEIGHT not in arrays:
        found = ", ".join(sorted(arrays)) or "nothing"
        raise StoreError(f"{where} has no array {_WEIGHT}: it holds {found}")
    weights = arrays[_WEIGHT]
    if weights.ndim > 1 and weights.shape[0] != 1:
        raise StoreError(
            f"{where}: {_WEIGHT} has shape {weights.shape}, expected (1, D) of a binary classifier"
        )
    weights_D = weights.astype(np.float64).reshape(-1)
    unknown = {n: a for n, a in arrays.items() if n not in (_WEIGHT, _BIAS)}
    if scalers := sorted(n for n, array in unknown.items() if array.size == weights_D.size > 1):
        raise StoreError(
            f"{where} also holds {', '.join(scalers)}, as long as the weights: it may be a scaler, "
            "and what it means is not known"
        )
    bias = arrays.get(_BIAS, np.zeros(1))
    if not weights_D.size or bias.size != 1 or not np.isfinite([*weights_D, *bias.ravel()]).all():
        raise StoreError(f"{where}: {_WEIGHT} or {_BIAS} is empty or not finite")
    return weights_D, float(bias.ravel()[0])


def _threshold(more: Any) -> tuple[float, tuple[str, ...]]:
    """Return the threshold that the extra parameters name, if exactly one does; else one half."""
    found = [value for name, value in _numbers(more) if "threshold" in name.lower()]
    if len(found) == 1 and 0.0 <= found[0] <= 1.0:
        return found[0], ()
    return _GUESSED_THRESHOLD, ("experimental: its threshold was not found, 0.5 stands in",)


def _numbers(document: Any, name: str = "") -> Iterator[tuple[str, float]]:
    """Yield each number in a JSON document with the key that it stands under."""
    if isinstance(document, dict):
        for key, value in document.items():
            yield from _numbers(value, str(key))
    elif isinstance(document, list):
        for value in document:
            yield from _numbers(value, name)
    elif isinstance(document, (int, float)) and not isinstance(document, bool):
        yield name, float(document)
