"""The look for a new model: a ledger that hangs or raises, and a loop that goes on."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from serving_cases import linear_model
from trademl.errors import LedgerAwayError
from trademl.serve.batches import Batches
from trademl.serve.following import Follower
from trademl.serve.live_strategy import LiveStrategy, Machine
from trademl.serve.model_pool import RETRY_S, ModelFile, ModelPool
from trademl.serve.shares import Shares
from trademl.serve.turns import Turns
from trademl.train.model import save_model


@pytest.fixture
def files(tmp_path):
    found = {}
    for name, weight in (("one", 1.0), ("two", 2.0)):
        save_model(linear_model(weight), tmp_path / f"{name}.tar.gz")
        found[name] = ModelFile(name, str(tmp_path / f"{name}.tar.gz"), mode="live")
    return found


def follow(files, newest, until, **settings):
    """Follow with one strategy of model one until ``until(strategy)``; return the strategy."""

    async def run():
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1) as executor:
            pool = ModelPool(2**30, executor)
            batches = {"cpu": Batches(loop, executor, 1, Shares({}))}
            machine = Machine(Turns(loop.call_soon), pool, batches, Shares({}))
            held = pool.add(files["one"])
            await pool.begin(held)
            strategy = LiveStrategy("btc", [held], machine)
            follower = Follower(newest, pool, every_s=0.001, **settings)
            task = asyncio.create_task(follower.run({"btc": strategy}))
            async with asyncio.timeout(20):
                while not until(strategy):
                    await asyncio.sleep(0.001)
            task.cancel()
            return strategy

    return asyncio.run(run())


def test_a_ledger_that_hangs_is_away_and_is_asked_no_second_time_meanwhile(files):
    may_go, asked = threading.Event(), []

    def newest(endpoint):
        asked.append(endpoint)
        may_go.wait(20)
        return files["two"]

    def until(strategy):
        if strategy.counters.n_ledger_away >= 5:
            n_asked.append(len(asked))
            may_go.set()
        return strategy.counters.n_swaps == 1

    n_asked: list[int] = []
    strategy = follow(files, newest, until, patience_s=0.01)

    assert n_asked[0] == 1
    assert strategy.followed.file.id == "two"
    assert strategy.counters.n_swaps_refused == 0


def test_a_defect_in_asking_is_logged_and_the_look_goes_on(files, caplog):
    answers = iter([ZeroDivisionError("a defect"), LedgerAwayError("away"), OSError("disk")])

    def newest(_):
        if (error := next(answers, None)) is not None:
            raise error
        return files["two"]

    strategy = follow(files, newest, lambda s: s.counters.n_swaps == 1)

    assert (strategy.counters.n_ledger_away, strategy.counters.n_swaps_refused) == (1, 2)
    assert "looking for a new model failed" in caplog.text


def test_what_was_refused_is_tried_again_after_a_while_and_counted_once(files, tmp_path):
    path = tmp_path / "two.tar.gz"
    content = path.read_bytes()
    path.unlink()
    clock = [0.0]
    looks = []

    def newest(_):
        looks.append(0)
        if len(looks) == 20:
            path.write_bytes(content)
            clock[0] = RETRY_S
        return files["two"]

    strategy = follow(files, newest, lambda s: s.counters.n_swaps == 1, now=lambda: clock[0])

    assert len(looks) >= 20
    assert strategy.counters.n_swaps_refused == 1


def test_the_same_model_in_another_mode_takes_over(files):
    shadow = replace(files["one"], mode="shadow")

    strategy = follow(files, lambda _: shadow, lambda s: s.counters.n_swaps == 1)

    assert strategy.followed.model.mode == "shadow"
