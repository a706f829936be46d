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

import numpy as np
import pytest

from certificates import certificate
from hosting_cases import linear_model, model_artifact
from serving_cases import wait_until
from trademl.errors import EXTRAS, ConfigError, MissingExtraError, StoreError
from trademl.serve.container import container_serving
from trademl.serve.freshness import Freshness
from trademl.serve.ladder import LadderPolicy
from trademl.serve.model_pool import ModelFile
from trademl.serve.serving_folder import read_serving, write_serving
from trademl.serve.settings import ServerConfig
from trademl.serve.shares import Quota
from trademl.serve.strategies import ServedStrategy
from trademl.store.identity import digest_file
from trademl.train.model_archive import pack

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


def ask(server: SimpleNamespace, row: bytes = ROW, **headers: str) -> tuple[int, dict]:
    """Return status and decoded body of one answer."""
    place = urlsplit(server.url)
    if place.scheme == "https":
        context = ssl._create_unverified_context()
        connection = http.client.HTTPSConnection(place.netloc, timeout=20, context=context)
    else:
        connection = http.client.HTTPConnection(place.netloc, timeout=20)
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request("POST", "/invocations", row, {"Content-Type": "application/json", **sent})
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


BIASES = {"btc-big": 0.25, "btc-small": 0.5, "alice-one": 0.75}
SCORES = {
    name: float(linear_model(bias).scores(np.array([[0.1, 0.0, -0.2]], np.float32))[0])
    for name, bias in BIASES.items()
}
RULES = LadderPolicy(deadline_ms=20_000.0, up_after_s=2.0)
QUOTA = Quota(share=0.6, priority=1)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, ModelFile]:
    """Return a model of each bias, by name."""
    found = {}
    for number, (name, bias) in enumerate(BIASES.items()):
        path = model_artifact(tmp_path / "store", f"model-{number:012x}", bias).file("model.tar.gz")
        found[name] = ModelFile(name, str(path), digest_file(path), "live", made_at_s=1e9 + number)
    return found


@pytest.fixture
def strategies(files: dict[str, ModelFile]) -> tuple[ServedStrategy, ...]:
    """Return a strategy with a ladder, and one that needs the time of its features."""
    btc = ServedStrategy(
        "btc", (files["btc-big"], files["btc-small"]), RULES, quota=QUOTA, followed=1
    )
    alice = ServedStrategy(
        "alice", (files["alice-one"],), freshness=Freshness(needs_feature_time=True)
    )
    return btc, alice


@pytest.fixture
def shared(tmp_path: Path, strategies: tuple[ServedStrategy, ...]) -> Path:
    """Lay out ``/opt/ml`` with both strategies in it."""
    return laid_out(tmp_path / "shared", strategies)


def laid_out(root: Path, strategies: tuple[ServedStrategy, ...]) -> Path:
    (root / "model").mkdir(parents=True)
    write_serving(strategies, root / "serving.tar.gz", {"more/0.json": b"{}"})
    with tarfile.open(root / "serving.tar.gz") as tar:
        tar.extractall(root / "model", filter="data")
    return root


def rewrite(root: Path, **changes) -> None:
    """Change the first strategy of a folder's file."""
    path = root / "model" / "serving.json"
    document = json.loads(path.read_text())
    document["strategies"][0].update(changes)
    path.write_text(json.dumps(document))


def test_a_folder_of_strategies_is_read_as_it_was_written(shared, strategies):
    found = read_serving(shared / "model")

    for one, other in zip(found, strategies, strict=True):
        assert (one.name, one.policy, one.freshness) == (other.name, other.policy, other.freshness)
        assert (one.quota, one.followed) == (other.quota, other.followed)
        facts = [[(m.id, m.sha256, m.mode, m.device, m.made_at_s) for m in s.ladder]
                 for s in (one, other)]  # fmt: skip
        assert facts[0] == facts[1]


def test_the_same_strategies_are_the_same_bytes(tmp_path, strategies):
    for name in ("one", "two"):
        write_serving(strategies, tmp_path / name, {})
    write_serving(strategies[::-1], tmp_path / "three", {})

    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert (tmp_path / "one").read_bytes() != (tmp_path / "three").read_bytes()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_container_serves_every_strategy_of_its_folder(shared, workers):
    with serving(shared, "--host", "127.0.0.1", "--workers", workers) as server:
        until_answered_by(server, "btc", "btc-big")
        stale = explained(server, X_Trademl_Strategy="alice")
        fresh = explained(
            server, X_Trademl_Strategy="alice", X_Trademl_Feature_Time_Ns="1790000000000000000"
        )
        unnamed = explained(server)

    assert stale[2] == "abstain"
    assert fresh[:2] == (pytest.approx(SCORES["alice-one"]), "alice-one")
    assert unnamed[1].startswith("btc-")


def until_answered_by(server: SimpleNamespace, strategy: str, wanted: str) -> None:
    """Ask until a model is in memory; every answer before is that of another one of its ladder."""

    def is_wanted() -> bool:
        score, model, tier = explained(server, X_Trademl_Strategy=strategy)
        assert score == pytest.approx(SCORES[model])
        return (model, tier) == (wanted, "biggest")

    wait_until(is_wanted, f"an answer of {wanted}")


def explained(server: SimpleNamespace, **headers: str) -> tuple[float | None, str, str]:
    """Return score, model and tier of an answer."""
    status, answer = ask(server, X_Trademl_Explain="true", **headers)
    assert status == 200, answer
    score = next((p["score"] for p in answer["predictions"]), None)
    return score, answer["trademl"]["model"], answer["trademl"]["tier"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"ladder": {"deadline": 3}}, "unknown key deadline; expected one of deadline_ms"),
        ({"ladder": {"deadline_ms": 0}}, "deadline_ms is 0"),
        ({"quota": {"share": 7}}, "expected a share from 0 to 1"),
        ({"name": "alice"}, "two strategies would be served as alice"),
        ({"name": "b t c"}, "expected 1 to 128 printable"),
        ({"models": []}, "has no model"),
        ({"frshness": {}}, "unknown key frshness"),
    ],
)
def test_a_rule_that_would_be_passed_over_is_refused(shared, changes, said):
    rewrite(shared, **changes)

    with pytest.raises(ConfigError, match=said):
        container_serving(shared, ServerConfig(), {})


@pytest.mark.parametrize("file", ["/etc/passwd", "../../store/x.tar.gz", "models/none.tar.gz"])
def test_a_model_is_read_from_the_folder_alone(shared, file):
    rewrite(shared, models=[{"id": "m", "file": file, "sha256": "0" * 64}])

    with pytest.raises(StoreError, match="leads out of|is missing"):
        read_serving(shared / "model")


def test_a_model_that_is_not_the_one_of_the_list_is_refused_at_the_start(shared, strategies):
    path = shared / "model" / "models" / f"{strategies[0].ladder[1].sha256}.tar.gz"
    path.write_bytes(Path(strategies[0].ladder[0].location).read_bytes())

    with pytest.raises(StoreError, match="its manifest lists"):
        container_serving(shared, ServerConfig(), {})


def test_a_newer_list_is_refused(shared):
    path = shared / "model" / "serving.json"
    path.write_text(path.read_text().replace('"version": 1', '"version": 2'))

    with pytest.raises(StoreError, match="has version 2, this trademl reads 1"):
        read_serving(shared / "model")


def test_a_network_is_refused_at_the_start_where_there_is_no_torch(tmp_path, files, monkeypatch):
    network = tmp_path / "network.tar.gz"
    network.write_bytes(pack({"model.json": b"{}", "weights/0.npy": b""}))
    big = ModelFile("network-1", str(network), digest_file(network), "live")
    shared = laid_out(
        tmp_path / "shared", (ServedStrategy("es", (big, files["btc-small"]), followed=1),)
    )
    monkeypatch.setitem(EXTRAS, "train", ("a_library_that_is_not_there",))

    with pytest.raises(MissingExtraError, match=r"pip install 'trademl\[train\]'"):
        container_serving(shared, ServerConfig(), {})
