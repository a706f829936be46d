"""What must be proven before a model may be deployed: its dataset, and its own scaler."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from trademl.errors import DataError
from trademl.etl.dataset import Split, load_split
from trademl.etl.row_source import MappedRows
from trademl.etl.verify import require_proof
from trademl.ledger import Ledger
from trademl.store.artifacts import Artifact, ArtifactStore
from trademl.train.hyperparameters import LinearLearnerParameters
from trademl.train.model import load_model
from trademl.train.model_archive import MODEL_FILE
from trademl.train.network_config import is_network
from trademl.train.scaler import Scaler, fit_network_scaler, fit_scaler
from trademl.train.studies import read_trials

FORECASTER = "forecaster"  # the kind of an allocation's model of a quarter


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
    if model.manifest["kind"] == FORECASTER:
        return  # its scaler is part of the walk, which fits it on rows known at the decision
    study = store.get(study_id)
    trial = next(t for t in read_trials(study) if t.number == model.metrics["trial"])
    loaded = load_model(model.file(MODEL_FILE))
    train = load_split(store.get(dataset_id), "train")
    scaler = _fit_again(train, trial.hyperparameters, study.manifest["parameters"]["seed"])
    for name, found_D, expected_D in (
        ("mean", loaded.mean_D, scaler.mean_D.astype(loaded.mean_D.dtype)),
        ("scale", loaded.scale_D, scaler.scale_D.astype(loaded.scale_D.dtype)),
    ):
        if not np.array_equal(found_D, expected_D):
            column = int(np.flatnonzero(found_D != expected_D)[0])
            raise DataError(
                f"{model.id} cannot be deployed: its {name} of column {column} is "
                f"{found_D[column]:.9g}, its training rows give {expected_D[column]:.9g}; "
                "train it again"
            )


def _fit_again(train: Split, hyperparameters: Mapping[str, str], seed: int) -> Scaler:
    if is_network(hyperparameters):
        return fit_network_scaler(MappedRows(train.features_ND, train.label_N[:, None]))
    parameters = LinearLearnerParameters.from_strings(hyperparameters)
    return fit_scaler(train.features_ND, parameters, seed=seed)
