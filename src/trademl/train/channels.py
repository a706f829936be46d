"""A training container's channels: folders or pipes of labelled rows, as SageMaker lays them.

Shape letters: N rows, D features.

In the input modes File and FastFile a channel is the folder ``<data>/<channel>``, which may hold
several files; in Pipe mode it is a FIFO ``<data>/<channel>_<epoch>``. Only the first FIFO is
read: the rows stay in memory for every epoch.
"""

from __future__ import annotations

import json
import os
import select
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from trademl.errors import CodecError, ConfigError, DataError
from trademl.etl.csv_table import read_csv
from trademl.etl.dataset import SPLITS, Split
from trademl.etl.recordio import read_recordio
from trademl.train.hyperparameters import closest
from trademl.train.request import check_keys, choice, expect

Mode = Literal["File", "FastFile", "Pipe"]
ContentType = Literal["application/x-recordio-protobuf", "text/csv"]
Floats = NDArray[np.float32]
Rows = tuple[Floats, Floats | None]  # features of shape (N, D), labels of shape (N,)

SCHEMA_FILE = "schema.json"  # a dataset's; beside the train channel's rows it names the features

_MODES = ("File", "FastFile", "Pipe")
_CONTENT_TYPES = ("application/x-recordio-protobuf", "text/csv")
_NOT_OURS = frozenset({"code", "sm_drivers"})  # channels that SageMaker's SDK adds by itself
_NO_ROWS = frozenset({SCHEMA_FILE, "_SUCCESS"})
_RECORDIO_MAGIC = b"\x0a\x23\xd7\xce"
_PIPE_WAIT_S = 60.0  # for a FIFO to appear and to be written to
_PIPE_BYTES = 2**20


@dataclass(frozen=True)
class Channel:
    """One channel of ``inputdataconfig.json``; ``content_type`` None is told from the bytes."""

    name: str
    mode: Mode
    content_type: ContentType | None


class Interrupted(Exception):  # noqa: N818  (a request to stop is no error)
    """A pipe was still being read when the job was asked to stop."""


def parse_channels(config: Mapping[str, Any]) -> dict[str, Channel]:
    """Return the channels that ``inputdataconfig.json`` describes, by name.

    Raises
    ------
    ConfigError
        If there is no channel ``train``, one has another name than a split's, or a mode or content
        type is not one that Linear Learner takes.
    """
    expect(config, dict, "inputdataconfig.json")
    channels = {}
    for name, entry in config.items():
        if name in _NOT_OURS:
            continue
        if name not in SPLITS:
            raise ConfigError(f"channel {name!r} is unknown{closest(name, SPLITS)}")
        channels[name] = _channel(name, expect(entry, dict, f"channel {name}"))
    if "train" not in channels:
        found = ", ".join(channels) or "none"
        raise ConfigError(f"the channel train is missing from inputdataconfig.json, found: {found}")
    return channels


def _channel(name: str, entry: Mapping[str, Any]) -> Channel:
    where = f"channel {name}"
    known = ("ContentType", "TrainingInputMode", "S3DistributionType", "RecordWrapperType")
    check_keys(entry, (*known, "CompressionType", "EnableFFM", "InputMode"), where)
    if (wrapper := entry.get("RecordWrapperType") or "None") != "None":
        raise ConfigError(f"RecordWrapperType of {where} is {wrapper}, expected None")
    try:
        mode = choice(entry, "TrainingInputMode", _MODES, "File")
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error
    return Channel(name, cast("Mode", mode), _content_type(where, entry.get("ContentType")))


def _content_type(where: str, given: Any) -> ContentType | None:
    if not given:
        return None
    kind, *words = (word.strip().lower() for word in str(given).split(";"))
    if kind not in _CONTENT_TYPES:
        expected = ", ".join(_CONTENT_TYPES)
        raise ConfigError(f"ContentType of {where} is {given!r}, expected {expected}")
    sizes = [word.partition("=")[2] for word in words if word.startswith("label_size")]
    if any(size != "1" for size in sizes):
        raise ConfigError(f"ContentType of {where} is {given!r}, expected label_size=1")
    return cast("ContentType", kind)


def read_channel(
    channel: Channel, data: Path, *, should_stop: Callable[[], bool] = lambda: False
) -> Split:
    """Return a channel's rows, file after file.

    Parameters
    ----------
    data : Path
        Folder of all channels.
    should_stop : callable
        Asked while a pipe is read.

    Returns
    -------
    Split
        Features and labels; as the rows come without keys, ``order_id_N`` counts them, times are
        0 and ``pnl_N`` is NaN.

    Raises
    ------
    ConfigError
        If the channel's folder or pipe does not exist, or it holds no file.
    DataError
        If a file is damaged, has no labels, or is of another width than the one before it.
    Interrupted
        If ``should_stop`` says so while a pipe is read.
    """
    if channel.mode == "Pipe":
        parts = [_read_pipe(channel, data / f"{channel.name}_0", should_stop)]
    else:
        parts = [_read_file(channel, path) for path in _files_of(channel, data / channel.name)]
    features_ND, label_N = _joined(channel, parts)
    n = len(label_N)
    zeros_N = np.zeros(n, np.int64)
    return Split(features_ND, label_N, np.arange(n), zeros_N, zeros_N, np.full(n, np.nan))


def column_names(data: Path) -> tuple[str, ...]:
    """Return the features' names from a dataset's schema in the train channel, or none."""
    path = data / "train" / SCHEMA_FILE
    if not path.is_file():
        return ()
    try:
        return tuple(column["name"] for column in json.loads(path.read_bytes())["columns"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is no schema of a dataset ({error}): leave it out") from error


def _files_of(channel: Channel, folder: Path) -> list[Path]:
    """Return the files of a channel: those its manifest lists, else all of them by name."""
    if not folder.is_dir():
        raise ConfigError(
            f"{folder} does not exist, and inputdataconfig.json lists the channel {channel.name}"
        )
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    found = [p for p in found if not p.name.startswith(".") and p.name not in _NO_ROWS]
    if manifests := [path for path in found if path.suffix == ".manifest"]:
        found = [part for manifest in manifests for part in _parts_of(manifest)]
    if not found:
        raise ConfigError(f"the channel {channel.name} has no file: {folder} is empty")
    return found


def _parts_of(manifest: Path) -> list[Path]:
    """Return the files that a ``ManifestFile`` lists and that lie beside it or under its prefix."""
    try:
        head, *names = json.loads(manifest.read_bytes())
        prefix = "" if "://" in head["prefix"] else str(head["prefix"])
        beside = [manifest.parent / name for name in names]
        below = [manifest.parent / (prefix + name) for name in names]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{manifest} is no manifest ({error}): leave it out") from error
    parts = [b if b.is_file() else a for a, b in zip(beside, below, strict=True)]
    for part in parts:
        if not part.is_file():
            raise DataError(f"{manifest} lists {part.name}, which is not there")
    return parts


def _read_file(channel: Channel, path: Path) -> Rows:
    kind = channel.content_type or _told_from_bytes(path)
    rows = read_csv(path) if kind == "text/csv" else read_recordio(path)
    if rows[1] is None:
        raise DataError(f"{path} has no labels: training needs one in each record")
    return rows


def _told_from_bytes(path: Path) -> ContentType:
    if path.suffix == ".gz":
        return "application/x-recordio-protobuf"
    try:
        with path.open("rb") as file:
            is_recordio = file.read(len(_RECORDIO_MAGIC)) == _RECORDIO_MAGIC
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    return "application/x-recordio-protobuf" if is_recordio else "text/csv"


def _joined(channel: Channel, parts: list[Rows]) -> tuple[Floats, Floats]:
    widths = [features_ND.shape[1] for features_ND, _ in parts]
    for number, width in enumerate(widths):
        if width != widths[0]:
            raise DataError(
                f"file {number} of the channel {channel.name} has {width} features, the first has "
                f"{widths[0]}"
            )
    labels = [label_N for _, label_N in parts if label_N is not None]
    if len(parts) == 1:
        return parts[0][0], labels[0]
    return np.concatenate([features_ND for features_ND, _ in parts]), np.concatenate(labels)


def _read_pipe(channel: Channel, fifo: Path, should_stop: Callable[[], bool]) -> Rows:
    """Read a FIFO to its end into memory, and its rows from there."""
    _wait_for(channel, fifo, should_stop)
    with _held_in_memory(fifo, should_stop) as path:
        try:
            return _read_file(channel, path)
        except (CodecError, DataError) as error:
            raise type(error)(str(error).replace(str(path), str(fifo))) from error


def _wait_for(channel: Channel, fifo: Path, should_stop: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PIPE_WAIT_S
    while not fifo.exists():
        if should_stop():
            raise Interrupted
        if time.monotonic() > deadline:
            raise ConfigError(f"the pipe {fifo} of the channel {channel.name} did not appear")
        time.sleep(0.1)
    if not stat.S_ISFIFO(fifo.stat().st_mode):
        raise ConfigError(f"{fifo} of the channel {channel.name} is no pipe (FIFO)")


@contextmanager
def _held_in_memory(fifo: Path, should_stop: Callable[[], bool]) -> Iterator[Path]:
    """Yield the path of a file in memory that holds what a FIFO gave."""
    memory = os.memfd_create(fifo.name)
    try:
        for block in _blocks_of(fifo, should_stop):
            while block:
                block = block[os.write(memory, block) :]
        yield Path(f"/proc/self/fd/{memory}")
    finally:
        os.close(memory)


def _blocks_of(fifo: Path, should_stop: Callable[[], bool]) -> Iterator[bytes]:
    """Yield what a FIFO gives; opened without waiting, so that a request to stop is heard."""
    source = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        poll = select.poll()
        poll.register(source, select.POLLIN)
        deadline, has_writer = time.monotonic() + _PIPE_WAIT_S, False
        while True:
            if should_stop():
                raise Interrupted
            if not (events := poll.poll(100)):
                if not has_writer and time.monotonic() > deadline:
                    raise DataError(f"nothing was written to the pipe {fifo}")
                continue
            has_writer = True
            if block := os.read(source, _PIPE_BYTES):
                yield block
            elif events[0][1] & select.POLLHUP:
                return
    finally:
        os.close(source)
