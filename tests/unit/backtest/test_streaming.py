"""A score rule over a file, block by block, is the rule over the whole recording."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from market_cases import random_walk
from trademl.backtest.parity import check_parity
from trademl.backtest.score_rule import ScoreRule, trade_scores
from trademl.backtest.streaming import trade_scores_of_file
from trademl.errors import DataError
from trademl.market.costs import Costs


@pytest.fixture
def recording(tmp_path):
    quotes = random_walk(5_000, seed=3, per_s=0.2)
    score = np.random.default_rng(4).random(5_000)
    columns = {"ts_event": quotes.ts_event, "bid": quotes.bid, "ask": quotes.ask, "score": score}
    pq.write_table(pa.table(columns), tmp_path / "quotes.parquet", row_group_size=700)
    return quotes, score, tmp_path / "quotes.parquet"


@pytest.mark.parametrize("rows", [64, 999, 100_000])
@pytest.mark.parametrize("rest_quotes", [0, 3])
def test_blocks_change_no_trade(recording, rows, rest_quotes):
    quotes, score, path = recording
    rule = ScoreRule(0.8, 4.0, 4.0, 300, rest_quotes=rest_quotes)
    costs = Costs(fee_bps=1, slippage_volatility=0.5, latency_ms=700, financing_long_pct=20)

    whole = trade_scores(quotes, score, rule, costs)
    by_block = trade_scores_of_file(path, rule, costs, rows=rows)

    assert len(whole) > 50
    check_parity(whole, by_block, names=("whole", "by block"))


def test_file_without_scores_is_refused_by_name(tmp_path):
    pq.write_table(pa.table({"ts_event": [1], "bid": [1.0], "ask": [1.0]}), tmp_path / "q.parquet")

    with pytest.raises(DataError, match=r"q\.parquet: has no column score"):
        trade_scores_of_file(tmp_path / "q.parquet", ScoreRule(0.5, 1, 1, 1), Costs())


def test_times_that_go_backwards_name_the_row(tmp_path):
    columns = {"ts_event": [2, 3, 1], "bid": [1.0] * 3, "ask": [1.0] * 3, "score": [0.0] * 3}
    pq.write_table(pa.table(columns), tmp_path / "q.parquet")

    with pytest.raises(DataError, match="row 3 is before"):
        trade_scores_of_file(tmp_path / "q.parquet", ScoreRule(0.5, 1, 1, 1), Costs(), rows=2)
