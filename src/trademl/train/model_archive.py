"""The ``model.tar.gz`` of a model: named files in an archive that depends on them alone."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

from trademl.errors import StoreError

MODEL_FILE = "model.tar.gz"


def pack(members: Mapping[str, bytes], *, level: int = 6) -> bytes:
    """Return a tar.gz of files whose bytes depend on names and contents alone."""
    tar_bytes = io.BytesIO()
    with tarfile.open(fileobj=tar_bytes, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name in sorted(members):
            entry = tarfile.TarInfo(name)  # owner, mode and time of day at their fixed defaults
            entry.size = len(members[name])
            tar.addfile(entry, io.BytesIO(members[name]))
    return gzip.compress(tar_bytes.getvalue(), compresslevel=level, mtime=0)


def is_network_file(path: Path) -> bool:
    """Return whether a ``model.tar.gz`` holds a network; torch is not needed to see it.

    Raises
    ------
    StoreError
        If it is no archive.
    """
    try:
        with tarfile.open(path, mode="r:gz") as tar:
            return any(entry.name.startswith("weights/") for entry in tar)
    except FileNotFoundError as error:
        raise StoreError(f"{path} does not exist: train again") from error
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        raise StoreError(f"{path} is not a model.tar.gz ({error}): train again") from error
