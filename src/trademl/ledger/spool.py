"""A file of results that wait for a database which is away: appended, then written there once.

After eight bytes of magic, record follows record:

======  =========================================================
bytes   content
======  =========================================================
1       state: W waits, D is in the database, R was refused by it
8       length of the payload, little-endian
32      SHA-256 of the payload
4       CRC-32 of the 40 bytes before it
...     payload
======  =========================================================

A record is on the disk when `append` returns. Its state is set after the database has committed: a
process that dies in between leaves one that is written again, over the same rows. A last record
that is cut short was never promised to anybody; it is dropped.
"""

from __future__ import annotations

import hashlib
import logging
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock

from trademl.errors import AwayError, CodecError, StoreError
from trademl.store.artifacts import storage_errors

MAGIC = b"tmlspl01"
_HEAD = struct.Struct("<cQ32sI")
WAITS, DONE, REFUSED = b"W", b"D", b"R"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Record:
    """Where a record is, and how it stands."""

    number: int
    offset: int
    state: bytes
    length: int
    sha256: bytes

    @property
    def end(self) -> int:
        """Offset of what follows."""
        return self.offset + _HEAD.size + self.length


@dataclass
class Drained:
    """What came of the records of a spool.

    Parameters
    ----------
    n_written : int
    refused : list of str
        Why the database did not take a record; it stays in the file.
    """

    n_written: int = 0
    refused: list[str] = field(default_factory=list)


class Spool:
    """The records of one database; several processes may use it at the same time.

    Parameters
    ----------
    path : Path
        Made when the first record comes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = FileLock(f"{path}.lock")

    def is_empty(self) -> bool:
        """Return whether nothing can be waiting, at the cost of looking at the file's size."""
        try:
            return self.path.stat().st_size <= len(MAGIC)
        except FileNotFoundError:
            return True

    def append(self, payload: bytes) -> None:
        """Keep a record; it is on the disk when this returns.

        Raises
        ------
        StoreError
            If the disk is full or not writable; what was kept before stays.
        """
        digest = hashlib.sha256(payload).digest()
        head = struct.pack("<Q32s", len(payload), digest)
        record = WAITS + head + struct.pack("<I", zlib.crc32(head)) + payload
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._lock, self._open() as file:
                _append(file, record, self._good_end(file))
                _sync_folder(self.path.parent)
        except OSError as error:
            raise StoreError(
                f"{self.path}: results cannot wait here for the database: {error.strerror}: free "
                "some space and, when the database is back, run again; finished steps are kept"
            ) from error

    def records(self) -> list[Record]:
        """Return what is in the file.

        Raises
        ------
        CodecError
            If it is damaged before its end.
        """
        if self.is_empty():
            return []
        with storage_errors(self.path), self._lock, self._open() as file:
            return self._scan(file)[0]

    def drain(self, write: Callable[[bytes], None], *, again: bool = False) -> Drained:
        """Hand each waiting record to ``write``, oldest first; an error that says away ends it.

        Parameters
        ----------
        again : bool
            Try those too that the database refused before.

        Raises
        ------
        AwayError
            If the database is away again; what it has is not written again.
        CodecError
            If the file is damaged before its end.
        """
        drained = Drained()
        if self.is_empty():
            return drained
        with storage_errors(self.path), self._lock, self._open() as file:
            records, end = self._scan(file)
            file.truncate(end)
            wanted = (WAITS, REFUSED) if again else (WAITS,)
            for record in records:
                if record.state in wanted:
                    self._hand_over(file, record, write, drained)
            if all(record.state == DONE for record in self._scan(file)[0]):
                file.truncate(0)
        return drained

    def _hand_over(
        self, file: BinaryIO, record: Record, write: Callable[[bytes], None], drained: Drained
    ) -> None:
        file.seek(record.offset + _HEAD.size)
        payload = file.read(record.length)
        if hashlib.sha256(payload).digest() != record.sha256:
            raise self._damage(record, "its bytes have changed")
        try:
            write(payload)
        except AwayError:
            raise
        except (StoreError, CodecError) as error:
            drained.refused.append(f"record {record.number}: {error}")
            _mark(file, record, REFUSED)
            return
        _mark(file, record, DONE)
        drained.n_written += 1

    def _scan(self, file: BinaryIO) -> tuple[list[Record], int]:
        """Return the whole records and where they end; what follows was cut short."""
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        if (magic := file.read(len(MAGIC))) != MAGIC:
            if MAGIC.startswith(magic):  # died while it was made
                return [], 0
            raise CodecError(f"{self.path}: is no spool of trademl: move it away")
        records: list[Record] = []
        at = len(MAGIC)
        while at < size:
            record = self._read_head(file, len(records), at)
            if record is None or record.end > size or self._is_torn(file, record, size):
                _log.warning(
                    "%s: the last record was cut short when a process or the machine died: dropped",
                    self.path,
                )
                break
            records.append(record)
            at = record.end
        return records, at

    def _read_head(self, file: BinaryIO, number: int, at: int) -> Record | None:
        file.seek(at)
        head = file.read(_HEAD.size)
        if len(head) < _HEAD.size:
            return None
        state, length, sha256, crc = _HEAD.unpack(head)
        record = Record(number, at, state, length, sha256)
        if zlib.crc32(head[1:-4]) == crc and state in (WAITS, DONE, REFUSED):
            return record
        if not any(head) and not any(file.read()):  # the disk had made room and nothing more
            return None
        raise self._damage(record, "its head cannot be read")

    def _is_torn(self, file: BinaryIO, record: Record, size: int) -> bool:
        """Return whether the payload of the last record did not get to the disk."""
        if record.end < size or record.state == DONE:
            return False
        file.seek(record.offset + _HEAD.size)
        return hashlib.sha256(file.read(record.length)).digest() != record.sha256

    def _damage(self, record: Record, what: str) -> CodecError:
        return CodecError(
            f"{self.path}: record {record.number} at byte {record.offset} is damaged: {what}: move "
            "the file away to go on without its results, then run their backtests again"
        )

    def _good_end(self, file: BinaryIO) -> int:
        return self._scan(file)[1]

    @contextmanager
    def _open(self) -> Iterator[BinaryIO]:
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "r+b", buffering=0) as file:
            yield file  # unbuffered: no byte is left for close to write


def _append(file: BinaryIO, record: bytes, end: int) -> None:
    """Write a record after the good ones; take it back where it does not fit."""
    whole = MAGIC + record if end == 0 else record
    file.truncate(end)
    file.seek(end)
    try:
        view = memoryview(whole)
        while view:
            view = view[file.write(view) :]
        os.fsync(file.fileno())
    except OSError:
        with suppress(OSError):
            file.truncate(end)
        raise


def _mark(file: BinaryIO, record: Record, state: bytes) -> None:
    file.seek(record.offset)
    file.write(state)
    os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
