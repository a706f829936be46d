"""SageMaker's runtime before multi-model endpoints: real containers, loaded as they are asked.

Each endpoint configuration has a fleet of its own, a server of trademl in multi-model mode. A
model that was loaded stays in it under the name that it was asked by, whatever becomes of the
object in S3, as AWS's documentation warns ("Add or Remove Models").
"""

from __future__ import annotations

import hashlib
import http.client
import io
import json
import tarfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from aws_cases import REGION
from hosting_cases import HostingService
from trademl.serve.container import container_serving
from trademl.serve.server import BackgroundServer, ServerConfig

_PASSED_ON = {"content-type", "accept", "x-amzn-sagemaker-custom-attributes"}


class _Fleet:
    """The machines of one configuration: a container, and what it has loaded."""

    def __init__(self, root: Path, stack: ExitStack) -> None:
        self.folder, self.loaded = root / "models", set[str]()
        self.folder.mkdir(parents=True)
        environ = {"SAGEMAKER_MULTI_MODEL": "true"}
        serving = container_serving(root, ServerConfig(port=0), environ)
        self.url = stack.enter_context(BackgroundServer(serving.strategies, serving.config)).url

    def ask(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> Any:
        """Return status, content type and body of the container's answer."""
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=20)
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        found = answer.status, answer.headers["Content-Type"], answer.read()
        connection.close()
        return found


class MultiModelRuntime:
    """Invocations of the endpoints of a `HostingService`; archives come from S3.

    Parameters
    ----------
    instead : dict of str to str
        Archives that are fetched in the place of others.
    not_ready : int
        How many questions are told that the model is still being loaded.
    """

    def __init__(self, service: HostingService, root: Path) -> None:
        self.service, self.root = service, root
        self.instead: dict[str, str] = {}
        self.not_ready = 0
        self.asked: list[tuple[str, str]] = []
        self._fleets: dict[str, _Fleet] = {}
        self._stack = ExitStack()

    @contextmanager
    def running(self) -> Iterator[str]:
        """Yield the runtime's address."""
        server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            with self._stack:
                yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
            server.server_close()

    def invoke(
        self, endpoint: str, target: str | None, body: bytes, headers: dict[str, str]
    ) -> tuple[int, dict[str, str], bytes]:
        """Return status, headers and body of an answer."""
        kept = self.service.endpoints.get(endpoint)
        if kept is None:
            return _refused(400, "ValidationError", f"Endpoint {endpoint} of account 1 not found.")
        if target is None:
            return _refused(400, "ValidationError", "A TargetModel is needed.")
        self.asked.append((endpoint, target))
        if self.not_ready:
            self.not_ready -= 1
            return _refused(429, "ModelNotReadyException", "The model is being loaded.")
        config = self.service.configs[kept["config"]]
        (variant,) = config["ProductionVariants"]
        container = self.service.models[variant["ModelName"]]["PrimaryContainer"]
        assert container["Mode"] == "MultiModel"
        name = kept["config"]
        if name not in self._fleets:
            self._fleets[name] = _Fleet(self.root / name, self._stack)
        fleet = self._fleets[name]
        opaque = hashlib.sha256(target.encode()).hexdigest()[:32]
        if target not in fleet.loaded:
            missing = self._load(fleet, container["ModelDataUrl"], target, opaque)
            if missing is not None:
                return missing
        status, content_type, content = fleet.ask("POST", f"/models/{opaque}/invoke", body, headers)
        if status != 200:
            return _model_error(status, content)
        return 200, {"Content-Type": content_type}, content

    def _load(self, fleet: _Fleet, prefix: str, target: str, opaque: str) -> Any:
        """Bring an archive to the container; return what the caller is told where that fails."""
        import boto3
        from botocore.exceptions import ClientError

        bucket, _, folder = prefix.removeprefix("s3://").partition("/")
        s3 = boto3.client("s3", region_name=REGION)
        try:
            key = folder + self.instead.get(target, target)
            archive = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        except ClientError:
            message = f"Failed to download model data(bucket: {bucket}, key: {folder}{target})."
            return _refused(400, "ValidationError", message)
        place = fleet.folder / opaque / "model"
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            tar.extractall(place, filter="data")
        asked = json.dumps({"model_name": opaque, "url": str(place)}).encode()
        status, _, content = fleet.ask("POST", "/models", asked, {})
        if status != 200:
            return _model_error(status, content)
        fleet.loaded.add(target)
        return None

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                sent = {k: v for k, v in self.headers.items() if k.lower() in _PASSED_ON}
                target = self.headers.get("X-Amzn-SageMaker-Target-Model")
                endpoint = self.path.split("/")[2]
                status, headers, content = outer.invoke(endpoint, target, body, sent)
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(content))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        return Handler


def _refused(status: int, code: str, message: str) -> tuple[int, dict[str, str], bytes]:
    headers = {"Content-Type": "application/json", "x-amzn-ErrorType": code}
    return status, headers, json.dumps({"Message": message}).encode()


def _model_error(status: int, content: bytes) -> tuple[int, dict[str, str], bytes]:
    found = {"OriginalStatusCode": status, "OriginalMessage": content.decode()}
    headers = {"Content-Type": "application/json", "x-amzn-ErrorType": "ModelError"}
    return 424, headers, json.dumps({"Message": "Received client error", **found}).encode()
