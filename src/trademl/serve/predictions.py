"""Predictions of a deployed model for the rows of a dataset, asked for over HTTP and kept."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from trademl.errors import ServeError, require_extra
from trademl.etl.dataset import Split, load_split
from trademl.ledger import Ledger, tables
from trademl.ledger.bulk import ParquetRows
from trademl.ports import Progress, Silent
from trademl.serve.deployments import served_model
from trademl.store.artifacts import Artifact, ArtifactStore
from trademl.store.identity import artifact_id

if TYPE_CHECKING:
    from trademl.serve.questions import Predictions

FILE = "predictions.parquet"


def predict_dataset(
    deployment: tables.Deployment,
    dataset: Artifact,
    store: ArtifactStore,
    ledger: Ledger,
    *,
    split: str = "test",
    url: str | None = None,
    progress: Progress | None = None,
) -> Artifact:
    """Ask a deployment about every row of a split and publish its answers.

    Parameters
    ----------
    url : str, optional
        A server that answers for the deployment; one is started for the while where left out.

    Raises
    ------
    ServeError
        If the server cannot be asked, or another model answers.
    """
    progress = progress or Silent()
    identity = artifact_id(
        "predictions", {"deployment": deployment.id, "dataset": dataset.id}, {"split": split}
    )
    rows = load_split(dataset, split)
    if (predictions := store.find(identity)) is None:
        with store.create(
            identity,
            parents=[deployment.id, deployment.model_id, dataset.id],
            parameters={"split": split},
        ) as draft:
            answers = _ask(deployment, store, rows, url, progress)
            _write(draft.path / FILE, rows, answers.score_N, answers.label_N)
            draft.metrics.update(
                n=len(rows),
                n_positive=int(answers.label_N.sum()),
                mode=answers.mode,
                status=answers.status,
            )
        predictions = store.get(identity)
    else:
        progress.step("predict")
        progress.done(f"kept {predictions.id}")
    _record(predictions, deployment, dataset, ledger)
    return predictions


def _ask(
    deployment: tables.Deployment,
    store: ArtifactStore,
    rows: Split,
    url: str | None,
    progress: Progress,
) -> Predictions:
    require_extra("serve")
    from trademl.serve.client import predict
    from trademl.serve.server import BackgroundServer

    if url is not None:
        found = predict(url, rows.features_ND, strategy=deployment.endpoint, progress=progress)
        if found.model_id not in ("", deployment.model_id):
            raise ServeError(
                f"{url} answers for {deployment.endpoint} with {found.model_id}, expected "
                f"{deployment.model_id}: deploy it there, or ask another server"
            )
        return found
    with BackgroundServer(served_model(deployment, store)) as server:
        return predict(server.url, rows.features_ND, progress=progress)


def read_scores(predictions: Artifact) -> NDArray[np.float64]:
    """Return the scores in the order of the split's rows, shape (N,)."""
    import pyarrow.parquet as pq

    scores: NDArray[np.float64] = pq.read_table(predictions.file(FILE))["score"].to_numpy()
    return scores


def _write(
    path: Path, rows: Split, score_N: NDArray[np.float32], label_N: NDArray[np.float32]
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table(
        {
            "order_id": rows.order_id_N,
            "ts_event_ns": rows.as_of_N,
            "score": score_N.astype(np.float64),
            "predicted_label": label_N.astype(np.int8),
        }
    )
    pq.write_table(table, path)


def _record(
    predictions: Artifact,
    deployment: tables.Deployment,
    dataset: Artifact,
    ledger: Ledger,
) -> None:
    known = {"deployment_id": deployment.id, "dataset_id": dataset.id}
    ledger.rewrite(tables.Prediction, known, ParquetRows(predictions.file(FILE)))
