"""A folder of artifacts, each with a manifest that is written last."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from trademl.errors import StoreError
from trademl.store.identity import code_version, digest_file

MANIFEST = "manifest.json"
MANIFEST_SCHEMA = 1


@dataclass(frozen=True)
class Artifact:
    """A published artifact: a folder and what its manifest says."""

    path: Path
    manifest: Mapping[str, Any]

    @property
    def id(self) -> str:
        """``kind-<12 hex>``."""
        return str(self.manifest["id"])

    @property
    def metrics(self) -> Mapping[str, Any]:
        """What the step that made it measured."""
        metrics: Mapping[str, Any] = self.manifest["metrics"]
        return metrics

    def file(self, name: str) -> Path:
        """Return the path of one of its files.

        Raises
        ------
        StoreError
            If the manifest lists no such file.
        """
        if name not in self.manifest["files"]:
            held = ", ".join(self.manifest["files"])
            raise StoreError(f"{self.id} holds no file {name}; it holds {held}")
        return self.path / name


@dataclass
class Draft:
    """An artifact in the making: write files into ``path``, put figures into ``metrics``."""

    id: str
    path: Path
    metrics: dict[str, Any] = field(default_factory=dict)


class ArtifactStore:
    """Artifacts below one folder: ``<root>/<kind>/<id>/manifest.json`` and files beside it."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def find(self, artifact_id: str) -> Artifact | None:
        """Return the artifact, or None where it was never published.

        Raises
        ------
        StoreError
            If its manifest is damaged, of a newer schema, or one of its files is missing.
        """
        return read_artifact(self.root / _kind(artifact_id) / artifact_id)

    def get(self, artifact_id: str) -> Artifact:
        """Return the artifact.

        Raises
        ------
        StoreError
            If there is none of that id.
        """
        if (artifact := self.find(artifact_id)) is None:
            raise StoreError(f"no artifact {artifact_id} under {self.root}")
        return artifact

    def all_of(self, kind: str) -> list[Artifact]:
        """Return every published artifact of a kind, oldest first."""
        found = (self.find(folder.name) for folder in (self.root / kind).glob(f"{kind}-*"))
        return sorted((a for a in found if a), key=lambda a: str(a.manifest["created_at"]))

    def newest(self, kind: str, artifact_id: str | None = None) -> Artifact:
        """Return the artifact of that id, or the newest of its kind where none is given.

        Raises
        ------
        StoreError
            If there is none.
        """
        if artifact_id is not None:
            return self.get(artifact_id)
        if not (found := self.all_of(kind)):
            raise StoreError(f"no {kind} under {self.root} yet: make one first")
        return found[-1]

    @contextmanager
    def create(
        self,
        artifact_id: str,
        *,
        parents: list[str],
        parameters: Mapping[str, Any],
        resume: bool = False,
    ) -> Iterator[Draft]:
        """Yield a draft; publish it when the block ends, leave nothing visible if it raises.

        Parameters
        ----------
        parents : list of str
            Ids of the artifacts it was made from.
        parameters : mapping
            What made it, as JSON can hold it.
        resume : bool
            Keep what an interrupted attempt at the same id left in the draft's folder.
        """
        folder = self.root / ".drafts" / artifact_id
        with storage_errors(self.root):
            if not resume:
                shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True, exist_ok=True)
            draft = Draft(artifact_id, folder)
            yield draft
            self._publish(draft, parents, parameters)

    def adopt(self, folder: Path) -> Artifact:
        """Take in the artifact that a folder elsewhere holds; one that is here already is kept.

        Its files are linked, so that they cost no room and stay when the folder goes; where it
        lies on another disk they are copied.

        Raises
        ------
        StoreError
            If the folder holds no artifact, or a file is not the one that its manifest lists.
        """
        found = get_artifact(folder)
        if (known := self.find(found.id)) is not None:
            return known
        draft = Draft(found.id, self.root / ".drafts" / found.id)
        with storage_errors(self.root):
            shutil.rmtree(draft.path, ignore_errors=True)
            for name, entry in found.manifest["files"].items():
                if digest_file(folder / name) != entry["sha256"]:
                    raise StoreError(
                        f"{folder / name} is not the file that its manifest lists: it was changed "
                        f"or damaged; delete {folder} and make it again"
                    )
                _link(folder / name, draft.path / name)
            write_atomically(draft.path / MANIFEST, (folder / MANIFEST).read_bytes())
            self._place(draft)
        return self.get(found.id)

    def _publish(self, draft: Draft, parents: list[str], parameters: Mapping[str, Any]) -> None:
        _write_manifest(draft, parents, parameters)
        self._place(draft)

    def _place(self, draft: Draft) -> None:
        target = self.root / _kind(draft.id) / draft.id
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(target, ignore_errors=True)  # a folder without a manifest was never published
        draft.path.rename(target)


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        target.hardlink_to(source)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EMLINK):
            raise
        shutil.copyfile(source, target)


@contextmanager
def create_at(
    folder: Path, artifact_id: str, *, parents: list[str], parameters: Mapping[str, Any]
) -> Iterator[Draft]:
    """Yield a draft that becomes ``folder`` when the block ends, and nothing if it raises.

    The draft lies beside it: ``folder`` is complete or absent.

    Raises
    ------
    StoreError
        If there is something at ``folder`` other than an empty folder.
    """
    folder = folder.resolve()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise StoreError(f"{folder} exists and is not an empty folder: choose another, or empty it")
    beside = folder.with_name(f".{folder.name}.draft")
    with storage_errors(folder.parent, "folder"):
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        try:
            draft = Draft(artifact_id, beside)
            yield draft
            _write_manifest(draft, parents, parameters)
            beside.rename(folder)
        finally:
            shutil.rmtree(beside, ignore_errors=True)


def read_artifact(folder: Path) -> Artifact | None:
    """Return the artifact that a folder holds, or None where it has no manifest.

    Raises
    ------
    StoreError
        If its manifest is damaged, of a newer schema, or one of its files is missing.
    """
    if not (folder / MANIFEST).exists():
        return None
    manifest = _read_manifest(folder / MANIFEST)
    for name, entry in manifest["files"].items():
        path = folder / name
        if not path.exists() or path.stat().st_size != entry["bytes"]:
            raise StoreError(
                f"{path} is missing or not the {entry['bytes']} bytes that its manifest lists: "
                f"delete {folder} and run again"
            )
    return Artifact(folder, manifest)


def get_artifact(folder: Path) -> Artifact:
    """Return the artifact that a folder holds.

    Raises
    ------
    StoreError
        If it holds none, or as `read_artifact`.
    """
    if (artifact := read_artifact(folder)) is None:
        raise StoreError(f"{folder} holds no artifact: it has no {MANIFEST}")
    return artifact


def _write_manifest(draft: Draft, parents: list[str], parameters: Mapping[str, Any]) -> None:
    files = [p for p in draft.path.rglob("*") if p.is_file() and p.name != MANIFEST]
    for left_over in (p for p in files if p.name.startswith(".")):
        left_over.unlink()  # a write that a kill cut short
    paths = sorted(p for p in files if p.exists())
    manifest = {
        "kind": _kind(draft.id),
        "id": draft.id,
        "schema_version": MANIFEST_SCHEMA,
        "created_at": datetime.now(UTC).isoformat(timespec="microseconds"),
        "code_version": code_version(),
        "parents": parents,
        "parameters": dict(parameters),
        "metrics": draft.metrics,
        "files": {
            p.relative_to(draft.path).as_posix(): {
                "sha256": digest_file(p),
                "bytes": p.stat().st_size,
            }
            for p in paths
        },
    }
    write_atomically(draft.path / MANIFEST, json.dumps(manifest, indent=1).encode())


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old content or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def storage_errors(where: Path, what: str = "--workspace") -> Iterator[None]:
    """Turn what a full or read-only disk raises into one line; ``what`` to choose instead."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise StoreError(
                f"the disk of {where} is full: free some space and run again; "
                "finished steps are kept"
            ) from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            raise StoreError(
                f"{error.filename or where} is not writable: choose another {what}"
            ) from error
        if error.errno in (errno.EEXIST, errno.ENOTDIR, errno.ENOENT):
            raise StoreError(
                f"{error.filename or where} cannot be made ({error.strerror}): expected a folder; "
                f"choose another {what}"
            ) from error
        raise


def _kind(artifact_id: str) -> str:
    return artifact_id.rpartition("-")[0]


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = json.loads(path.read_bytes())
        version = int(manifest["schema_version"])
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path} is damaged ({error}): delete its folder and run again") from error
    if version > MANIFEST_SCHEMA:
        raise StoreError(
            f"{path} has schema version {version}, this trademl reads up to {MANIFEST_SCHEMA}: "
            "upgrade trademl"
        )
    return manifest
