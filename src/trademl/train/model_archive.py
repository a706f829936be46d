"""The ``model.tar.gz`` of a model: named files in an archive that depends on them alone."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Mapping


def pack(members: Mapping[str, bytes], *, level: int = 6) -> bytes:
    """Return a tar.gz of files whose bytes depend on names and contents alone."""
    tar_bytes = io.BytesIO()
    with tarfile.open(fileobj=tar_bytes, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name in sorted(members):
            entry = tarfile.TarInfo(name)  # owner, mode and time of day at their fixed defaults
            entry.size = len(members[name])
            tar.addfile(entry, io.BytesIO(members[name]))
    return gzip.compress(tar_bytes.getvalue(), compresslevel=level, mtime=0)
