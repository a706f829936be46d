"""A server in the background: found again, never mistaken for another process, ended politely."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from serving_cases import linear_model, score_of
from trademl.errors import ServeError
from trademl.serve import background
from trademl.serve.background import STATE_FILE, find_service, start_service, stop_service
from trademl.serve.freshness import Freshness
from trademl.serve.process import end_process, identify
from trademl.serve.served import served
from trademl.serve.server import BackgroundServer, ServedStrategy
from trademl.serve.smoke import smoke_test

PROGRAM = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
print("serving x at http://127.0.0.1:9", flush=True)
time.sleep(60)
"""
STUBBORN = PROGRAM.replace("lambda *_: sys.exit(0)", "signal.SIG_IGN")


def command(program: str = PROGRAM) -> list[str]:
    return [sys.executable, "-c", program]


def healthy(url: str) -> None:
    pass


def test_a_started_server_is_found_again_and_ends_when_told(tmp_path):
    service = start_service(command(), tmp_path, "x", healthy)
    assert service.url == "http://127.0.0.1:9"
    assert find_service(tmp_path) == service
    assert service.is_running

    stop_service(tmp_path)

    assert not service.is_running
    with pytest.raises(ServeError, match="no server runs"):
        stop_service(tmp_path)


def test_a_second_start_is_refused_and_the_first_goes_on(tmp_path):
    service = start_service(command(), tmp_path, "x", healthy)
    try:
        with pytest.raises(ServeError, match="runs already at http://127.0.0.1:9"):
            start_service(command(), tmp_path, "x", healthy)
        assert service.is_running
    finally:
        stop_service(tmp_path)


def test_a_server_that_fails_its_check_is_ended(tmp_path):
    seen = []

    def check(url: str) -> None:
        seen.append(find_service(tmp_path))
        raise ServeError("scores otherwise")

    with pytest.raises(ServeError, match="scores otherwise"):
        start_service(command(), tmp_path, "x", check)

    assert not seen[0].is_running
    assert find_service(tmp_path) is None


def test_a_server_that_ends_at_once_is_quoted(tmp_path):
    program = "import sys; sys.exit('trademl: port 8080 is taken')"

    with pytest.raises(ServeError, match="port 8080 is taken"):
        start_service(command(program), tmp_path, "x", healthy)


def test_a_stale_file_never_ends_another_process_of_the_same_number(tmp_path):
    service = start_service(command(), tmp_path, "x", healthy)
    path = tmp_path / STATE_FILE
    state = json.loads(path.read_bytes())
    state["process"]["started"] -= 1  # as if the number had been given to another since
    path.write_text(json.dumps(state))
    try:
        with pytest.raises(ServeError, match="no server runs"):
            stop_service(tmp_path)
        assert service.is_running
    finally:
        end_process(service.process, patience_s=5)


def test_a_server_that_starts_as_soon_as_another_has_ended_is_known(tmp_path, monkeypatch):
    started = []

    def end_then_start(process, *, patience_s):
        end_process(process, patience_s=patience_s)
        started.append(start_service(command(), tmp_path, "y", healthy))

    start_service(command(), tmp_path, "x", healthy)
    monkeypatch.setattr(background, "end_process", end_then_start)
    stop_service(tmp_path)
    monkeypatch.undo()

    assert find_service(tmp_path) == started[0]
    assert stop_service(tmp_path) == started[0]


def test_a_server_that_does_not_listen_to_sigterm_is_ended_all_the_same(tmp_path):
    service = start_service(command(STUBBORN), tmp_path, "x", healthy)

    stop_service(tmp_path, patience_s=0.2)

    assert not service.is_running


def test_a_process_that_ended_but_was_not_waited_for_does_not_run():
    with subprocess.Popen(["true"]) as process:
        process.wait()
        assert identify(process.pid) is None


def test_the_smoke_prediction_may_come_from_any_model_of_the_ladder():
    deployed, bigger = (replace(linear_model(1.0), bias=bias) for bias in (0.25, 0.5))
    ladder = (served(bigger, "bigger"), served(deployed, "deployed"))
    with BackgroundServer((ServedStrategy("x", ladder, followed=1),)) as server:
        found = smoke_test(server.url, deployed, ladder=ladder)
        with pytest.raises(ServeError, match="it serves another one"):
            smoke_test(server.url, deployed)

    assert found == pytest.approx(score_of(0.5), abs=1e-6)


def test_a_damaged_file_is_one_line(tmp_path: Path):
    (tmp_path / STATE_FILE).write_text("{")

    with pytest.raises(ServeError, match="is damaged"):
        find_service(tmp_path)


def test_a_strategy_that_wants_the_time_of_its_features_is_told():
    model = linear_model(1.0)
    freshness = Freshness(max_feature_age_s=60.0, needs_feature_time=True)
    strategy = ServedStrategy("es", (served(model, "m"),), freshness=freshness)
    with BackgroundServer(strategy) as server:
        assert smoke_test(server.url, model) == pytest.approx(0.5)
