"""The server as a client on a bare socket sees it: framing, limits, timeouts, leaving."""

from __future__ import annotations

import socket
import threading
from urllib.parse import urlsplit

import numpy as np
import pytest

from trademl.errors import ServeError
from trademl.serve.client import ping
from trademl.serve.server import BackgroundServer, ServedModel, ServerConfig


class Mean:
    columns = tuple(map(str, range(5)))
    schema_hash = "test"

    def predict(self, features_ND):
        score_N = self.scores(features_ND)
        return score_N, (score_N >= np.float32(0.0)).astype(np.float32)

    def scores(self, features_ND):
        return features_ND.mean(axis=1)


MODEL = ServedModel(Mean(), "m-1")
CONFIG = ServerConfig(port=0, max_body_bytes=200_000, linger_s=5.0)


@pytest.fixture(scope="module")
def server():
    with BackgroundServer(MODEL, CONFIG) as server:
        yield server


def open_socket(server):
    parts = urlsplit(server.url)
    return socket.create_connection((parts.hostname, parts.port), timeout=60)


def talk(server, sent):
    """Return all that the server says until it closes."""
    with open_socket(server) as client:
        client.sendall(sent)
        return read_to_end(client)


def read_to_end(client):
    received = b""
    while part := client.recv(65_536):
        received += part
    return received


def send_forever(client):
    while True:
        client.sendall(bytes(65_536))


def statuses(received):
    return [int(part[:3]) for part in received.split(b"HTTP/1.1 ")[1:]]


def request_bytes(body, content_type="text/csv", head=b""):
    head += b"Content-Type: %b\r\nContent-Length: %d\r\n" % (content_type.encode(), len(body))
    return b"POST /invocations HTTP/1.1\r\nHost: a\r\n%b\r\n%b" % (head, body)


def test_head_gets_no_body(server):
    received = talk(server, b"HEAD /ping HTTP/1.1\r\nConnection: close\r\n\r\n")

    assert statuses(received) == [405]
    assert received.endswith(b"\r\n\r\n")


def test_pipelined_requests_are_answered_in_order(server):
    bodies = [b"%d,0,0,0,0" % n for n in range(20)]
    sent = b"".join(request_bytes(body) for body in bodies)

    received = talk(server, sent + b"GET /ping HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")

    expected_N = Mean().scores(np.array([[n, 0, 0, 0, 0] for n in range(20)], np.float32))
    scores = [float(part.partition(b",")[0]) for part in received.split(b'"score":')[1:]]
    np.testing.assert_array_equal(np.array(scores, np.float32), expected_N)
    assert statuses(received) == [200] * 21


def test_a_request_may_arrive_byte_by_byte(server):
    sent = request_bytes(b"1,2,3,4,5", head=b"Connection: close\r\n")

    with open_socket(server) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(len(sent)):
            client.sendall(sent[at : at + 1])
        assert statuses(read_to_end(client)) == [200]


def test_a_client_that_waits_for_100_continue_is_told_to(server):
    body = b"1,2,3,4,5"
    head, _ = request_bytes(body, head=b"Expect: 100-continue\r\nConnection: close\r\n").split(body)

    with open_socket(server) as client:
        client.sendall(head)
        assert client.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(body)
        assert statuses(read_to_end(client)) == [200]


def test_a_client_that_waits_is_spared_a_body_that_is_too_large(server):
    head = b"POST /invocations HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 900000\r\n\r\n"

    assert statuses(talk(server, head)) == [413]


@pytest.mark.parametrize("framing", ["declared", "chunked"])
def test_a_client_that_sends_too_much_reads_why(server, framing):
    body = b"1," * 4_000_000
    head = b"POST /invocations HTTP/1.1\r\nHost: a\r\nContent-Type: text/csv\r\n"
    if framing == "declared":
        sent = head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    else:
        sent = head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)

    received = talk(server, sent)

    assert statuses(received) == [413]
    assert b"at most 200000 bytes" in received


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /ping HTTP/1.1\r\nX-Long: " + b"a" * 400_000,
        b"GET /ping HTTP/1.1\r\nX-Long: %b\r\n\r\n" % (b"a" * 20_000),
        b"GET /ping HTTP/1.1\r\n%b\r\n" % (b"X-Many: a\r\n" * 5_000),
        b"GET /%b HTTP/1.1\r\n\r\n" % (b"a" * 20_000),
        b"POST /invocations HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Trailer: "
        + b"a" * 400_000,
    ],
)
def test_endless_headers_are_refused(server, sent):
    assert statuses(talk(server, sent)) == [431]


@pytest.mark.parametrize(
    "sent",
    [
        b"nonsense\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET /ping HTTP/9.9\r\n\r\n",
        b"POST /invocations HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /invocations HTTP/1.1\r\nContent-Length: \r\n\r\n",
        b"POST /invocations HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
        b"POST /invocations HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_what_is_not_http_is_a_400(server, sent):
    assert statuses(talk(server, sent)) == [400]


def test_an_offer_to_upgrade_is_answered_and_closed(server):
    received = talk(server, b"GET /ping HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")

    assert statuses(received) == [200]
    assert b"Connection: close" in received


def test_an_offer_to_upgrade_with_a_body_is_refused_plainly(server):
    offer = b"Connection: Upgrade\r\nUpgrade: h2c\r\n"

    received = talk(server, request_bytes(b"1,2,3,4,5", head=offer))

    assert statuses(received) == [501]
    assert b"send plain HTTP/1.1" in received


def test_http_1_0_is_answered_and_closed(server):
    assert b"Connection: close" in talk(server, b"GET /ping HTTP/1.0\r\n\r\n")


def test_http_1_0_may_keep_the_connection(server):
    asked = b"GET /ping HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"

    received = talk(server, asked + b"GET /ping HTTP/1.0\r\n\r\n")

    assert statuses(received) == [200, 200]
    assert b"Connection: keep-alive" in received


def test_a_client_that_leaves_midway_harms_no_other(server):
    whole = request_bytes(b"1,2,3,4,5")
    for length in range(0, len(whole), 9):
        with open_socket(server) as client:
            client.sendall(whole[:length])
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # reset

    ping(server.url)


def test_a_client_that_only_closes_its_side_still_reads_its_answer(server):
    with open_socket(server) as client:
        client.sendall(request_bytes(b"1,2,3,4,5"))
        client.shutdown(socket.SHUT_WR)
        assert statuses(read_to_end(client)) == [200]


def test_a_client_that_reads_nothing_cannot_fill_the_servers_memory(server):
    asked = request_bytes(b"1,2,3,4,5\n" * 500)
    with open_socket(server) as client:
        client.setblocking(False)
        sent = 0
        while sent < 100 * 2**20 and (taken := send_what_fits(client, asked * 10)):
            sent += taken
            ping(server.url)  # the server has had its turn

        assert sent < 100 * 2**20
        client.settimeout(60)
        begun = sent % len(asked)
        rest = asked[begun:] + b"GET /ping HTTP/1.1\r\nConnection: close\r\n\r\n"
        sender = threading.Thread(target=client.sendall, args=(rest,))
        sender.start()
        answered = statuses(read_to_end(client))
        sender.join()

    assert answered == [200] * (sent // len(asked) + 2)


def send_what_fits(client, data):
    try:
        return client.send(data)
    except BlockingIOError:
        return 0


def test_a_slow_request_times_out_with_an_answer():
    config = ServerConfig(port=0, read_timeout_s=0.05, idle_timeout_s=30.0)
    with BackgroundServer(MODEL, config) as server:
        received = talk(server, b"POST /invocations HTTP/1.1\r\nContent-Le")

    assert statuses(received) == [408]


def test_an_idle_connection_is_closed_without_a_word():
    config = ServerConfig(port=0, idle_timeout_s=1.0)
    with BackgroundServer(MODEL, config) as server:
        assert talk(server, b"") == b""
        assert statuses(talk(server, b"GET /ping HTTP/1.1\r\n\r\n")) == [200]


def test_a_refused_client_that_never_stops_is_cut_off():
    config = ServerConfig(port=0, linger_s=0.05, max_body_bytes=10)
    with BackgroundServer(MODEL, config) as server, open_socket(server) as client:
        client.sendall(b"POST /invocations HTTP/1.1\r\nContent-Length: 99\r\n\r\n")
        assert statuses(read_to_end(client)) == [413]
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            send_forever(client)


def test_too_many_connections_are_told_so():
    config = ServerConfig(port=0, max_connections=1)
    with BackgroundServer(MODEL, config) as server, open_socket(server) as first:
        assert statuses(talk(server, b"")) == [503]
        first.sendall(b"GET /ping HTTP/1.1\r\nConnection: close\r\n\r\n")
        assert statuses(read_to_end(first)) == [200]


def test_a_stopping_server_finishes_what_has_begun():
    whole = request_bytes(b"1,2,3,4,5")
    server = BackgroundServer(MODEL)
    with server:
        begun, idle = open_socket(server), open_socket(server)
        begun.sendall(whole[:-3])
        begun.settimeout(60)
        ping(server.url)  # the server has seen both by now
        stopping = threading.Thread(target=server.__exit__, args=(None, None, None))
        stopping.start()
        assert read_to_end(idle) == b""
        begun.sendall(whole[-3:])
        received = read_to_end(begun)
        stopping.join()
        begun.close()
        idle.close()

    assert statuses(received) == [200]
    assert b"Connection: close" in received
    with pytest.raises(ServeError, match="nothing answers"):
        ping(server.url)


def test_dripping_bytes_buy_no_more_time_and_hold_up_nobody_else():
    config = ServerConfig(port=0, read_timeout_s=0.3, max_connections=40)
    with BackgroundServer(MODEL, config) as server:
        slow = [open_socket(server) for _ in range(30)]
        for client in slow:
            client.sendall(b"POST /invocations HTTP/1.1\r\n")
        drips = threading.Thread(target=drip, args=(slow,))
        drips.start()
        answered = [statuses(talk(server, GOOD)) for _ in range(20)]
        received = [read_to_end(client) for client in slow]
        drips.join()

    assert answered == [[200]] * 20
    assert [statuses(one) for one in received] == [[408]] * 30


GOOD = request_bytes(b"1,2,3,4,5", head=b"Connection: close\r\n")


def drip(clients):
    """Send a byte of a header to each again and again, until the server has enough."""
    while clients:
        for client in list(clients):
            try:
                client.sendall(b"a")
                client.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
            except BlockingIOError:
                continue
            except OSError:
                pass
            clients = [other for other in clients if other is not client]
