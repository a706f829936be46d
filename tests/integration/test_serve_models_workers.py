"""Models that come and go over HTTP, on a server of two worker processes: the same in both."""

from __future__ import annotations

import http.client
import os
import re
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import orjson
import pytest

from serving_cases import linear_model, score_of
from trademl.serve.archives import unpacked_bytes
from trademl.train.model import save_model

PARENT = """
import sys
from trademl.serve.settings import ServerConfig
from trademl.serve.supervisor import RestartPolicy, place_text, supervise

supervise(
    lambda place: [sys.executable, "-c", sys.argv[1], place_text(place), *sys.argv[3:]],
    ServerConfig(port=0),
    2,
    on_ready=lambda url: print(url, file=sys.stderr, flush=True),
    policy=RestartPolicy(first_s=0.05, hung_s=float(sys.argv[2])),
)
"""
# Its models score the number of the process; files in the folder say where it is to wait.
WORKER = """
import os
import sys
import time
from pathlib import Path
import numpy as np
from trademl.serve import model_pool
from trademl.serve.server import ServerConfig, serve
from trademl.serve.supervisor import read_place

place, folder, room = read_place(sys.argv[1]), Path(sys.argv[2]), [int(n) for n in sys.argv[3:]]

def wait(where):
    if (hold := folder / f"hold-{where}-{os.getpid()}").exists():
        (folder / f"held-{where}-{os.getpid()}").touch()
    while hold.exists():
        time.sleep(0.005)

class Numbered:
    columns, schema_hash = ("a", "b"), "test"

    def predict(self, features_ND):
        wait("predict")
        time.sleep(0.001)  # not at once, but in a thread
        return np.full(len(features_ND), os.getpid(), np.float32), None

def load_on(path, device):
    wait("load")
    return Numbered()

model_pool.load_on = load_on
serve((), ServerConfig(worker=place, model_folder=folder, memory_bytes=room[place.number]))
"""
ROW = b"1,1"


class Server:
    """Two workers behind a port."""

    def __init__(self, process: subprocess.Popen[str], port: int, folder: Path) -> None:
        self.process, self.port, self.folder = process, port, folder

    @property
    def pids(self) -> list[int]:
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(word) for word in path.read_text().split()]

    @contextmanager
    def doors(self) -> Iterator[list[Door]]:
        """Give one connection to each worker."""
        found: dict[str, Door] = {}
        until = time.monotonic() + 120
        try:
            while len(found) < 2:
                assert time.monotonic() < until
                door = Door(self)
                if found.setdefault(door.worker(), door) is not door:
                    door.close()
                    time.sleep(0.02)
            yield list(found.values())
        finally:
            for door in found.values():
                door.close()

    def kill(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: not is_running(pid))

    def everywhere(self, method: str, path: str, body: bytes | None = None) -> list:
        """Return the different answers of the workers."""
        answers = []
        with self.doors() as doors:
            for door in doors:
                if (answer := door.ask(method, path, body)) not in answers:
                    answers.append(answer)
        return answers

    def bytes_in_memory(self) -> list[float]:
        """Return what the models of each worker take; fewer numbers while one is missing."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        with closing(connection):
            connection.request("GET", "/metrics")
            text = connection.getresponse().read().decode()
        return [float(n) for n in re.findall(r"^trademl_model_bytes{.*} (.*)$", text, re.M)]

    def scores(self, name: str) -> list:
        with self.doors() as doors:
            return [door.score(name) for door in doors]

    def load(self, name: str, path: str) -> int:
        with closing(Door(self)) as door:
            return door.load(name, path)[0]


class Door:
    """A connection to one of the workers."""

    def __init__(self, server: Server) -> None:
        self._folder = server.folder
        self._connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
        self.headers: http.client.HTTPMessage

    def ask(self, method: str, path: str, body: bytes | None = None):
        headers = {"Content-Type": "text/csv", "X-Trademl-Deadline-Ms": "60000"}
        self._connection.request(method, path, body, headers)
        response = self._connection.getresponse()
        self.headers = response.headers
        found = response.read()
        return response.status, orjson.loads(found) if found else None

    def worker(self) -> str:
        """Return a word that stands for the process that answers here."""
        self.ask("GET", "/nothing")
        return self.headers["X-Request-Id"].partition("-")[0]

    def load(self, name: str, path: str):
        document = {"model_name": name, "url": str(self._folder / path)}
        return self.ask("POST", "/models", orjson.dumps(document))

    def score(self, name: str):
        status, answer = self.ask("POST", f"/models/{name}/invoke", ROW)
        return answer["predictions"][0]["score"] if status == 200 else status

    def close(self) -> None:
        self._connection.close()


def fill(folder: Path) -> Path:
    """Put three archives into a folder, and what the platform unpacks of the first one."""
    for n in (1, 2, 3):
        save_model(linear_model(float(n)), folder / f"{n}.tar.gz")
    with tarfile.open(folder / "1.tar.gz") as tar:
        tar.extractall(folder / "unpacked", filter="data")
    return folder


@contextmanager
def started(command: list[str], folder: Path) -> Iterator[Server]:
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            line = next(line for line in process.stderr if "http://127.0.0.1:" in line)
            yield Server(process, int(line.strip().rsplit(":", 1)[1]), folder)
        finally:
            process.terminate()
            process.stderr.close()


def started_verb(folder: Path):
    verb = ["serve", "--models", str(folder), "--port", "0", "--workers", "2"]
    return started([sys.executable, "-m", "trademl", *verb], folder)


def started_numbered(folder: Path, *room_bytes: int, hung_s: float = 60.0):
    room = map(str, room_bytes or (2**30, 2**30))
    words = [WORKER, str(hung_s), str(folder), *room]
    return started([sys.executable, "-c", PARENT, *words], folder)


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    with started_verb(fill(tmp_path_factory.mktemp("models"))) as found:
        yield found


@pytest.fixture
def folder(tmp_path) -> Path:
    return fill(tmp_path)


@pytest.fixture
def numbered(folder) -> Iterator[Server]:
    with started_numbered(folder) as found:
        assert found.load("who", "1.tar.gz") == 200
        yield found


def eventually(is_so: Callable[[], bool]) -> None:
    until = time.monotonic() + 120
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.02)


def state_of(pid: int) -> str:
    """Return a process's state as one letter, as proc(5) has it: X where it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "X"


def is_running(pid: int) -> bool:
    return state_of(pid) not in "ZX"


@contextmanager
def held(server: Server, where: str, pid: int) -> Iterator[Callable[[], bool]]:
    """Let a worker wait where it loads or predicts; give whether it does."""
    hold = server.folder / f"hold-{where}-{pid}"
    hold.touch()
    try:
        yield (server.folder / f"held-{where}-{pid}").exists
    finally:
        hold.unlink(missing_ok=True)


def test_a_model_loaded_through_one_worker_answers_through_every_one(server):
    with server.doors() as doors:
        for n, door in enumerate(doors, 1):
            assert door.load(f"every{n}", f"{n}.tar.gz")[0] == 200
            for other in doors:
                assert other.score(f"every{n}") == pytest.approx(score_of(n), abs=1e-7)


def test_every_worker_shows_the_same_list(server):
    server.load("shown", "2.tar.gz")
    shown = {"modelName": "shown", "modelUrl": str(server.folder / "2.tar.gz")}

    (one,) = server.everywhere("GET", "/models/shown")
    (listed,) = server.everywhere("GET", "/models")

    assert one == (200, shown)
    assert shown in listed[1]["models"]


def test_a_model_unloaded_through_one_worker_is_gone_from_all(server):
    with server.doors() as (one, other):
        one.load("leaves", "1.tar.gz")
        assert other.ask("DELETE", "/models/leaves") == (200, {})
        for door in (one, other):
            assert door.score("leaves") == 404
            assert door.ask("GET", "/models/leaves")[0] == 404
            assert door.ask("DELETE", "/models/leaves")[0] == 404


def test_a_name_loaded_again_is_the_new_model_in_all(server):
    with server.doors() as (one, other):
        one.load("again", "1.tar.gz")
        assert other.load("again", "2.tar.gz")[0] == 409
        other.ask("DELETE", "/models/again")
        assert other.load("again", "2.tar.gz")[0] == 200
        for door in (one, other):
            assert door.score("again") == pytest.approx(score_of(2), abs=1e-7)


def test_of_two_loads_of_a_name_at_once_one_is_too_late(server):
    with server.doors() as doors, ThreadPoolExecutor(2) as threads:
        for n in range(10):
            found = threads.map(lambda door, n=n: door.load(f"twice{n}", "1.tar.gz")[0], doors)
            assert sorted(found) == [200, 409]


def test_two_names_loaded_at_once_are_both_there(server):
    with server.doors() as doors, ThreadPoolExecutor(2) as threads:
        for n in range(10):
            names = (f"left{n}", f"right{n}")
            found = threads.map(lambda door, name: door.load(name, "1.tar.gz")[0], doors, names)
            assert list(found) == [200, 200]
            for name in names:
                expected = pytest.approx(score_of(1), abs=1e-7)
                assert [door.score(name) for door in doors] == [expected, expected]


def test_a_worker_that_is_replaced_has_what_was_loaded_before_it_answers(folder):
    with started_verb(folder) as server:
        assert server.load("unpacked", "unpacked") == 200
        assert server.load("two", "2.tar.gz") == 200
        dead, _ = server.pids
        server.kill(dead)

        workers, expected = set(), [pytest.approx(score_of(n), abs=1e-7) for n in (1, 2)]
        until = time.monotonic() + 120
        while len(workers) < 2:
            assert time.monotonic() < until
            with closing(Door(server)) as door:
                assert [door.score("unpacked"), door.score("two")] == expected
                workers.add(door.worker())

        assert len(server.pids) == 2
        assert dead not in server.pids


def test_a_worker_that_is_replaced_loads_before_it_is_asked(numbered):
    before = numbered.bytes_in_memory()
    numbered.kill(numbered.pids[0])

    with numbered.doors():
        after = numbered.bytes_in_memory()

    assert before[0] > 0
    assert after == before


def test_a_worker_that_is_replaced_refuses_a_model_that_has_changed(folder):
    with started_verb(folder) as server:
        assert server.load("one", "1.tar.gz") == 200
        save_model(linear_model(3.0), folder / "1.tar.gz")
        server.kill(server.pids[0])

        found = server.scores("one")

        assert sorted(found, key=lambda score: score > 1) == [
            pytest.approx(score_of(1), abs=1e-7),
            503,
        ]


def test_a_model_without_room_in_one_worker_is_loaded_in_none(folder):
    size = unpacked_bytes(folder / "1.tar.gz")
    with started_numbered(folder, size * 5 // 2, size * 3 // 2) as server:
        with server.doors() as doors:
            assert doors[0].load("one", "1.tar.gz")[0] == 200
            for door in doors:
                assert door.load("two", "2.tar.gz")[0] == 507
            assert [door.score("two") for door in doors] == [404, 404]
            assert doors[0].ask("DELETE", "/models/one")[0] == 200
            assert doors[1].load("two", "2.tar.gz")[0] == 200
        (listed,) = server.everywhere("GET", "/models")
        assert [model["modelName"] for model in listed[1]["models"]] == ["two"]


def test_a_load_whose_worker_is_killed_never_was(folder):
    room = unpacked_bytes(folder / "1.tar.gz") * 5 // 2
    with started_numbered(folder, room, room) as server:
        assert server.load("who", "1.tar.gz") == 200
        with server.doors() as (one, other), ThreadPoolExecutor(1) as threads:
            killed, left = int(one.score("who")), int(other.score("who"))
            with held(server, "load", left) as is_held:
                load = threads.submit(one.load, "new", "2.tar.gz")
                eventually(is_held)
                assert other.score("new") == 404
                server.kill(killed)
                assert isinstance(load.exception(120), http.client.HTTPException | OSError)
                assert other.score("who") == left
            assert [found[0] for found in server.everywhere("GET", "/models/new")] == [404]
            assert other.load("third", "3.tar.gz")[0] == 200  # there is room for two
        assert set(server.scores("third")) == set(server.pids)


def test_a_worker_that_is_killed_while_it_is_told_of_a_model_comes_back_with_it(numbered):
    with numbered.doors() as (one, other), ThreadPoolExecutor(1) as threads:
        killed = int(other.score("who"))
        with held(numbered, "load", killed) as is_held:
            load = threads.submit(one.load, "new", "2.tar.gz")
            eventually(is_held)
            numbered.kill(killed)
            assert load.result(120)[0] == 200
        assert one.score("new") == one.score("who")
    found = set(numbered.scores("new"))
    assert found == set(numbered.pids)
    assert killed not in found


@pytest.fixture
def hasty(folder) -> Iterator[Server]:
    """Two workers of which one that is silent for a moment is killed."""
    with started_numbered(folder, hung_s=5.0) as found:
        assert found.load("who", "1.tar.gz") == 200
        yield found


def test_a_worker_that_hangs_is_waited_for_until_it_is_replaced(hasty):
    with hasty.doors() as (one, other):
        hung = int(other.score("who"))
        os.kill(hung, signal.SIGSTOP)
        assert one.load("new", "2.tar.gz")[0] == 200
        assert state_of(hung) not in "Tt"  # it is dying at least, if not gone and replaced
        assert one.ask("DELETE", "/models/who")[0] == 200
    assert set(hasty.scores("new")) == set(hasty.pids)
    assert hasty.scores("who") == [404, 404]


def test_an_unloaded_model_is_out_of_the_memory_of_all_once_that_is_answered(numbered):
    assert min(numbered.bytes_in_memory()) > 0
    with closing(Door(numbered)) as door:
        assert door.ask("DELETE", "/models/who") == (200, {})
    assert numbered.bytes_in_memory() == [0, 0]


def test_a_model_that_is_being_loaded_is_unloaded_after_that(numbered):
    with numbered.doors() as (one, other), ThreadPoolExecutor(2) as threads:
        with held(numbered, "load", int(one.score("who"))) as is_held:
            load = threads.submit(one.load, "new", "2.tar.gz")
            eventually(is_held)
            unload = threads.submit(other.ask, "DELETE", "/models/new")
            with closing(Door(numbered)) as third:
                assert {third.score("new") for _ in range(20)} == {404}
        assert load.result(120)[0] == 200
        assert unload.result(120) == (200, {})
    assert numbered.scores("new") == [404, 404]


def test_what_was_asked_before_a_model_is_unloaded_is_answered(numbered):
    with numbered.doors() as (one, other), ThreadPoolExecutor(1) as threads:
        pid = int(one.score("who"))
        with held(numbered, "predict", pid) as is_held:
            asked = threads.submit(one.score, "who")
            eventually(is_held)
            assert other.ask("DELETE", "/models/who") == (200, {})
        assert asked.result(120) == pid
        assert one.score("who") == 404


def test_models_that_come_and_go_fail_no_request(numbered):
    stop = threading.Event()

    def ask(door: Door) -> set:
        found = set()
        while not stop.is_set():
            found.add(door.score("comes"))
        return found

    with numbered.doors() as askers, numbered.doors() as doors, ThreadPoolExecutor(2) as threads:
        asking = [threads.submit(ask, door) for door in askers]
        try:
            for n in range(20):
                assert doors[n % 2].load("comes", "2.tar.gz")[0] == 200
                assert doors[n // 2 % 2].ask("DELETE", "/models/comes")[0] == 200
        finally:
            stop.set()
        found = set().union(*(done.result(120) for done in asking))
    assert found - {404} == set(map(float, numbered.pids))
