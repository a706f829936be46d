"""Models of a shared list, where a worker was not told of a change."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from serving_cases import linear_model
from trademl.serve.loaded_models import LoadedModels, no_others
from trademl.serve.model_list import Listed, SharedModelList
from trademl.serve.model_pool import ModelPool
from trademl.store.identity import digest_file
from trademl.train.model import save_model


@pytest.fixture
def files(tmp_path):
    found = []
    for n in (1, 2):
        path = tmp_path / f"{n}.tar.gz"
        save_model(linear_model(float(n)), path)
        found.append(path)
    return found


def with_two(folder, work):
    """Run a coroutine with what two workers hold of one list; neither tells the other."""

    async def run():
        with (
            ThreadPoolExecutor(1) as executor,
            closing(worker(folder, executor)) as one,
            closing(worker(folder, executor)) as other,
        ):
            return await work(one, other)

    return asyncio.run(run())


def worker(folder, executor) -> LoadedModels:
    return LoadedModels(
        ModelPool(2**30, executor),
        lambda _name, held, _described: held,
        lambda _name: None,
        SharedModelList(folder),
        no_others,
    )


def test_a_name_that_was_loaded_again_meanwhile_is_another_model(tmp_path, files):
    async def work(one, other):
        await one.load("m", listed("first", files[0]))
        await other.ensure("m", before := found(other))
        await one.unload("m")
        await one.load("m", listed("second", files[1]))
        await other.ensure("m", after := found(other))
        return before.held.model, after.held.sha256, digest_file(files[1])

    model, sha256, expected = with_two(tmp_path, work)
    assert model is None
    assert sha256 == expected


def listed(loading: str, path: Path) -> Listed:
    return Listed(loading, str(path), str(path), "")


def found(models: LoadedModels):
    assert models.find("m") is not None
    return models.entry("m")


def test_an_unloaded_model_leaves_the_memory_with_the_next_look(tmp_path, files):
    async def work(one, other):
        await one.load("m", listed("first", files[0]))
        entry = found(other)
        await other.ensure("m", entry)
        await one.unload("m")
        return entry.held.model is not None, other.find("m"), entry.held.model

    assert with_two(tmp_path, work) == (True, None, None)
