"""Results that wait on disk: whole or absent, in order, each handed over once."""

from __future__ import annotations

import resource
from contextlib import contextmanager

import pytest

from trademl.errors import AwayError, CodecError, StoreError
from trademl.ledger.spool import DONE, MAGIC, REFUSED, WAITS, Spool

HEAD = 45  # bytes before a payload


@pytest.fixture
def spool(tmp_path):
    return Spool(tmp_path / "spool" / "db.spool")


def fill(spool, *payloads):
    for payload in payloads:
        spool.append(payload)


def states(spool):
    return [record.state for record in spool.records()]


def away(_payload):
    raise AwayError("away")


@contextmanager
def room_for(n_bytes):
    """Let files of this process grow to a size and no further, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_records_are_handed_over_in_order_and_once(spool):
    fill(spool, b"one", b"two", b"three")
    seen = []
    assert spool.drain(seen.append).n_written == 3
    assert spool.drain(seen.append).n_written == 0
    assert seen == [b"one", b"two", b"three"]
    assert spool.is_empty()


def test_what_was_handed_over_before_the_database_went_away_is_not_again(spool):
    fill(spool, b"one", b"two")
    seen = []

    def once(payload):
        if seen:
            raise AwayError("away again")
        seen.append(payload)

    with pytest.raises(AwayError):
        spool.drain(once)
    assert states(spool) == [DONE, WAITS]
    spool.drain(seen.append)
    assert seen == [b"one", b"two"]


def test_a_process_that_dies_before_it_marks_a_record_hands_it_over_again(spool):
    fill(spool, b"one", b"two")

    def die(payload):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        spool.drain(die)
    assert states(spool) == [WAITS, WAITS]


def test_a_record_that_is_refused_keeps_nobody_waiting(spool):
    fill(spool, b"bad", b"good")
    seen = []

    def write(payload):
        if payload == b"bad":
            raise StoreError("its model is not there")
        seen.append(payload)

    assert spool.drain(write).refused == ["record 0: its model is not there"]
    assert seen == [b"good"]
    assert states(spool) == [REFUSED, DONE]
    assert spool.drain(away).n_written == 0  # not tried again
    assert spool.drain(seen.append, again=True).n_written == 1
    assert seen == [b"good", b"bad"]


@pytest.mark.parametrize("lost", [1, 5, 5 + HEAD - 1, 4 + HEAD])
def test_a_last_record_that_was_cut_short_is_dropped_with_a_word(spool, caplog, lost):
    fill(spool, b"whole", b"short")
    data = spool.path.read_bytes()
    spool.path.write_bytes(data[:-lost])
    seen = []
    spool.drain(seen.append)
    assert seen == [b"whole"]
    assert "cut short" in caplog.text


def test_a_record_after_one_that_was_cut_short_is_whole(spool, caplog):
    fill(spool, b"whole", b"short")
    spool.path.write_bytes(spool.path.read_bytes()[:-2])
    spool.append(b"next")
    seen = []
    spool.drain(seen.append)
    assert seen == [b"whole", b"next"]


def test_room_that_was_made_and_not_written_is_no_record(spool, caplog):
    fill(spool, b"whole")
    with spool.path.open("ab") as file:
        file.write(bytes(HEAD + 100))
    seen = []
    spool.drain(seen.append)
    assert seen == [b"whole"]


@pytest.mark.parametrize("offset", [1, 12, 44, HEAD + 1])
def test_damage_before_the_end_is_named_and_nothing_is_dropped(spool, offset):
    fill(spool, b"first", b"second")
    data = bytearray(spool.path.read_bytes())
    data[len(MAGIC) + offset] ^= 1
    spool.path.write_bytes(data)
    with pytest.raises(CodecError, match=r"record 0 at byte 8 is damaged"):
        spool.drain(lambda payload: None)
    assert spool.path.read_bytes() == data


def test_another_file_in_its_place_is_named(spool):
    spool.path.parent.mkdir()
    spool.path.write_bytes(b"something else")
    with pytest.raises(CodecError, match="is no spool"):
        spool.append(b"x")


def test_a_full_disk_is_one_line_and_leaves_what_was_kept(spool):
    fill(spool, b"kept")
    size = spool.path.stat().st_size
    with room_for(size + 1000), pytest.raises(StoreError, match="free some space") as caught:
        spool.append(bytes(100_000))
    assert "\n" not in str(caught.value)
    assert spool.path.stat().st_size == size
    seen = []
    spool.drain(seen.append)
    assert seen == [b"kept"]


def test_others_cannot_read_it(spool):
    fill(spool, b"x")
    assert spool.path.stat().st_mode & 0o077 == 0
