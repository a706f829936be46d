"""Writes as bytes: what comes back is what went in."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest

from trademl.errors import CodecError
from trademl.ledger import tables
from trademl.ledger.writes import RESULTS, Write, may_wait, merged, pack, unpack


def test_a_row_comes_back_with_what_it_was_given_and_nothing_else():
    began = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
    row = tables.Run(
        id=7, strategy="s", started_at=began, finished_at=None, status="done", artifacts={"a": [1]}
    )
    (back,) = unpack(pack([merged(row)]))
    assert back == merged(row)
    assert back.rows == [
        {
            "id": 7, "strategy": "s", "started_at": began, "finished_at": None, "status": "done",
            "artifacts": {"a": [1]},
        }
    ]  # fmt: skip


def test_a_time_without_a_zone_is_a_time_again():
    began = datetime(2026, 1, 2, 3, tzinfo=UTC).replace(tzinfo=None)
    (back,) = unpack(pack([merged(tables.Run(id=7, started_at=began))]))
    assert back.rows[0]["started_at"] == began


def test_a_table_comes_back_bit_for_bit():
    rows = pa.table({"number": [0, 2**60], "pnl": [-1 / 3, 5e-324], "tier": ["a,\"b'\n", None]})
    (back,) = unpack(pack([Write(tables.Trade, rows, {"backtest_id": "b"})]))
    assert back.rows.equals(rows)
    assert back.where == {"backtest_id": "b"}


def test_numbers_of_numpy_are_plain_ones():
    row = tables.Evaluation(id="e", metrics={"n": np.int64(3), "auc": np.float64(0.5)})
    (back,) = unpack(pack([merged(row)]))
    assert back.rows[0]["metrics"] == {"n": 3, "auc": 0.5}


def test_a_table_that_is_not_known_is_named():
    payload = pack([Write(tables.Trade, [])]).replace(b"trades", b"tirade")
    with pytest.raises(CodecError, match="tirade"):
        unpack(payload)


@pytest.mark.parametrize(
    "table", [tables.Gate, tables.Reign, tables.Deployment, tables.Look, tables.Study, tables.Model]
)
def test_what_decides_anything_does_not_wait(table):
    assert table not in RESULTS
    assert not may_wait([Write(tables.Backtest, []), Write(table, [])])
