"""Models in memory: who leaves when there is no room, what is freed, what is warm when listed."""

from __future__ import annotations

import asyncio
import gc
import os
import tarfile
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from serving_cases import linear_model
from trademl.errors import StoreError
from trademl.serve import model_pool
from trademl.serve.archives import unpacked_bytes
from trademl.serve.engine import Engine
from trademl.serve.messages import Request
from trademl.serve.model_pool import ModelFile, ModelPool, NoRoomError
from trademl.serve.served import served
from trademl.serve.settings import ServerConfig
from trademl.serve.strategies import ServedStrategy
from trademl.train.model import load_model, save_model


@pytest.fixture
def files(tmp_path):
    found = []
    for n in range(4):
        save_model(linear_model(n + 1.0), tmp_path / f"{n}.tar.gz")
        found.append(ModelFile(f"m-{n}", str(tmp_path / f"{n}.tar.gz")))
    return found


@pytest.fixture
def size(files):
    return unpacked_bytes(Path(files[0].location))


def in_pool(budget_bytes, work):
    """Run a coroutine with a pool."""

    async def run():
        with ThreadPoolExecutor(1) as executor:
            return await work(ModelPool(budget_bytes, executor))

    return asyncio.run(run())


def test_the_least_recently_used_model_leaves_for_another(files, size):
    async def work(pool):
        held = [pool.add(file) for file in files[:3]]
        await pool.begin(held[0])
        await pool.begin(held[1])
        pool.touch(held[0])
        await pool.begin(held[2])
        return [h.model is not None for h in held], pool.used_bytes

    there, used = in_pool(int(size * 2.5), work)

    assert there == [True, False, True]
    assert used <= size * 2.5


def test_a_pinned_model_stays_and_its_rival_has_no_room(files, size):
    async def work(pool):
        pinned = pool.add(files[0], is_pinned=True)
        await pool.begin(pinned)
        with pytest.raises(NoRoomError, match="raise the memory for models"):
            await pool.begin(pool.add(files[1]))
        return pinned.model is not None

    assert in_pool(int(size * 1.5), work)


def test_a_model_that_was_let_go_of_comes_back_when_asked_for(files, size):
    async def work(pool):
        held = [pool.add(file) for file in files[:2]]
        for one in (*held, held[0]):
            await pool.begin(one)
        return [h.model is not None for h in held]

    assert in_pool(int(size * 1.5), work) == [True, False]


def test_a_model_that_was_removed_is_wished_for_in_vain(files):
    async def work(pool):
        held = pool.add(files[0])
        await pool.begin(held)
        pool.remove(held)
        pool.wish(held)
        return held.loading

    assert in_pool(2**30, work) is None


def test_a_folder_of_the_same_files_has_the_same_digest(files, tmp_path):
    folders = [tmp_path / "one", tmp_path / "two"]
    for n, folder in enumerate(folders):
        with tarfile.open(files[0].location) as tar:
            tar.extractall(folder, filter="data")
        for path in folder.iterdir():
            os.utime(path, (n, n))

    async def work(pool):
        held = [pool.add(ModelFile(folder.name, str(folder))) for folder in folders]
        for one in held:
            await pool.begin(one)
        return {one.sha256 for one in held}

    assert len(in_pool(2**30, work)) == 1


def test_a_model_has_scored_before_anyone_can_see_it(files, monkeypatch):
    calls = []

    class Watched:
        columns, schema_hash = ("a", "b"), "ab"

        def predict(self, features_ND):
            calls.append((len(features_ND), held.model))
            return features_ND.sum(axis=1), None

    monkeypatch.setattr(model_pool, "load_on", lambda path, device: Watched())
    held = None

    async def work(pool):
        nonlocal held
        held = pool.add(files[0])
        await pool.begin(held)
        return held.model is not None and held.row_s > 0

    assert in_pool(2**30, work)
    assert len(calls) >= 2
    assert all(model is None for _, model in calls)


@pytest.mark.parametrize("error", [RuntimeError("a defect"), MemoryError()])
def test_a_model_that_cannot_score_is_refused_as_one(files, monkeypatch, error):
    class Broken:
        columns, schema_hash = ("a", "b"), "ab"

        def predict(self, features_ND):
            raise error

    monkeypatch.setattr(model_pool, "load_on", lambda path, device: Broken())

    async def work(pool):
        with pytest.raises(StoreError, match="m-0 cannot score a row of zeros"):
            await pool.begin(pool.add(files[0]))

    in_pool(2**30, work)


def test_a_disk_that_fails_is_one_line(files, monkeypatch):
    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(model_pool.tempfile, "TemporaryDirectory", fail)

    async def work(pool):
        with pytest.raises(StoreError, match="0.tar.gz cannot be read: .*No space left"):
            await pool.begin(pool.add(files[0]))

    in_pool(2**30, work)


@pytest.mark.parametrize("row_s", [0.0, 0.01], ids=["on the loop", "in a thread"])
def test_a_model_that_was_let_go_of_is_out_of_memory(files, size, row_s):
    """Cache, lanes and futures of a strategy that it answered for keep no hold on it."""

    async def work():
        ladder = (files[0], served(load_model(files[1].location), "small"))
        engine = Engine([ServedStrategy("btc", ladder)], ServerConfig(memory_bytes=size * 3 // 2))
        try:
            handler = await engine.start()
            strategy = engine._live["btc"]
            big = strategy.ladder[0]
            await engine._pool.begin(big)
            big.row_s = row_s
            answer = handler(invocation(engine))
            if not hasattr(answer, "status"):
                answer = await answer
            seen = weakref.ref(big.model)
            rival = engine._pool.add(files[2])
            await engine._pool.begin(rival)
            model_head = answer.head
            del answer
            return model_head, big.model, await left_of(seen)
        finally:
            engine.close()

    head, held, left = asyncio.run(work())

    assert b"X-Trademl-Model: m-0\r\n" in head
    assert held is None
    assert left is None


def test_an_answer_that_comes_after_its_model_was_let_go_of_does_not_keep_it(files):
    async def work():
        ladder = (files[0], served(load_model(files[1].location), "small"))
        engine = Engine([ServedStrategy("btc", ladder)], ServerConfig())
        try:
            handler = await engine.start()
            big = engine._live["btc"].ladder[0]
            await engine._pool.begin(big)
            big.row_s = 0.01
            waiting = handler(invocation(engine))
            seen = weakref.ref(big.model)
            big.release()
            model_head = (await waiting).head
            del waiting
            return model_head, await left_of(seen)
        finally:
            engine.close()

    head, left = asyncio.run(work())

    assert b"X-Trademl-Model: m-0\r\n" in head
    assert left is None


async def left_of(seen):
    """Return what stays; a thread and the callbacks of what has ended hold it until they ran."""
    until = time.monotonic() + 20
    while seen() is not None and time.monotonic() < until:
        await asyncio.sleep(0.01)
        gc.collect()
    return seen()


def invocation(engine):
    request = Request("POST", "/invocations", b"1,1", {b"content-type": b"text/csv"})
    request.arrived_s = engine.turns.now()
    return request
