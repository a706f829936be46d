"""Several worker processes at one address: shared, replaced, drained, ended together."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

from certificates import certificate
from trademl.serve.board import WorkerPlace
from trademl.serve.listening import open_socket
from trademl.serve.server import BackgroundServer, ServedModel, ServerConfig
from trademl.train.model import LinearModel, save_model

WORKER = """
import sys
import numpy as np
from trademl.serve.server import ServedModel, ServedStrategy, ServerConfig, serve
from trademl.serve.supervisor import read_place

class Times:
    columns, schema_hash = ("a",), "test"

    def __init__(self, factor):
        self.factor = np.float32(factor)

    def predict(self, features_ND):
        score_N = features_ND[:, 0] * self.factor
        return score_N, (score_N > 0).astype(np.float32)

strategies = [ServedStrategy(f"times{n}", (ServedModel(Times(n), f"m{n}"),)) for n in (2, 3)]
serve(strategies, ServerConfig(port=0, worker=read_place(sys.argv[1])))
"""
DIES = "import sys; sys.exit('no such model')"
POST = b"POST /invocations HTTP/1.1\r\nContent-Type: text/csv\r\nContent-Length: 1\r\n\r\n"
PARENT = """
import sys
from trademl.serve.settings import ServerConfig
from trademl.serve.supervisor import RestartPolicy, place_text, supervise

worker, count, most_quick = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
supervise(
    lambda place: [sys.executable, "-c", worker, place_text(place)],
    ServerConfig(port=0),
    count,
    on_ready=lambda url: print(url, flush=True),
    policy=RestartPolicy(first_s=0.05, most_quick=most_quick),
)
print("ended", flush=True)
"""


class First:
    columns, schema_hash = ("a",), "test"

    def predict(self, features_ND):
        return features_ND[:, 0], (features_ND[:, 0] > 0).astype(np.float32)


MODEL = ServedModel(First(), "m")


class Group:
    """A server of two workers."""

    def __init__(self, process: subprocess.Popen[bytes] | None, port: int) -> None:
        self.process, self.port = process, port

    @property
    def pids(self) -> list[int]:
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(word) for word in path.read_text().split()]

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, {"Content-Type": "text/csv", **headers})
        response = connection.getresponse()
        found = response.status, response.read().decode()
        connection.close()
        return found

    def total(self, name: str) -> float:
        shown = self.ask("GET", "/metrics")[1]
        return sum(float(value) for value in re.findall(rf"^{name}{{.*}} (.*)$", shown, re.M))


@contextmanager
def started(worker: str = WORKER, *, most_quick: int = 5) -> Iterator[Group]:
    command = [sys.executable, "-c", PARENT, worker, "2", str(most_quick)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            yield Group(process, int(process.stdout.readline().decode().rsplit(":", 1)[1]))
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def group() -> Iterator[Group]:
    with started() as found:
        yield found


def eventually(is_so) -> None:
    until = time.monotonic() + 120
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_every_worker_answers_for_every_strategy(group):
    for _ in range(20):
        for factor in (2, 3):
            status, body = group.ask(
                "POST", "/invocations", b"5", X_Trademl_Strategy=f"times{factor}"
            )
            assert (status, f'"score":{factor * 5}.0' in body) == (200, True)


def test_metrics_are_of_all_workers_whoever_is_asked(group):
    before = group.total("trademl_rows_total")
    for _ in range(20):
        group.ask("POST", "/invocations", b"5")

    assert [group.total("trademl_rows_total") - before for _ in range(10)] == [20] * 10
    assert group.total("trademl_worker_up") == 2


def test_a_killed_worker_is_replaced_while_the_other_answers(group):
    dead = group.pids[0]
    os.kill(dead, signal.SIGKILL)

    statuses = {group.ask("POST", "/invocations", b"5")[0] for _ in range(50)}
    eventually(lambda: group.total("trademl_worker_up") == 2)

    assert statuses == {200}
    assert dead not in group.pids
    assert len(group.pids) == 2
    assert group.total("trademl_worker_restarts_total") == 1
    assert group.ask("GET", "/ping")[0] == 200


def test_workers_end_with_the_process_that_started_them(group):  # the last one of this group
    pids = group.pids
    group.process.kill()

    eventually(lambda: not any(map(is_running, pids)))


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_a_first_worker_that_does_not_come_up_ends_the_server():
    command = [sys.executable, "-c", PARENT, DIES, "2", "5"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)

    assert done.returncode == 1
    assert done.stderr.count("no such model") == 1
    assert "no worker came up: the first ended with code 1, see above" in done.stderr


def test_a_worker_that_dies_again_and_again_is_given_up():
    one_of_two = f"import sys\nif '\"number\":1' in sys.argv[1]: sys.exit('boom')\n{WORKER}"
    command = [sys.executable, "-c", PARENT, one_of_two, "2", "3"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)

    assert done.returncode == 1
    assert done.stderr.count("boom") == 3
    assert re.search("worker 1 ended with code 1 .*, death 3 in a row within 30 s", done.stderr)


def test_the_command_line_serves_a_container_with_workers_and_drains_them_all(tmp_path):
    model = LinearModel(np.ones(1), 0.0, np.zeros(1), np.ones(1), 0.5, ("a",))
    save_model(model, tmp_path / "model.tar.gz")
    with tarfile.open(tmp_path / "model.tar.gz") as tar:
        tar.extractall(tmp_path / "model", filter="data")
    command = [sys.executable, "-m", "trademl", "serve", "--ml-root", str(tmp_path), "--port", "0"]
    command += ["--workers", "2", "--capture", str(tmp_path / "kept"), "--capture-percent", "100"]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        said = [json.loads(process.stderr.readline()) for _ in range(3)]
        ready = next(line["message"] for line in said if "worker" not in line)
        group = Group(process, int(ready.rsplit(":", 1)[1]))
        with socket.create_connection(("127.0.0.1", group.port)) as client:
            client.sendall(b"GET /ping HTTP/1.1\r\n\r\n" + POST)
            assert client.recv(1000).startswith(b"HTTP/1.1 200")  # so the rest has been read too
            pids = group.pids
            process.terminate()
            client.sendall(b"0")
            answer = client.recv(10_000)
        rest = [json.loads(line) for line in process.stderr]

    assert ready.startswith("2 workers answer at http://0.0.0.0:")
    assert answer.startswith(b"HTTP/1.1 200")
    assert b'"score":0.5' in answer
    assert process.returncode == 0
    assert not any(map(is_running, pids))
    assert sum(line["Requests"] for line in rest if "_aws" in line and "Tier" not in line) == 1
    captured = [line for path in (tmp_path / "kept").rglob("*.jsonl") for line in path.open()]
    assert len(captured) == 1


@pytest.fixture
def place(tmp_path: Path) -> Iterator[WorkerPlace]:
    """The first of two places; nobody stands at the other one."""
    reading, writing = os.pipe()
    with open_socket("127.0.0.1", 0) as listening:
        yield WorkerPlace(0, 2, os.dup(listening.fileno()), reading, str(tmp_path))
    os.close(reading)
    os.close(writing)


def test_a_worker_that_misses_another_is_unhealthy_and_answers_all_the_same(place):
    with BackgroundServer(MODEL, ServerConfig(worker=place)) as server:
        group = Group(None, urlsplit(server.url).port)
        status, body = group.ask("GET", "/ping")
        assert (status, "worker 1 of 2 does not answer yet" in body) == (503, True)
        assert group.ask("POST", "/invocations", b"5")[0] == 200
        assert group.total("trademl_worker_up") == 1


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_workers_speak_https_and_a_client_that_does_not_harms_none(place, tmp_path):
    cert, key = certificate(tmp_path)
    config = ServerConfig(worker=place, tls_cert=cert, tls_key=key)
    with BackgroundServer(MODEL, config) as server:
        where = urlsplit(server.url)
        with socket.create_connection((where.hostname, where.port), timeout=10) as client:
            client.sendall(b"GET /ping HTTP/1.1\r\n\r\n")
            assert b"HTTP" not in client.recv(1000)
        trust = ssl.create_default_context(cafile=cert)
        connection = http.client.HTTPSConnection(where.netloc, timeout=10, context=trust)
        connection.request("POST", "/invocations", b"5", {"Content-Type": "text/csv"})
        answer = connection.getresponse()
        assert (where.scheme, answer.status) == ("https", 200)
        connection.close()
