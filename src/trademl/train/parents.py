"""The finished studies that a search begins with, looked up in the ledger and the store."""

from __future__ import annotations

from trademl.errors import ConfigError
from trademl.ledger import Ledger, tables
from trademl.store.artifacts import Artifact, ArtifactStore
from trademl.store.identity import code_version
from trademl.train.search_space import TuningConfig, parse_tuning_config
from trademl.train.studies import read_trials
from trademl.train.warm_start import Parent, check_parent


def find_parents(
    config: TuningConfig, dataset: Artifact, store: ArtifactStore, ledger: Ledger
) -> list[Parent]:
    """Return the parents that a search's ``WarmStartConfig`` names.

    Raises
    ------
    ConfigError
        If one is unknown, has not ended, was no search, or does not fit; see
        `trademl.train.warm_start.check_parent`.
    """
    if config.warm_start is None:
        return []
    parents = [_parent(name, store, ledger) for name in config.warm_start.parents]
    for parent in parents:
        check_parent(parent, config, dataset_id=dataset.id, code_version=code_version())
    return parents


def _parent(name: str, store: ArtifactStore, ledger: Ledger) -> Parent:
    where = f"the parent {name} of WarmStartConfig"
    rows = [ledger.get(tables.Study, name), *ledger.rows(tables.Study, name=name)]
    known = sorted((row for row in rows if row), key=lambda row: row.created_at)
    study = store.find(known[-1].id) if known else None
    if study is None:
        raise ConfigError(
            f"{where} is no finished study of this workspace: give the id or the name of one, as "
            "`trademl tune` printed it"
        )
    if "tuning" not in study.manifest["parameters"]:
        raise ConfigError(f"{where} is a single training job, expected a search")
    return Parent(
        name=name,
        study_id=study.id,
        dataset_id=study.manifest["parents"][0],
        code_version=str(study.manifest["code_version"]),
        config=parse_tuning_config(study.manifest["parameters"]["tuning"]),
        trials=tuple(read_trials(study)),
    )
