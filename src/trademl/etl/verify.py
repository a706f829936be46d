"""The leak proof: a dataset's rows made again from data cut off at each row's own time.

A cell that depends on anything after its row's as-of time differs, whatever the cause: history
filled backward, a centred window, a scaler fitted on all rows, a label among the features, a lag
that is off by one. Labels are made again from data cut off at their exits, and the intervals of
the splits are looked at for overlaps.

Shape letters: N rows of the dataset, D columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from trademl.errors import DataError
from trademl.etl.dataset import SPLITS, Split, load_split, map_split
from trademl.etl.features import feature_matrix
from trademl.etl.labels import Labelling, label_batch
from trademl.etl.recipe import FeatureRecipe, read_recipe
from trademl.ingest.batch import Batch, read_batch
from trademl.ledger import Ledger, tables
from trademl.market.costs import Costs
from trademl.market.friction import with_volatility
from trademl.ports import Progress
from trademl.store.artifacts import Artifact, ArtifactStore
from trademl.store.identity import artifact_id

SAMPLE = 200
SHOWN = 5


@dataclass
class Evidence:
    """What a proof found; ``faults`` are the first few, in words."""

    n_rows: int = 0
    n_cells: int = 0
    n_wrong_cells: int = 0
    n_wrong_labels: int = 0
    n_overlaps: int = 0
    faults: list[str] = field(default_factory=list)

    @property
    def is_proven(self) -> bool:
        """Whether nothing was found."""
        return not (self.n_wrong_cells or self.n_wrong_labels or self.n_overlaps)

    def fault(self, text: str) -> None:
        """Keep a fault, unless there are enough to go by."""
        if len(self.faults) < SHOWN:
            self.faults.append(text)


def verify_dataset(
    dataset: Artifact,
    store: ArtifactStore,
    ledger: Ledger,
    *,
    sample: int | None = SAMPLE,
    seed: int = 0,
    progress: Progress | None = None,
) -> Artifact:
    """Prove a dataset free of look-ahead, and keep the evidence.

    Parameters
    ----------
    sample : int or None
        Rows looked at, drawn from all splits; None looks at every row.

    Returns
    -------
    Artifact
        ``metrics`` holds ``is_proven``, what was compared, and the first faults. A dataset whose
        last proof failed, or that has none, cannot be deployed.
    """
    identity = artifact_id("proof", {"dataset": dataset.id}, {"sample": sample, "seed": seed})
    if (proof := store.find(identity)) is None:
        batch = store.get(dataset.manifest["parents"][0])
        read_split = load_split if sample is None else map_split
        splits = {name: read_split(dataset, name) for name in SPLITS}
        with store.create(
            identity, parents=[dataset.id], parameters={"sample": sample, "seed": seed}
        ) as draft:
            evidence = examine_dataset(
                splits,
                read_batch(batch),
                read_recipe(dataset.file("schema.json")),
                _how_labelled(dataset, batch),
                sample=sample,
                seed=seed,
                progress=progress,
            )
            draft.metrics.update({"is_proven": evidence.is_proven, **vars(evidence)})
        proof = store.get(identity)
    ledger.record(
        tables.Proof(
            id=proof.id,
            dataset_id=dataset.id,
            is_proven=proof.metrics["is_proven"],
            evidence=dict(proof.metrics),
        )
    )
    return proof


def examine_dataset(
    splits: Mapping[str, Split],
    batch: Batch,
    recipe: FeatureRecipe,
    labelling: Labelling,
    *,
    sample: int | None = SAMPLE,
    seed: int = 0,
    progress: Progress | None = None,
) -> Evidence:
    """Compare rows of a dataset with rows made from data cut off at their own time.

    Parameters
    ----------
    splits : mapping
        Name to `Split`: what stands in the dataset.
    batch : Batch
        The recording and the orders that it was made from.
    labelling : Labelling
        How its labels were made.
    """
    evidence = Evidence()
    # Cut data are too short to know it; it reads whole minutes before each quote and none after.
    batch = replace(batch, quotes=with_volatility(batch.quotes, labelling.costs))
    columns = [column["name"] for column in recipe.columns()]
    total = sum(len(split) for split in splits.values())
    for done, (name, split, row) in enumerate(_chosen(splits, total, sample, seed)):
        _examine_row(evidence, f"{name} row {row}", split, row, batch, recipe, columns, labelling)
        if progress and done % 100 == 0:
            progress.advance(done, total if sample is None else min(sample, total))
    _examine_overlaps(evidence, splits, recipe)
    return evidence


def _chosen(
    splits: Mapping[str, Split], total: int, sample: int | None, seed: int
) -> Iterator[tuple[str, Split, int]]:
    rows = np.arange(total)
    if sample is not None and sample < total:
        rows = np.sort(np.random.default_rng(seed).choice(total, sample, replace=False))
    first = 0
    for name, split in splits.items():
        for row in rows[(rows >= first) & (rows < first + len(split))]:
            yield name, split, int(row) - first
        first += len(split)


def _examine_row(
    evidence: Evidence,
    where: str,
    split: Split,
    row: int,
    batch: Batch,
    recipe: FeatureRecipe,
    columns: list[str],
    labelling: Labelling,
) -> None:
    order_id = split.order_id_N[row]
    at = int(np.searchsorted(batch.order_id, order_id))
    evidence.n_rows += 1
    if at == len(batch) or batch.order_id[at] != order_id:
        evidence.n_wrong_labels += 1
        evidence.fault(f"{where}: its order {order_id} is not in the batch")
        return
    found_D = split.features_ND[row]
    expected_D = _features_from_cut_data(batch, at, recipe)
    evidence.n_cells += max(len(found_D), len(columns))
    if expected_D is None or len(found_D) != len(expected_D):
        evidence.n_wrong_cells += max(len(found_D), len(columns))
        n_expected = "none" if expected_D is None else str(len(expected_D))
        evidence.fault(f"{where}: has {len(found_D)} cells, the cut data give {n_expected}")
        return
    for column in np.flatnonzero(found_D != expected_D):
        evidence.n_wrong_cells += 1
        evidence.fault(
            f"{where}, column {columns[column]}: the dataset has {found_D[column]:.9g}, data up to "
            f"the row's as-of time give {expected_D[column]:.9g}"
        )
    _examine_label(evidence, where, split, row, batch, at, labelling)


def _features_from_cut_data(
    batch: Batch, at: int, recipe: FeatureRecipe
) -> NDArray[np.float32] | None:
    """Return an order's features from quotes up to its own, None where they do not suffice."""
    ts_event, index = batch.quotes.ts_event, int(batch.orders.quote_index[at])
    first = int(np.searchsorted(ts_event, recipe.start_ns(ts_event[index : index + 1])[0]))
    cut = batch.quotes.slice(first, index + 1)
    try:
        row_D: NDArray[np.float32] = feature_matrix(cut, np.array([index - first]), recipe)[0]
        return row_D
    except DataError:
        return None


def _examine_label(
    evidence: Evidence,
    where: str,
    split: Split,
    row: int,
    batch: Batch,
    at: int,
    labelling: Labelling,
) -> None:
    first = int(batch.orders.quote_index[at])
    until = int(np.searchsorted(batch.quotes.ts_event, split.exit_N[row], side="right"))
    order = batch.take(slice(at, at + 1))
    if order.transactions.exit_index[0] >= until and labelling.source == "recorded":
        evidence.n_wrong_labels += 1
        evidence.fault(f"{where}: its order was left after the exit that the dataset names")
        return
    labels = label_batch(order.cut(first, until), labelling)
    label, pnl = labels.label_N[0], labels.pnl_N[0]
    if split.label_N[row] != label or split.pnl_N[row] != pnl:
        evidence.n_wrong_labels += 1
        evidence.fault(
            f"{where}: label {split.label_N[row]:g} and pnl {split.pnl_N[row]:g}, data up to its "
            f"exit give {label:g} and {pnl:g}"
        )


def _how_labelled(dataset: Artifact, batch: Artifact) -> Labelling:
    """Return how labels are made again: those that our order bot recorded, at its own costs.

    Labels that came with a file were made at costs that nobody knows: they can only be compared
    with the file.
    """
    how = dataset.manifest["parameters"]["labels"]
    made_at = batch.manifest["parameters"].get("costs")
    if how["source"] == "recorded" and made_at is not None:
        return Labelling("recomputed", Costs(**made_at))
    return Labelling(how["source"], Costs(**how["costs"]))


def _examine_overlaps(
    evidence: Evidence, splits: Mapping[str, Split], recipe: FeatureRecipe
) -> None:
    names = list(splits)
    for earlier, later in ((a, b) for i, a in enumerate(names) for b in names[i + 1 :]):
        one, other = splits[earlier], splits[later]
        if len(one) == 0 or len(other) == 0:
            continue
        first_ns = int(recipe.start_ns(other.as_of_N).min())
        n_overlaps = int((one.exit_N >= first_ns).sum())
        if n_overlaps:
            evidence.n_overlaps += n_overlaps
            evidence.fault(f"{n_overlaps} rows of {earlier} reach into the first of {later}")


def require_proof(dataset_id: str, ledger: Ledger) -> None:
    """Refuse to go on with a dataset that was not proven free of look-ahead.

    Raises
    ------
    DataError
        If its last proof failed, or it has none.
    """
    proofs = sorted(ledger.rows(tables.Proof, dataset_id=dataset_id), key=lambda p: p.created_at)
    if not proofs:
        raise DataError(
            f"{dataset_id} was not verified, so its models cannot be deployed: run trademl "
            f"features verify {dataset_id}"
        )
    if failed := [proof for proof in proofs if not proof.is_proven]:
        raise DataError(
            f"{dataset_id} failed its leak proof, so its models cannot be deployed: "
            f"{failed[-1].evidence['faults'][0]}; mend what made it and build it again"
        )
