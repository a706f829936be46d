"""What must be proven before a model may be deployed: its dataset, and its own scaler."""

from __future__ import annotations

import numpy as np

from trademl.errors import DataError
from trademl.etl.dataset import load_split
from trademl.etl.verify import require_proof
from trademl.ledger import Ledger
from trademl.store.artifacts import Artifact, ArtifactStore
from trademl.train.hyperparameters import LinearLearnerParameters
from trademl.train.jobs import MODEL_FILE
from trademl.train.model import load_model
from trademl.train.scaler import fit_scaler
from trademl.train.studies import read_trials


def check_proof(model: Artifact, store: ArtifactStore, ledger: Ledger) -> None:
    """Refuse a model whose dataset is unproven, or whose scaler saw more than training rows.

    Raises
    ------
    DataError
        If the dataset's proof is missing or failed, or the scaler fitted anew on the training rows
        differs from the model's.
    """
    study_id, dataset_id = model.manifest["parents"]
    require_proof(dataset_id, ledger)
    study = store.get(study_id)
    seed = study.manifest["parameters"]["seed"]
    trial = next(t for t in read_trials(study) if t.number == model.metrics["trial"])
    parameters = LinearLearnerParameters.from_strings(trial.hyperparameters)
    loaded = load_model(model.file(MODEL_FILE))
    train = load_split(store.get(dataset_id), "train")
    scaler = fit_scaler(train.features_ND, parameters, seed=seed)
    for name, found_D, expected_D in (
        ("mean", loaded.mean_D, scaler.mean_D),
        ("scale", loaded.scale_D, scaler.scale_D),
    ):
        if not np.array_equal(found_D, expected_D):
            column = int(np.flatnonzero(found_D != expected_D)[0])
            raise DataError(
                f"{model.id} cannot be deployed: its {name} of column {column} is "
                f"{found_D[column]:.9g}, its training rows give {expected_D[column]:.9g}; "
                "train it again"
            )
