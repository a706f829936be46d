"""Who may ask a server: tokens, roles, addresses, TLS."""

from __future__ import annotations

import http.client
import shutil
import socket
import ssl
from urllib.parse import urlsplit

import numpy as np
import pytest

from certificates import certificate
from trademl.errors import ConfigError, ServeError
from trademl.serve.client import predict, read_token
from trademl.serve.server import BackgroundServer, ServedModel, ServerConfig

PREDICT, ADMIN = "predict-token-0001", "admin-token-000001"


class First:
    columns = ("a",)
    schema_hash = "a"

    def predict(self, features_ND):
        return features_ND[:, 0], (features_ND[:, 0] > 0).astype(np.float32)


MODEL = ServedModel(First(), "m")


@pytest.fixture
def token_file(tmp_path):
    path = tmp_path / "tokens"
    path.write_text(f"# who may ask\npredict {PREDICT}\nadmin {ADMIN}\n")
    path.chmod(0o600)
    return path


@pytest.fixture
def server(token_file, tmp_path):
    config = ServerConfig(port=0, token_file=token_file, model_folder=tmp_path)
    with BackgroundServer(MODEL, config) as server:
        yield server


def status(server, method, path, token=None, **headers):
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=10)
    if token is not None:
        headers["Authorization"] = token
    body = b"1" if method == "POST" else None
    connection.request(method, path, body, {"Content-Type": "text/csv", **headers})
    found = connection.getresponse().status
    connection.close()
    return found


@pytest.mark.parametrize(
    "token", [None, "", "Bearer", "Bearer wrong", PREDICT, f"Basic {PREDICT}", f"Bearer {PREDICT}x"]
)
@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/invocations"), ("GET", "/metrics"), ("DELETE", "/models/m")]
)
def test_without_a_token_nobody_is_answered(server, method, path, token):
    assert status(server, method, path, token) == 401


def test_health_needs_no_token(server):
    assert status(server, "GET", "/ping") == 200


@pytest.mark.parametrize("token", [PREDICT, ADMIN])
def test_a_token_may_predict_and_read(server, token):
    assert status(server, "POST", "/invocations", f"Bearer {token}") == 200
    assert status(server, "GET", "/metrics", f"bearer {token}") == 200


def test_the_client_says_its_token(server):
    row_ND = np.ones((1, 1), np.float32)

    assert predict(server.url, row_ND, token=PREDICT).score_N == [1.0]
    with pytest.raises(ServeError, match="answered 401: a token is needed"):
        predict(server.url, row_ND)


def test_a_token_is_read_from_its_file(tmp_path):
    path = tmp_path / "token"
    path.write_text(f"{PREDICT}\n")
    assert read_token(path) == PREDICT

    for text in ("", f"predict {PREDICT}\n", f"{PREDICT}\r\n{ADMIN}"):
        path.write_text(text)
        with pytest.raises(ConfigError, match="holds no single token"):
            read_token(path)


def test_only_an_admin_may_change_what_is_held(server):
    assert status(server, "DELETE", "/models/m", f"Bearer {PREDICT}") == 403
    assert status(server, "POST", "/models", f"Bearer {PREDICT}") == 403
    assert status(server, "DELETE", "/models/m", f"Bearer {ADMIN}") == 404
    assert status(server, "POST", "/models", f"Bearer {ADMIN}") == 400


def test_no_web_page_may_change_what_is_held(server):
    assert status(server, "POST", "/models", f"Bearer {ADMIN}", Origin="http://evil.test") == 403


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "203.0.113.1", "example.org"])
def test_an_address_that_others_reach_needs_tokens_or_a_word(host, token_file):
    with pytest.raises(ConfigError, match="which others can reach: give a token file"):
        ServerConfig(host=host)
    assert ServerConfig(host=host, token_file=token_file).host == host
    assert ServerConfig(host=host, is_open=True).host == host


@pytest.mark.parametrize(
    ("text", "mode", "message"),
    [
        (f"predict {PREDICT}\n", 0o644, "can be read by other users: run chmod 600"),
        ("predict short\n", 0o600, "line 1: expected a role"),
        (f"owner {PREDICT}\n", 0o600, "line 1: expected a role"),
        ("# nothing\n", 0o600, "holds no token"),
    ],
)
def test_a_token_file_that_protects_nothing_is_refused(tmp_path, text, mode, message):
    path = tmp_path / "tokens"
    path.write_text(text)
    path.chmod(mode)

    with pytest.raises(ConfigError, match=message) as caught:
        BackgroundServer(MODEL, ServerConfig(port=0, token_file=path))

    assert PREDICT not in str(caught.value)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_with_a_certificate_the_server_speaks_https(tmp_path):
    cert, key = certificate(tmp_path)
    trust = ssl.create_default_context(cafile=cert)

    with BackgroundServer(MODEL, ServerConfig(port=0, tls_cert=cert, tls_key=key)) as server:
        where = urlsplit(server.url)
        connection = http.client.HTTPSConnection(where.netloc, timeout=10, context=trust)
        connection.request("POST", "/invocations", b"1" * 9, {"Content-Type": "text/csv"})
        answer = connection.getresponse()
        assert (where.scheme, answer.status) == ("https", 200)
        connection.close()


def test_a_certificate_that_is_none_is_refused(tmp_path):
    path = tmp_path / "rubbish.pem"
    path.write_text("rubbish")

    with pytest.raises(ConfigError, match="are no certificate and its key"):
        BackgroundServer(MODEL, ServerConfig(port=0, tls_cert=path, tls_key=path))
    with pytest.raises(ConfigError, match="go together"):
        ServerConfig(tls_cert=path)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_a_client_that_never_shakes_hands_is_cut_off(tmp_path):
    cert, key = certificate(tmp_path)
    config = ServerConfig(port=0, tls_cert=cert, tls_key=key, read_timeout_s=0.1)
    with BackgroundServer(MODEL, config) as server:
        where = urlsplit(server.url)
        with socket.create_connection((where.hostname, where.port), timeout=10) as client:
            assert client.recv(1000) == b""
