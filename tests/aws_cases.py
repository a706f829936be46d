"""A small dataset as an artifact, and a server that answers as SageMaker's documentation says.

Moto starts no container: its jobs are finished at once and leave nothing. What it cannot do
(children of a tuning job, stopping, states on the way, model files) is answered here with the
shapes of the API reference, and what was sent is kept to be looked at.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from trademl.config import sample_file
from trademl.etl.recordio import write_recordio
from trademl.ledger import Ledger, tables
from trademl.market.costs import Costs
from trademl.store.artifacts import Artifact, ArtifactStore
from trademl.train.hyperparameters import LinearLearnerParameters
from trademl.train.model import LinearModel, save_model

REGION = "eu-west-2"
ROLE = "arn:aws:iam::123456789012:role/trademl-sagemaker"
BUCKET = "trademl-test"
OWN_IMAGE = "123456789012.dkr.ecr.eu-west-2.amazonaws.com/trademl:1.0"
ROWS = {"train": 60, "validation": 40, "test": 30}
COLUMNS = ("a", "b", "c")
STATIC = {"predictor_type": "binary_classifier"}
SPACED_NS = 10_000_000_000  # between two rows
CREATED = 1_790_000_000.0  # epoch seconds, as the JSON protocol sends times


def make_dataset(store: ArtifactStore, ledger: Ledger | None = None, *, parts: int = 0) -> Artifact:
    """Publish a dataset of three columns whose label is the sign of the first."""
    identity = f"dataset-{'b' if parts else 'a'}{0:011d}"
    if (found := store.find(identity)) is None:
        parameters = {"labels": {"source": "recomputed", "costs": asdict(Costs())}}
        with store.create(identity, parents=["batch-000000000000"], parameters=parameters) as draft:
            rng = np.random.default_rng(1)
            for split, n in ROWS.items():
                features = rng.standard_normal((n, len(COLUMNS))).astype(np.float32)
                _write_split(draft.path, split, features, parts)
            _write_rows(draft.path)
            columns = [{"name": name} for name in COLUMNS]
            (draft.path / "schema.json").write_text(json.dumps({"columns": columns}))
            draft.metrics["feature_dim"] = len(COLUMNS)
            first = np.cumsum([0, *ROWS.values()])
            draft.metrics["splits"] = {
                split: {
                    "rows": n,
                    "label_rate": 0.5,
                    "mean_pnl": 0.0,
                    "from_ns": int(at) * SPACED_NS,
                    "to_ns": int(at + n) * SPACED_NS,
                }
                for (split, n), at in zip(ROWS.items(), first[:-1], strict=True)
            }
        found = store.get(identity)
    if ledger is not None:
        _record(found, ledger)
    return found


def _write_split(folder: Path, split: str, features: np.ndarray, parts: int) -> None:
    labels = (features[:, 0] > 0).astype(np.float32)
    if not parts:
        write_recordio(folder / f"{split}.recordio", features, labels)
        return
    names = [f"part-{i:05d}.recordio" for i in range(parts)]
    (folder / split).mkdir()
    for name, rows in zip(names, np.array_split(np.arange(len(features)), parts), strict=True):
        write_recordio(folder / split / name, features[rows], labels[rows])
    manifest = [{"prefix": f"{split}/"}, *names]
    (folder / f"{split}.manifest").write_text(json.dumps(manifest))


def _write_rows(folder: Path) -> None:
    splits = [split for split, n in ROWS.items() for _ in range(n)]
    n = len(splits)
    as_of = np.arange(n, dtype=np.int64) * SPACED_NS
    table = {
        "order_id": np.arange(n), "as_of_ns": as_of, "exit_ns": as_of + 5_000_000_000,
        "pnl": np.where(np.arange(n) % 2, 1.0, -1.0), "split": splits,
    }  # fmt: skip
    pq.write_table(pa.table(table), folder / "rows.parquet")


def _record(dataset: Artifact, ledger: Ledger) -> None:
    ledger.record(
        tables.Batch(
            id="batch-000000000000",
            instrument="T",
            recording_id="r",
            number=0,
            n_orders=130,
            first_entry_ns=0,
            last_exit_ns=1,
            label_rate=0.5,
            path="/p",
        )
    )
    ledger.record(
        tables.Dataset(
            id=dataset.id,
            batch_id="batch-000000000000",
            n_train=60,
            n_validation=40,
            n_test=30,
            feature_dim=3,
            facts={},
            path=str(dataset.path),
        )
    )


def seed_tuning(**changes: Any) -> dict[str, Any]:
    """Return the original project's tuning job for three columns."""
    job = json.loads(sample_file("tuning.json").read_text())
    job["StaticHyperParameters"]["feature_dim"] = "3"
    return {**job, **changes}


def write_archive(path: Path, columns: tuple[str, ...] = COLUMNS) -> bytes:
    """Return the ``model.tar.gz`` of an image of ours: a model that flags a positive ``a``."""
    weights = np.zeros(len(columns))
    weights[0] = 4.0
    given = LinearLearnerParameters.from_strings({"predictor_type": "binary_classifier"})
    model = LinearModel(
        weights_D=weights,
        bias=0.0,
        mean_D=np.zeros(len(columns)),
        scale_D=np.ones(len(columns)),
        threshold=0.5,
        columns=columns,
        hyperparameters=given.as_dict(),
    )
    save_model(model, path)
    return path.read_bytes()


def clean_environment(**more: str) -> dict[str, str]:
    """Return the environment of a user without any AWS settings, and what is given."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "TRADEML_"))}
    return {
        **kept, "AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/nonexistent",
        "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent", "AWS_MAX_ATTEMPTS": "1", **more,
    }  # fmt: skip


KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}


class RefusalError(Exception):
    """An error as SageMaker's JSON protocol sends it."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(code)
        self.code, self.message, self.status = code, message, status


Answer = Callable[[dict[str, Any]], dict[str, Any]]


class DocumentedServer:
    """Answers operations by name; ``sent`` keeps every request in order."""

    def __init__(self, answers: dict[str, Answer]) -> None:
        self.answers = answers
        self.sent: list[tuple[str, dict[str, Any]]] = []
        self.url = ""

    def requests(self, operation: str) -> list[dict[str, Any]]:
        """Return the requests of one operation."""
        return [request for name, request in self.sent if name == operation]

    @contextmanager
    def running(self) -> Iterator[DocumentedServer]:
        """Serve on a free port until the block ends."""
        server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            thread.join()
            server.server_close()

    def _answer(self, operation: str, request: dict[str, Any]) -> dict[str, Any]:
        self.sent.append((operation, request))
        if operation not in self.answers:
            raise RefusalError("UnknownOperationException", operation)
        return self.answers[operation](request)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                operation = self.headers.get("X-Amz-Target", "InvokeEndpoint").rpartition(".")[2]
                try:
                    status, answer = 200, outer._answer(operation, json.loads(body))
                except RefusalError as refusal:
                    status = refusal.status
                    answer = {"__type": refusal.code, "message": refusal.message}
                content = json.dumps(answer).encode()
                kind = "x-amz-json-1.1" if operation != "InvokeEndpoint" else "json"
                self.send_response(status)
                self.send_header("Content-Type", f"application/{kind}")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        return Handler


def described_training(request: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Return DescribeTrainingJob's answer for a request, with the fields that it always has."""
    name = request["TrainingJobName"]
    out = request["OutputDataConfig"]["S3OutputPath"]
    return {
        "TrainingJobName": name,
        "TrainingJobArn": f"arn:aws:sagemaker:{REGION}:123456789012:training-job/{name}",
        "ModelArtifacts": {"S3ModelArtifacts": f"{out}/{name}/output/model.tar.gz"},
        "TrainingJobStatus": "Completed",
        "SecondaryStatus": "Completed",
        "HyperParameters": request["HyperParameters"],
        "AlgorithmSpecification": request["AlgorithmSpecification"],
        "RoleArn": request["RoleArn"],
        "InputDataConfig": request["InputDataConfig"],
        "OutputDataConfig": request["OutputDataConfig"],
        "ResourceConfig": request["ResourceConfig"],
        "StoppingCondition": request["StoppingCondition"],
        "CreationTime": CREATED,
        "TrainingStartTime": CREATED + 60,
        "BillableTimeInSeconds": 120,
        "TrainingTimeInSeconds": 150,
        **changes,
    }


def not_found(request: dict[str, Any]) -> dict[str, Any]:
    """Answer as SageMaker does about a training job that there is not."""
    raise RefusalError("ValidationException", "Requested resource not found.")


class TrainingService:
    """One account's training jobs: each look at a job sees the next of its ``states``."""

    def __init__(self, *states: dict[str, Any]) -> None:
        self.states = list(states) or [{}]
        self.jobs: dict[str, dict[str, Any]] = {}
        self.looks: dict[str, int] = {}
        self.stopped: list[str] = []
        self.server = DocumentedServer(
            {
                "CreateTrainingJob": self.create,
                "DescribeTrainingJob": self.describe,
                "StopTrainingJob": self.stop,
            }
        )

    def create(self, request: dict[str, Any]) -> dict[str, Any]:
        name = request["TrainingJobName"]
        if name in self.jobs:
            raise RefusalError("ResourceInUse", f"Training job names must be unique: {name}")
        self.jobs[name] = request
        self.looks[name] = 0
        return {"TrainingJobArn": described_training(request)["TrainingJobArn"]}

    def describe(self, request: dict[str, Any]) -> dict[str, Any]:
        name = request["TrainingJobName"]
        if name not in self.jobs:
            return not_found(request)
        look = min(self.looks[name], len(self.states) - 1)
        self.looks[name] += 1
        return described_training(self.jobs[name], **self.states[look])

    def stop(self, request: dict[str, Any]) -> dict[str, Any]:
        self.stopped.append(request["TrainingJobName"])
        return {}


def described_tuning(request: dict[str, Any], n_completed: int, **changes: Any) -> dict[str, Any]:
    """Return DescribeHyperParameterTuningJob's answer for a request."""
    name = request["HyperParameterTuningJobName"]
    definition = request["TrainingJobDefinition"]
    static = {**definition["StaticHyperParameters"], "_tuning_objective_metric": "validation:x"}
    counters = {
        "Completed": n_completed, "InProgress": 0, "RetryableError": 0, "NonRetryableError": 1,
        "Stopped": 0,
    }  # fmt: skip
    return {
        "HyperParameterTuningJobName": name,
        "HyperParameterTuningJobArn": f"arn:aws:sagemaker:{REGION}:123456789012:hyper-parameter-tuning-job/{name}",
        "HyperParameterTuningJobConfig": request["HyperParameterTuningJobConfig"],
        "TrainingJobDefinition": {**definition, "StaticHyperParameters": static},
        "HyperParameterTuningJobStatus": "Completed",
        "CreationTime": CREATED,
        "TrainingJobStatusCounters": counters,
        "ObjectiveStatusCounters": {"Succeeded": n_completed, "Pending": 0, "Failed": 1},
        **changes,
    }


class TuningService:
    """A tuning job of three children: two completed, the third failed."""

    def __init__(self) -> None:
        self.request: dict[str, Any] = {}
        self.server = DocumentedServer(
            {
                "CreateHyperParameterTuningJob": self.create,
                "DescribeHyperParameterTuningJob": self.describe,
                "ListTrainingJobsForHyperParameterTuningJob": self.children,
                "DescribeTrainingJob": self.child,
            }
        )

    @property
    def names(self) -> list[str]:
        """Names of the children, as SageMaker makes them."""
        base = self.request["HyperParameterTuningJobName"]
        return [f"{base}-{i:03d}-0f0444b{i}" for i in (1, 2, 3)]

    def create(self, request: dict[str, Any]) -> dict[str, Any]:
        self.request = request
        return {"HyperParameterTuningJobArn": "arn:aws:sagemaker:x"}

    def describe(self, request: dict[str, Any]) -> dict[str, Any]:
        if not self.request:
            raise RefusalError("ResourceNotFound", "Requested resource not found.")
        return described_tuning(self.request, 2)

    def children(self, request: dict[str, Any]) -> dict[str, Any]:
        """Answer one page at a time, a child a page."""
        page = int(request.get("NextToken", "0"))
        summary = {
            "TrainingJobName": self.names[page],
            "TrainingJobArn": "arn:aws:sagemaker:x",
            "CreationTime": CREATED,
            "TrainingJobStatus": "Failed" if page == 2 else "Completed",
            "TunedHyperParameters": {"wd": "0.5"},
        }
        if page < 2:
            summary["FinalHyperParameterTuningJobObjectiveMetric"] = {
                "MetricName": "validation:precision", "Value": 0.25 + page / 4,
            }  # fmt: skip
        more = {"NextToken": str(page + 1)} if page < 2 else {}
        return {"TrainingJobSummaries": [summary], **more}

    def child(self, request: dict[str, Any]) -> dict[str, Any]:
        name = request["TrainingJobName"]
        number = self.names.index(name)
        definition = self.request["TrainingJobDefinition"]
        given = {
            **definition["StaticHyperParameters"],
            "wd": "0.5",
            "_tuning_objective_metric": "x",
        }
        changes: dict[str, Any] = {
            "FinalMetricDataList": [
                {"MetricName": "validation:recall", "Value": 0.5, "Timestamp": CREATED},
                {"MetricName": "ObjectiveMetric", "Value": 0.25, "Timestamp": CREATED},
            ]
        }
        if number == 2:
            changes = {
                "TrainingJobStatus": "Failed", "SecondaryStatus": "Failed",
                "FailureReason": "ClientError: bad\nrows",
            }  # fmt: skip
        return described_training(
            {**definition, "TrainingJobName": name, "HyperParameters": given}, **changes
        )
