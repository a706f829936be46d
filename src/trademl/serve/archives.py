"""Model files checked before they are read: what an archive holds, and that it is the right one."""

from __future__ import annotations

import tarfile
from pathlib import Path, PurePosixPath

from trademl.errors import StoreError
from trademl.store.identity import digest_file

MAX_FILES = 1000
MAX_UNPACKED_BYTES = 2**34


def unpacked_bytes(path: Path, *, most: int = MAX_UNPACKED_BYTES) -> int:
    """Return how large the files of a ``model.tar.gz`` are; nothing is written anywhere.

    Raises
    ------
    StoreError
        If it is no such archive, holds a name that leads out of its folder, a link or a device,
        or more than it may: an archive of some kilobytes can unpack to terabytes.
    """
    total = n = 0
    try:
        with tarfile.open(path, mode="r|gz") as tar:
            for entry in tar:
                n += 1
                total += entry.size
                _check_entry(path, entry)
                if n > MAX_FILES or total > most:
                    raise StoreError(
                        f"{path} unpacks to more than {MAX_FILES} files or {most} bytes: "
                        "it is no model of trademl"
                    )
    except FileNotFoundError as error:
        raise StoreError(f"{path} does not exist") from error
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        raise StoreError(f"{path} is not a model.tar.gz ({error})") from error
    return total


def _check_entry(path: Path, entry: tarfile.TarInfo) -> None:
    name = PurePosixPath(entry.name)
    if name.is_absolute() or ".." in name.parts or "\\" in entry.name:
        raise StoreError(f"{path} holds the name {entry.name!r}, which leads out of its folder")
    if not (entry.isfile() or entry.isdir()):
        raise StoreError(f"{path}: {entry.name!r} is neither a file nor a folder")


def check_digest(path: Path, sha256: str) -> None:
    """Return if a file has that SHA-256.

    Raises
    ------
    StoreError
        If it has another, or cannot be read.
    """
    try:
        found = digest_file(path)
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror or error}") from error
    if found != sha256:
        raise StoreError(
            f"{path} has SHA-256 {found[:12]}, its manifest lists {sha256[:12]}: it was changed or "
            "damaged; get it again"
        )
