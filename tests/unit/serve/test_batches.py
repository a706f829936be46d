"""What waits together is computed together, and a burst of one strategy waits for itself."""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor, Future

import numpy as np
import pytest

from trademl.serve.batches import Batches, Lane
from trademl.serve.served import ServedModel
from trademl.serve.shares import Quota, Shares


class Sum:
    columns, schema_hash = ("a",), "a"

    def predict(self, features_ND):
        return features_ND.sum(axis=1), None


class Slow(Executor):
    """Computes nothing until it is told to, the oldest first; each batch takes 10 ms."""

    def __init__(self):
        self.begun, self.now_s = [], 100.0

    def submit(self, fn, /, *args, **kwargs):
        future = Future()
        future.set_running_or_notify_cancel()
        self.begun.append((future, fn, args))
        return future

    async def finish(self):
        future, fn, args = self.begun.pop(0)
        self.now_s += 0.01
        future.set_result(fn(*args))
        await asyncio.sleep(0)
        await asyncio.sleep(0)


def row(value):
    return np.full((1, 1), value, np.float32)


def lane(strategy):
    return Lane(strategy, ServedModel(Sum(), strategy), 0.0001)


def on_one_thread(work, **quotas):
    async def run():
        slow = Slow()
        loop = asyncio.get_running_loop()
        return await work(Batches(loop, slow, 1, Shares(quotas), lambda: slow.now_s), slow)

    return asyncio.run(run())


def test_requests_that_wait_for_a_model_are_one_batch_and_each_gets_its_own_rows():
    async def work(batches, slow):
        one = lane("a")
        jobs = [batches.submit(one, row(n)) for n in range(1, 6)]
        sizes = []
        while slow.begun:
            sizes.append(len(slow.begun[0][2][0]))
            await slow.finish()
        return sizes, [float((await job.done).score_N[0]) for job in jobs]

    sizes, scores = on_one_thread(work, a=Quota())

    assert sizes == [1, 4]  # the first found a free thread, the others waited together
    assert scores == [1, 2, 3, 4, 5]


def test_a_request_that_nobody_waits_for_is_not_computed():
    async def work(batches, slow):
        one = lane("a")
        jobs = [batches.submit(one, row(n)) for n in range(3)]
        jobs[1].give_up()
        await slow.finish()
        return len(slow.begun[0][2][0])

    assert on_one_thread(work, a=Quota()) == 1


@pytest.mark.parametrize("share", [0.5, 0.25])
def test_a_burst_of_one_strategy_does_not_push_another_off_its_floor(share):
    async def work(batches, slow):
        burst = [lane("burst") for _ in range(50)]  # of many models, so that each is a batch
        steady = lane("steady")
        for one in burst:
            batches.submit(one, row(1))
        order = []
        while len(order) < 40:
            if not steady.jobs and not steady.n_running:
                batches.submit(steady, row(2))  # it always wants the next turn
            order.append(slow.begun[0][1].__self__.id)
            await slow.finish()
        return order.count("steady") / len(order)

    got = on_one_thread(work, burst=Quota(1 - share, priority=9), steady=Quota(share))

    assert got == pytest.approx(share, abs=0.06)


def test_a_single_request_within_its_floor_goes_before_the_rest_of_a_burst():
    async def work(batches, slow):
        for one in [lane("burst") for _ in range(40)]:
            batches.submit(one, row(1))
        for _ in range(5):
            await slow.finish()
        batches.submit(lane("steady"), row(2))
        await slow.finish()
        return slow.begun[0][1].__self__.id

    assert on_one_thread(work, burst=Quota(0.5, priority=9), steady=Quota(0.5)) == "steady"
