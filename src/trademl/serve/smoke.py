"""What is asked after every deployment: whether the server is healthy, and is this model's."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from trademl.errors import ServeError
from trademl.ports import Predictor
from trademl.serve.model_pool import ModelFile
from trademl.serve.placement import load_on
from trademl.serve.served import ServedModel
from trademl.train.model import Model

TOLERANCE = 1e-6


def smoke_test(
    url: str,
    model: Model,
    *,
    token: str = "",
    within_s: float = 30.0,
    ladder: Sequence[ServedModel | ModelFile] = (),
) -> float:
    """Return a server's score of one row, if it is what the model scores here.

    The row is the mean of the training rows, at which every term but the bias is nothing.

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
    features_1D = np.asarray(model.mean_D, np.float32)[None]
    answer = predict(url, features_1D, token=token, timeout_s=10.0, feature_time_ns=time.time_ns())
    answered = _named(answer.model_id, ladder) or model
    found, expected = float(answer.score_N[0]), float(answered.predict(features_1D)[0][0])
    if abs(found - expected) > TOLERANCE:
        raise ServeError(
            f"{url} scores {found:.6f} where the model scores {expected:.6f}: it serves another one"
        )
    return found


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
