"""What a hedge bought is sold by one order, whoever dies or asks twice."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from trademl.errors import ConfigError, DataError
from trademl.ledger import Ledger
from trademl.ledger.live_tables import BrokerOrder, Lease
from trademl.live.hedge import Evidence, fire_hedge, recover
from trademl.live.hedge_size import HedgeConfig, closing_premium
from trademl.live.lease import LeaseHolder, LeaseState
from trademl.live.outbox import ask_cancel, queue
from trademl.live.paper_options import PaperOptions
from trademl.live.positions import positions
from trademl.live.sender import Sender
from trademl.live.unwind import closings, queue_closings, why_keep
from trademl.market.options import Option
from trademl.ports import OrderTicket

NOW_NS = 1_767_225_600 * 10**9  # 2026-01-01T00:00Z
CONFIG = HedgeConfig(
    home="hk", instrument="HSI", point_value=2.0, etf="EWH", beta=0.9, implied_volatility=0.2,
    as_of="2025-12-30", expiry="2026-03-20", budget=1e6, rate=0.04,
)  # fmt: skip
PUT = "EWH 2026-03-20 P 20"
GONE = Evidence(LeaseState("diana", "hk", "hk", 1, 1, 0), is_server_up=False, is_market_up=False)


class Killed(BaseException):
    """Stands for kill -9."""


@pytest.fixture
def ledger(tmp_path):
    opened = Ledger(f"sqlite:///{tmp_path}/ledger.db")
    lease = {"name": "diana", "home": "hk", "region": "hk", "holder": "1", "token": 1}
    opened.record(Lease(**lease, home_token=1, expires_at_ms=1))
    ticket = OrderTicket("p1", "diana", "HSI", "buy", "entry", 500.0, 100.0, 1)
    with opened.session() as session:
        queue(session, ticket)
    Sender(opened, PaperOptions(tmp_path / "entries"), "diana", kinds=("entry",)).work()
    yield opened
    opened.close()


@pytest.fixture
def broker(tmp_path):
    return PaperOptions(tmp_path / "us.jsonl", name="us")


def sender(ledger, broker, region="us"):
    return Sender(ledger, broker, "diana", kinds=("hedge",), region=region)


def fire(ledger, broker, region="us"):
    """Hedge an outage of hk, which the broker fills or keeps; return the order's key."""
    holder = LeaseHolder(ledger, "diana", home="hk", region=region, holder=f"{region}-1")
    market = {"price": 100.0, "spot": 20.0}
    fired = fire_hedge(
        ledger, holder, "diana", CONFIG, GONE, **market, now_ns=lambda: NOW_NS
    )  # fmt: skip
    sender(ledger, broker, region).work()
    holder.release()
    return fired.key


def unwind(ledger, region="us", config=CONFIG, spot=21.0, now_ns=NOW_NS):
    found = closings(ledger, "diana", region, config, spot=spot, now_ns=now_ns)
    queue_closings(ledger, found)
    return found


def held(ledger):
    return positions(ledger, "diana")[PUT].quantity


def sales(ledger):
    return [row for row in ledger.rows(BrokerOrder, kind="hedge") if row.side == "sell"]


def test_what_filled_is_sold_at_the_premium_of_now_and_only_once(ledger, broker):
    key = fire(ledger, broker)
    n_bought = held(ledger)
    recover(ledger, "diana")
    (closing,) = unwind(ledger)
    sender(ledger, broker).work()
    assert n_bought > 0
    assert held(ledger) == 0
    (sale,) = sales(ledger)
    assert (sale.status, sale.quantity, sale.payload["closes"]) == ("filled", n_bought, key)
    years = (1_774_051_200 - NOW_NS / 10**9) / (365 * 86400)  # 2026-03-21T00:00Z
    assert sale.limit_price == pytest.approx(Option("put", 21.0, 20.0, years, 0.2, 0.04).price)
    assert closing.key == sale.key
    assert unwind(ledger) == []
    assert len(sales(ledger)) == 1


def test_an_order_on_its_way_is_not_written_again(ledger, broker):
    fire(ledger, broker)
    first, again = unwind(ledger), unwind(ledger, spot=25.0, now_ns=NOW_NS + 1)
    assert (again[0].key, again[0].ticket) == (first[0].key, None)
    assert len(sales(ledger)) == 1


def test_of_several_who_unwind_at_once_one_sells(ledger, broker):
    fire(ledger, broker)
    n_bought = held(ledger)
    with ThreadPoolExecutor(4) as pool:
        for n_cancelled in range(8):
            found = [
                closings(ledger, "diana", "us", CONFIG, spot=20.0 + i, now_ns=NOW_NS + i)
                for i in range(4)
            ]
            list(pool.map(lambda closing: queue_closings(ledger, closing), found))
            (sale,) = [row for row in sales(ledger) if row.status == "queued"]
            assert (sale.quantity, len(sales(ledger))) == (n_bought, n_cancelled + 1)
            ask_cancel(ledger, sale.key, "the next ones race for another")
    (last,) = unwind(ledger)
    sender(ledger, broker).work()
    assert [row.key for row in sales(ledger) if row.status == "filled"] == [last.key]
    assert held(ledger) == 0


def test_a_sale_that_was_cut_off_by_a_kill_is_finished_not_repeated(ledger, broker, tmp_path):
    class Dies(PaperOptions):
        def send(self, ticket):
            super().send(ticket)
            raise Killed

    fire(ledger, broker)
    unwind(ledger)
    with pytest.raises(Killed):
        sender(ledger, Dies(tmp_path / "us.jsonl", name="us")).work()
    unwind(ledger)
    sender(ledger, broker).work()
    assert (held(ledger), [sale.status for sale in sales(ledger)]) == (0, ["filled"])


def test_a_sale_that_was_cancelled_is_tried_again(ledger, broker, tmp_path):
    fire(ledger, broker)
    n_bought = held(ledger)
    (first,) = unwind(ledger)
    ask_cancel(ledger, first.key, "by hand")
    (second,) = unwind(ledger)
    sender(ledger, broker).work()
    assert second.key != first.key
    assert (held(ledger), second.quantity) == (0, n_bought)


def test_an_open_hedge_is_cancelled_before_anything_is_sold(ledger, tmp_path):
    resting = PaperOptions(tmp_path / "us.jsonl", fills_at_once=False)
    fire(ledger, resting)
    (closing,) = unwind(ledger)
    assert (closing.key, closing.why) == ("", "its hedge is not cancelled yet: do it again")
    recover(ledger, "diana")
    sender(ledger, resting).work()
    assert unwind(ledger) == []


def test_a_hedge_of_another_regions_broker_is_unwound_there(ledger, broker, tmp_path):
    other = PaperOptions(tmp_path / "eu.jsonl", name="eu")
    fire(ledger, other, "eu")
    (closing,) = unwind(ledger, "us")
    assert closing.why == "region eu bought it: unwind it there"
    unwind(ledger, "eu")
    sender(ledger, broker, "us").work()
    assert [sale.status for sale in sales(ledger)] == ["queued"]
    sender(ledger, other, "eu").work()
    assert held(ledger) == 0


@pytest.mark.parametrize(
    ("instrument", "spot", "now_ns"),
    [("EWH 2025-12-31 P 20", 20.0, NOW_NS), ("EWH 2026-01-02 P 1", 20.0, NOW_NS)],
)
def test_an_option_that_expired_or_is_worth_nothing_has_no_premium(instrument, spot, now_ns):
    assert closing_premium(CONFIG, instrument, spot=spot, now_ns=now_ns) is None


def test_options_that_cannot_be_priced_are_refused(ledger, broker):
    fire(ledger, broker)
    with pytest.raises(ConfigError, match="days old"):
        unwind(ledger, config=replace(CONFIG, as_of="2025-12-01"))
    with pytest.raises(DataError, match="EWH 2026-03-20 P 20 is held, but .* etf is FXI"):
        unwind(ledger, config=replace(CONFIG, etf="FXI"))
    assert sales(ledger) == []


def test_hedges_are_kept_while_nobody_trades_and_only_then(ledger, broker):
    assert why_keep(ledger, "diana", "hk") == ""
    fire(ledger, broker)
    assert why_keep(ledger, "diana", "hk").startswith("region hk is out: nobody trades diana")
    home = LeaseHolder(ledger, "diana", home="hk", region="hk", holder="2", trades=True)
    home.acquire()
    assert why_keep(ledger, "diana", "hk") == ""
