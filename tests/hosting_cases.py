"""A model's artifact, and SageMaker's hosting as its API reference describes it.

Moto has no UpdateEndpoint and starts nothing; here an endpoint comes up after one look, reports
the image's digest, and answers with the score of a model of the test's choice.
"""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from aws_cases import BUCKET, OWN_IMAGE, REGION, ROLE, DocumentedServer, RefusalError
from trademl.aws.hosting import HostingConfig
from trademl.aws.settings import AwsConfig
from trademl.serve.model_pool import ModelFile
from trademl.serve.served import Mode
from trademl.serve.strategies import ServedStrategy
from trademl.store.artifacts import Artifact, ArtifactStore
from trademl.store.identity import digest_file
from trademl.train.model import LinearModel, save_model
from trademl.train.model_archive import MODEL_FILE

AWS = AwsConfig(region=REGION, role_arn=ROLE, bucket=BUCKET, poll_s=0.01)
HOSTING = HostingConfig(image=OWN_IMAGE, alarms=("too-many-errors",))
DIGEST = "sha256:" + "ab" * 32
_PASSED_ON = {"content-type", "accept", "x-amzn-sagemaker-custom-attributes",
              "x-amzn-sagemaker-target-variant"}  # fmt: skip


def linear_model(bias: float = 0.25) -> LinearModel:
    """Return a model of three columns whose score of the mean row is the sigmoid of the bias."""
    return LinearModel(
        weights_D=np.array([2.0, -1.0, 0.5]), bias=bias, mean_D=np.array([0.1, 0.0, -0.2]),
        scale_D=np.ones(3), threshold=0.6, columns=("a", "b", "c"),
    )  # fmt: skip


def model_artifact(
    root: Path, identity: str = "model-000000000001", bias: float = 0.25
) -> Artifact:
    """Publish a model."""
    store = ArtifactStore(root)
    if (found := store.find(identity)) is None:
        with store.create(identity, parents=[], parameters={}) as draft:
            save_model(linear_model(bias), draft.path / MODEL_FILE)
        found = store.get(identity)
    return found


def served_strategy(
    root: Path, name: str = "es", *biases: float, mode: Mode = "live", **more: Any
) -> ServedStrategy:
    """Return a strategy of models in files, biggest first; its mean row scores by their biases."""
    ladder = []
    for bias in biases or (0.25,):
        identity = f"model-{round(bias * 1e6):012x}"
        path = model_artifact(root, identity, bias).file(MODEL_FILE)
        ladder.append(ModelFile(identity, str(path), digest_file(path), mode))
    return ServedStrategy(name, tuple(ladder), followed=len(ladder) - 1, **more)


def score_of(bias: float) -> float:
    """Return the score of the mean row."""
    model = linear_model(bias)
    return float(model.scores(model.mean_D[None].astype(np.float32))[0])


class HostingService:
    """One account's models, configurations and endpoints, each kept as it was asked for.

    Parameters
    ----------
    score : float
        What every endpoint answers; ``said`` is what it adds of the model that did.
    ends : callable, optional
        Given a configuration's name, returns the state that an endpoint on it ends in.
    """

    def __init__(self, score: float, ends: Callable[[str], str] | None = None) -> None:
        self.score = score
        self.said: dict[str, str] = {}
        self.ends = ends or (lambda name: "InService")
        self.models: dict[str, dict[str, Any]] = {}
        self.configs: dict[str, dict[str, Any]] = {}
        self.endpoints: dict[str, dict[str, Any]] = {}
        self.server = DocumentedServer(
            {
                "CreateModel": lambda r: self._keep(self.models, "Model", r),
                "DescribeModel": lambda r: self._show(self.models, "Model", r),
                "DeleteModel": lambda r: self._drop(self.models, "Model", r),
                "CreateEndpointConfig": lambda r: self._keep(self.configs, "EndpointConfig", r),
                "DescribeEndpointConfig": lambda r: self._show(self.configs, "EndpointConfig", r),
                "DeleteEndpointConfig": lambda r: self._drop(self.configs, "EndpointConfig", r),
                "CreateEndpoint": self.change,
                "UpdateEndpoint": self.change,
                "DescribeEndpoint": self.describe,
                "DeleteEndpoint": lambda r: self._drop(self.endpoints, "Endpoint", r),
                "InvokeEndpoint": lambda r: {
                    "predictions": [{"score": self.score, "predicted_label": 0.0}],
                    **({"trademl": self.said} if self.said else {}),
                },
            }
        )

    def _keep(self, where: dict[str, Any], noun: str, request: dict[str, Any]) -> dict[str, Any]:
        name = request[f"{noun}Name"]
        where[name] = request
        return {f"{noun}Arn": f"arn:aws:sagemaker:{REGION}:123456789012:{noun.lower()}/{name}"}

    def _show(self, where: dict[str, Any], noun: str, request: dict[str, Any]) -> dict[str, Any]:
        name = request[f"{noun}Name"]
        if name not in where:
            raise RefusalError("ValidationException", f"Could not find {noun} {name}.")
        arn = f"arn:aws:sagemaker:{REGION}:123456789012:{noun.lower()}/{name}"
        return {**where[name], f"{noun}Arn": arn, "CreationTime": 1_790_000_000.0}

    def _drop(self, where: dict[str, Any], noun: str, request: dict[str, Any]) -> dict[str, Any]:
        del where[request[f"{noun}Name"]]
        return {}

    def change(self, request: dict[str, Any]) -> dict[str, Any]:
        """Begin an endpoint's change; a look at it sees it once on its way."""
        name = request["EndpointName"]
        before = self.endpoints.get(name, {}).get("config")
        state = "Updating" if before else "Creating"
        self.endpoints[name] = {
            "state": state, "config": before, "next": request["EndpointConfigName"]
        }  # fmt: skip
        return {"EndpointArn": f"arn:aws:sagemaker:{REGION}:123456789012:endpoint/{name}"}

    def describe(self, request: dict[str, Any]) -> dict[str, Any]:
        name = request["EndpointName"]
        if name not in self.endpoints:
            raise RefusalError("ValidationException", f'Could not find endpoint "{name}".')
        kept = self.endpoints[name]
        found = {
            "EndpointName": name, "EndpointArn": f"arn:aws:sagemaker:{REGION}:1:endpoint/{name}",
            "EndpointConfigName": kept["config"] or kept["next"], "EndpointStatus": kept["state"],
            "CreationTime": 1_790_000_000.0, "LastModifiedTime": 1_790_000_000.0,
        }  # fmt: skip
        if kept["state"] in ("Creating", "Updating"):
            self._arrive(kept)
            return found
        config = self.configs[found["EndpointConfigName"]]
        for key in ("ProductionVariants", "ShadowProductionVariants"):
            if key in config:
                found[key] = [self._variant(variant) for variant in config[key]]
        if "reason" in kept:
            found["FailureReason"] = kept["reason"]
        return found

    def _arrive(self, kept: dict[str, Any]) -> None:
        end = self.ends(kept["next"])
        if end == "RolledBack":
            kept.update(state="InService", reason="alarm too-many-errors went off")
        elif end == "Failed":
            kept.update(state="Failed", config=kept["next"], reason="no answer to ping")
        else:
            kept.update(state="InService", config=kept["next"])

    def _variant(self, variant: dict[str, Any]) -> dict[str, Any]:
        image = self.models[variant["ModelName"]]["PrimaryContainer"]["Image"]
        repository = image.partition(":")[0]
        return {
            "VariantName": variant["VariantName"],
            "CurrentWeight": variant["InitialVariantWeight"],
            "DesiredWeight": variant["InitialVariantWeight"],
            "CurrentInstanceCount": variant["InitialInstanceCount"],
            "DesiredInstanceCount": variant["InitialInstanceCount"],
            "DeployedImages": [
                {"SpecifiedImage": image, "ResolvedImage": f"{repository}@{DIGEST}"}
            ],
        }


@contextmanager
def runtime_before(url: str) -> Iterator[str]:
    """Yield the address of a SageMaker runtime that asks a server as it asks a container.

    Of the headers only those of InvokeEndpoint get through, and what the container refuses is a
    ModelError with the answer in it.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path != "/endpoints/trademl-es/invocations":
                message = f"Endpoint {self.path.split('/')[2]} of account 1 not found."
                self._reply(400, {"Message": message}, "ValidationError")
                return
            sent = {k: v for k, v in self.headers.items() if k.lower() in _PASSED_ON}
            container = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
            model = self.headers.get("X-Amzn-SageMaker-Target-Model")
            path = f"/models/{model}/invoke" if model else "/invocations"
            container.request("POST", path, body, sent)
            answer = container.getresponse()
            content = answer.read()
            container.close()
            if answer.status != 200:
                refusal = {"OriginalStatusCode": answer.status, "OriginalMessage": content.decode()}
                self._reply(424, {"Message": "Received client error", **refusal}, "ModelError")
                return
            self._send(200, content, {"Content-Type": answer.headers["Content-Type"]})

        def _reply(self, status: int, document: dict[str, Any], error: str) -> None:
            headers = {"Content-Type": "application/json", "x-amzn-ErrorType": error}
            self._send(status, json.dumps(document).encode(), headers)

        def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
