"""Assets on one clock; splits and dividends that read nothing of the future."""

import numpy as np
import pytest

from trademl.errors import DataError
from trademl.market.bars import Bars
from trademl.market.snapshots import NEVER, Factor, align

HOUR = 3_600_000_000_000


def bars(hours, closes):
    ts, price = np.array(hours) * HOUR, np.array(closes, float)
    return Bars(ts, ts + HOUR, price, price + 1, price - 1, price, np.full(len(ts), 0.1))


def test_a_snapshot_sees_the_last_bar_that_has_ended():
    snapshots = align({"day": bars([9, 10, 33], [1, 2, 3]), "night": bars([10, 20], [7, 8])})

    assert (snapshots.ts_T // HOUR).tolist() == [10, 11, 21, 34]
    assert snapshots.last_TA.tolist() == [[0, NEVER], [1, 0], [1, 1], [2, 1]]
    np.testing.assert_array_equal(snapshots.close()[:, 0], [1, 2, 2, 3])
    assert np.isnan(snapshots.close()[0, 1])
    assert (snapshots.age_ns() // HOUR).tolist()[2] == [10, 0]
    assert snapshots.age_ns()[0, 1] == -1


def test_a_split_leaves_no_jump_and_changes_no_earlier_price():
    raw = bars([0, 1, 2, 3], [100.0, 104.0, 26.0, 27.0])

    snapshots = align({"a": raw}, {"a": [Factor(2 * HOUR, 4.0)]})

    assert snapshots.close()[:, 0].tolist() == [100, 104, 104, 108]
    assert snapshots.spread()[:, 0].tolist() == [0.1, 0.1, 0.4, 0.4]
    before = align({"a": raw.slice(0, 2)})
    np.testing.assert_array_equal(snapshots.close()[:2], before.close())


def test_factors_of_an_asset_that_is_not_there_are_refused():
    with pytest.raises(DataError, match="factors of b; the bars are of a"):
        align({"a": bars([0, 1], [1, 1])}, {"b": []})


@pytest.mark.parametrize("ratio", [0.0, -1.0, float("nan"), float("inf")])
def test_a_factor_is_above_0(ratio):
    with pytest.raises(DataError, match="expected a finite number above 0"):
        Factor(0, ratio)
