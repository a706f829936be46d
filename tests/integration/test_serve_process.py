"""The blocking server in a process of its own: signals, exit codes, ports."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest

from trademl.errors import ServeError
from trademl.serve.server import BackgroundServer, ServedModel, ServerConfig, serve

PROGRAM = """
import numpy as np
from trademl.serve.server import ServedModel, ServerConfig, serve

class Sum:
    columns = tuple(map(str, range(2)))
    schema_hash = "test"

    def predict(self, features_ND):
        score_N = self.scores(features_ND)
        return score_N, (score_N >= np.float32(0.0)).astype(np.float32)

    def scores(self, features_ND):
        return features_ND.sum(axis=1)

config = ServerConfig(port=0, drain_s={drain_s})
serve(ServedModel(Sum(), "m"), config, on_ready=lambda url: print(url, flush=True))
print("drained", flush=True)
"""
BEGUN = b"POST /invocations HTTP/1.1\r\nContent-Type: text/csv\r\nContent-Length: 3\r\n\r\n1,"


class Nothing:
    columns = tuple(map(str, range(1)))
    schema_hash = "test"

    def predict(self, features_ND):
        score_N = self.scores(features_ND)
        return score_N, (score_N >= np.float32(0.0)).astype(np.float32)

    def scores(self, features_ND):
        return features_ND[:, 0]


MODEL = ServedModel(Nothing(), "m")


@contextmanager
def server_process(drain_s=30.0):
    command = [sys.executable, "-c", PROGRAM.format(drain_s=drain_s)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        port = int(process.stdout.readline().decode().rsplit(":", 1)[1])
        try:
            yield process, port
        finally:
            process.kill()


def begin_request(port):
    client = socket.create_connection(("127.0.0.1", port), timeout=60)
    client.sendall(b"GET /ping HTTP/1.1\r\n\r\n" + BEGUN)
    assert client.recv(1000).startswith(b"HTTP/1.1 200")  # so the server has read the rest too
    return client


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_the_request_in_flight_and_exits_zero(number):
    with server_process() as (process, port), begin_request(port) as client:
        process.send_signal(number)
        wait_until_refused(port)
        client.sendall(b"2")
        answer = client.recv(10_000)
        output, errors = process.communicate(timeout=60)

    assert answer.startswith(b"HTTP/1.1 200")
    assert b'"score":3.0' in answer
    assert (process.returncode, output, errors) == (0, b"drained\n", b"")


def test_a_request_that_never_ends_does_not_hold_the_exit():
    with server_process(drain_s=0.2) as (process, port), begin_request(port):
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=60)

    assert (process.returncode, output, errors) == (0, b"drained\n", b"")


def wait_until_refused(port):
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=60).close()
        except ConnectionResetError:
            continue  # it closed in the middle of our handshake
        except ConnectionRefusedError:
            return


def test_a_port_in_use_is_one_line_with_advice():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        message = f"cannot listen on 127.0.0.1 port {port}, it is in use: stop the other server"
        with pytest.raises(ServeError, match=message):
            serve(MODEL, ServerConfig(port=port))
        with (
            pytest.raises(ServeError, match=message),
            BackgroundServer(MODEL, ServerConfig(port=port)),
        ):
            pass


@pytest.mark.parametrize("host", ["203.0.113.1", "no-such-host.invalid"])
def test_an_address_of_another_machine_is_refused(host):
    with pytest.raises(ServeError, match=f"cannot listen on {host} port 0, .*of this machine"):
        serve(MODEL, ServerConfig(host=host, port=0, is_open=True))
