"""Which model stands behind an endpoint, and since when: rows of the ledger, changed at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import select

from trademl.errors import ConfigError, ServeError
from trademl.ledger import Ledger, tables
from trademl.serve.freshness import Freshness
from trademl.serve.ladder import LadderPolicy
from trademl.serve.model_pool import ModelFile
from trademl.serve.served import Mode, ServedModel, served
from trademl.serve.strategies import ServedStrategy
from trademl.store.artifacts import Artifact, ArtifactStore
from trademl.store.identity import artifact_id
from trademl.train.jobs import MODEL_FILE
from trademl.train.model import load_model
from trademl.train.proof import check_proof
from trademl.train.registry import strategies_of


@dataclass(frozen=True, slots=True)
class ServingConfig:
    """How a strategy's models are served.

    Parameters
    ----------
    endpoint : str
        Name under which models replace each other.
    shadow_refused : bool
        Deploy in shadow mode the model of a run that was refused, or that the gate did not promote.
    """

    endpoint: str = "default"
    shadow_refused: bool = False


def deploy(
    model: Artifact, endpoint: str, store: ArtifactStore, ledger: Ledger
) -> tables.Deployment:
    """Put a model behind an endpoint: live if it is a strategy's champion, else in shadow mode.

    A model whose dataset was not proven free of look-ahead is not deployed, nor is one whose
    scaler was not fitted on its training rows. The model that was in the same mode before is
    retired in the same transaction. Deploying the model that stands there already changes nothing.

    Raises
    ------
    DataError
        If the proof is missing or failed.
    """
    check_proof(model, store, ledger)
    mode: Mode = "live" if strategies_of(ledger, model.id) else "shadow"
    now = datetime.now(UTC)
    with ledger.session() as session:
        history = list(
            session.scalars(select(tables.Deployment).filter_by(endpoint=endpoint, mode=mode))
        )
        current = next((d for d in history if d.retired_at is None), None)
        if current is not None and current.model_id == model.id:
            return current
        if current is not None:
            current.retired_at = now
        n_before = sum(d.model_id == model.id for d in history)
        new = tables.Deployment(
            id=artifact_id(
                "deployment",
                {"model": model.id},
                {"endpoint": endpoint, "mode": mode, "number": n_before},
            ),
            created_at=now,
            model_id=model.id,
            endpoint=endpoint,
            mode=mode,
        )
        session.add(new)
    return new


def current_deployment(endpoint: str, ledger: Ledger) -> tables.Deployment:
    """Return what stands behind an endpoint: the live model, else the one in shadow mode.

    Raises
    ------
    ServeError
        If nothing does.
    """
    standing = {
        d.mode: d for d in ledger.rows(tables.Deployment, endpoint=endpoint) if d.retired_at is None
    }
    if not standing:
        known = sorted({d.endpoint for d in ledger.rows(tables.Deployment)})
        raise ServeError(
            f"nothing is deployed at endpoint {endpoint}; "
            + (f"known endpoints: {', '.join(known)}" if known else "run: trademl deploy local")
        )
    return standing.get("live") or standing["shadow"]


def served_model(deployment: tables.Deployment, store: ArtifactStore) -> ServedModel:
    """Return a deployment's model, loaded and ready to be served."""
    artifact = store.get(deployment.model_id)
    mode: Mode = "live" if deployment.mode == "live" else "shadow"
    return served(load_model(artifact.file(MODEL_FILE)), artifact.id, mode=mode)


def deployed_strategies(
    endpoints: Sequence[str],
    store: ArtifactStore,
    ledger: Ledger,
    *,
    policy: LadderPolicy,
    freshness: Freshness,
    smaller: Sequence[str] = (),
) -> tuple[ServedStrategy, ...]:
    """Return what a server needs to answer for endpoints: a strategy of each, in their order.

    Parameters
    ----------
    smaller : sequence of str
        Ids of smaller models of the only endpoint, biggest first. They answer in the mode of the
        deployed model.

    Raises
    ------
    ServeError
        If nothing is deployed at an endpoint.
    ConfigError
        If smaller models are given for several endpoints.
    DataError
        If a smaller model has no proof, as in `deploy`.
    """
    if smaller and len(endpoints) > 1:
        raise ConfigError(f"smaller models for {len(endpoints)} endpoints: serve one at a time")
    strategies = []
    for endpoint in endpoints:
        first = served_model(current_deployment(endpoint, ledger), store)
        rest = [_file(store.newest("model", name), first.mode, store, ledger) for name in smaller]
        strategies.append(ServedStrategy(endpoint, (first, *rest), policy, freshness))
    return tuple(strategies)


def _file(model: Artifact, mode: Mode, store: ArtifactStore, ledger: Ledger) -> ModelFile:
    check_proof(model, store, ledger)
    accepted: bool = model.metrics["status"] == "accepted"
    sha256 = model.manifest["files"][MODEL_FILE]["sha256"]
    path = str(model.file(MODEL_FILE))
    return ModelFile(model.id, path, sha256, mode if accepted else "shadow")
