"""``trademl serve --ml-root`` in a process of its own: what is given counts, or is refused."""

from __future__ import annotations

import http.client
import json
import ssl
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest

from certificates import certificate
from hosting_cases import model_artifact
from trademl.serve.container import container_serving
from trademl.serve.settings import ServerConfig

TOKEN = "predict-token-0001"
ROW = b'{"instances":[{"features":[0.1,0.0,-0.2]}]}'


@pytest.fixture
def ml(tmp_path: Path) -> Path:
    """Lay out ``/opt/ml`` with one model in it."""
    root = tmp_path / "ml"
    (root / "model").mkdir(parents=True)
    with tarfile.open(model_artifact(tmp_path / "store").file("model.tar.gz")) as tar:
        tar.extractall(root / "model", filter="data")
    return root


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "tokens"
    path.write_text(f"predict {TOKEN}\n")
    path.chmod(0o600)
    return path


def command(root: Path, *words: str | Path) -> list[str]:
    given = ["serve", "--ml-root", root, "--port", "0", *words]
    return [sys.executable, "-m", "trademl", *map(str, given)]


@contextmanager
def serving(root: Path, *words: str | Path) -> Iterator[SimpleNamespace]:
    """Serve a folder; ``said`` is the address that the server names, ``url`` one of this machine."""
    with subprocess.Popen(command(root, *words), stderr=subprocess.PIPE) as process:
        try:
            lines = (json.loads(line)["message"] for line in process.stderr)
            said = next(line for line in lines if " at http" in line).rpartition(" at ")[2]
            yield SimpleNamespace(said=said, url=said.replace("0.0.0.0", "127.0.0.1"))
        finally:
            process.terminate()


def ask(server: SimpleNamespace, **headers: str) -> tuple[int, dict]:
    """Return status and decoded body of one answer."""
    place = urlsplit(server.url)
    if place.scheme == "https":
        context = ssl._create_unverified_context()
        connection = http.client.HTTPSConnection(place.netloc, timeout=20, context=context)
    else:
        connection = http.client.HTTPConnection(place.netloc, timeout=20)
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request("POST", "/invocations", ROW, {"Content-Type": "application/json", **sent})
    answer = connection.getresponse()
    found = answer.status, json.loads(answer.read())
    connection.close()
    return found


def refusal(capsys, monkeypatch, *words: str | Path) -> str:
    """Return the one line that refuses a command."""
    from trademl.cli.main import main

    monkeypatch.setattr(sys, "argv", ["trademl", "serve", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code in (1, 2)
    return capsys.readouterr().err.strip().splitlines()[-1]


def test_where_nothing_is_given_a_container_answers_anyone_at_any_address(ml):
    with serving(ml) as server:
        assert server.said.startswith("http://0.0.0.0:")
        assert ask(server)[0] == 200


@pytest.mark.parametrize("workers", [1, 2])
def test_a_token_file_counts_in_a_container(ml, token_file, workers):
    with serving(ml, "--token-file", token_file, "--workers", workers) as server:
        assert ask(server)[0] == 401
        assert ask(server, Authorization=f"Bearer {TOKEN}")[0] == 200


@pytest.mark.parametrize("workers", [1, 2])
def test_a_host_counts_in_a_container(ml, workers):
    with serving(ml, "--host", "127.0.0.1", "--workers", workers) as server:
        assert server.said.startswith("http://127.0.0.1:")


def test_a_certificate_counts_in_a_container(ml, tmp_path):
    cert, key = certificate(tmp_path)
    with serving(ml, "--tls-cert", cert, "--tls-key", key) as server:
        assert server.said.startswith("https://0.0.0.0:")
        assert ask(server)[0] == 200


def test_memory_counts_in_a_container(ml):
    found = container_serving(ml, ServerConfig(memory_bytes=2**20), {})

    assert found.config.memory_bytes == 2**20


def test_a_host_that_others_reach_needs_a_token_in_a_container_too(ml, capsys, monkeypatch):
    said = refusal(capsys, monkeypatch, "--ml-root", ml, "--host", "0.0.0.0", "--port", "0")

    assert "give a token file" in said


@pytest.mark.parametrize("option", ["--endpoint", "--smaller", "--models", "--config"])
def test_what_does_not_go_with_a_container_is_refused(ml, capsys, monkeypatch, option):
    said = refusal(capsys, monkeypatch, "--ml-root", ml, option, "x", "--port", "0")

    assert f"{option} does not go with --ml-root" in said


def test_what_does_not_go_with_models_over_http_is_refused(tmp_path, capsys, monkeypatch):
    said = refusal(capsys, monkeypatch, "--models", tmp_path, "--smaller", "x", "--port", "0")

    assert "--smaller does not go with --models" in said


def test_the_name_that_sagemaker_gives_a_variant_is_no_strategys(ml):
    with serving(ml) as server:
        assert ask(server, X_Amzn_SageMaker_Target_Variant="main")[0] == 200
        status, answer = ask(server, X_Trademl_Strategy="main")

    assert (status, "this server has default" in json.dumps(answer)) == (404, True)
