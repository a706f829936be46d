"""Which models may answer for an endpoint: those of its ladder, and what is deployed meanwhile."""

from __future__ import annotations

import re
from collections.abc import Iterable

from trademl.errors import LedgerAwayError, ServeError
from trademl.ledger import Ledger
from trademl.serve.deployments import deployed_id

_ID = re.compile(r"(?:model|network)-[0-9a-f]{12}")


class KnownModels:
    """The models of an endpoint's ladder, by id.

    A server that follows its ledger swaps its model; a model that was deployed at the endpoint
    is known from then on.

    Parameters
    ----------
    endpoint : str
    models : iterable of str
        Ids, or addresses that hold one, as rungs of a ladder have.
    """

    def __init__(self, endpoint: str, models: Iterable[str], ledger: Ledger) -> None:
        self._endpoint, self._ledger = endpoint, ledger
        self._known = {(_ID.findall(model) or [model])[-1] for model in models}

    def __contains__(self, model_id: object) -> bool:
        """Return whether a model is one of them; the ledger is asked about one that is not."""
        if model_id not in self._known and model_id == self._deployed():
            self._known.add(str(model_id))
        return model_id in self._known

    def _deployed(self) -> str | None:
        try:
            return deployed_id(self._endpoint, self._ledger)
        except (LedgerAwayError, ServeError):  # then it is not known
            return None
