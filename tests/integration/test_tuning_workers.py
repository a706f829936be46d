"""Trials in processes of their own: what they find is the same, and one that is killed is replaced."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import test_tuning

from trademl.errors import DataError
from trademl.train import batch
from trademl.train.batch import Ask, Job, train_group
from trademl.train.trials import Objective
from trademl.train.workers import WorkerPool

HYPERPARAMETERS = {"predictor_type": "binary_classifier", "epochs": "2"}


@pytest.fixture
def job(tmp_path):
    train, validation = test_tuning.make_split(1), test_tuning.make_split(2)
    objective = Objective("validation:objective_loss", "Minimize")
    return Job(train, validation, None, objective, ("a", "b", "c", "d", "e"), 3, tmp_path)


def asks(*sizes):
    return [[Ask(n, HYPERPARAMETERS | {"mini_batch_size": str(s)})] for n, s in enumerate(sizes)]


@contextmanager
def killing(pool, times):
    """Kill -9 the first workers that a pool starts, ``times`` of them."""
    ended, killed = threading.Event(), set()

    def kill():
        while not ended.is_set() and len(killed) < times:
            for worker in list(pool._workers or ()):
                if worker.process.pid not in killed and len(killed) < times:
                    os.kill(worker.process.pid, signal.SIGKILL)
                    killed.add(worker.process.pid)
            time.sleep(0.005)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield killed
    finally:
        ended.set()
        thread.join()


@contextmanager
def pool_of(job, n=1):
    pool = WorkerPool(job, n)
    try:
        yield pool
    finally:
        pool.close()


def test_a_search_in_processes_finds_the_same(tmp_path, monkeypatch):
    config = test_tuning.make_config(jobs=4)
    here = test_tuning.search(tmp_path / "here", config, storage="sqlite://")
    monkeypatch.setattr(batch, "_CELLS_WORTH_A_PROCESS", 0)

    apart = test_tuning.search(tmp_path / "apart", config, storage="sqlite://")

    assert apart == here
    assert test_tuning.model_bytes(tmp_path / "apart") == test_tuning.model_bytes(tmp_path / "here")


def test_a_killed_workers_trial_is_done_again(job):
    (expected,) = train_group(job, asks(50)[0])
    with pool_of(job) as pool, killing(pool, 2) as killed:
        ((found,),) = pool.run(asks(50))

    assert len(killed) == 2
    assert found == expected


def test_a_trial_whose_worker_dies_three_times_has_failed(job):
    with pool_of(job) as pool, killing(pool, 3):
        ((found,),) = pool.run(asks(50))
        assert found.status == "Failed"
        assert found.failure.startswith("its worker process was killed by SIGKILL, 3 times")

        ((after,),) = pool.run(asks(70))
    assert after.status == "Completed"


def test_what_a_worker_refuses_is_raised_as_it_would_be_here(job):
    features = job.train.features_ND.copy()
    features[3, 1] = np.nan
    broken = replace(job, train=replace(job.train, features_ND=features))
    with pool_of(broken) as pool, pytest.raises(DataError, match="b of train row 3 is not finite"):
        pool.run(asks(50))


def test_a_closed_pool_leaves_no_worker_and_starts_none(job):
    endless = asks(1)
    endless[0][0].hyperparameters.update(epochs="1000000", early_stopping_patience="1000000")
    pool, found = WorkerPool(job, 1), []
    thread = threading.Thread(target=lambda: found.extend(pool.run(endless)))
    thread.start()
    while not pool._workers:
        time.sleep(0.01)
    (worker,) = pool._workers

    pool.close()

    thread.join(120)
    assert not thread.is_alive()
    assert worker.process.returncode == -signal.SIGKILL
    assert found[0][0].status == "Failed"


def test_workers_end_with_a_search_that_is_killed(tmp_path):
    script = f"""
import sys, time
sys.path.insert(0, {str(Path(__file__).parent)!r})
import test_tuning
from pathlib import Path
from trademl.train.batch import Ask, Job
from trademl.train.trials import Objective
from trademl.train.workers import WorkerPool
split = test_tuning.make_split(1, n=2000)
job = Job(split, split, None, Objective("validation:objective_loss", "Minimize"), (), 3,
          Path({str(tmp_path)!r}))
pool = WorkerPool(job, 1)
static = {{"predictor_type": "binary_classifier", "epochs": "100000", "mini_batch_size": "1",
           "early_stopping_patience": "100000"}}
import threading
threading.Thread(target=pool.run, args=([[Ask(0, static)]],), daemon=True).start()
while not pool._workers: time.sleep(0.01)
(worker,) = pool._workers
print(worker.process.pid, flush=True)
time.sleep(60)
"""
    search = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    worker = int(search.stdout.readline())
    time.sleep(0.5)
    search.kill()
    search.wait()

    deadline = time.monotonic() + 120
    while is_running(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_running(worker)


def is_running(pid):
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rsplit(")", 1)[1].split()[0] != "Z"
