"""What is shipped to a machine that serves: strategies as their files describe them."""

from __future__ import annotations

from collections.abc import Sequence

from trademl.errors import ConfigError
from trademl.pipeline.strategy import Strategy
from trademl.pipeline.workspace import Workspace
from trademl.serve.deployments import current_deployment, described_strategy
from trademl.serve.served import Mode
from trademl.serve.shares import Quota
from trademl.serve.strategies import ServedStrategy
from trademl.store.artifacts import Artifact
from trademl.train.proof import check_proof
from trademl.train.registry import strategies_of


def shipped_strategies(
    files: Sequence[Strategy],
    workspace: Workspace,
    *,
    model: Artifact | None = None,
    mode: Mode | None = None,
) -> tuple[ServedStrategy, ...]:
    """Return strategies whose models lie in files: each with its ladder, rules and share.

    Parameters
    ----------
    files : sequence of Strategy
        Each is served under the name of its endpoint. A quota is that of its own file, else that
        of the first one.
    model : Artifact, optional
        What ``deployed`` stands for in the only file; what stands at each endpoint by default.
    mode : {"live", "shadow"}, optional
        Of all answers; a champion's are live by default, any other model's a shadow's.

    Raises
    ------
    ConfigError
        If a file has another ledger than the workspace.
    ServeError
        If nothing stands at an endpoint.
    DataError
        If a model's dataset was not proven free of look-ahead.
    StoreError, CloudError
        If a model of a ladder cannot be brought here.
    """
    return tuple(_shipped(file, files[0], workspace, model, mode) for file in files)


def has_ladder(strategy: Strategy) -> bool:
    """Return whether a strategy says more of its serving than which model is deployed."""
    plain = Strategy()
    return bool(strategy.serving.rungs) or (strategy.ladder, strategy.freshness) != (
        plain.ladder,
        plain.freshness,
    )


def _shipped(
    strategy: Strategy,
    first: Strategy,
    workspace: Workspace,
    model: Artifact | None,
    mode: Mode | None,
) -> ServedStrategy:
    store, ledger, name = workspace.store, workspace.ledger, strategy.serving.endpoint
    if strategy.ledger.url != first.ledger.url:
        raise ConfigError(
            f"strategy {strategy.name} has another [ledger] url than {first.name}: strategies of "
            "one machine share a workspace and its ledger"
        )
    if any("://" in rung.model for rung in strategy.serving.rungs):
        import trademl.aws.model_files  # noqa: F401  (it teaches the address)
    if model is None:
        model = store.get(current_deployment(name, ledger).model_id)
    check_proof(model, store, ledger)
    if mode is None:
        mode = "live" if strategies_of(ledger, model.id) else "shadow"
    quotas = {**first.serving.quotas, **strategy.serving.quotas}
    return described_strategy(
        name,
        model,
        mode,
        store,
        ledger,
        rungs=strategy.serving.rungs,
        policy=strategy.ladder,
        freshness=strategy.freshness,
        quota=quotas.get(name, Quota()),
    )
