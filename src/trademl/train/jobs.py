"""Training jobs as artifacts: a study of trials, and the model that selection chose from it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from trademl.errors import ConfigError, StoreError, require_extra
from trademl.etl.dataset import Split, load_split
from trademl.ledger import Ledger, tables
from trademl.ports import Progress, Silent
from trademl.store.artifacts import Artifact, ArtifactStore
from trademl.store.identity import artifact_id
from trademl.train.card_figures import measured_figures
from trademl.train.card_file import selected_card, write_card
from trademl.train.looks import record_look
from trademl.train.model import BinaryModel, save_model
from trademl.train.model_archive import MODEL_FILE
from trademl.train.parents import find_parents
from trademl.train.search_space import VALIDATION_LOSS, TuningConfig, parse_tuning_config
from trademl.train.selection import Judgement, Selection, SelectionFloors, select
from trademl.train.studies import read_trials, search_metrics, study_metrics, write_times


def tune_dataset(
    dataset: Artifact,
    request: Mapping[str, Any],
    store: ArtifactStore,
    ledger: Ledger,
    *,
    seed: int,
    progress: Progress | None = None,
) -> Artifact:
    """Search for hyperparameters on a dataset and publish the study with all of its models.

    Parameters
    ----------
    request : mapping
        The tuning job as SageMaker's JSON: see `trademl.train.search_space`. The parents of a
        ``WarmStartConfig`` are finished studies of the ledger, by id or by name.

    Returns
    -------
    Artifact
        `trademl.train.describe.describe_tuning_job` gives what SageMaker would say of it.

    Raises
    ------
    ConfigError
        If the request is refused, or a parent is unknown or does not fit.
    TrainError
        If every trial failed, or none has a value of the objective.
    """
    config = parse_tuning_config(request)
    parents = find_parents(config, dataset, store, ledger)
    progress = progress or Silent()
    parameters = {"tuning": dict(request), "seed": seed}
    inputs = {"dataset": dataset.id} | {f"parent {n}": p.study_id for n, p in enumerate(parents)}
    identity = artifact_id("study", inputs, parameters)
    if (study := store.find(identity)) is None:
        require_extra("train")
        from trademl.train.tuning import tune

        with store.create(
            identity,
            parents=[dataset.id, *(parent.study_id for parent in parents)],
            parameters=parameters,
            resume=True,
        ) as draft:
            search = tune(
                load_split(dataset, "train"),
                load_split(dataset, "validation"),
                config,
                seed=seed,
                storage=ledger.database,
                study_name=identity,
                folder=draft.path,
                progress=progress,
                test=load_split(dataset, "test") if _reads_test(config) else None,
                columns=column_names(dataset),
                parents=parents,
            )
            draft.metrics.update(search_metrics(search, config, parents, study_id=identity))
            write_times(search, draft.path)
        study = store.get(identity)
    else:
        progress.step("tune")
        progress.done(f"kept {study.id}")
    record_study(study, ledger)
    if _reads_test(config):
        own_threshold = [0.5]  # one cut for each trial, wherever it lies
        test = load_split(dataset, "test")
        record_look(study, read_trials(study), test, ledger, cuts=own_threshold)
    return study


def train_dataset(
    dataset: Artifact,
    hyperparameters: Mapping[str, str],
    store: ArtifactStore,
    ledger: Ledger,
    *,
    seed: int,
    progress: Progress | None = None,
) -> Artifact:
    """Train one model with fixed hyperparameters and publish it as a study of one trial.

    Raises
    ------
    ConfigError
        If a hyperparameter is refused.
    TrainError
        If training does not end in a finite model.
    """
    parameters = {"hyperparameters": dict(hyperparameters), "seed": seed}
    identity = artifact_id("study", {"dataset": dataset.id}, parameters)
    if (study := store.find(identity)) is None:
        require_extra("train")
        from trademl.train.tuning import train_one

        with store.create(identity, parents=[dataset.id], parameters=parameters) as draft:
            trial = train_one(
                load_split(dataset, "train"),
                load_split(dataset, "validation"),
                hyperparameters,
                seed=seed,
                folder=draft.path,
                progress=progress or Silent(),
                columns=column_names(dataset),
            )
            draft.metrics.update(study_metrics(VALIDATION_LOSS, [trial], ()))
        study = store.get(identity)
    record_study(study, ledger)
    return study


def select_model(
    study: Artifact,
    floors: SelectionFloors,
    store: ArtifactStore,
    ledger: Ledger,
    *,
    seed: int,
) -> Artifact:
    """Judge a study's trials on validation rows and publish the model that was chosen.

    Returns
    -------
    Artifact
        ``metrics`` holds ``verdict``, ``status`` (accepted or refused), ``reasons``, the trial and
        the judgement of every trial. Where all are refused it is the best refused one.
    """
    parameters = {"selection": asdict(floors), "seed": seed}
    identity = artifact_id("model", {"study": study.id}, parameters)
    dataset = store.get(study.manifest["parents"][0])
    if (model := store.find(identity)) is None:
        validation = load_split(dataset, "validation")
        with store.create(identity, parents=[study.id, dataset.id], parameters=parameters) as draft:
            selection = select(read_trials(study), validation, floors, seed=seed)
            chosen = replace(selection.model(), parents=(study.id, dataset.id))
            path = draft.path / MODEL_FILE
            save_model(chosen, path)
            draft.metrics.update(_verdict(selection) | _figures(chosen, validation, seed))
            card = selected_card(identity, path, chosen, draft.metrics, study, dataset, ledger)
            write_card(card, draft.path)
        model = store.get(identity)
    _record_model(model, study, dataset, ledger)
    return model


def parse_assignments(texts: Sequence[str]) -> dict[str, str]:
    """Return hyperparameters given as ``NAME=VALUE``.

    Raises
    ------
    ConfigError
        If a text has no ``=``.
    """
    for text in texts:
        if "=" not in text:
            raise ConfigError(f"hyperparameter {text!r}: expected NAME=VALUE, such as wd=0.001")
    pairs = (text.partition("=") for text in texts)
    return {name.strip(): value.strip() for name, _, value in pairs}


def _reads_test(config: TuningConfig) -> bool:
    return config.objective.metric.startswith("test:")


def column_names(dataset: Artifact) -> tuple[str, ...]:
    """Return the names of a dataset's features, in order."""
    path = dataset.file("schema.json")
    try:
        return tuple(column["name"] for column in json.loads(path.read_bytes())["columns"])
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path} is damaged ({error}): delete its folder and run again") from error


def _verdict(selection: Selection) -> dict[str, Any]:
    chosen = selection.chosen
    model = selection.model()
    return {
        "verdict": selection.verdict,
        "status": model.status,
        "reasons": list(chosen.reasons),
        "trial": chosen.trial.number,
        "threshold": model.threshold,
        "trial_metrics": dict(chosen.trial.metrics),
        "overfitting": asdict(selection.overfitting) if selection.overfitting else None,
        "judgements": [_judgement(j) for j in selection.judgements],
    }


def _figures(model: BinaryModel, validation: Split, seed: int) -> dict[str, Any]:
    score_N = model.scores(validation.features_ND)
    is_flagged_N = model.flags(score_N) == 1
    found = measured_figures(validation, score_N, is_flagged_N, split="validation", seed=seed)
    return {"figures": [asdict(figure) for figure in found]}


def _judgement(judgement: Judgement) -> dict[str, Any]:
    return {
        "trial": judgement.trial.number,
        "reasons": list(judgement.reasons),
        "figures": asdict(judgement.figures) if judgement.figures else None,
    }


def record_study(study: Artifact, ledger: Ledger) -> None:
    """Write a study and its trials to the ledger, keeping what selection said of them."""
    metrics = study.metrics
    known = {t.number: t.refused_because for t in ledger.rows(tables.Trial, study_id=study.id)}
    row = tables.Study(
        id=study.id,
        dataset_id=study.manifest["parents"][0],
        name=metrics["name"],
        objective=metrics["objective"],
        direction=metrics["direction"],
        seed=study.manifest["parameters"]["seed"],
        path=str(study.path),
    )
    trials = [
        {
            "number": trial["number"],
            "status": trial["status"],
            "objective": trial["objective"],
            "hyperparameters": trial["hyperparameters"],
            "metrics": trial["metrics"],
            "refused_because": known.get(trial["number"]),
        }
        for trial in metrics["trials"]
    ]
    ledger.replace(row, (tables.Trial, "study_id", trials))


def _record_model(model: Artifact, study: Artifact, dataset: Artifact, ledger: Ledger) -> None:
    found = model.metrics
    row = tables.Model(
        id=model.id,
        study_id=study.id,
        dataset_id=dataset.id,
        trial_number=found["trial"],
        status=found["status"],
        verdict=found["verdict"],
        reasons=found["reasons"],
        threshold=found["threshold"],
        metrics=found["trial_metrics"],
        path=str(model.path),
    )
    judged = {j["trial"]: j["reasons"] for j in found["judgements"]}
    trials = ledger.rows(tables.Trial, study_id=study.id)
    for trial in trials:
        trial.refused_because = judged.get(trial.number)
    ledger.record(row, *trials)
