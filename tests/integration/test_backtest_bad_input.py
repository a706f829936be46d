"""Bad input of a backtest, on the command line: one clear line, exit code 1, what had ended kept."""

from __future__ import annotations

import json
import sqlite3
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from market_cases import START_S, make_quotes, random_walk
from trademl.cli.main import main

OFTEN = """
from trademl.backtest.callback import Bracket
from trademl.market.orders import Side

def decide(now):
    {first}
    return Bracket(Side.BUY, time_limit_s=20) if not now.position else None
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def trademl(monkeypatch, capsys):
    """Run the command line in this process; return its exit code, output and only line of error."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["trademl", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            main()
        told = capsys.readouterr()
        lines = [line for line in told.err.splitlines() if line.startswith("trademl: ")]
        assert len(lines) == (stop.value.code != 0), told.err
        assert "Traceback" not in told.err
        return stop.value.code, told.out, "".join(lines)

    return run


def write(folder, quotes=None, *, strategy="", **columns):
    quotes = random_walk(600) if quotes is None else quotes
    times = pa.array(quotes.ts_event).cast(pa.timestamp("ns", "UTC"))
    table = {"time": times, "bid": quotes.bid, "ask": quotes.ask, **columns}
    pq.write_table(pa.table(table), folder / "quotes.parquet")
    text = f'name = "bad"\n[feed]\nquotes = "quotes.parquet"\n{strategy}'
    (folder / "strategy.toml").write_text(text)
    (folder / "mine.py").write_text(OFTEN.format(first="pass"))


def at(second):
    return (START_S + second) * 1_000_000_000


def signals(folder, *rows, names="ts_event,side,time_limit_s"):
    (folder / "signals.csv").write_text("\n".join([names, *rows]) + "\n")


def kept(folder):
    with sqlite3.connect(folder / "trademl-workspace" / "ledger.db") as ledger:
        return ledger.execute("select id, metrics from backtests").fetchall()


@pytest.mark.parametrize(
    ("strategy", "said"),
    [
        ('calendar = "XNYZ"', "no exchange calendar is called 'XNYZ'; did you mean"),
        ('calendar = "XNYS"', "no quote lies within a session"),
        ('adjustments = "splits.csv"', "splits.csv: is no file"),
        (
            '[backtest]\naccount_currency = "USD"\ninstrument_currency = "EUR"',
            "the account is in USD and the instrument in EUR",
        ),
        ("[backtest]\nmax_gap_s = 0", "max_gap_s is 0.0, expected more than 0"),
        ("[costs]\nlatency_ms = -1", "latency_ms is -1"),
        ("[costs]\nslipage = 1", "did you mean costs.slippage"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(folder, trademl, strategy, said):
    # the quotes of this recording are of a Tuesday night in New York
    write(folder, strategy=strategy)

    code, out, error = trademl("backtest", "run", "--strategy", "mine.py")

    assert (code, out) == (1, "")
    assert said in error


def test_a_side_that_never_shows_any_size_is_refused(folder, trademl):
    write(folder, bid_size=pa.array([5.0] * 600), ask_size=pa.array([0.0] * 600))

    code, out, error = trademl("backtest", "run", "--strategy", "mine.py")

    assert (code, out) == (1, "")
    assert "a side never shows any size" in error


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("raise ValueError('no')", "cannot be imported: ValueError: no"),
        ("x = (", "cannot be imported: SyntaxError"),
        ("x = 1", "holds 0 backtrader strategies and no function decide(now)"),
    ],
)
def test_a_strategy_file_that_cannot_be_used_is_named(folder, trademl, source, said):
    write(folder)
    (folder / "mine.py").write_text(source)

    code, out, error = trademl("backtest", "run", "--strategy", "mine.py")

    assert (code, out) == (1, "")
    assert said in error


def test_a_strategy_that_raises_keeps_what_had_ended_and_is_marked(folder, trademl):
    write(folder)
    (folder / "mine.py").write_text(OFTEN.format(first="assert now.index < 300, 'too far'"))

    code, out, error = trademl("backtest", "run", "--strategy", "mine.py", "--json")

    assert code == 1
    assert "the strategy raised AssertionError: too far" in error
    ((identity, metrics),) = kept(folder)
    assert json.loads(metrics)["n_trades"] == json.loads(out)["n_trades"] > 0
    assert "AssertionError" in json.loads(metrics)["stopped"]
    assert identity in error


@pytest.mark.parametrize("option", ["--strategy", "--signals"])
def test_a_gap_ends_a_backtest_before_it_and_is_marked(folder, trademl, option):
    seconds = [*range(300), *range(4_000, 4_300)]
    write(
        folder, make_quotes([100.0] * 600, seconds=seconds), strategy="[backtest]\nmax_gap_s = 60"
    )
    signals(folder, *(f"{at(second)},buy,20" for second in range(0, 4_200, 100) if second < 300))
    file = "mine.py" if option == "--strategy" else "signals.csv"

    code, _, error = trademl("backtest", "run", option, file)

    assert code == 1
    assert "no quote came for 3701 s after 2023-11-14T22:18:19.000 UTC" in error
    ((_, metrics),) = kept(folder)
    found = json.loads(metrics)
    assert found["n_trades"] > 0
    assert "max_gap_s is 60" in found["stopped"]


@pytest.mark.parametrize(
    ("names", "rows", "said"),
    [
        ("ts_event,side", [f"{at(9)},buy", f"{at(5)},buy"], "line 3 is decided at"),
        ("ts_event,side,known_at_ns", [f"{at(9)},buy,{at(10)}"], "line 2 comes from the future"),
        ("ts_event,side", [f"{at(9)},up"], "line 2 has side 'up'"),
        ("ts_event,side", [f"{at(9_999)},buy"], "leave out signals without quotes"),
        ("ts_event,side,size", [f"{at(9)},buy,0"], "line 2 has size 0"),
        ("ts_event", [f"{at(9)}"], "has no column side"),
    ],
)
def test_a_signal_that_cannot_be_traded_is_named(folder, trademl, names, rows, said):
    write(folder)
    signals(folder, *rows, names=names)

    code, out, error = trademl("backtest", "run", "--signals", "signals.csv")

    assert (code, out) == (1, "")
    assert said in error


def test_signals_of_a_file_are_traded_in_both_engines(folder, trademl):
    write(folder, make_quotes([100.0, 101.0, 102.0, 103.0, 104.0], spread=0.0),
          strategy="[costs]\nlatency_ms = 0\nquote_delay_ms = 0\nslippage_spreads = 0\n"
          "[backtest]\nreject_share = 0")  # fmt: skip
    signals(folder, f"{at(0) + 500_000_000},buy,2")

    code, out, _ = trademl("backtest", "run", "--signals", "signals.csv", "--json")

    told = json.loads(out)
    assert (code, told["n_trades"], told["net_pnl"]) == (0, 1, 2.0)  # from 101 to 103
    assert told["engines"] == ["compiled", "backtrader"]


def test_a_ledger_of_a_newer_trademl_is_refused_and_left_as_it_is(folder, trademl):
    write(folder)
    assert trademl("backtest", "run", "--strategy", "mine.py")[0] == 0
    file = folder / "trademl-workspace" / "ledger.db"
    with sqlite3.connect(file) as ledger:
        ((table,),) = ledger.execute(
            "select name from sqlite_master where name like '%version%' and type = 'table'"
        ).fetchall()
        ((now,),) = ledger.execute(f"select version_num from {table}").fetchall()
        ledger.execute(f"update {table} set version_num = '9999'")

    code, _, error = trademl("backtest", "run", "--strategy", "mine.py")

    assert code == 1
    assert "is at schema 9999, newer than this trademl's" in error
    with sqlite3.connect(file) as ledger:
        ledger.execute(f"update {table} set version_num = '{now}'")
        assert len(ledger.execute("select id from backtests").fetchall()) == 1


def test_a_file_of_signals_that_is_not_there_is_named(folder, trademl):
    write(folder)

    code, out, error = trademl("backtest", "run", "--signals", "nothere.csv")

    assert (code, out) == (1, "")
    assert "nothere.csv: no such file" in error
