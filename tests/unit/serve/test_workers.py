"""Several workers: what they tell each other, and what they show as one."""

from __future__ import annotations

import asyncio

import pytest

from trademl.errors import ConfigError
from trademl.serve.board import SILENT_S, Board, WorkerPlace
from trademl.serve.peers import Peers, together
from trademl.serve.settings import ServerConfig
from trademl.serve.supervisor import RestartPolicy, place_text, read_place

PLACE = WorkerPlace(1, 2, 5, 7, "/tmp/x")


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_a_worker_that_never_answered_is_missing(tmp_path):
    with Board(tmp_path, 2, Clock()) as board:
        board.beat(0)
        assert board.complaint() == "worker 1 of 2 does not answer yet"
        board.beat(1)
        assert board.complaint() == ""


def test_a_worker_that_fell_silent_is_missing_until_it_is_heard_again(tmp_path):
    clock = Clock()
    with Board(tmp_path, 2, clock) as board:
        board.beat(0)
        board.beat(1)
        clock.now_s += SILENT_S + 1
        board.beat(1)
        assert board.complaint() == "worker 0 of 2 has been silent for 11 s"
        board.beat(0)
        assert board.complaint() == ""


def test_every_process_sees_the_same_board(tmp_path):
    with Board(tmp_path, 2) as mine, Board(tmp_path, 2) as theirs:
        theirs.beat(1)
        mine.count_restart(0)
        assert mine.beat_s(1) == theirs.beat_s(1) > 0
        assert (theirs.restarts(0), theirs.restarts(1)) == (1, 0)


SHOWN = r"""# HELP trademl_rows_total Feature rows read.
# TYPE trademl_rows_total counter
trademl_rows_total{strategy="a, \"b\""} %d
# HELP trademl_model_bytes Memory.
# TYPE trademl_model_bytes gauge
trademl_model_bytes %d
"""


def test_metrics_of_several_workers_are_one_exposition_with_each_family_once():
    shown = together({1: SHOWN % (4, 5), 0: SHOWN % (2, 3)}, [0, 6])

    assert shown.splitlines()[:9] == [
        "# HELP trademl_rows_total Feature rows read.",
        "# TYPE trademl_rows_total counter",
        r'trademl_rows_total{worker="0",strategy="a, \"b\""} 2',
        r'trademl_rows_total{worker="1",strategy="a, \"b\""} 4',
        "# HELP trademl_model_bytes Memory.",
        "# TYPE trademl_model_bytes gauge",
        'trademl_model_bytes{worker="0"} 3',
        'trademl_model_bytes{worker="1"} 5',
        "# HELP trademl_worker_up Whether a worker process shows its metrics.",
    ]
    assert 'trademl_worker_restarts_total{worker="1"} 6' in shown


def test_a_silent_worker_shows_as_down():
    shown = together({0: SHOWN % (2, 3), 1: ""}, [0, 0])

    assert 'trademl_worker_up{worker="0"} 1' in shown
    assert 'trademl_worker_up{worker="1"} 0' in shown
    assert 'trademl_rows_total{worker="1"' not in shown


def test_a_quick_death_waits_longer_each_time_up_to_a_limit():
    policy = RestartPolicy(first_s=1.0, longest_s=5.0)

    assert [policy.pause_s(n) for n in range(6)] == [0.0, 1.0, 2.0, 4.0, 5.0, 5.0]


def test_a_place_is_read_as_it_was_written():
    assert read_place(place_text(PLACE)) == PLACE
    for text in ("", "{}", "[1]", '{"number":1,"more":2}'):
        with pytest.raises(ConfigError, match="is no worker's place"):
            read_place(text)


def test_a_worker_that_fails_is_not_taken_for_one_that_is_gone(tmp_path):
    async def fail(_: bytes) -> bytes:
        raise RuntimeError("a defect")

    async def work(_: bytes) -> bytes:
        return b""

    async def run():
        peers = [Peers(WorkerPlace(n, 4, 5, 7, str(tmp_path)), lambda: ("", b"")) for n in range(3)]
        peers[1].answer(b"load", fail)
        peers[2].answer(b"load", work)
        for one in peers:
            await one.listen()
        found = await peers[0].tell(b"load", 10.0)
        for one in peers:
            one.close()
        return found

    assert asyncio.run(run()) == {1: None, 2: b""}


def test_workers_share_the_cores():
    alone = ServerConfig().slots

    assert ServerConfig(worker=PLACE).slots == max(1, alone // 2)
    assert ServerConfig(worker=PLACE, threads=7).slots == 7


def test_the_fewest_connections_are_those_of_a_worker_that_lives(tmp_path):
    clock = Clock()
    with Board(tmp_path, 3, clock) as board:
        board.beat(0, n_connections=1)
        clock.now_s += 10.0
        board.beat(1, n_connections=5)
        board.beat(2, n_connections=7)

        assert board.fewest(within_s=1.0) == 5
        clock.now_s += 10.0
        assert board.fewest(within_s=1.0) == float("inf")
