"""The gate's verdict on a model, kept in the ledger with every number and reason.

A verdict depends on what else was looked at and on who is champion, so it is a row of the ledger
and no artifact. Asked again about the same model beside the same champion, the first answer stands.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trademl.errors import StoreError
from trademl.etl.dataset import Split, load_split
from trademl.etl.recipe import read_recipe
from trademl.ingest.batch import read_batch
from trademl.ledger import Ledger, tables
from trademl.ports import Progress, Silent
from trademl.store.artifacts import Artifact, ArtifactStore, get_artifact
from trademl.store.identity import artifact_id
from trademl.train.duel import Duel, champion_flags, fight, no_duel
from trademl.train.gate import Check, GateConfig, GateResult, weigh
from trademl.train.looks import count_looks, record_look
from trademl.train.model import load_binary_model
from trademl.train.model_archive import MODEL_FILE
from trademl.train.registry import champion, last_gate, was_taken_back
from trademl.train.selection import NO_EDGE
from trademl.train.studies import read_trials


def gate_model(
    model: Artifact,
    strategy: str,
    config: GateConfig,
    store: ArtifactStore,
    ledger: Ledger,
    *,
    seed: int,
    progress: Progress | None = None,
) -> tables.Gate:
    """Judge a model by the test rows of its dataset, and keep the verdict.

    A model that selection refused, or whose search read the test rows, is rejected without a look
    at them. Of the champion itself the verdict that made it champion is returned.

    Parameters
    ----------
    strategy : str
        Whose champion it would become.
    seed : int
        Of the bootstrap.

    Raises
    ------
    DataError
        If the dataset does not fit the model or its batch.
    StoreError
        If the model's study or dataset is missing.
    """
    progress = progress or Silent()
    reigning = champion(ledger, strategy)
    if reigning == model.id:
        if (stands := last_gate(ledger, strategy, model.id)) is not None:
            return stands
        reigning = None
    taken_back = was_taken_back(ledger, strategy, model.id)
    parameters = {
        "gate": asdict(config),
        "seed": seed,
        "strategy": strategy,
        "taken_back": taken_back.number if taken_back else None,
    }
    identity = artifact_id("gate", {"model": model.id, "champion": reigning or ""}, parameters)
    if (kept := ledger.get(tables.Gate, identity)) is not None:
        return kept
    progress.step("gate")
    result = judge_model(model, config, store, ledger, reigning=reigning, seed=seed)
    if taken_back is not None:
        says = f"it was taken back on {taken_back.from_at:%Y-%m-%d} ({taken_back.why})"
        history = Check("history", "hold", f"{says}: promote it by hand if it shall return")
        result = GateResult((*result.checks, history), result.figures, result.duel)
    row = tables.Gate(
        id=identity,
        strategy=strategy,
        model_id=model.id,
        champion_id=reigning,
        verdict=result.verdict,
        reasons=result.reasons,
        report={**result.as_dict(), "config": asdict(config), "seed": seed},
    )
    return ledger.first(row)


def judge_model(
    model: Artifact,
    config: GateConfig,
    store: ArtifactStore,
    ledger: Ledger,
    *,
    seed: int,
    reigning: str | None = None,
) -> GateResult:
    """Judge a model by its test rows, and keep the look at them but not the verdict.

    Parameters
    ----------
    reigning : str, optional
        Id of the champion that it must beat; left out, it is judged by itself.
    """
    refused = _unseen(model, store)
    return refused or _weigh(model, reigning, config, store, ledger, seed)


def gate_entry(gate: tables.Gate) -> dict[str, Any]:
    """Return a verdict as JSON can hold it."""
    return {
        "id": gate.id,
        "strategy": gate.strategy,
        "model": gate.model_id,
        "champion": gate.champion_id,
        "headline": _headline(gate),
        **gate.report,
    }


def _headline(gate: tables.Gate) -> str:
    """Return the verdict in the words that a run begins its result with."""
    if gate.verdict == "promote":
        return "promoted"
    if gate.report["has_edge"]:
        return "an edge after costs, held back: the champion stays"
    return NO_EDGE


def _unseen(model: Artifact, store: ArtifactStore) -> GateResult | None:
    """Return the reject of a model whose test rows need not, or must not, be looked at."""
    if model.metrics["status"] != "accepted":
        reasons = "; ".join(model.metrics["reasons"])
        return GateResult((Check("selection", "reject", f"selection refused it: {reasons}"),))
    objective = str(store.get(model.manifest["parents"][0]).metrics["objective"])
    if objective.startswith("test:"):
        says = (
            f"its search optimised {objective}, so that test rows prove nothing: search on "
            "validation: and gate again"
        )
        return GateResult((Check("selection", "reject", says),))
    return None


def _weigh(
    model: Artifact,
    reigning: str | None,
    config: GateConfig,
    store: ArtifactStore,
    ledger: Ledger,
    seed: int,
) -> GateResult:
    study, dataset = (store.get(parent) for parent in model.manifest["parents"])
    loaded = load_binary_model(model.file(MODEL_FILE))
    test = load_split(dataset, "test")
    look = record_look(study, read_trials(study), test, ledger, cuts=[loaded.threshold])
    is_flagged_N = loaded.flags(loaded.scores(test.features_ND)) == 1
    duel = None
    if reigning is not None:
        duel = _duel(reigning, dataset, test, is_flagged_N, config, store, ledger, seed)
    return weigh(
        test,
        is_flagged_N,
        config,
        n_tried=count_looks(look, ledger),
        overfitting=model.metrics["overfitting"],
        duel=duel,
        seed=seed,
    )


def _duel(
    reigning: str,
    dataset: Artifact,
    test: Split,
    is_flagged_N: NDArray[np.bool_],
    config: GateConfig,
    store: ArtifactStore,
    ledger: Ledger,
    seed: int,
) -> Duel:
    """Compare with the champion, wherever its files lie."""
    row = ledger.get(tables.Model, reigning)
    of_row = ledger.get(tables.Dataset, row.dataset_id) if row else None
    if row is None or of_row is None:
        raise StoreError(f"the ledger has no model {reigning}, the champion, or no dataset of it")
    try:
        theirs = get_artifact(Path(row.path))
        their_dataset = get_artifact(Path(of_row.path))
    except StoreError as error:
        return no_duel(reigning, f"the champion's files cannot be read ({error})")
    is_later_N = test.as_of_N > _last_exit_ns(their_dataset)
    is_theirs_N = np.zeros(len(test), np.bool_)
    if is_later_N.any():
        is_theirs_N, can_score_N = champion_flags(
            load_binary_model(theirs.file(MODEL_FILE)),
            read_recipe(their_dataset.file("schema.json")),
            test,
            read_batch(store.get(dataset.manifest["parents"][0])),
        )
        is_later_N &= can_score_N
    return fight(
        reigning,
        test,
        is_flagged_N,
        is_theirs_N,
        is_later_N,
        confidence=config.confidence,
        seed=seed,
    )


def _last_exit_ns(dataset: Artifact) -> int:
    """Return when the last order of a dataset, in whatever split, was closed."""
    import pyarrow.parquet as pq

    return int(pq.read_table(dataset.file("rows.parquet"))["exit_ns"].to_numpy().max())
