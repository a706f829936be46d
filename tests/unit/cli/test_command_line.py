"""The command line itself: light to start, documented, honest about errors."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
HEAVY = {"pandas", "torch", "boto3", "pyarrow", "backtrader", "numpy", "numba", "sqlalchemy"}


def trademl(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "trademl", *words], capture_output=True, text=True, timeout=300
    )


def loaded_after(code: str) -> set[str]:
    code = f"import sys\ntry:\n    {code}\nexcept SystemExit: pass\nprint(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    return {name.partition(".")[0] for name in done.stderr.split()}


def test_help_loads_nothing_heavy():
    code = "sys.argv = ['trademl', '--help']; from trademl.cli.main import main; main()"
    loaded = loaded_after(code)
    assert "typer" in loaded
    assert not loaded & HEAVY


def test_importing_the_library_loads_nothing_heavy():
    assert not loaded_after("import trademl") & (HEAVY | {"typer"})


def test_every_public_name_is_there():
    import trademl

    for name in trademl.__all__:
        assert getattr(trademl, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = trademl.nonsense


@pytest.mark.parametrize(
    "words",
    [
        ["ingest", "replay"], ["ingest", "export"], ["ingest", "status"], ["features", "build"], ["features", "verify"], ["features", "inspect"],
        ["tune"], ["train"], ["models", "select"], ["models", "evaluate"], ["models", "list"],
        ["deploy", "local"], ["serve"], ["predict"], ["backtest", "run"], ["report"], ["run"],
        ["backtest", "compare"], ["backtest", "report"], ["explain", "trade"],
        ["demo"], ["init"], ["doctor"], ["config", "show"],
        ["ledger", "status"], ["ledger", "upgrade"], ["ledger", "flush"],
    ],
)  # fmt: skip
def test_every_verb_is_in_the_reference(words):
    assert f"## `trademl {' '.join(words)}`" in (ROOT / "docs" / "cli.md").read_text()


def test_the_reference_is_up_to_date(tmp_path):
    command = [sys.executable, "-m", "typer", "trademl.cli.main", "utils", "docs"]
    made = tmp_path / "cli.md"
    subprocess.run(
        [*command, "--name", "trademl", "--output", made], check=True, capture_output=True
    )
    assert made.read_text() == (ROOT / "docs" / "cli.md").read_text(), "run: make docs"


def test_version_is_printed():
    import trademl as package

    assert trademl("--version").stdout == f"trademl {package.__version__}\n"


def test_wrong_usage_exits_with_2():
    assert trademl("run", "--no-such-option").returncode == 2
    assert trademl("no-such-verb").returncode == 2


def test_an_error_is_one_line_and_exit_code_1(tmp_path):
    done = trademl("run", "--config", str(tmp_path / "nothing.toml"))
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("trademl: ")
    assert len(done.stderr.splitlines()) == 1


def test_an_unwritable_workspace_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    done = trademl("ingest", "status", "--workspace", str(tmp_path / "file" / "ws"))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


def test_doctor_says_what_is_there_and_exits_by_it(tmp_path):
    done = trademl("doctor", "--workspace", str(tmp_path / "ws"), "--json")
    result = json.loads(done.stdout)
    assert {c["name"] for c in result["checks"]} >= {"python", "train", "serve", "backtest", "disk"}
    assert done.returncode == (0 if result["is_well"] else 1)
    assert not (tmp_path / "ws").exists()


def test_init_writes_a_strategy_that_resolves_and_overwrites_nothing(tmp_path):
    assert trademl("init", str(tmp_path)).returncode == 0
    strategy = tmp_path / "strategy.toml"
    shown = trademl("config", "show", "--config", str(strategy), "--json")
    settings = json.loads(shown.stdout)["settings"]
    assert settings["orders.export_after"] == {"value": 10_000, "source": str(strategy)}
    assert settings["split.embargo"]["value"] == 0.01
    assert settings["tuning"]["source"] == str(tmp_path / "tuning.json")
    strategy.write_text("# mine")
    assert "nothing to write" in trademl("init", str(tmp_path)).stdout
    assert strategy.read_text() == "# mine"
