"""One question to each model of an endpoint, held against the score of the same model here."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trademl.aws.endpoint_plan import EndpointPlan
from trademl.aws.hosted_models import HostedArchive, HostedModel
from trademl.aws.invoking import invoke
from trademl.errors import CloudError
from trademl.serve.formats import JSON
from trademl.serve.smoke import TOLERANCE
from trademl.serve.smoke_files import NETWORK_TOLERANCE
from trademl.train.model import LinearModel, load_binary_model

SMOKE_TRIES, SMOKE_S = 30, 2.0
Sleep = Callable[[float], None]


def smoke_predictions(
    plan: EndpointPlan, runtime: Any, sleep: Sleep = time.sleep
) -> dict[str, float]:
    """Return the endpoint's score of one row by each model that callers can ask.

    Raises
    ------
    CloudError
        As `smoke_prediction`.
    """
    return {
        asked.called: smoke_prediction(plan.endpoint, asked, runtime, sleep)
        for asked in plan.answering.asked
    }


def smoke_prediction(
    endpoint: str, hosted: HostedModel | HostedArchive, runtime: Any, sleep: Sleep = time.sleep
) -> float:
    """Return the endpoint's score of one row, if it is the score that its model gives here.

    Of a ladder the answer says which model gave it; the biggest must have answered in the end, but
    under load.

    Raises
    ------
    CloudError
        If the endpoint does not answer, answers something else, or its biggest model never does.
    """
    where = f"endpoint {endpoint}" + (f" ({hosted.target})" if hosted.target else "")
    files = hosted.files
    loaded = {model: load_binary_model(path) for model, path in files.items()}
    biggest, smallest = next(iter(files)), next(reversed(files))
    features_1D = np.asarray(loaded[smallest].mean_D, np.float32)[None]
    for _ in range(SMOKE_TRIES):
        model, score, reason = _ask(endpoint, where, hosted, runtime, features_1D, sleep)
        if model not in loaded:
            raise CloudError(f"{where} answers by {model}: it serves another model")
        expected = float(loaded[model].scores(features_1D)[0])
        is_linear = isinstance(loaded[model], LinearModel)
        if abs(score - expected) > (TOLERANCE if is_linear else NETWORK_TOLERANCE):
            raise CloudError(
                f"{where} scores {score:.6f} where {model} scores {expected:.6f} here: it serves "
                "another model"
            )
        if model == biggest or reason == "load":
            return score
        sleep(SMOKE_S)
    raise CloudError(
        f"{where} is answered by {model} alone: its biggest model {biggest} does not come up, the "
        "container's log says why"
    )


def _ask(
    endpoint: str,
    where: str,
    hosted: HostedModel | HostedArchive,
    runtime: Any,
    features_1D: NDArray[np.float32],
    sleep: Sleep,
) -> tuple[str, float, str]:
    """Return which model answered one row, its score, and the reason why it was that model."""
    body = json.dumps({"instances": [{"features": features_1D[0].tolist()}]}).encode()
    asked = {"ContentType": JSON}
    if hosted.target:
        asked["TargetModel"] = hosted.target
    if hosted.strategy is not None:
        asked["CustomAttributes"] = (
            "trademl-explain=true;trademl-deadline-ms=9000;"
            f"trademl-feature-time-ns={time.time_ns()}"
        )
    answer, _ = invoke(runtime, endpoint, body, sleep=sleep, **asked)
    try:
        found = json.loads(answer)
        said = {"model": hosted.artifact_id, "reason": ""}
        said = said if hosted.strategy is None else found["trademl"]
        return said["model"], float(found["predictions"][0]["score"]), said["reason"]
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise CloudError(f"{where} answers no prediction: {error}") from error
