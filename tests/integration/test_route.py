"""A route in front of real servers, of which one is killed, stopped or cut off."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import ExitStack, contextmanager

import numpy as np
import pytest

from running import one_line
from serving_cases import Small, port_of_ones_own
from trademl.errors import ServeError
from trademl.serve.client import predict
from trademl.serve.routing.server import BackgroundRoute
from trademl.serve.routing.settings import RegionConfig, Regions, RouteConfig
from trademl.serve.routing.upstream import Upstream
from trademl.serve.server import BackgroundServer, ServedModel, ServerConfig

PROGRAM = """
import numpy as np
from trademl.serve.server import ServedModel, ServerConfig, serve

class Sum:
    columns = ("a", "b")
    schema_hash = "test"

    def predict(self, features_ND):
        score_N = features_ND.sum(axis=1)
        return score_N, (score_N >= 0).astype(np.float32)

serve(ServedModel(Sum(), "m"), ServerConfig(port=0), on_ready=lambda url: print(url, flush=True))
"""
ROW = np.ones((1, 2), np.float32)
CUT_OFF_MS = "1000"  # what the route promises


@contextmanager
def server_process():
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE) as process:
        try:
            yield process, process.stdout.readline().decode().strip()
        finally:
            process.kill()


@contextmanager
def blackhole():
    """Accept connections and never say a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        kept, is_over = [], threading.Event()
        listener.settimeout(0.05)

        def swallow():
            while not is_over.is_set():
                try:
                    kept.append(listener.accept()[0])
                except TimeoutError:
                    continue

        thread = threading.Thread(target=swallow)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            is_over.set()
            thread.join()
            for connection in kept:
                connection.close()


def routed(urls, config=None, **route):
    regions = tuple(RegionConfig(name, url) for name, url in urls.items())
    return BackgroundRoute(Regions(regions, RouteConfig(**route)), config)


def ask(url, **headers):
    """Return status, region, headers and body of one question."""
    request = urllib.request.Request(
        f"{url}/invocations", b"1,1", {"Content-Type": "text/csv", **headers}
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read()


def get(url, path):
    with urllib.request.urlopen(f"{url}{path}", timeout=60) as answer:
        return answer.read()


def standing(url):
    return {r["name"]: r for r in json.loads(get(url, "/regions"))["regions"]}


def until(is_so, within_s=60.0):
    deadline = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < deadline, "it never came to be"
        time.sleep(0.01)


@pytest.mark.slow
def test_a_region_that_is_killed_or_hangs_is_replaced_within_a_second():
    with ExitStack() as stack:
        (hk, hk_url), (us, us_url) = (stack.enter_context(server_process()) for _ in range(2))
        with routed({"hk": hk_url, "us": us_url}) as route:
            until(lambda: all(region["is_up"] for region in standing(route.url).values()))
            assert {ask(route.url)[1]["X-Trademl-Region"] for _ in range(20)} <= {"hk", "us"}
            os.kill(hk.pid, signal.SIGSTOP)
            assert_answered_by(route.url, "us", gone="hk")
            os.kill(hk.pid, signal.SIGCONT)
            until(lambda: standing(route.url)["hk"]["is_available"])
            back = standing(route.url)["hk"]
            assert back["last_failure_at"] < back["since"] <= back["last_failure_over_at"]
            os.kill(us.pid, signal.SIGKILL)
            assert_answered_by(route.url, "hk", gone="us")
            os.kill(hk.pid, signal.SIGKILL)
            until(lambda: ask(route.url)[1]["X-Trademl-Region"] == "none")


def assert_answered_by(url, region, gone):
    """Every question from now on is answered, within a second, and soon by that region alone."""
    for _ in range(60):
        assert_has_answered(region, ask(url, **{"X-Trademl-Deadline-Ms": CUT_OFF_MS}))
    until(lambda: not standing(url)[gone]["is_up"])
    before = asked_for_nothing(url)
    for _ in range(60):
        assert_has_answered(region, ask(url, **{"X-Trademl-Deadline-Ms": CUT_OFF_MS}))
    assert asked_for_nothing(url) == before  # then nobody waits for the one that is gone


def assert_has_answered(region, asked):
    """A region's name in an answer says that it came before the deadline: else it is none."""
    status, headers, body = asked
    assert headers["X-Trademl-Region"] == region
    assert (status, json.loads(body)["predictions"][0]["score"]) == (200, 2.0)


def asked_for_nothing(url):
    """Return how many second questions there were, and what each region failed or was left at."""
    names = r"^trademl_route_(?:hedges|region_failures|region_given_up)_total.*"
    return re.findall(names, get(url, "/metrics").decode(), re.M)


def test_a_region_behind_a_black_hole_is_found_out_and_left_alone():
    with (
        blackhole() as nowhere,
        BackgroundServer(ServedModel(Small(), "m")) as server,
        routed({"hk": nowhere, "us": server.url}) as route,
    ):
        assert_answered_by(route.url, "us", gone="hk")
        assert "/ping took more than" in standing(route.url)["hk"]["last_failure"]


def test_answers_are_the_regions_own_with_the_region_named():
    with (
        BackgroundServer(ServedModel(Small(), "m")) as server,
        routed({"us": server.url}) as route,
    ):
        found = predict(route.url, np.arange(200, dtype=np.float32).reshape(100, 2))
        status, headers, body = ask(
            route.url, **{"X-Request-Id": "mine", "X-Trademl-Explain": "true"}
        )
        missing = ask(route.url, **{"X-Trademl-Strategy": "nobody"})
        parameters = json.loads(get(route.url, "/execution-parameters"))
        metrics = get(route.url, "/metrics").decode()
        get(route.url, "/ping")
    np.testing.assert_array_equal(found.score_N, np.arange(200).reshape(100, 2).sum(axis=1))
    assert found.model_id == "m"
    assert (status, headers["X-Trademl-Region"], headers["X-Request-Id"]) == (200, "us", "mine")
    assert headers["X-Trademl-Tier"] == json.loads(body)["trademl"]["tier"] == "biggest"
    assert missing[0] == 404
    assert parameters["BatchStrategy"] == "MULTI_RECORD"
    assert 'trademl_route_region_up{region="us"} 1' in metrics
    assert 'trademl_route_region_latency_seconds_count{region="us"} 4' in metrics


def test_the_deadline_that_a_region_is_told_is_what_is_left():
    seen = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def answer():
            for _ in range(2):  # the first look, then a question
                connection, _ = listener.accept()
                with connection:
                    data = connection.recv(65536)
                    while not data.endswith(b"\r\n\r\n") and not data.endswith(b"1,1"):
                        data += connection.recv(65536)
                    seen.append(data.decode())
                    connection.sendall(
                        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
                    )

        thread = threading.Thread(target=answer)
        thread.start()
        with routed({"us": f"http://127.0.0.1:{port}"}, health_every_s=3600) as route:
            ask(
                route.url,
                **{
                    "X-Trademl-Deadline-Ms": "5000",
                    "X-Trademl-Sent-Ns": str(time.time_ns() - 2 * 10**9),
                    "X-Trademl-Spread": "0.5",
                },
            )
        thread.join()
    headers = {
        name.lower(): value
        for name, _, value in (line.partition(": ") for line in seen[1].split("\r\n"))
    }
    assert 1000 < float(headers["x-trademl-deadline-ms"]) < 3000
    assert abs(int(headers["x-trademl-sent-ns"]) - time.time_ns()) < 60 * 10**9
    assert headers["x-trademl-spread"] == "0.5"


def upstream_of(answer):
    """Return what two questions to a server come to, and how many connections it saw.

    The server is a function of connection's and request's number that returns bytes; empty ones
    close the connection.
    """
    n_connections = 0

    async def serve(reader, writer):
        nonlocal n_connections
        n_connections += 1
        connection, request = n_connections, 0
        while await reader.readuntil(b"\r\n\r\n"):
            request += 1
            if not (said := answer(connection, request)):
                break
            writer.write(said)
        writer.close()

    async def run():
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            upstream = Upstream(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
            found = []
            for _ in range(2):
                try:
                    found.append((await upstream.ask("GET", "/", {})).body)
                except ConnectionError as error:
                    found.append(str(error))
            upstream.close()
        return found

    return asyncio.run(run()), n_connections


YES = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nyes"


@pytest.mark.parametrize(
    ("answer", "found", "n_connections"),
    [
        (lambda c, r: YES, [b"yes", b"yes"], 1),
        (lambda c, r: YES if r == 1 else b"", [b"yes", b"yes"], 2),  # it had died while kept
        (lambda c, r: YES if c == r == 1 else b"", [b"yes", "it closed the connection"], 2),
        (lambda c, r: b"", ["it closed the connection"] * 2, 2),
        (lambda c, r: b"rubbish\r\n\r\n", ["it answers no HTTP"] * 2, 2),
        (lambda c, r: b"HTTP/1.1 100 Continue\r\n\r\n" + YES, [b"yes", b"yes"], 1),
        (
            lambda c, r: YES.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"),
            [b"yes", b"yes"],
            2,
        ),
    ],
)
def test_a_kept_connection_that_died_is_opened_again_once(answer, found, n_connections):
    assert upstream_of(answer) == (found, n_connections)


def test_with_every_region_away_the_route_abstains_or_fails_as_the_caller_asks():
    with routed({"hk": "http://127.0.0.1:1"}) as route:
        status, headers, body = ask(route.url)
        refused = ask(route.url, **{"X-Trademl-On-Abstain": "error"})
        with pytest.raises(urllib.error.HTTPError, match="503"):
            get(route.url, "/ping")
        with pytest.raises(ServeError, match="no decision: no region"):
            predict(route.url, ROW)
        with pytest.raises(urllib.error.HTTPError, match="503") as away:
            get(route.url, "/execution-parameters")
        said = json.loads(away.value.read())
    assert (status, json.loads(body)["predictions"]) == (200, [])
    assert (headers["X-Trademl-Reason"], headers["X-Trademl-Region"]) == ("no region", "none")
    assert headers["X-Trademl-Tier"] == "abstain"
    assert (refused[0], json.loads(refused[2])["error"]) == (503, "no decision: no region")
    assert said == {"error": "no answer: no region, see /regions"}
    assert away.value.headers["X-Trademl-Region"] == "none"


def test_a_route_is_guarded_as_a_server_is_and_knows_its_regions_tokens(tmp_path):
    for name, text in (
        ("us", "predict us-token-us-token\n"),
        ("own", "predict own-token-own-to\n"),
    ):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o600)
    (tmp_path / "token").write_text("us-token-us-token")
    guarded = ServerConfig(port=0, token_file=tmp_path / "us")
    own = ServerConfig(port=0, token_file=tmp_path / "own")
    with BackgroundServer(ServedModel(Small(), "m"), guarded) as server:
        known = RegionConfig("us", server.url, token_file=str(tmp_path / "token"))
        unknown = RegionConfig("hk", server.url)
        with BackgroundRoute(Regions((unknown, known)), own) as route:
            assert ask(route.url)[0] == 401
            for _ in range(4):
                asked = ask(route.url, Authorization="Bearer own-token-own-to")
                assert (asked[0], asked[1]["X-Trademl-Region"]) == (200, "us")
            get(route.url, "/ping")
            with pytest.raises(urllib.error.HTTPError, match="401"):
                get(route.url, "/regions")


def test_the_command_says_which_regions_are_there(project, tmp_path):
    with BackgroundServer(ServedModel(Small(), "m")) as server:
        words = ["--region", f"us={server.url}", "--region", "hk=http://127.0.0.1:1"]
        command = [sys.executable, "-m", "trademl", "serve", "route", "--port", "0", "--json"]
        with subprocess.Popen([*command, *words], stdout=subprocess.PIPE, text=True) as process:
            found = json.loads(process.stdout.readline())
            region = ask(found["url"])[1]["X-Trademl-Region"]
            process.terminate()
        assert process.returncode == 0
    assert [(r["name"], r["is_up"]) for r in found["regions"]] == [("us", True), ("hk", False)]
    assert found["regions"][1]["last_failure"] == "nothing answers there"
    assert region == "us"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "give --regions FILE, or --region NAME=URL"),
        (("--region", "a=http://x", "--host", "0.0.0.0"), "which others can reach"),
    ],
)
def test_a_route_that_cannot_be_is_one_line(trademl, words, message):
    assert message in one_line(trademl("serve", "route", *words))


@contextmanager
def route_process(tmp_path, *words):
    """Run the command; give its address and a reader of what it logged so far."""
    command = [sys.executable, "-m", "trademl", "serve", "route", "--port", "0"]
    log = tmp_path / "log"
    with log.open("wb") as stderr, subprocess.Popen([*command, *words], stderr=stderr) as process:
        try:
            until(lambda: "routing to " in log.read_text())
            yield re.search(r"routing to \S+ at ([^\s\"]+)", log.read_text())[1], log.read_text
        finally:
            process.terminate()
            process.wait()


def test_a_route_logs_its_requests_under_the_id_that_its_region_logs(tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="trademl")
    config = ServerConfig(port=0, log_per_s=0.0)
    words = ("--log-format", "json", "--log-requests", "2")
    with BackgroundServer(ServedModel(Small(), "m"), config) as server:
        with route_process(tmp_path, "--region", f"us={server.url}", *words) as (url, log):
            named = ask(url, **{"X-Request-Id": "order-7"})[1]["X-Request-Id"]
            unnamed = ask(url)[1]["X-Request-Id"]
            refused = ask(url, **{"X-Trademl-Deadline-Ms": "soon"})
            with pytest.raises(urllib.error.HTTPError, match="404"):
                get(url, "/nowhere")
            until(lambda: "/nowhere" in log())
            metrics = get(url, "/metrics").decode()
        lines = [json.loads(line) for line in log().splitlines()]
    requests = [line for line in lines if line["message"] == "request"]
    there = [r.fields["request_id"] for r in caplog.records if r.message == "request"]

    assert [(r["status"], r.get("region")) for r in requests] == [
        (200, "us"), (200, "us"), (400, None), (404, None),
    ]  # fmt: skip
    assert [r["request_id"] for r in requests[:3]] == [
        "order-7", unnamed, refused[1]["X-Request-Id"],
    ]  # fmt: skip
    assert named == "order-7"
    assert there == ["order-7", unnamed]
    assert requests[0]["tier"] == "biggest"
    assert [line["message"] for line in lines[:2]] == [
        f"region us ({server.url}) is there", f"routing to us at {url}",
    ]  # fmt: skip
    assert 'trademl_route_refused_requests_total{status="404"} 1\n' in metrics


def test_a_route_logs_when_a_region_goes_away_and_is_back(tmp_path):
    with (
        port_of_ones_own() as port,
        route_process(tmp_path, "--region", f"hk=http://127.0.0.1:{port}") as (_, log),
    ):
        for n in (1, 2):
            with BackgroundServer(ServedModel(Small(), "m"), ServerConfig(port=port)):
                until(lambda n=n: log().count("info region hk is back region=hk") == n)
            away = "warning region hk is away: nothing answers there region=hk"
            until(lambda n=n, away=away: log().count(away) == n)


def test_a_route_logs_which_region_it_does_not_ask(tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="trademl")
    tokens = tmp_path / "tokens"
    tokens.write_text("predict us-token-us-token\n")
    tokens.chmod(0o600)
    guarded = ServerConfig(port=0, token_file=tokens)
    with (
        BackgroundServer(ServedModel(Small(), "m"), guarded) as server,
        routed({"hk": server.url}, failures=1, open_s=3600, longest_open_s=3600) as route,
    ):
        for _ in range(2):
            ask(route.url)
    said = "region hk is not asked for 3600 s: it answered 401: give its token (token_file)"

    assert [r.getMessage() for r in caplog.records if r.levelname == "WARNING"] == [said]
