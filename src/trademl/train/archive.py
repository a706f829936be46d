"""A model's file: a tar.gz of one JSON document and numpy arrays, written and read with care.

Reading unpacks nothing to disk, follows no link, runs no pickle, and gives up before an archive
that claims to be larger than any model fills the memory.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trademl.errors import StoreError
from trademl.train.model_archive import pack as pack_members

DOCUMENT = "model.json"
LARGEST_BYTES = 1 << 30  # of all members together, unpacked; more where the archive is large
MOST_TIMES = 4  # weights hardly shrink: what unpacks to more times its size is no model
_MOST_MEMBERS = 1000
_ARRAY_END = ".npy"
_LEVEL, _LEVEL_OF_NETWORKS = 6, 1  # trained weights hardly shrink

Numbers = NDArray[np.float64] | NDArray[np.float32]
DType = type[np.float64] | type[np.float32]


def pack(
    document: Mapping[str, Any], arrays: Mapping[str, Numbers], *, dtype: DType = np.float64
) -> bytes:
    """Return the bytes of an archive; they depend on names and contents alone.

    Parameters
    ----------
    dtype : {float64, float32}
        Of the arrays as they are kept.
    """
    text = json.dumps(document, indent=1, sort_keys=True, allow_nan=False)
    members = {DOCUMENT: text.encode()}
    for name, array in arrays.items():
        buffer = io.BytesIO()
        np.save(buffer, np.asarray(array, dtype=dtype), allow_pickle=False)
        members[name + _ARRAY_END] = buffer.getvalue()
    level = _LEVEL if dtype is np.float64 else _LEVEL_OF_NETWORKS
    return pack_members(members, level=level)


class Members:
    """What an archive holds, read from memory; ``where`` is how messages call it."""

    def __init__(self, content: bytes, where: str) -> None:
        self.where = where
        try:
            self._members = _read(content, where)
        except (tarfile.TarError, EOFError, OSError, ValueError) as error:
            raise StoreError(f"{where} is not a model.tar.gz ({error}): train again") from error

    def document(self) -> dict[str, Any]:
        """Return the JSON document.

        Raises
        ------
        StoreError
            If it is missing or no JSON object.
        """
        try:
            found = json.loads(self._member(DOCUMENT))
        except ValueError as error:
            raise self._damaged(error) from error
        if not isinstance(found, dict):
            raise self._damaged(TypeError(f"{DOCUMENT} is no object"))
        return found

    @property
    def arrays(self) -> list[str]:
        """Names of the arrays."""
        return [n.removesuffix(_ARRAY_END) for n in self._members if n.endswith(_ARRAY_END)]

    def array(self, name: str, shape: tuple[int, ...], dtype: DType = np.float64) -> NDArray[Any]:
        """Return an array of float64, or of float32 where that is asked for.

        Raises
        ------
        StoreError
            If it is missing, damaged, or of another shape.
        """
        member = name + _ARRAY_END
        content = self._member(member)
        try:
            found = _claimed_shape(content, np.dtype(dtype))
            if found != shape:
                raise StoreError(
                    f"{self.where}: {member} has shape {found}, expected {shape}: train again"
                )
            array = np.load(io.BytesIO(content), allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise self._damaged(error) from error
        return np.asarray(array, dtype=dtype)

    def _member(self, name: str) -> bytes:
        if name not in self._members:
            raise StoreError(
                f"{self.where} is no model of trademl: it holds no {name}; train again"
            )
        return self._members[name]

    def _damaged(self, error: Exception) -> StoreError:
        return StoreError(f"{self.where} is damaged ({error}): train again")


def _read(content: bytes, where: str) -> dict[str, bytes]:
    members: dict[str, bytes] = {}
    n_bytes, most = 0, max(LARGEST_BYTES, MOST_TIMES * len(content))
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as tar:
        for number, entry in enumerate(tar):
            n_bytes += entry.size
            if n_bytes > most or number >= _MOST_MEMBERS:
                raise StoreError(
                    f"{where} unpacks to more than {most >> 20} MiB or "
                    f"{_MOST_MEMBERS} files: no model of trademl is so large"
                )
            name = entry.name.removeprefix("./")  # as `tar .` writes it, and SageMaker may
            is_ours = name == DOCUMENT or name.endswith(_ARRAY_END)
            if is_ours and entry.isreg() and (file := tar.extractfile(entry)):
                members[name] = file.read()
    return members


def _claimed_shape(content: bytes, expected: np.dtype[Any]) -> tuple[int, ...]:
    """Return the shape of a stored array; raise ValueError where its bytes are not as many."""
    buffer = io.BytesIO(content)
    if np.lib.format.read_magic(buffer) != (1, 0):
        raise ValueError("an array of an unknown format")
    shape, _, dtype = np.lib.format.read_array_header_1_0(buffer)
    if dtype != expected:
        raise ValueError(f"an array of {dtype}, expected {expected}")
    n_values = 1
    for size in shape:
        n_values *= size
    if n_values * expected.itemsize != len(content) - buffer.tell():
        raise ValueError(f"an array of shape {shape} in {len(content) - buffer.tell()} bytes")
    return tuple(int(size) for size in shape)
