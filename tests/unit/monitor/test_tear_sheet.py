"""The tear sheet: whole, escaped, small, and without a network."""

from __future__ import annotations

from html.parser import HTMLParser

import numpy as np
import pyarrow.parquet as pq
import pytest

from market_cases import random_walk
from trademl.backtest.figures import Returns
from trademl.backtest.jobs import settings_of, write_result
from trademl.backtest.run import DEFAULT
from trademl.backtest.user_strategy import backtest_strategy
from trademl.errors import ConfigError, StoreError
from trademl.market.costs import Costs
from trademl.monitor import tear_sheet
from trademl.monitor.tear_sheet import monthly, rolling_sharpe, write_tear_sheet
from trademl.store.artifacts import ArtifactStore

NS_PER_DAY = 86_400 * 1_000_000_000
OFTEN = """
from trademl.backtest.callback import Bracket
from trademl.market.orders import Side

def decide(now):
    return Bracket(Side.BUY, time_limit_s=1) if not now.position else None
"""
RAISES = OFTEN.replace(
    "    return", "    if now.index == 50: raise ValueError('<script>x</script>')\n    return"
)
VOID = {"meta", "link", "br", "hr", "img"}


class Page(HTMLParser):
    """What a page refers to, and whether its tags close."""

    def __init__(self, text):
        super().__init__()
        self.refers, self.tags, self.open, self.broken = [], set(), [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.refers += [v for n, v in attrs if n in ("src", "href", "xlink:href", "data", "action")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.broken.append(tag)


@pytest.fixture
def page_of(tmp_path):
    store = ArtifactStore(tmp_path / "artifacts")

    def write(source, n=400, **options):
        (tmp_path / "mine.py").write_text(source)
        quotes = random_walk(n)
        result = backtest_strategy(tmp_path / "mine.py", quotes, Costs(), DEFAULT)
        told = {**settings_of(Costs(), DEFAULT), "strategy": "<i>mine</i>.py"}
        with store.create("backtest-0123456789ab", parents=[], parameters=told) as draft:
            write_result(draft, result, quotes)
        path = write_tear_sheet(None, store, tmp_path / "reports", **options)
        return path.read_text(), result

    return write


def test_page_closes_its_tags_and_refers_to_nothing_outside(page_of):
    text, _ = page_of(OFTEN)
    page = Page(text)

    assert (page.broken, page.open) == ([], [])
    assert all(refers.startswith("#") for refers in page.refers)
    assert not page.tags & {"script", "link", "iframe", "img", "object"}
    assert "@import" not in text
    assert "url(http" not in text


def test_what_a_strategy_raises_is_shown_escaped(page_of):
    text, result = page_of(RAISES)

    assert result.trades.stopped
    assert "Stopped before the end" in text
    assert "<script>" not in text
    assert "&lt;script&gt;" in text


def test_names_of_files_are_escaped(page_of):
    assert "&lt;i&gt;mine&lt;/i&gt;.py" in page_of(OFTEN)[0]


def test_page_of_no_trades_says_so(page_of):
    text, _ = page_of("def decide(now):\n    return None\n")

    assert "Nothing was traded" in text
    assert Page(text).broken == []


def test_page_of_thousands_of_trades_stays_small(page_of):
    text, result = page_of(OFTEN, n=20_000)

    assert len(result.trades) > 5_000
    assert len(text) < 1_500_000
    assert f"2000 of {len(result.trades)} trades are drawn" in text


def test_tables_hold_every_trade(page_of, tmp_path):
    csv, parquet = tmp_path / "t.csv", tmp_path / "t.parquet"
    _, result = page_of(OFTEN, csv=csv, parquet=parquet)

    table = pq.read_table(parquet)
    assert table["pnl"].to_pylist() == result.trades.pnl.tolist()
    assert len(csv.read_text().splitlines()) == len(result.trades) + 1


def test_picture_is_a_png(page_of, tmp_path):
    page_of(OFTEN, png=tmp_path / "t.png")

    assert (tmp_path / "t.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_a_file_of_another_kind_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ConfigError, match=r"expected a name that ends in \.png"):
        write_tear_sheet(None, ArtifactStore(tmp_path), tmp_path / "r", png=tmp_path / "a.jpg")


def test_no_backtest_is_one_line(tmp_path):
    with pytest.raises(StoreError, match="no backtest under"):
        write_tear_sheet(None, ArtifactStore(tmp_path), tmp_path / "reports")


def test_months_add_up_to_the_last_equity():
    at = np.array(["2025-12-30", "2025-12-31", "2026-02-01"], "datetime64[ns]").astype(np.int64)

    table = monthly(at, np.array([1.0, 3.0, 2.5]))

    assert table == {2025: [None] * 11 + [3.0], 2026: [None, -0.5] + [None] * 10}


def test_rolling_sharpe_is_that_of_each_window():
    value_T = np.random.default_rng(3).normal(0.001, 0.01, 40)
    ts_ns = np.arange(41) * NS_PER_DAY

    at_ns, ratio = rolling_sharpe(ts_ns[:-1], Returns(value_T, 252.0, 86_400))

    window = value_T[10:40]
    assert at_ns[-1] == 39 * NS_PER_DAY
    assert ratio[-1] == pytest.approx(window.mean() / window.std(ddof=1) * 252**0.5)
    assert len(ratio) == 11


def test_a_drawn_curve_keeps_its_lowest_and_its_highest_point(monkeypatch):
    monkeypatch.setattr(tear_sheet, "MOST_POINTS", 20)
    equity = np.random.default_rng(2).normal(size=5_000)

    kept = tear_sheet._curve_points(equity)

    assert len(kept) <= 22
    assert {int(equity.argmin()), int(equity.argmax()), 0, 4_999} <= set(kept.tolist())


def test_an_artifact_that_is_no_backtest_is_refused(tmp_path):
    store = ArtifactStore(tmp_path / "artifacts")
    with store.create("batch-0123456789ab", parents=[], parameters={}):
        pass

    with pytest.raises(StoreError, match="batch-0123456789ab is no backtest"):
        write_tear_sheet("batch-0123456789ab", store, tmp_path / "reports")


def test_a_picture_lies_beside_the_page_where_it_is_asked_for(page_of, tmp_path):
    page_of(OFTEN, has_picture=True)

    assert (tmp_path / "reports" / "backtest-0123456789ab.png").is_file()


def test_a_replay_shows_what_degradations_and_tiers_cost(page_of, tmp_path):
    page_of(OFTEN)
    store = ArtifactStore(tmp_path / "artifacts")
    told = {
        "kind": "recorded", "served": 4.0, "ideal": 7.5, "interaction": 0.25,
        "by": {"latency": 2.25, "smaller tier": 1.0},
        "tiers": [
            {"tier": "smallest", "n_answers": 9, "n_trades": 3, "net_pnl": -1.5, "cost": 3.125}
        ],
    }  # fmt: skip
    sheet = tear_sheet.read_sheet(store.newest("backtest"))
    sheet.artifact.manifest["metrics"]["serving"] = told

    text = tear_sheet.render_sheet(sheet)

    assert "<td>smaller tier</td><td>1</td>" in text
    assert "<td>smallest</td><td>9</td><td>3</td>" in text
    assert "<td>3.125</td>" in text
