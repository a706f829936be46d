"""Images without an engine: what their files say, and what their entry point runs."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

from hosting_cases import linear_model, model_artifact
from trademl.errors import ConfigError, ServeError
from trademl.serve.client import predict
from trademl.serve.container import container_serving
from trademl.serve.settings import ServerConfig

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"
FILES = sorted(DOCKER.glob("*.Dockerfile"))
KNOWN = {
    "FROM", "ARG", "RUN", "COPY", "WORKDIR", "ENV", "LABEL", "USER", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT",
    "CMD",
}  # fmt: skip


def instructions(path: Path) -> list[tuple[str, str]]:
    """Return a Dockerfile's instructions, continued lines joined."""
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    text = "\n".join(lines).replace("\\\n", " ")
    return [tuple(line.split(maxsplit=1)) for line in text.splitlines() if line.strip()]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_instruction_is_known_and_the_first_is_from(path):
    found = instructions(path)

    assert found[0][0] == "FROM"
    assert {name for name, _ in found} <= KNOWN


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_base_images_and_packages_are_pinned(path):
    for name, rest in instructions(path):
        if name == "FROM":
            assert re.search(r":[\w.\-]*\d+\.\d+\.\d+", rest), rest
        if name == "RUN" and "pip install" in rest:
            assert "--constraint constraints.txt" in rest
            assert "--no-cache-dir" in rest


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_everything_that_is_copied_exists_and_reaches_the_engine(path):
    allowed = (ROOT / ".dockerignore").read_text().splitlines()
    for name, rest in instructions(path):
        words = shlex.split(rest)
        if name != "COPY" or words[0].startswith("--from"):
            continue
        for source in words[:-1]:
            assert (ROOT / source).exists(), source
            assert f"!{source.split('/')[0]}" in allowed, source


@pytest.mark.parametrize("name", ["serve", "dev"])
def test_images_that_need_no_root_have_none(name):
    users = [rest for n, rest in instructions(DOCKER / f"{name}.Dockerfile") if n == "USER"]

    assert users == ["10001"]


def test_the_serving_image_can_write_captured_requests_to_s3():
    found = instructions(DOCKER / "serve.Dockerfile")

    assert ("ARG", "EXTRAS=serve,aws") in found
    assert '".[$EXTRAS]"' in next(rest for name, rest in found if name == "RUN")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_entry_points_take_signals_themselves(path):
    for name, rest in instructions(path):
        if name in ("ENTRYPOINT", "CMD"):
            assert rest.startswith("["), rest


@pytest.fixture
def ml(tmp_path: Path) -> Path:
    """Lay out ``/opt/ml`` with one model in it."""
    archive = model_artifact(tmp_path / "store").file("model.tar.gz")
    root = tmp_path / "ml"
    (root / "model").mkdir(parents=True)
    with tarfile.open(archive) as tar:
        tar.extractall(root / "model", filter="data")
    return root


def environment(tmp_path: Path, ml: Path, **more: str) -> dict[str, str]:
    """Return a container's environment, in which ``trademl`` is this one."""
    program = tmp_path / "bin" / "trademl"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m trademl "$@"\n')
    program.chmod(0o755)
    path = f"{program.parent}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "TRADEML_ML": str(ml), **more}


def test_serve_answers_on_the_platforms_port_and_ends_on_sigterm(tmp_path, ml):
    env = environment(tmp_path, ml, SAGEMAKER_BIND_TO_PORT="0", TRADEML_MODEL_ID="m-1")
    command = [str(DOCKER / "entrypoint.sh"), "serve"]
    with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) as process:
        line = process.stderr.readline()
        url = json.loads(line)["message"].rpartition(" at ")[2].replace("0.0.0.0", "127.0.0.1")
        rows = np.array([[1.0, 2.0, 3.0]], np.float32)
        answer = predict(url, rows)
        process.send_signal(signal.SIGTERM)
        code = process.wait(timeout=120)

    np.testing.assert_array_equal(answer.score_N, linear_model().scores(rows))
    assert (answer.model_id, code) == ("m-1", 0)


def test_a_multi_model_container_starts_without_a_model(tmp_path):
    found = container_serving(tmp_path, ServerConfig(), {"SAGEMAKER_MULTI_MODEL": "true"})

    assert found.strategies == ()
    assert found.config.model_folder == tmp_path / "models"


def test_a_container_without_a_model_says_so(tmp_path):
    with pytest.raises(ServeError, match=r"model holds no model\.json"):
        container_serving(tmp_path, ServerConfig(), {})


def test_the_payload_of_a_transform_job_is_taken_over(ml):
    found = container_serving(ml, ServerConfig(), {"SAGEMAKER_MAX_PAYLOAD_IN_MB": "20"})

    assert found.config.max_body_bytes == 20 * 2**20


def test_a_models_mode_is_what_was_deployed(ml):
    found = container_serving(ml, ServerConfig(), {"TRADEML_MODEL_MODE": "live"})

    assert found.strategies[0].ladder[0].mode == "live"


def test_a_container_is_called_what_it_was_deployed_for(ml):
    named = container_serving(ml, ServerConfig(), {"TRADEML_STRATEGY": "btc"})
    plain = container_serving(ml, ServerConfig(), {})

    assert (named.strategies[0].name, plain.strategies[0].name) == ("btc", "default")


def test_a_payload_that_is_no_number_is_refused(ml):
    with pytest.raises(ConfigError, match="expected a number"):
        container_serving(ml, ServerConfig(), {"SAGEMAKER_MAX_PAYLOAD_IN_MB": "six"})


@pytest.mark.parametrize(("word", "verb"), [("train", "train"), ("serve", "serve")])
def test_the_entry_point_hands_the_folder_on(tmp_path, word, verb):
    program = tmp_path / "trademl"
    program.write_text('#!/bin/sh\necho "$@"\n')
    program.chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}

    done = subprocess.run(
        [DOCKER / "entrypoint.sh", word], env=env, capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == f"{verb} --ml-root /opt/ml"
