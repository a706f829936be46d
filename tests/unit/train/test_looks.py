"""Every look at a test span is kept, and counts for whoever looks next."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest

from ledger_cases import add_batch, add_study
from split_cases import make_split
from trademl.ledger import Ledger, tables
from trademl.store.artifacts import Artifact
from trademl.train.looks import count_looks, record_look
from trademl.train.trials import TrialResult

PLAIN = {"predictor_type": "binary_classifier", "num_models": "1"}


@pytest.fixture
def ledger(tmp_path):
    opened = Ledger(f"sqlite:///{tmp_path}/ledger.db")
    yield opened
    opened.close()


def trials(n, *, failed=0):
    good = [TrialResult(k, PLAIN, 0.5, "Maximize") for k in range(n)]
    return good + [TrialResult(n + k, PLAIN, None, "Maximize", failure="!") for k in range(failed)]


def look(ledger, name, n_trials=10, *, cuts=(0.5,), first=0, instrument="ES", recording=None):
    """Look at 100 rows a minute apart, beginning at minute ``first``."""
    batch, dataset = f"batch-{name}", f"dataset-{name}"
    add_batch(ledger, batch, instrument=instrument, recording=recording or f"recording-{name}")
    add_study(ledger, name, dataset=dataset, batch=batch)
    rows = make_split(np.zeros((100, 1)), np.zeros(100))
    minute = 60_000_000_000
    moved = make_split(np.zeros((100, 1)), np.zeros(100))
    moved.as_of_N[:] = rows.as_of_N + first * minute
    moved.exit_N[:] = rows.exit_N + first * minute
    study = Artifact(None, {"id": name, "parents": [dataset], "metrics": {}})
    return record_look(study, trials(n_trials, failed=2), moved, ledger, cuts=list(cuts))


def test_a_first_look_counts_its_trained_trials(ledger):
    assert count_looks(look(ledger, "study-a", 10), ledger) == 10


def test_cuts_multiply_and_each_counts_once(ledger):
    look(ledger, "study-a", 10, cuts=[0.4])
    again = look(ledger, "study-a", 10, cuts=[0.4, 0.5, 0.75])

    assert count_looks(again, ledger) == 30
    assert len(ledger.rows(tables.Look)) == 1


def test_an_earlier_run_on_the_same_span_adds_up(ledger):
    look(ledger, "study-a", 10)

    assert count_looks(look(ledger, "study-b", 10), ledger) == 20


def test_spans_that_only_touch_partly_add_up(ledger):
    look(ledger, "study-a", 7)

    assert count_looks(look(ledger, "study-b", 10, first=99), ledger) == 17


def test_a_later_span_starts_from_nothing(ledger):
    look(ledger, "study-a", 7)

    assert count_looks(look(ledger, "study-b", 10, first=105), ledger) == 10


def test_another_instrument_says_nothing_about_this_one(ledger):
    look(ledger, "study-a", 7, instrument="NQ")

    assert count_looks(look(ledger, "study-b", 10), ledger) == 10


def test_a_recording_under_another_name_is_the_same_span(ledger):
    look(ledger, "study-a", 7, instrument="renamed", recording="recording-1")

    assert count_looks(look(ledger, "study-b", 10, recording="recording-1"), ledger) == 17


def test_workspaces_on_one_ledger_share_their_looks(tmp_path, ledger):
    other = Ledger(ledger.database)
    look(other, "study-a", 7)
    other.close()

    assert count_looks(look(ledger, "study-b", 10), ledger) == 17


def test_cuts_of_looks_that_are_taken_at_once_are_all_kept(ledger):
    ledgers, barrier = [Ledger(ledger.database) for _ in range(4)], Barrier(4)
    studies = [f"study-{number}" for number in range(8)]
    for study in studies:
        look(ledger, study, cuts=[])

    def take(cut):
        barrier.wait()
        return look(ledgers[cut], study, cuts=[float(cut)])

    with ThreadPoolExecutor(4) as pool:
        for study in studies:
            list(pool.map(take, range(4)))
            assert ledger.get(tables.Look, study).cuts == [0.0, 1.0, 2.0, 3.0]
    for opened in ledgers:
        opened.close()
