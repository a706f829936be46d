"""A dataset by id or by folder, with everything that later steps ask of it in the workspace."""

from __future__ import annotations

from pathlib import Path

from trademl.errors import DataError, StoreError
from trademl.etl.build import record_dataset
from trademl.ingest.imported import FilePair, import_batch
from trademl.ledger import Ledger
from trademl.store.artifacts import Artifact, ArtifactStore, get_artifact
from trademl.store.identity import digest_file


def open_dataset(reference: str | None, store: ArtifactStore, ledger: Ledger) -> Artifact:
    """Return the dataset of an id or of a folder, or the newest of the workspace.

    A folder that ``features build --out`` made is taken into the store, and so is the batch that
    its two files make: whatever works for a dataset of the workspace then works for it.

    Raises
    ------
    StoreError
        If there is no such dataset, the folder holds something else or was changed.
    DataError
        If a file that it was made from is gone or was changed.
    """
    if reference is None or not Path(reference).is_dir():
        return known_dataset(reference, store)
    found = dataset_at(Path(reference))
    if (known := store.find(found.id)) is not None:
        return known
    batch_id = found.manifest["parents"][0]
    if (batch := store.find(batch_id)) is None:
        if (files := found.manifest["parameters"].get("files")) is None:
            raise StoreError(
                f"{reference} holds {found.id}, which is not in this workspace: name the "
                "workspace that has it with --workspace, or build it here with trademl features "
                "build"
            )
        pair = FilePair(**files)
        sources = (_source(found, "prices"), _source(found, "transactions"))
        batch = import_batch(batch_id, pair, *sources, store, ledger)
    dataset = store.adopt(Path(reference))
    record_dataset(dataset, batch.id, ledger)
    return dataset


def known_dataset(identity: str | None, store: ArtifactStore) -> Artifact:
    """Return the dataset of an id, or the newest of the workspace.

    Raises
    ------
    StoreError
        If there is none.
    """
    if identity is not None and not identity.startswith("dataset-"):
        raise StoreError(f"{identity} is neither a folder nor the id of a dataset")
    return store.newest("dataset", identity)


def dataset_at(folder: Path) -> Artifact:
    """Return the dataset that a folder holds.

    Raises
    ------
    StoreError
        If it holds none.
    """
    found = get_artifact(folder)
    if found.manifest["kind"] != "dataset":
        raise StoreError(f"{folder} holds {found.id}, expected a dataset")
    return found


def _source(dataset: Artifact, name: str) -> Path:
    """Return a file that a dataset was made from, if it is still what it was."""
    path = Path(dataset.metrics["sources"][name])
    if not path.is_file():
        raise DataError(
            f"{dataset.path} was made from {path}, which is gone: put it back, its rows are made "
            "again from it"
        )
    if digest_file(path) != dataset.manifest["parameters"]["inputs"][name]:
        raise DataError(
            f"{dataset.path} was made from {path}, which was changed since: build the dataset again"
        )
    return path
