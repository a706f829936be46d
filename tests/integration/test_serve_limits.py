"""Limits that an operator sets on the command line, as clients meet them."""

from __future__ import annotations

import http.client
import re
import socket
import subprocess
import sys
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

import pytest

from running import one_line
from trademl.serve.container import container_serving
from trademl.serve.settings import MIB, ServerConfig

KINDS = [("--models", "."), ("route", "--region", "hk=http://127.0.0.1:1")]


@contextmanager
def serving(tmp_path, *words):
    command = [sys.executable, "-m", "trademl", "serve", *words, "--port", "0"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE) as process:
        try:
            lines = (line.decode() for line in process.stderr)
            found = next(filter(None, (re.search(r" at (http://\S+)$", line) for line in lines)))
            yield urlsplit(found[1])
        finally:
            process.terminate()


def status_of(where, n_bytes):
    connection = http.client.HTTPConnection(where.netloc, timeout=20)
    with suppress(ConnectionError):  # refused before all of it was sent
        connection.request("POST", "/ping", bytes(n_bytes))
    status = connection.getresponse().status
    connection.close()
    return status


@contextmanager
def connected(where):
    with socket.create_connection((where.hostname, where.port), timeout=20) as client:
        yield client


@pytest.mark.parametrize("kind", KINDS)
def test_bodies_and_idle_connections_have_the_limits_of_the_command_line(tmp_path, kind):
    with serving(tmp_path, *kind, "--max-body-mib", "8", "--timeout-s", "3") as where:
        assert [status_of(where, n * MIB) for n in (7, 9)] == [405, 413]
        with connected(where) as idle:
            assert idle.recv(100) == b""


@pytest.mark.parametrize("kind", KINDS)
def test_connections_and_slow_requests_have_the_limits_of_the_command_line(tmp_path, kind):
    with (
        serving(tmp_path, *kind, "--max-connections", "1", "--timeout-s", "3") as where,
        connected(where) as first,
    ):
        first.sendall(b"GET /met")
        with connected(where) as second:
            assert second.recv(100).startswith(b"HTTP/1.1 503")
        assert first.recv(100).startswith(b"HTTP/1.1 408")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--max-body-mib", "26"), "(--max-body-mib) is 26 MiB: expected above 0, up to 25 MiB"),
        (("--max-body-mib", "0"), "(--max-body-mib) is 0 MiB: expected above 0, up to 25 MiB"),
        (("--max-connections", "0"), "max_connections is 0: expected more than 0"),
        (("--timeout-s", "0"), "(--timeout-s) is 0: expected above 0, up to 3600"),
        (("--timeout-s", "nan"), "(--timeout-s) is nan: expected above 0, up to 3600"),
        (("--timeout-s", "inf"), "(--timeout-s) is inf: expected above 0, up to 3600"),
    ],
)
def test_limits_out_of_range_are_one_line(trademl, kind, words, message):
    assert message in one_line(trademl("serve", *kind, *words))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--models", "nowhere"), "--models nowhere: there is no such folder"),
        (("--models", "strategy.toml"), "--models strategy.toml: there is no such folder"),
        (("--capture", "k", "--capture-percent", "0"), "is 0, expected above 0, up to 100"),
        (("--capture", "k", "--capture-percent", "101"), "is 101, expected above 0, up to 100"),
    ],
)
def test_what_cannot_be_served_or_kept_is_one_line(trademl, words, message):
    assert message in one_line(trademl("serve", "--port", "0", *words))


def test_the_help_of_a_sample_says_what_is_taken(trademl):
    said = " ".join(trademl("serve", "--help").stdout.split())

    assert "How large that sample is, above 0, up to 100" in said
    assert "0.0<=x" not in said.partition("--capture-percent")[2][:200]


@pytest.mark.parametrize(("given", "mib"), [(None, 20), (8, 8)])
def test_a_container_takes_the_limit_that_it_is_given_before_its_platforms(tmp_path, given, mib):
    environ = {"SAGEMAKER_MAX_PAYLOAD_IN_MB": "20", "SAGEMAKER_MULTI_MODEL": "true"}
    found = container_serving(tmp_path, ServerConfig(), environ, max_body_mib=given)

    assert found.config.max_body_bytes == mib * MIB
