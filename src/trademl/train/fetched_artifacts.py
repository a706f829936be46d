"""Artifacts that lie elsewhere, brought into a store: a folder, or the address of one in S3."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from filelock import FileLock

from trademl.errors import StoreError
from trademl.store.artifacts import MANIFEST, Artifact, ArtifactStore, storage_errors
from trademl.train.fetch import read_bytes

_MODEL = re.compile(r"(model|network)-[0-9a-f]{12}")


def artifact_at(where: str, store: ArtifactStore) -> Artifact:
    """Return the artifact of an id, or the one that a folder or an address holds, taken in.

    Every file of it is held against the digest that its manifest lists, before anyone sees it.

    Parameters
    ----------
    where : str
        ``model-1a2b...``, ``folder/``, ``s3://bucket/models/model-1a2b...``, or the address of
        the ``model.tar.gz`` in one.

    Raises
    ------
    ConfigError
        If the address's scheme is not known.
    StoreError
        If there is no artifact, or a file of it is not the one that its manifest lists.
    CloudError
        If S3 cannot be read.
    """
    if "/" not in where:
        return store.get(where)
    with _alone(store):
        if "://" in where:
            return _fetched(where.removesuffix("/"), store)
        path = Path(where)
        return store.adopt(path if path.is_dir() else path.parent)


@contextmanager
def _alone(store: ArtifactStore) -> Iterator[None]:
    """Wait for other processes that take something in: workers of one server start together."""
    with storage_errors(store.root):
        store.root.mkdir(parents=True, exist_ok=True)
        with FileLock(store.root / ".taking-in.lock"):
            yield


def _fetched(address: str, store: ArtifactStore) -> Artifact:
    if address.endswith(".tar.gz"):
        address = address.rpartition("/")[0]
    content = read_bytes(f"{address}/{MANIFEST}")
    try:
        manifest = json.loads(content)
        identity, files = str(manifest["id"]), [str(name) for name in manifest["files"]]
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{address}/{MANIFEST} is no manifest of trademl ({error})") from error
    if not _MODEL.fullmatch(identity):  # it becomes the name of a folder
        raise StoreError(f"{address}/{MANIFEST} is of {identity!r}, expected a model or network")
    if (known := store.find(identity)) is not None:
        return known
    with storage_errors(store.root), TemporaryDirectory(prefix="trademl-artifact-") as name:
        folder = Path(name)
        for file in files:
            path = folder / file
            if not path.resolve().is_relative_to(folder.resolve()):
                raise StoreError(f"{address}/{MANIFEST} lists {file!r}, which leads out of it")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(read_bytes(f"{address}/{file}"))
        (folder / MANIFEST).write_bytes(content)
        return store.adopt(folder)
