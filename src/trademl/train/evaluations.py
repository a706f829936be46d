"""An evaluation as an artifact: what a model's scores of a split were worth."""

from __future__ import annotations

import json

import numpy as np
from numpy.typing import NDArray

from trademl.etl.dataset import load_split
from trademl.ledger import Ledger, tables
from trademl.store.artifacts import Artifact, ArtifactStore
from trademl.store.identity import artifact_id, digest_bytes
from trademl.train.evaluation import evaluate
from trademl.train.looks import record_look
from trademl.train.model import load_binary_model
from trademl.train.model_archive import MODEL_FILE
from trademl.train.studies import read_trials

FILE = "evaluation.json"
CUTS = (0.5, 0.75)  # further scores at which flagged orders are counted


def evaluate_model(
    model: Artifact,
    store: ArtifactStore,
    ledger: Ledger,
    *,
    split: str = "test",
    score_N: NDArray[np.float64] | None = None,
) -> Artifact:
    """Publish the evaluation of a model on a split of its dataset.

    Parameters
    ----------
    score_N : ndarray of float64, shape (N,), optional
        Scores that a server gave; the model is asked directly where left out.

    Notes
    -----
    Measuring on test rows is a look at them, which is kept and makes the gate stricter.
    """
    dataset = store.get(model.manifest["parents"][1])
    rows = load_split(dataset, split)
    if split == "test":
        study = store.get(model.manifest["parents"][0])
        cuts = [model.metrics["threshold"], *CUTS]
        record_look(study, read_trials(study), rows, ledger, cuts=cuts)
    if score_N is None:
        scored = load_binary_model(model.file(MODEL_FILE)).scores(rows.features_ND)
        score_N = scored.astype(np.float64)
    inputs = {"model": model.id, "scores": digest_bytes(score_N.tobytes())}
    identity = artifact_id("evaluation", inputs, {"split": split})
    if (evaluation := store.find(identity)) is None:
        report = evaluate(
            rows.label_N, score_N, rows.pnl_N, threshold=model.metrics["threshold"], cuts=CUTS
        )
        with store.create(
            identity, parents=[model.id, dataset.id], parameters={"split": split}
        ) as draft:
            (draft.path / FILE).write_text(json.dumps(report, indent=1, allow_nan=False))
            draft.metrics.update(report)
        evaluation = store.get(identity)
    ledger.record(
        tables.Evaluation(
            id=evaluation.id,
            model_id=model.id,
            dataset_id=dataset.id,
            split=split,
            metrics=dict(evaluation.metrics),
        )
    )
    return evaluation
