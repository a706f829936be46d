"""Change what is live: the registry decides, the deployment follows.

A process that dies between the two leaves the registry right and the deployment behind it; the same
command, or ``trademl deploy local``, mends it.
"""

from __future__ import annotations

from trademl.ledger import tables
from trademl.pipeline.strategy import Strategy
from trademl.pipeline.workspace import Workspace
from trademl.serve.deployments import deploy
from trademl.store.artifacts import Artifact
from trademl.train import registry
from trademl.train.proof import check_proof
from trademl.train.registry import Reigned


def promote_model(
    model: Artifact,
    strategy: Strategy,
    workspace: Workspace,
    *,
    reason: str = "",
    force: str | None = None,
) -> tuple[Reigned, tables.Deployment]:
    """Make a model the champion by hand and put it live.

    Raises
    ------
    DataError
        If its dataset was not proven free of look-ahead: not even force gets around that.
    RegistryError
        As `trademl.train.registry.promote`.
    """
    check_proof(model, workspace.store, workspace.ledger)
    reign = registry.promote(workspace.ledger, strategy.name, model.id, why=reason, force=force)
    return reign, _put_live(model, strategy, workspace)


def rollback_model(
    strategy: Strategy, workspace: Workspace, *, reason: str = ""
) -> tuple[Reigned, tables.Deployment]:
    """Bring back the champion before this one and put it live.

    Raises
    ------
    RegistryError
        If there is none.
    StoreError
        If its files are gone.
    """
    reign = registry.rollback(workspace.ledger, strategy.name, why=reason)
    return reign, _put_live(workspace.store.get(reign.model_id), strategy, workspace)


def _put_live(model: Artifact, strategy: Strategy, workspace: Workspace) -> tables.Deployment:
    return deploy(model, strategy.serving.endpoint, workspace.store, workspace.ledger)
