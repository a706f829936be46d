"""The serving folder of strategies as an artifact: one archive, made once."""

from __future__ import annotations

import json
from collections.abc import Sequence

from trademl.serve.serving_folder import (
    check_together,
    model_files,
    serving_document,
    write_serving,
)
from trademl.serve.smoke_files import smoke_files
from trademl.serve.strategies import ServedStrategy
from trademl.store.artifacts import Artifact, ArtifactStore
from trademl.store.identity import artifact_id, digest_bytes
from trademl.train.model_archive import MODEL_FILE


def serving_artifact(strategies: Sequence[ServedStrategy], store: ArtifactStore) -> Artifact:
    """Return the artifact whose ``model.tar.gz`` a container serves the strategies from.

    Raises
    ------
    ConfigError
        If one server cannot serve them together.
    StoreError
        If a model cannot be read.
    """
    check_together(strategies)
    document = serving_document(strategies)
    identity = artifact_id("serving", {}, {"serving": digest_bytes(document)}, code="1")
    if (found := store.find(identity)) is not None:
        return found
    models = sorted({file.id for strategy in strategies for file in model_files(strategy)})
    with store.create(identity, parents=models, parameters=json.loads(document)) as draft:
        write_serving(strategies, draft.path / MODEL_FILE, smoke_files(strategies))
    return store.get(identity)
