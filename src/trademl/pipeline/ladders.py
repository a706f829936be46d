"""The ladders that a strategy file describes: a server and a live run climb the same ones."""

from __future__ import annotations

from collections.abc import Sequence

from trademl.pipeline.strategy import Strategy
from trademl.pipeline.workspace import Workspace
from trademl.serve.deployments import deployed_strategies
from trademl.serve.strategies import ServedStrategy


def strategy_ladders(
    strategy: Strategy,
    workspace: Workspace,
    *,
    endpoints: Sequence[str] = (),
    smaller: Sequence[str] = (),
) -> tuple[ServedStrategy, ...]:
    """Return what answers at endpoints, as a strategy file says; at the strategy's own by default.

    Parameters
    ----------
    smaller : sequence of str
        Smaller models of the only endpoint, biggest first, instead of ``[[serving.rungs]]``.

    Raises
    ------
    TrademlError
        As `trademl.serve.deployments.deployed_strategies`.
    """
    if any(name.startswith("s3://") for name in rung_models(strategy, smaller)):
        import trademl.aws.model_files  # noqa: F401  (it teaches the address)
    return deployed_strategies(
        endpoints or [strategy.serving.endpoint],
        workspace.store,
        workspace.ledger,
        policy=strategy.ladder,
        freshness=strategy.freshness,
        smaller=smaller,
        serving=strategy.serving,
    )


def rung_models(strategy: Strategy, smaller: Sequence[str] = ()) -> list[str]:
    """Return what models beside the deployed one are named, as they are named."""
    return [*smaller] or [rung.model for rung in strategy.serving.rungs]
