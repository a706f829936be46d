"""What is asked around a deployment: does the model score here, and the server as it does."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trademl.errors import ServeError
from trademl.ports import Predictor
from trademl.serve.archives import check_digest
from trademl.serve.model_pool import ModelFile
from trademl.serve.placement import load_on
from trademl.serve.served import ServedModel
from trademl.store.artifacts import Artifact
from trademl.train.model import Model, load_model
from trademl.train.model_archive import MODEL_FILE

TOLERANCE = 1e-6


def smoke_test(
    url: str,
    model: Model,
    *,
    token: str = "",
    within_s: float = 30.0,
    ladder: Sequence[ServedModel | ModelFile] = (),
) -> NDArray[np.float32]:
    """Return a server's score of one row, if it is what the model scores here.

    Of several classes it is one of each. The row is the mean of the training rows, at which every
    term but the bias is nothing. Its time is now: it is asked whether a score comes at all.

    Parameters
    ----------
    ladder : sequence of ServedModel or ModelFile
        Models that may answer in its place; the answer says which did.

    Raises
    ------
    ServeError
        If the server is not healthy within ``within_s``, or scores otherwise.
    """
    from trademl.serve.client import predict

    _wait_for_ping(url, within_s)
    features_1D = _question(model)
    answer = predict(url, features_1D, token=token, feature_time_ns=time.time_ns(), timeout_s=10.0)
    answered = _named(answer.model_id, ladder) or model
    found, expected = answer.score_N, np.asarray(answered.predict(features_1D)[0], np.float32)
    if found.shape != expected.shape or np.abs(found - expected).max() > TOLERANCE:
        raise ServeError(
            f"{url} scores {_text(found)} where the model scores {_text(expected)}: it serves "
            "another one"
        )
    return np.asarray(found[0])


def _text(score_N: NDArray[np.float32]) -> str:
    return ", ".join(f"{score:.6f}" for score in score_N.ravel())


def check_model(model: Artifact) -> None:
    """Return if a model can answer: its file is whole, and it scores that row here.

    Raises
    ------
    StoreError
        If its file is not the one that its manifest lists.
    ServeError
        If its score is no finite number.
    """
    path = model.file(MODEL_FILE)
    check_digest(path, model.manifest["files"][MODEL_FILE]["sha256"])
    loaded = load_model(path)
    score_1 = np.asarray(loaded.predict(_question(loaded))[0])
    if not np.isfinite(score_1).all():
        raise ServeError(
            f"{model.id} scores {score_1.ravel()[0]} for the mean of its training rows, expected a "
            "finite number: train it again"
        )


def _question(model: Model) -> NDArray[np.float32]:
    return np.asarray(model.mean_D, np.float32)[None]


def _named(model_id: str, ladder: Sequence[ServedModel | ModelFile]) -> Predictor | None:
    for held in ladder:
        if held.id == model_id:
            if isinstance(held, ServedModel):
                return held.model
            return load_on(Path(held.location), held.device)
    return None


def _wait_for_ping(url: str, within_s: float) -> None:
    from trademl.serve.client import ping

    until = time.monotonic() + within_s
    while True:
        try:
            ping(url)
        except ServeError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)
        else:
            return
