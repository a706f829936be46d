"""Bars of several instruments in one file; factor files."""

import pytest

from trademl.errors import DataError
from trademl.ingest.asset_files import of_symbols, read_assets, read_factors

BARS = """symbol,time,open,high,low,close
B,2020-01-02T10:00:00Z,10,11,9,10
A,2020-01-02T10:00:00Z,20,21,19,20
A,2020-01-02T11:00:00Z,20,22,19,21
B,2020-01-02T11:00:00Z,10,11,9,11
"""


def test_each_instrument_has_its_bars(tmp_path):
    (tmp_path / "bars.csv").write_text(BARS)

    assets = read_assets(tmp_path / "bars.csv", spread_bps=10)

    assert list(assets) == ["A", "B"]
    assert assets["A"].close.tolist() == [20 * 0.9995, 21 * 0.9995]
    assert assets["A"].spread.tolist() == pytest.approx([0.02, 0.021])


def test_one_price_needs_a_spread(tmp_path):
    (tmp_path / "bars.csv").write_text(BARS)

    with pytest.raises(DataError, match="give their spread"):
        read_assets(tmp_path / "bars.csv")


def test_a_factor_is_the_step_to_the_next_line(tmp_path):
    (tmp_path / "aapl.csv").write_text("20140101,0.95,0.25\n20140608,0.95,1\n20140807,1,1\n")

    first, second = read_factors(tmp_path)["AAPL"]

    # 2014-01-02 and 2014-06-09, midnight in New York (UTC-5 and UTC-4)
    assert first.ts_event == 1_388_638_800 * 10**9
    assert second.ts_event == 1_402_286_400 * 10**9
    assert first.ratio == pytest.approx(4)
    assert second.ratio == pytest.approx(1 / 0.95)


@pytest.mark.parametrize("line", ["2014-06-08,1,1", "20140608,1", "20140608,x,1", "20140608,0,1"])
def test_a_line_of_another_form_is_named(tmp_path, line):
    (tmp_path / "a.csv").write_text(f"20140101,1,1\n{line}\n")

    with pytest.raises(DataError, match="line 2"):
        read_factors(tmp_path)


def test_a_row_of_no_instrument_is_named(tmp_path):
    (tmp_path / "bars.csv").write_text(BARS + ",2020-01-02T12:00:00Z,10,11,9,11\n")

    with pytest.raises(DataError, match="line 6 has no symbol"):
        read_assets(tmp_path / "bars.csv", spread_bps=10)


def test_a_bar_that_cannot_be_used_names_its_instrument(tmp_path):
    (tmp_path / "bars.csv").write_text(BARS.replace("10,11,9,11", "10,11,9,-1"))

    with pytest.raises(DataError, match=r"line 3 has close -1.*of the rows of B alone"):
        read_assets(tmp_path / "bars.csv", spread_bps=10)


@pytest.mark.parametrize("name", ["empty", "missing"])
def test_a_folder_without_factors_is_refused(tmp_path, name):
    (tmp_path / "empty").mkdir()

    with pytest.raises(DataError, match="holds no factor file"):
        read_factors(tmp_path / name)


def test_factors_of_other_instruments_are_left_out():
    assert of_symbols({"A": None, "B": None}, {"B": [], "C": []}) == {"B": []}
