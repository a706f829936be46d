"""Which model an endpoint should be answered with now, as the ledger says: what promotions change.

A server that runs asks this again and again, in a thread of its own; see `Engine.follow`.
"""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import select

from trademl.ledger import Ledger, tables
from trademl.serve.deployments import model_file
from trademl.serve.model_pool import ModelFile
from trademl.serve.served import Mode
from trademl.store.artifacts import ArtifactStore


class LedgerModels:
    """The newest word on each endpoint: the strategy's champion, or what was deployed since.

    Parameters
    ----------
    strategies : mapping of str to str
        The strategy whose champion an endpoint follows, by endpoint.
    """

    def __init__(self, strategies: Mapping[str, str], store: ArtifactStore, ledger: Ledger) -> None:
        self._strategies, self._store, self._ledger = dict(strategies), store, ledger
        self._files: dict[tuple[str, Mode], ModelFile] = {}

    def __call__(self, endpoint: str) -> ModelFile | None:
        """Return the model that should answer, None where the ledger names none.

        Raises
        ------
        StoreError
            If the ledger or the model cannot be read.
        DataError
            If the model has no proof, as in `trademl.serve.deployments.deploy`.
        """
        standing = standing_model(self._ledger, endpoint, self._strategies.get(endpoint, endpoint))
        if standing is None:
            return None
        if standing not in self._files:
            artifact = self._store.newest("model", standing[0])
            self._files[standing] = model_file(artifact, standing[1], self._store, self._ledger)
        return self._files[standing]


def standing_model(ledger: Ledger, endpoint: str, strategy: str) -> tuple[str, Mode] | None:
    """Return the id of the model that an endpoint stands for, and its mode.

    A champion that was promoted after the live model was deployed comes before it: that is what a
    promotion changes while a server runs. Without a live model any champion comes first.
    """
    with ledger.session() as session:
        reign = session.scalars(
            select(tables.Reign)
            .filter_by(strategy=strategy)
            .order_by(tables.Reign.number.desc())
            .limit(1)
        ).first()
        deployed = {
            row.mode: row
            for row in session.scalars(
                select(tables.Deployment).filter_by(endpoint=endpoint, retired_at=None)
            )
        }
    live, shadow = deployed.get("live"), deployed.get("shadow")
    if reign is not None and (live is None or reign.from_at >= live.created_at):
        return reign.model_id, "live"
    if live is not None:
        return live.model_id, "live"
    return None if shadow is None else (shadow.model_id, "shadow")
