"""``trademl ledger``, as a user meets it: state, upgrade, flush, and never a password."""

from __future__ import annotations

import json
import sqlite3

import pytest

from trademl.cli.main import main
from trademl.ledger import Ledger
from trademl.ledger.schema import VERSION_TABLE

AWAY = "postgresql://trader:s3cret@127.0.0.1:1/ledger"


@pytest.fixture
def trademl(tmp_path, monkeypatch, capsys):
    """Run the command line in an empty folder; return exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    for name in ("TRADEML_LEDGER_URL", "TRADEML_WORKSPACE"):
        monkeypatch.delenv(name, raising=False)

    def run(*words):
        monkeypatch.setattr("sys.argv", ["trademl", *words, "--workspace", "ws"])
        with pytest.raises(SystemExit) as stop:
            main()
        found = capsys.readouterr()
        return stop.value.code or 0, found.out, found.err

    return run


def test_a_new_workspace_has_an_empty_ledger_and_status_makes_none(trademl, tmp_path):
    code, out, _ = trademl("ledger", "status", "--json")
    assert code == 0
    assert json.loads(out)["state"] == "empty"
    assert not (tmp_path / "ws").exists()


def test_a_file_has_nothing_that_waits(trademl, tmp_path):
    (tmp_path / "ws").mkdir()
    Ledger(f"sqlite:///{tmp_path}/ws/ledger.db").close()
    assert trademl("ledger", "flush")[1].endswith("ledger.db: 0 results written, 0 refused\n")
    assert "nothing to do" in trademl("ledger", "upgrade")[1]


def test_a_newer_file_is_one_line_with_both_revisions(trademl, tmp_path):
    (tmp_path / "ws").mkdir()
    Ledger(f"sqlite:///{tmp_path}/ws/ledger.db").close()
    with sqlite3.connect(tmp_path / "ws" / "ledger.db") as database:
        database.execute(f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
    for words in (("ledger", "upgrade"), ("models", "list")):
        code, _, err = trademl(*words)
        assert code == 1
        assert "at schema 9999, newer than this trademl's 0" in err
        assert err.count("\n") == 1


def test_a_server_that_is_away_is_told_without_its_password(trademl, tmp_path):
    (tmp_path / "strategy.toml").write_text(f'[ledger]\nurl = "{AWAY}"\n')
    (tmp_path / "ws").mkdir()
    for words in (("ledger", "status"), ("ledger", "flush"), ("models", "list"), ("doctor",)):
        code, out, err = trademl(*words)
        assert code == 1, words
        assert "trader:***@127.0.0.1" in out + err
        assert "s3cret" not in out + err


def test_settings_are_shown_without_the_password(trademl, tmp_path, monkeypatch):
    monkeypatch.setenv("TRADEML_LEDGER_URL", AWAY)
    for more in ((), ("--json",)):
        code, out, _ = trademl("config", "show", *more)
        assert code == 0
        assert "trader:***@127.0.0.1" in out
        assert "s3cret" not in out


def test_a_demo_of_a_recording_is_no_matter_of_the_ledger_of_the_folder(tmp_path, monkeypatch):
    from trademl.cli.session import open_session

    (tmp_path / "strategy.toml").write_text(f'[ledger]\nurl = "{AWAY}"\n')
    monkeypatch.chdir(tmp_path)
    workspace = tmp_path / "ws"
    with open_session(None, workspace, needs_file=False, finds_ledger=False) as session:
        assert session.workspace.ledger.database.is_file
