"""Models as artifacts, deployed by hand, and a model that computes as long as a test wants."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import orjson

from ledger_cases import add_batch, add_model, add_study
from trademl.ledger import Ledger, tables
from trademl.store.artifacts import Artifact, ArtifactStore
from trademl.train.model import LinearModel, save_model


def linear_model(weight: float, columns=("a", "b")) -> LinearModel:
    """Return a model whose score of the row 1,1 is the sigmoid of the weight."""
    weights_D = np.array([weight, 0.0])
    return LinearModel(
        weights_D, 0.0, np.zeros(2), np.ones(2), 0.5, columns, status="accepted", reasons=()
    )


def score_of(weight: float) -> float:
    return float(np.float32(1 / (1 + np.exp(-weight))))


def add_artifact(store: ArtifactStore, weight: float, columns=("a", "b")) -> Artifact:
    identity = f"model-{int(weight):012x}"
    with store.create(identity, parents=["study-1", "dataset-1"], parameters={}) as draft:
        save_model(linear_model(weight, columns), draft.path / "model.tar.gz")
        draft.metrics["status"] = "accepted"
    return store.get(identity)


def open_ledger(folder: Path, *models: Artifact) -> Ledger:
    ledger = Ledger(f"sqlite:///{folder / 'ledger.db'}")
    add_batch(ledger)
    add_study(ledger)
    for model in models:
        add_model(ledger, model.id)
    return ledger


def put_behind(ledger: Ledger, model: Artifact, endpoint="btc", mode="live") -> None:
    """Deploy a model as `trademl.serve.deployments.deploy` does, without asking for proofs."""
    now = datetime.now(UTC)
    with ledger.session() as session:
        standing = session.query(tables.Deployment).filter_by(
            endpoint=endpoint, mode=mode, retired_at=None
        )
        for row in standing:
            row.retired_at = now
        number = session.query(tables.Deployment).count()
        session.add(
            tables.Deployment(
                id=f"deployment-{number}", model_id=model.id, endpoint=endpoint, mode=mode
            )
        )


@contextmanager
def port_of_ones_own() -> Iterator[int]:
    """Keep a port for servers that go and come back: nobody else is given it meanwhile."""
    with socket.socket() as kept:
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        kept.bind(("127.0.0.1", 0))  # who does not listen stands in nobody's way who does
        yield kept.getsockname()[1]


@contextmanager
def away(database: Path) -> Iterator[None]:
    """Let nobody open a database's file, from one moment to the next and back.

    Were it missing for a moment, whoever looks just then would make an empty one.
    """
    kept, nothing = database.with_name("kept.db"), database.with_name("nothing")
    kept.hardlink_to(database)
    database.with_name("folder").mkdir()
    nothing.symlink_to("folder")
    nothing.replace(database)
    try:
        yield
    finally:
        kept.replace(database)


class Small:
    """Scores the sum of a row."""

    columns = ("a", "b")
    schema_hash = "ab"

    def predict(self, features_ND):
        score_N = features_ND.sum(axis=1)
        return score_N, (score_N > 0).astype(np.float32)


class Big(Small):
    """Takes longer than a look at the queue is worth, and as long as the test wants."""

    def __init__(self):
        self.may_go = threading.Event()
        self.may_go.set()
        self.n_rows: list[int] = []

    def predict(self, features_ND):
        time.sleep(0.001)
        if features_ND.any():  # zeros are the warm-up
            self.n_rows.append(len(features_ND))
            self.may_go.wait(60)
        return super().predict(features_ND)


def ask(server, body=b"1,1", **headers):
    """Return status, headers and decoded body of one answer."""
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=20)
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request("POST", "/invocations", body, {"Content-Type": "text/csv", **sent})
    response = connection.getresponse()
    answer = orjson.loads(response.read())
    connection.close()
    return response.status, response.headers, answer


def metrics(server) -> dict[str, str]:
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=20)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    return dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))


def wait_until(is_so, what="it"):
    until = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < until, what
        time.sleep(0.005)


def wait_for_metric(server, name: str, value: str) -> None:
    wait_until(lambda: metrics(server).get(name) == value, f"{name} = {value}")
