"""The rule of the benchmark in backtrader, backtesting.py and vectorbt, each as its users write it.

Enter where the score is above a threshold and nothing is held; leave ten dollars away or after 600
seconds. Decide and fill on the same price; a fee and a slippage for each fill.
"""

from __future__ import annotations

import gc
import resource
import threading
import time
from pathlib import Path

import numpy as np
from worker import serve

FEE, SLIPPAGE, LIMIT_S = 0.25, 0.5, 600
_held: dict[str, np.ndarray] = {}


def load(path: str) -> int:
    """Read prices and scores, and return how many there are."""
    with np.load(path) as arrays:
        _held.update({name: arrays[name] for name in arrays.files})
    return len(_held["price"])


def backtrader(threshold: float, barrier: float) -> dict[str, object]:
    """Return seconds and trades of plain backtrader: run once, preloaded, without observers."""
    import backtrader as bt
    import pandas as pd

    price, score = _held["price"], _held["score"]
    index = pd.to_datetime(_held["ts"], unit="ns")
    columns = dict.fromkeys(("open", "high", "low", "close"), price)
    frame = pd.DataFrame({**columns, "volume": 0.0, "score": score}, index=index)

    class Feed(bt.feeds.PandasData):
        lines = ("score",)
        params = (("score", "score"), ("openinterest", None))

    class Fee(bt.CommInfoBase):
        params = (("stocklike", True), ("commtype", bt.CommInfoBase.COMM_FIXED))

        def _getcommission(self, size, price, pseudoexec):
            return abs(size) * FEE

    class Rule(bt.Strategy):
        def __init__(self):
            self.entry, self.k, self.entered, self.done = None, -1, 0, []

        def next(self):
            self.k += 1
            if self.position:
                close = self.data.close[0]
                moved = close - self.paid
                if moved >= barrier or moved <= -barrier or self.k - self.entered >= LIMIT_S:
                    self.close()
            elif self.data.score[0] >= threshold:
                self.buy(size=1)

        def notify_order(self, order):
            if order.status != order.Completed:
                return
            if order.isbuy():
                self.paid, self.entered = order.executed.price, self.k
            else:
                self.done.append((self.entered, self.paid, self.k, order.executed.price))

    cerebro = bt.Cerebro(stdstats=False, runonce=True, preload=True)
    cerebro.adddata(Feed(dataname=frame, timeframe=bt.TimeFrame.Seconds))
    cerebro.addstrategy(Rule)
    cerebro.broker.set_coc(True)
    cerebro.broker.setcash(1e9)
    cerebro.broker.set_slippage_fixed(
        SLIPPAGE, slip_open=True, slip_limit=False, slip_match=True, slip_out=True
    )
    cerebro.broker.addcommissioninfo(Fee())
    start = time.perf_counter()
    (strategy,) = cerebro.run()
    return {"seconds": time.perf_counter() - start, "trades": strategy.done}


def backtesting(threshold: float, barrier: float) -> dict[str, object]:
    """Return seconds and trades of backtesting.py."""
    import pandas as pd
    from backtesting import Backtest, Strategy

    price, score = _held["price"], _held["score"]
    index = pd.to_datetime(_held["ts"], unit="ns")
    frame = pd.DataFrame({"Open": price, "High": price, "Low": price, "Close": price}, index=index)

    class Rule(Strategy):
        def init(self):
            self.k = 0

        def next(self):
            k = len(self.data) - 1
            if self.position:
                trade = self.trades[0]
                moved = self.data.Close[-1] - (trade.entry_price + SLIPPAGE)
                if moved >= barrier or moved <= -barrier or k - trade.entry_bar >= LIMIT_S:
                    self.position.close()
            elif score[k] >= threshold:
                self.buy(size=1)

    test = Backtest(
        frame,
        Rule,
        cash=1e9,
        commission=lambda size, price: abs(size) * (FEE + SLIPPAGE),
        trade_on_close=True,
        finalize_trades=False,
    )
    start = time.perf_counter()
    found = test.run()
    seconds = time.perf_counter() - start
    trades = found["_trades"]
    done = [
        (int(a), float(p) + SLIPPAGE, int(b), float(q) - SLIPPAGE)
        for a, p, b, q in zip(
            trades["EntryBar"],
            trades["EntryPrice"],
            trades["ExitBar"],
            trades["ExitPrice"],
            strict=True,
        )
    ]
    return {"seconds": seconds, "trades": done}


def vectorbt(threshold: float, barrier: float) -> dict[str, object]:
    """Return seconds (compiled before) and trades of vectorbt."""
    _portfolio(np.array([threshold]), np.array([barrier]))
    start = time.perf_counter()
    portfolio = _portfolio(np.array([threshold]), np.array([barrier]))
    seconds = time.perf_counter() - start
    orders = portfolio.trades.records
    orders = orders[orders["status"] == 1]
    done = [
        (int(r.entry_idx), float(r.entry_price), int(r.exit_idx), float(r.exit_price))
        for r in orders.itertuples()
    ]
    return {"seconds": seconds, "trades": done}


def vectorbt_sweep(thresholds: list[float], barriers: list[float]) -> dict[str, object]:
    """Return seconds, peak memory in bytes, and closed trades of one run of all combinations."""
    few = slice(0, 2)
    _portfolio(np.array(thresholds)[few], np.array(barriers)[few])
    with _Peak() as peak:
        start = time.perf_counter()
        portfolio = _portfolio(np.array(thresholds), np.array(barriers))
        records = portfolio.trades.records
        seconds = time.perf_counter() - start
    n_closed = int((records["status"] == 1).sum())
    return {"seconds": seconds, "peak_bytes": peak.bytes, "n_trades": n_closed}


def _portfolio(thresholds: np.ndarray, barriers: np.ndarray):
    """One column for each combination; see the notes on vectorbt's two tricks in the benchmark."""
    import pandas as pd
    import vectorbt as vbt

    price, score = _held["price"], _held["score"]
    close = pd.DataFrame(dict.fromkeys(range(len(thresholds)), price))
    entries = pd.DataFrame({k: score >= threshold for k, threshold in enumerate(thresholds)})
    # The stop is measured from the close; a hair nearer, so that rounding loses no touch.
    loss = (barriers - SLIPPAGE - 1e-6) / price[:, None]
    gain = (barriers + SLIPPAGE - 1e-6) / price[:, None]
    return vbt.Portfolio.from_signals(
        close,
        entries,
        False,
        size=1.0,
        price=close,
        fixed_fees=FEE,
        slippage=SLIPPAGE / price[:, None],
        init_cash=1e9,
        sl_stop=loss,
        tp_stop=gain,
        stop_entry_price="close",
        stop_exit_price="close",
        upon_stop_exit="close",
        adjust_sl_func_nb=_time_stop,
        adjust_tp_func_nb=_time_stop_tp,
        adjust_sl_args=(LIMIT_S,),
        adjust_tp_args=(LIMIT_S,),
        accumulate=False,
        freq="1s",
    )


def _compile_time_stops():
    from numba import njit

    @njit
    def stop(c, limit):
        if c.i - c.init_i >= limit:
            return 0.0, c.curr_trail
        return c.curr_stop, c.curr_trail

    @njit
    def take(c, limit):
        if c.i - c.init_i >= limit:
            return 0.0
        return c.curr_stop

    return stop, take


try:
    _time_stop, _time_stop_tp = _compile_time_stops()
except ImportError:
    _time_stop = _time_stop_tp = None


class _Peak:
    """The most memory that this process held while in the block, sampled every 5 ms."""

    def __enter__(self):
        gc.collect()
        self.bytes, self._is_over = _rss(), threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self):
        while not self._is_over.wait(0.005):
            self.bytes = max(self.bytes, _rss())

    def __exit__(self, *_):
        self._is_over.set()
        self._thread.join()
        self.bytes = max(self.bytes, _rss())


def _rss() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


if __name__ == "__main__":
    serve(load, backtrader, backtesting, vectorbt, vectorbt_sweep)
