"""Which model stands behind an endpoint, and since when: rows of the ledger, changed at once."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from trademl.errors import ConfigError, LedgerAwayError, ServeError, StoreError
from trademl.ledger import Ledger, tables
from trademl.serve.freshness import Freshness
from trademl.serve.ladder import LadderPolicy
from trademl.serve.model_pool import ModelFile
from trademl.serve.placement import CPU, check_device_name
from trademl.serve.served import Mode, ServedModel
from trademl.serve.shares import Quota
from trademl.serve.strategies import ServedStrategy, loaded, ready
from trademl.store.artifacts import Artifact, ArtifactStore
from trademl.store.identity import artifact_id
from trademl.train.model_archive import MODEL_FILE, is_network_file
from trademl.train.registry import strategies_of

DEPLOYED = "deployed"


@dataclass(frozen=True, slots=True)
class RungConfig:
    """One model of a ladder, and where it computes.

    Parameters
    ----------
    model : str
        Its id in the workspace; the folder of an artifact, or its address (``s3://...``); or
        ``deployed``, for the model that stands at the endpoint.
    device : str
        ``cpu``; ``cuda`` or ``cuda:NUMBER`` for a network.
    """

    model: str
    device: str = CPU

    def __post_init__(self) -> None:
        check_device_name(self.device)


@dataclass(frozen=True, slots=True)
class ServingConfig:
    """How a strategy's models are served.

    Parameters
    ----------
    endpoint : str
        Name under which models replace each other.
    shadow_refused : bool
        Deploy in shadow mode the model of a run that was refused, or that the gate did not promote.
    rungs : tuple of RungConfig
        The ladder at the endpoint, biggest first; the deployed model alone where it is empty.
    quotas : mapping of str to Quota
        What the strategies of one server may count on, by endpoint; the others share evenly what
        is left.
    """

    endpoint: str = "default"
    shadow_refused: bool = False
    rungs: tuple[RungConfig, ...] = ()
    quotas: Mapping[str, Quota] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n_deployed = sum(rung.model == DEPLOYED for rung in self.rungs)
        if self.rungs and n_deployed != 1:
            raise ConfigError(
                f"rungs name the deployed model {n_deployed} times: expected model = 'deployed' "
                "in one of them"
            )


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
    from trademl.train.proof import check_proof

    check_proof(model, store, ledger)
    now = datetime.now(UTC)
    with ledger.turn() as session:
        mode: Mode = "live" if strategies_of(ledger, model.id) else "shadow"
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


@contextmanager
def deployed_if_it_works(
    model: Artifact, endpoint: str, store: ArtifactStore, ledger: Ledger
) -> Iterator[tables.Deployment]:
    """Deploy a model for as long as nothing fails in the block, else put back what was there.

    What failed stays in the history, retired. What another has deployed meanwhile is left there.

    Raises
    ------
    DataError
        As `deploy`.
    """
    before = {row.id for row in ledger.rows(tables.Deployment, endpoint=endpoint, retired_at=None)}
    deployment = deploy(model, endpoint, store, ledger)
    try:
        yield deployment
    except BaseException:
        if deployment.id not in before:
            _put_back(before, deployment, ledger)
        raise


def _put_back(ids: Collection[str], failed: tables.Deployment, ledger: Ledger) -> None:
    of_mode = select(tables.Deployment).filter_by(endpoint=failed.endpoint, mode=failed.mode)
    with ledger.turn() as session:
        rows = {row.id: row for row in session.scalars(of_mode)}
        if rows[failed.id].retired_at is None:
            rows[failed.id].retired_at = datetime.now(UTC)
            for identity in rows.keys() & ids:
                rows[identity].retired_at = None


def retire(endpoint: str, ledger: Ledger) -> None:
    """Note that nothing answers at an endpoint, or below it, any more."""
    now = datetime.now(UTC)
    with ledger.turn() as session:
        for deployment in session.scalars(select(tables.Deployment).filter_by(retired_at=None)):
            if _is_below(deployment.endpoint, endpoint):
                deployment.retired_at = now


def standing_below(place: str, ledger: Ledger) -> list[str]:
    """Return the strategies that stand at a place; one that was noted without a name is default."""
    rows = ledger.rows(tables.Deployment, retired_at=None)
    return sorted({_name_below(r.endpoint, place) for r in rows if _is_below(r.endpoint, place)})


def replace_below(
    place: str, models: Mapping[str, Artifact], store: ArtifactStore, ledger: Ledger
) -> None:
    """Note that a place serves these models, by strategy, and nothing else any more."""
    kept = {deploy(m, f"{place}/{name}", store, ledger).id for name, m in models.items()}
    now = datetime.now(UTC)
    with ledger.turn() as session:
        for row in session.scalars(select(tables.Deployment).filter_by(retired_at=None)):
            if _is_below(row.endpoint, place) and row.id not in kept:
                row.retired_at = now


def _is_below(endpoint: str, place: str) -> bool:
    return endpoint == place or endpoint.startswith(f"{place}/")


def _name_below(endpoint: str, place: str) -> str:
    return endpoint.removeprefix(place).removeprefix("/") or "default"


def current_deployment(endpoint: str, ledger: Ledger) -> tables.Deployment:
    """Return what stands behind an endpoint: the live model, else the one in shadow mode.

    Raises
    ------
    ServeError
        If nothing does.
    """
    rows = ledger.rows(tables.Deployment, endpoint=endpoint, retired_at=None)
    standing = {row.mode: row for row in rows}
    if not standing:
        known = sorted({d.endpoint for d in ledger.rows(tables.Deployment)})
        raise ServeError(
            f"nothing is deployed at endpoint {endpoint}; "
            + (f"known endpoints: {', '.join(known)}" if known else "run: trademl deploy local")
        )
    return standing.get("live") or standing["shadow"]


def served_model(deployment: tables.Deployment, store: ArtifactStore) -> ServedModel:
    """Return a deployment's model, loaded and ready to be served.

    Raises
    ------
    StoreError
        If its file is not the one that its manifest lists.
    """
    return loaded(_deployed(deployment, store))


def deployed_file(endpoint: str, store: ArtifactStore, ledger: Ledger) -> ModelFile:
    """Return where the model lies that stands behind an endpoint now; a running server asks.

    Raises
    ------
    LedgerAwayError
        If the ledger cannot be read.
    StoreError
        If the model's artifact cannot.
    """
    return _deployed(_standing(endpoint, ledger), store)


def deployed_id(endpoint: str, ledger: Ledger) -> str:
    """Return the id of the model that stands behind an endpoint now.

    Raises
    ------
    LedgerAwayError
        If the ledger cannot be read.
    ServeError
        If nothing is deployed there.
    """
    return _standing(endpoint, ledger).model_id


def _standing(endpoint: str, ledger: Ledger) -> tables.Deployment:
    try:
        return current_deployment(endpoint, ledger)
    except (StoreError, SQLAlchemyError) as error:  # a broken connection has errors of its own
        raise LedgerAwayError(str(error)) from error


def _deployed(deployment: tables.Deployment, store: ArtifactStore) -> ModelFile:
    return _file(store.get(deployment.model_id), _mode(deployment))


def _mode(deployment: tables.Deployment) -> Mode:
    return "live" if deployment.mode == "live" else "shadow"


def _file(model: Artifact, mode: Mode, device: str = CPU) -> ModelFile:
    if device != CPU and not is_network_file(model.file(MODEL_FILE)):
        raise ConfigError(
            f"{model.id} has device {device!r}: it is a linear model, which computes on the "
            "processor alone"
        )
    return ModelFile(
        model.id,
        str(model.file(MODEL_FILE)),
        model.manifest["files"][MODEL_FILE]["sha256"],
        mode,
        device=device,
        made_at_s=_made_at_s(model),
    )


def _made_at_s(model: Artifact) -> float:
    return datetime.fromisoformat(model.manifest["created_at"]).timestamp()


def deployed_strategies(
    endpoints: Sequence[str],
    store: ArtifactStore,
    ledger: Ledger,
    *,
    policy: LadderPolicy,
    freshness: Freshness,
    smaller: Sequence[str] = (),
    serving: ServingConfig | None = None,
) -> tuple[ServedStrategy, ...]:
    """Return what a server needs to answer for endpoints: a strategy of each, in their order.

    Parameters
    ----------
    smaller : sequence of str
        Smaller models of the only endpoint, biggest first, instead of its rungs; ids, folders or
        addresses as in `RungConfig`. They answer in the mode of the deployed model.
    serving : ServingConfig, optional
        Rungs of its endpoint, and quotas.

    Raises
    ------
    ServeError
        If nothing is deployed at an endpoint.
    ConfigError
        If smaller models are given for several endpoints, a quota is of none that is known, or a
        device is not there.
    DataError
        If a model has no proof, as in `deploy`.
    StoreError, CloudError
        If one cannot be brought here, or is not what its manifest lists.
    """
    serving = serving or ServingConfig()
    if smaller and len(endpoints) > 1:
        raise ConfigError(f"smaller models for {len(endpoints)} endpoints: serve one at a time")
    _check_quotas(serving.quotas, endpoints, ledger)
    strategies = []
    for endpoint in endpoints:
        rungs = serving.rungs if endpoint == serving.endpoint else ()
        if smaller:
            rungs = (RungConfig(DEPLOYED), *map(RungConfig, smaller))
        standing = current_deployment(endpoint, ledger)
        described = described_strategy(
            endpoint,
            store.get(standing.model_id),
            _mode(standing),
            store,
            ledger,
            rungs=rungs,
            policy=policy,
            freshness=freshness,
            quota=serving.quotas.get(endpoint, Quota()),
        )
        strategies.append(ready(described))
    return tuple(strategies)


def described_strategy(
    name: str,
    model: Artifact,
    mode: Mode,
    store: ArtifactStore,
    ledger: Ledger,
    *,
    rungs: Sequence[RungConfig],
    policy: LadderPolicy,
    freshness: Freshness,
    quota: Quota,
) -> ServedStrategy:
    """Return a strategy whose models lie in files; whether this machine can serve it is not asked.

    Parameters
    ----------
    model : Artifact
        What ``deployed`` stands for among the rungs; alone where there are none.
    mode : {"live", "shadow"}
        Of all its answers, but for those of refused models.

    Raises
    ------
    ConfigError, DataError, StoreError, CloudError
        As `deployed_strategies`.
    """
    rungs = tuple(rungs) or (RungConfig(DEPLOYED),)
    followed = next(n for n, rung in enumerate(rungs) if rung.model == DEPLOYED)
    ladder = tuple(
        _file(model, mode, rung.device)
        if rung.model == DEPLOYED
        else _rung_file(rung, mode, store, ledger)
        for rung in rungs
    )
    return ServedStrategy(name, ladder, policy, freshness, quota, followed)


def _check_quotas(quotas: Mapping[str, Quota], endpoints: Sequence[str], ledger: Ledger) -> None:
    if set(quotas) <= set(endpoints):
        return
    known = {*endpoints, *(d.endpoint for d in ledger.rows(tables.Deployment))}
    if unknown := sorted(set(quotas) - known):
        raise ConfigError(
            f"serving.quotas has one of {unknown[0]}, at which nothing was ever deployed; known "
            f"endpoints: {', '.join(sorted(known))}"
        )


def _rung_file(rung: RungConfig, mode: Mode, store: ArtifactStore, ledger: Ledger) -> ModelFile:
    """Return where a proven model lies, brought here if need be; a refused one is in shadow."""
    from trademl.etl.verify import require_proof  # a server without rungs does without their memory
    from trademl.train.fetched_artifacts import artifact_at
    from trademl.train.proof import check_proof

    model = artifact_at(rung.model, store)
    if model.manifest["kind"] == "network":  # as it was trained: selection has not seen it
        require_proof(model.manifest["parents"][0], ledger)
    else:
        check_proof(model, store, ledger)
    accepted = model.metrics.get("status") == "accepted"
    return _file(model, mode if accepted else "shadow", rung.device)
