"""What stands at an endpoint when a deployment fails."""

from __future__ import annotations

import pytest

from ledger_cases import add_proven_models
from trademl.errors import ServeError
from trademl.ledger import Ledger, tables
from trademl.serve.deployments import deploy, deployed_if_it_works
from trademl.store.artifacts import ArtifactStore


@pytest.fixture
def ledger(tmp_path):
    opened = Ledger(f"sqlite:///{tmp_path}/ledger.db")
    yield opened
    opened.close()


def standing(ledger):
    return [row.model_id for row in ledger.rows(tables.Deployment, retired_at=None)]


def test_what_fails_gives_way_to_what_stood_there(ledger, tmp_path):
    store = ArtifactStore(tmp_path / "artifacts")
    first, failing = add_proven_models(store, ledger, 2)
    deploy(first, "btc", store, ledger)
    with pytest.raises(ServeError), deployed_if_it_works(failing, "btc", store, ledger):
        raise ServeError("no port")
    assert standing(ledger) == [first.id]


def test_what_fails_leaves_what_another_deployed_meanwhile(ledger, tmp_path):
    store = ArtifactStore(tmp_path / "artifacts")
    first, failing, later = add_proven_models(store, ledger, 3)
    deploy(first, "btc", store, ledger)
    with pytest.raises(ServeError), deployed_if_it_works(failing, "btc", store, ledger):
        deploy(later, "btc", store, ledger)
        raise ServeError("no port")
    assert standing(ledger) == [later.id]
