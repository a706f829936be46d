"""``trademl serve`` in a process of its own, on a workspace: it follows it and writes to it."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from serving_cases import add_artifact, ask, open_ledger, put_behind, wait_for_metric
from trademl.ledger.serving_tables import ServingEvent
from trademl.store.artifacts import ArtifactStore


@pytest.fixture
def shop(tmp_path):
    """A workspace of two models, the first deployed at btc, and a strategy file."""
    store = ArtifactStore(tmp_path / "ws" / "artifacts")
    one, two = add_artifact(store, 1), add_artifact(store, 2)
    ledger = open_ledger(tmp_path / "ws", one, two)
    put_behind(ledger, one)
    (tmp_path / "strategy.toml").write_text(
        'name = "btc"\n[serving]\nendpoint = "btc"\n[serving.quotas]\nbtc = { share = 0.7 }\n'
    )
    yield tmp_path, ledger, one, two
    ledger.close()


def command(*words):
    return [sys.executable, "-m", "trademl", "serve", "--workspace", "ws", *words]


@contextmanager
def serving(folder):
    with subprocess.Popen(command("--port", "0"), cwd=folder, stderr=subprocess.PIPE) as process:
        try:
            said = process.stderr.readline().decode()
            yield process, SimpleNamespace(url=re.search(r"http://\S+", said)[0])
        finally:
            process.kill()


def test_the_command_follows_its_ledger_and_writes_what_happened(shop):
    folder, ledger, one, two = shop
    with serving(folder) as (process, server):
        before = ask(server)[1]["X-Trademl-Model"]
        put_behind(ledger, two)
        wait_for_metric(server, 'trademl_model_swaps_total{strategy="btc"}', "1")
        after = ask(server)[1]["X-Trademl-Model"]
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=120)
    (event,) = ledger.rows(ServingEvent)

    assert (before, after) == (one.id, two.id)
    assert process.returncode == 0
    assert (event.strategy, event.kind, event.old, event.new) == ("btc", "model", one.id, two.id)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[serving.quotas]\nbct = { share = 0.7 }\n", "at which nothing was ever deployed"),
        ("[serving.quotas]\nbtc = { share = 7 }\n", "expected a share from 0 to 1"),
        ("[serving.quotas]\nbtc = { part = 0.7 }\n", "serving.quotas.btc: unknown key part"),
        ('[[serving.rungs]]\nmodel = "network-1"\n', "name the deployed model 0 times"),
        ('[[serving.rungs]]\nmodel = "deployed"\ndevice = "tpu"\n', "expected cpu, cuda"),
        (
            '[[serving.rungs]]\nmodel = "deployed"\n[[serving.rungs]]\nmodel = "model-x"\n',
            "no artifact model-x",
        ),
    ],
)
def test_rubbish_in_the_strategy_file_is_one_line(shop, monkeypatch, capsys, text, said):
    from trademl.cli.main import main

    folder, *_ = shop
    (folder / "strategy.toml").write_text(f'name = "btc"\n[serving]\nendpoint = "btc"\n{text}')
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["trademl", *command("--port", "0")[3:]])

    with pytest.raises(SystemExit) as ended:
        main()
    error = capsys.readouterr().err

    assert ended.value.code == 1
    assert said in error
    assert len(error.strip().splitlines()) == 1
