"""A training job's ``model.tar.gz``, kept as a trial's model where trademl can read it.

The archive of an image of ours is such a file already. What AWS's Linear Learner leaves is read as
an experiment, for its format is not documented; so its scores on validation rows are held against
the figures that AWS reported for the same rows. A model that does not repeat them stays refused.

Shape letters: N validation rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from trademl.errors import StoreError
from trademl.etl.dataset import Split, load_split
from trademl.store.artifacts import Artifact
from trademl.train.hyperparameters import LinearLearnerParameters
from trademl.train.import_linear_learner import EXPERIMENTAL
from trademl.train.jobs import column_names
from trademl.train.metrics import Metrics, binary_metrics
from trademl.train.model import NOT_JUDGED, LinearModel, load_model, save_model

COMPARED = ("binary_classification_accuracy", "precision", "recall")
TOLERANCE = 0.002  # a share; AWS scores in float32, so that a row at the threshold may fall over


def keep_model(
    archive: Path,
    path: Path,
    dataset: Artifact,
    hyperparameters: Mapping[str, str],
    reported: Metrics,
) -> str | None:
    """Put a model that trademl can read at ``path``; return why it cannot, where it cannot.

    Parameters
    ----------
    archive : Path
        As the job left it; it stays there unless it becomes ``path`` as it is.
    hyperparameters, reported : mapping
        Of the job: what it was given, and its final metrics.
    """
    names = column_names(dataset)
    try:
        model = load_model(archive)
    except StoreError as error:
        reason = str(error).removeprefix(str(archive)).lstrip(" :")
        return f"its model cannot be read and is kept as {archive.name}: {reason}"
    if len(model.columns) != len(names):
        return f"its model has {len(model.columns)} columns, the dataset {len(names)}"
    if model.columns == names:
        archive.replace(path)
        return None
    if model.columns != tuple(f"x{i}" for i in range(len(names))):  # what stands in for names
        return f"its model names other columns than the dataset, first {model.columns[0]}"
    known = LinearLearnerParameters.from_strings(hyperparameters).as_dict()
    model = replace(model, columns=names, hyperparameters={**known, **model.hyperparameters})
    if isinstance(model, LinearModel) and EXPERIMENTAL in model.reasons:
        model = confirm_import(model, load_split(dataset, "validation"), reported)
    save_model(model, path)
    return None


def confirm_import(model: LinearModel, validation: Split, reported: Metrics) -> LinearModel:
    """Return the model with what the comparison with AWS's figures says of it.

    A model that repeats every figure to within `TOLERANCE` is left to selection like any other;
    any other stays refused, with both figures where they differ.
    """
    said = {name: reported.get(f"validation:{name}") for name in COMPARED}
    if None in said.values():
        lacking = next(name for name, value in said.items() if value is None)
        reason = f"AWS reported no validation:{lacking} to hold its scores against"
        return replace(model, reasons=(*model.reasons, reason))
    _, flag_N = model.predict(validation.features_ND)
    logit_N = model.logits(validation.features_ND)
    found = binary_metrics(validation.label_N, logit_N, flag_N, beta=1.0)
    apart = [
        f"validation:{name} is {_shown(found[name])} here and {_shown(said[name])} on SageMaker"
        for name in COMPARED
        if abs((found[name] or 0.0) - (said[name] or 0.0)) > TOLERANCE
    ]
    return replace(model, reasons=(*model.reasons, *apart) if apart else (NOT_JUDGED,))


def _shown(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"
