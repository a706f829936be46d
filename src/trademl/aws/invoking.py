"""Questions to an endpoint on SageMaker, in real time, through its runtime.

SageMaker passes no header of trademl on, neither way: what is asked goes into custom attributes,
and which model answered is read from the body.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import orjson

from trademl.aws.clients import client
from trademl.aws.failures import aws_errors, code_of, is_not_found
from trademl.errors import CloudError
from trademl.ports import Progress
from trademl.serve.formats import JSON, RECORDIO
from trademl.serve.questions import Floats, Predictions, ask_all, error_text, read_scores

LOAD_TRIES, LOAD_S = 40, 10.0  # SageMaker goes on loading a model for six minutes
_ATTRIBUTES = "trademl-on-abstain=error;trademl-explain=true"


def predict_on_endpoint(
    endpoint: str,
    features_ND: Floats,
    region: str,
    *,
    model: str = "",
    variant: str = "",
    feature_time_ns: int | None = None,
    content_type: str = RECORDIO,
    batch_rows: int = 500,
    progress: Progress | None = None,
) -> Predictions:
    """Return the endpoint's predictions for all rows, asked in requests of at most 6 MiB.

    Parameters
    ----------
    model : str
        Of a multi-model endpoint: the model's archive, as it is called below its prefix.
    variant : str
        Which variant answers; SageMaker shares requests out by weight where empty.
    feature_time_ns : int, optional
        The latest tick that the features read, UTC.

    Raises
    ------
    CloudError
        If there is no such endpoint, AWS refuses, or its container does; it is quoted.
    ServeError
        If the answer cannot be understood, or the rows cannot be asked about.
    """
    runtime = client("sagemaker-runtime", region)
    target = {"TargetModel": model, "TargetVariant": variant}
    asked: dict[str, Any] = {name: value for name, value in target.items() if value}
    when = "" if feature_time_ns is None else f";trademl-feature-time-ns={feature_time_ns}"
    asked |= {"ContentType": content_type, "CustomAttributes": _ATTRIBUTES + when}
    return ask_all(
        features_ND,
        partial(_ask, runtime, endpoint, asked=asked),
        where=f"endpoint {endpoint}",
        content_type=content_type,
        batch_rows=batch_rows,
        progress=progress,
    )


def invoke(
    runtime: Any,
    endpoint: str,
    body: bytes,
    *,
    sleep: Callable[[float], None] = time.sleep,
    **asked: str,
) -> tuple[bytes, str]:
    """Return body and content type of an endpoint's answer.

    A model that a multi-model endpoint has not loaded yet is waited for.

    Parameters
    ----------
    **asked
        Further parameters of ``InvokeEndpoint``, ``ContentType`` among them.

    Raises
    ------
    CloudError
        If there is no such endpoint, AWS refuses, or its container does; it is quoted.
    """
    from botocore.exceptions import ClientError

    with aws_errors(f"asking endpoint {endpoint}"):
        for _ in range(LOAD_TRIES):
            try:
                answer = runtime.invoke_endpoint(
                    EndpointName=endpoint, Accept=JSON, Body=body, **asked
                )
                return answer["Body"].read(), str(answer.get("ContentType", JSON)).partition(";")[0]
            except ClientError as error:
                if code_of(error) != "ModelNotReadyException":
                    where = f"endpoint {endpoint}{_named(asked)}"
                    raise CloudError(f"{where}{_refusal(error)}") from error
            sleep(LOAD_S)
    raise CloudError(
        f"endpoint {endpoint}{_named(asked)} has not loaded the model within "
        f"{LOAD_TRIES * LOAD_S:.0f} s: its container's log says why"
    )


def _named(asked: dict[str, str]) -> str:
    """Return which model of several was asked."""
    return f" ({asked['TargetModel']})" if "TargetModel" in asked else ""


def _refusal(error: Any) -> str:
    """Return what became of a question; raise the error again if it is of AWS itself."""
    if code_of(error) == "ModelError":
        status = error.response.get("OriginalStatusCode", "an error")
        said = str(error.response.get("OriginalMessage", "")) or str(error)
        return f" answered {status}: {error_text(said.encode())}"
    if code_of(error) == "ValidationError" or is_not_found(error):
        message = " ".join(str(error.response["Error"].get("Message", "")).split()).rstrip(".")
        return f" cannot be asked: {message}; trademl deploy sagemaker --status says how it is"
    raise error


def _ask(
    runtime: Any, endpoint: str, body: bytes, n_rows: int, *, asked: dict[str, Any]
) -> Predictions:
    answer, content_type = invoke(runtime, endpoint, body, **asked)
    score_N, label_N = read_scores(answer, content_type, n_rows)
    said = orjson.loads(answer) if content_type == JSON else {}
    why, refused = (_note(said, name) for name in ("trademl", "model"))
    return Predictions(
        score_N,
        label_N,
        str(why.get("model") or refused.get("id", "")),
        str(refused.get("mode", "")),
        str(refused.get("status", "")),
        tuple(map(str, refused.get("reasons", ()))),
    )


def _note(said: dict[str, Any], name: str) -> dict[str, Any]:
    """Return what a server of trademl says of its answer; one of another kind says nothing."""
    note = said.get(name)
    return note if isinstance(note, dict) else {}
