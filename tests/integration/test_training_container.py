"""``trademl train`` in a folder laid out as SageMaker lays out ``/opt/ml``, as real processes."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import test_tuning

from trademl import load_model
from trademl.errors import ConfigError, DataError, TrademlError
from trademl.etl.recordio import encode_records, write_recordio
from trademl.etl.tables import table_writer
from trademl.train.container import train_in_container
from trademl.train.hyperparameters import LinearLearnerParameters
from trademl.train.linear_learner import fit
from trademl.train.model import save_model

RECORDIO = "application/x-recordio-protobuf"
HYPERPARAMETERS = {
    "predictor_type": "binary_classifier",
    "feature_dim": "5",
    "epochs": "3",
    "mini_batch_size": "50",
    "num_models": "1",
}
SPLITS = {
    "train": test_tuning.make_split(1),
    "validation": test_tuning.make_split(2, n=100),
    "test": test_tuning.make_split(3, n=100),
}
SEED = 7  # what a container trains with unless TRADEML_SEED says otherwise


def lay_out(root, *, channels=None, hyperparameters=None, splits=SPLITS):
    """Write a job's configuration, and a RecordIO file for each split."""
    channels = channels or {name: channel() for name in splits}
    config = root / "input" / "config"
    config.mkdir(parents=True)
    settings = HYPERPARAMETERS | (hyperparameters or {})
    (config / "hyperparameters.json").write_text(json.dumps(settings))
    (config / "inputdataconfig.json").write_text(json.dumps(channels))
    (config / "resourceconfig.json").write_text(
        json.dumps({"current_host": "algo-1", "hosts": ["algo-1"], "network_interface_name": "e"})
    )
    for name, split in splits.items():
        folder = root / "input" / "data" / name
        folder.mkdir(parents=True)
        write_recordio(folder / "part.pbr", split.features_ND, split.label_N)
    return root


def channel(content_type=RECORDIO, mode="File"):
    given = {
        "TrainingInputMode": mode,
        "S3DistributionType": "FullyReplicated",
        "RecordWrapperType": "None",
    }
    return given | ({"ContentType": content_type} if content_type else {})


def start(root, **more):
    return subprocess.Popen(
        [sys.executable, "-m", "trademl", "train", "--ml-root", str(root)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=root,
        **more,
    )


def model_files(root):
    return {path.name: path.read_bytes() for path in sorted((root / "model").iterdir())}


def expected_files(tmp_path, *, splits=SPLITS, **changed):
    """Return the files of the model that `fit` trains on these splits."""
    trained = fit(
        splits["train"],
        splits.get("validation"),
        LinearLearnerParameters.from_strings(HYPERPARAMETERS | changed),
        seed=SEED,
        test=splits.get("test"),
    )
    save_model(trained.model, tmp_path / "expected.tar.gz")
    with tarfile.open(tmp_path / "expected.tar.gz") as tar:
        return {entry.name: tar.extractfile(entry).read() for entry in tar}


def failure(root):
    return (root / "output" / "failure").read_text()


def silent(_line):
    pass


def read_until(process, text):
    for line in process.stdout:
        if text in line:
            return
    pytest.fail(f"it ended before {text!r}: {process.communicate()[1]}")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    root = lay_out(tmp_path_factory.mktemp("ml"))
    process = start(root)
    stdout, stderr = process.communicate(timeout=600)
    assert process.returncode == 0, stderr
    return root, stdout


def test_a_container_trains_what_a_library_call_trains(finished, tmp_path):
    assert model_files(finished[0]) == expected_files(tmp_path)
    assert not (finished[0] / "output" / "failure").exists()


def test_the_folder_packed_by_the_platform_is_a_model(finished, tmp_path):
    root = finished[0]
    with tarfile.open(tmp_path / "model.tar.gz", "w:gz") as tar:
        tar.add(root / "model", arcname=".")

    model = load_model(tmp_path / "model.tar.gz")

    features = SPLITS["test"].features_ND
    metrics = json.loads((root / "output" / "data" / "metrics.json").read_text())
    flagged = model.predict(features)[1] == 1
    hits = (SPLITS["test"].label_N[flagged] == 1).mean()
    assert metrics["test:precision"] == pytest.approx(hits)


@pytest.mark.parametrize(
    "expression",
    [
        r"#quality_metric: host=\S+, epoch=\S+, train \S+_objective <loss>=(\S+)",
        r"#quality_metric: host=\S+, epoch=\S+, validation \S+_objective <loss>=(\S+)",
        r"#quality_metric: host=\S+, validation precision <score>=(\S+)",
        r"#quality_metric: host=\S+, test recall <score>=(\S+)",
        r"#progress_metric: host=\S+, completed (\S+) %",
    ],
)
def test_stdout_carries_the_lines_that_sagemaker_reads_metrics_from(finished, expression):
    found = re.findall(expression, finished[1])
    assert found
    assert all(np.isfinite(float(value)) for value in found)


def write_csv(folder, split):
    folder.mkdir(parents=True, exist_ok=True)
    with table_writer(folder / "rows.csv", "abcde") as writer:
        writer.write(split.features_ND, split.label_N)


def as_csv(data):
    for name, split in SPLITS.items():
        (data / name / "part.pbr").unlink()
        write_csv(data / name, split)


def as_parts(data):
    for name, split in SPLITS.items():
        (data / name / "part.pbr").unlink()
        for number, rows in enumerate(np.array_split(np.arange(len(split)), 3)):
            path = data / name / f"part-{number:05d}"
            write_recordio(path, split.features_ND[rows], split.label_N[rows])
        (data / name / "_SUCCESS").touch()


def as_manifest(data):
    """Lay the parts out so that only the manifest knows their order, as a dataset of ours does."""
    for name, split in SPLITS.items():
        (data / name / "part.pbr").unlink()
        (data / name / name).mkdir()
        parts = []
        for number, rows in enumerate(np.array_split(np.arange(len(split)), 3)):
            parts.append(f"{9 - number}.recordio")
            path = data / name / name / parts[-1]
            write_recordio(path, split.features_ND[rows], split.label_N[rows])
        listed = json.dumps([{"prefix": f"{name}/"}, *parts])
        (data / name / f"{name}.manifest").write_text(listed)


@pytest.mark.parametrize(
    ("content_type", "mode", "change"),
    [
        (None, "File", lambda data: None),
        (RECORDIO, "FastFile", as_parts),
        (RECORDIO, "File", as_manifest),
        ("text/csv", "File", as_csv),
        ("text/csv;label_size=1", "FastFile", as_csv),
        (None, "File", as_csv),
    ],
)
def test_every_form_of_the_same_rows_gives_the_same_model(
    finished, tmp_path, content_type, mode, change
):
    channels = {name: channel(content_type, mode) for name in SPLITS}
    root = lay_out(tmp_path / "ml", channels=channels)
    change(root / "input" / "data")

    train_in_container(root, silent, seed=SEED)

    assert model_files(root) == model_files(finished[0])


def feed(path, content):
    """Write to a FIFO from a thread, in pieces, as the platform streams a channel."""

    def write():
        with path.open("wb", buffering=0) as pipe, contextlib.suppress(BrokenPipeError):
            for start_ in range(0, len(content), 3000):
                pipe.write(content[start_ : start_ + 3000])

    threading.Thread(target=write, daemon=True).start()


def lay_out_pipes(root, content_type=RECORDIO):
    lay_out(root, channels={name: channel(content_type, "Pipe") for name in SPLITS})
    for name in SPLITS:
        os.mkfifo(root / "input" / "data" / f"{name}_0")
    return root


@pytest.mark.parametrize("content_type", [RECORDIO, "text/csv", None])
def test_pipes_give_the_same_model(finished, tmp_path, content_type):
    root = lay_out_pipes(tmp_path / "ml", content_type)
    for name, split in SPLITS.items():
        content = encode_records(split.features_ND, split.label_N)
        if content_type == "text/csv":
            write_csv(tmp_path / name, split)
            content = (tmp_path / name / "rows.csv").read_bytes()
        feed(root / "input" / "data" / f"{name}_0", content)

    train_in_container(root, silent, seed=SEED)

    assert model_files(root) == model_files(finished[0])


def test_a_damaged_pipe_is_named_by_its_path(tmp_path):
    root = lay_out_pipes(tmp_path / "ml")
    split = SPLITS["train"]
    feed(root / "input" / "data" / "train_0", encode_records(split.features_ND, split.label_N)[:-3])

    with pytest.raises(DataError, match=r"data/train_0.*record 299"):
        train_in_container(root, silent, seed=SEED)


def test_sigterm_at_a_pipe_that_nobody_feeds_ends_the_job(tmp_path):
    root = lay_out_pipes(tmp_path / "ml")
    process = start(root, env=os.environ | {"PYTHONFAULTHANDLER": "1"})
    wait_for_handler(process)
    process.send_signal(signal.SIGTERM)

    assert process.wait(300) == 1
    assert "stopped before training began" in failure(root)


def wait_for_handler(process):
    """Wait until a process catches SIGTERM, as /proc tells."""
    bit = 1 << (signal.SIGTERM - 1)
    while process.poll() is None:
        status = Path(f"/proc/{process.pid}/status").read_text()
        caught = re.search(r"SigCgt:\s*(\w+)", status)[1]
        if int(caught, 16) & bit:
            return
    pytest.fail(process.communicate()[1])


LONG = {"epochs": "100000", "early_stopping_patience": "100000"}
RESUMED = {"epochs": "600", "early_stopping_patience": "600"}  # it is killed long before


def test_sigterm_keeps_the_best_model_so_far(tmp_path):
    root = lay_out(tmp_path / "ml", hyperparameters=LONG)
    process = start(root)
    read_until(process, "epoch=3,")
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=300)

    assert process.returncode == 0, stderr
    model = json.loads((root / "model" / "model.json").read_text())
    assert model["metrics"]["stopped_early"]
    assert 4 <= model["metrics"]["epochs"] < 100_000
    assert "mean.npy" in model_files(root)


def test_killed_and_started_again_it_ends_with_the_same_bits(tmp_path):
    root = lay_out(tmp_path / "ml", hyperparameters=RESUMED)
    process = start(root)
    read_until(process, "epoch=5,")
    process.kill()
    process.communicate()
    assert not (root / "model" / "model.json").exists()

    lines: list[str] = []
    train_in_container(root, lines.append, seed=SEED)

    epochs = [line for line in lines if "#progress_metric" in line]
    assert 0 < len(epochs) <= 600 - 5
    assert model_files(root) == expected_files(tmp_path, **RESUMED)


def test_a_checkpoint_of_another_job_is_refused(tmp_path):
    root = lay_out(tmp_path / "ml")
    train_in_container(root, silent, seed=SEED)

    with pytest.raises(TrademlError, match="checkpoint was saved with other data"):
        train_in_container(root, silent, seed=SEED + 1)


def changed_split(**columns):
    return SPLITS | {"train": replace(SPLITS["train"], **columns)}


def with_nan():
    features = SPLITS["train"].features_ND.copy()
    features[3, 2] = np.nan
    return changed_split(features_ND=features)


REFUSED = {
    "unknown channel": (
        {"channels": {"trian": channel()}},
        ConfigError,
        "channel 'trian' is unknown: did you mean 'train'",
    ),
    "no train channel": (
        {"channels": {"validation": channel()}},
        ConfigError,
        "the channel train is missing from inputdataconfig.json, found: validation",
    ),
    "channel without a folder": (
        {
            "channels": {"train": channel(), "test": channel()},
            "splits": {"train": SPLITS["train"]},
        },
        ConfigError,
        "data/test does not exist, and inputdataconfig.json lists the channel test",
    ),
    "unknown content type": (
        {"channels": {"train": channel("application/json")}},
        ConfigError,
        "ContentType of channel train is 'application/json', expected",
    ),
    "csv without labels": (
        {"channels": {"train": channel("text/csv;label_size=0")}},
        ConfigError,
        "expected label_size=1",
    ),
    "unknown mode": (
        {"channels": {"train": channel(mode="Fast")}},
        ConfigError,
        "channel train: TrainingInputMode is 'Fast', expected File, FastFile, Pipe",
    ),
    "wrong content": ({"channels": {"train": channel("text/csv")}}, DataError, "part.pbr"),
    "objective without its channel": (
        {
            "channels": {"train": channel()},
            "hyperparameters": {"_tuning_objective_metric": "validation:precision"},
        },
        ConfigError,
        "the objective validation:precision needs the channel validation",
    ),
    "feature_dim": (
        {"hyperparameters": {"feature_dim": "6"}},
        ConfigError,
        "feature_dim is 6, the data have 5 columns",
    ),
    "unknown hyperparameter": ({"hyperparameters": {"epoch": "3"}}, ConfigError, "'epochs'"),
    "out of range": (
        {"hyperparameters": {"target_recall": "1.5"}},
        ConfigError,
        "target_recall is '1.5', expected a number between 0 and 1",
    ),
    "NaN feature": ({"splits": with_nan()}, DataError, "x2 of train row 3 is not finite"),
    "one class": (
        {"splits": changed_split(label_N=np.ones(300, np.float32))},
        TrademlError,
        "label",
    ),
    "labels beyond 0 and 1": (
        {"splits": changed_split(label_N=np.arange(300, dtype=np.float32))},
        DataError,
        "label of train row 2 is 2.0, expected 0 or 1",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_job_that_cannot_be_trained_says_why_and_leaves_no_model(tmp_path, case):
    job, kind, message = REFUSED[case]
    root = lay_out(tmp_path / "ml", **job)

    with pytest.raises(kind, match=re.escape(message)):
        train_in_container(root, silent, seed=SEED)

    assert message in failure(root)
    assert len(failure(root)) <= 1024
    assert not (root / "model").exists()


def test_an_empty_channel_is_named(tmp_path):
    root = lay_out(tmp_path / "ml")
    (root / "input" / "data" / "train" / "part.pbr").unlink()

    with pytest.raises(ConfigError, match="the channel train has no file"):
        train_in_container(root, silent, seed=SEED)


def test_a_second_host_is_refused_before_any_work(tmp_path):
    root = lay_out(tmp_path / "ml")
    hosts = json.dumps({"current_host": "algo-1", "hosts": ["algo-1", "algo-2"]})
    (root / "input" / "config" / "resourceconfig.json").write_text(hosts)

    with pytest.raises(ConfigError, match="lists 2 hosts"):
        train_in_container(root, silent, seed=SEED)


def test_a_refused_job_exits_with_1_and_one_line(tmp_path):
    root = lay_out(tmp_path / "ml", channels={"trian": channel()})
    process = start(root)
    stdout, stderr = process.communicate(timeout=300)

    assert process.returncode == 1
    assert stderr.startswith("trademl: channel 'trian' is unknown")
    assert len(stderr.splitlines()) == 1
    assert stdout == ""
    assert "Traceback" not in failure(root)


def test_a_defect_leaves_its_trace_after_the_reason(tmp_path, monkeypatch):
    monkeypatch.setattr("trademl.train.container.read_channel", lambda *_, **__: 1 / 0)
    root = lay_out(tmp_path / "ml")

    with pytest.raises(ZeroDivisionError):
        train_in_container(root, silent, seed=SEED)

    reason, trace = failure(root).split("\n", 1)
    assert reason == "ZeroDivisionError: division by zero"
    assert "Traceback" in trace


def test_names_of_features_come_from_a_schema_beside_the_rows(tmp_path):
    root = lay_out(tmp_path / "ml")
    schema = {"columns": [{"name": name} for name in ("bid", "ask", "mid", "high", "low")]}
    (root / "input" / "data" / "train" / "schema.json").write_text(json.dumps(schema))

    trained = train_in_container(root, silent, seed=SEED)

    assert trained.model.columns == ("bid", "ask", "mid", "high", "low")


def test_without_validation_the_training_rows_calibrate(tmp_path):
    train = {"train": SPLITS["train"]}
    root = lay_out(tmp_path / "ml", channels={"train": channel()}, splits=train)

    train_in_container(root, silent, seed=SEED)

    assert model_files(root) == expected_files(tmp_path, splits=train)


def test_a_signal_handler_is_put_back(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    root = lay_out(tmp_path / "ml", channels={"trian": channel()})
    with pytest.raises(ConfigError):
        train_in_container(root, silent, seed=SEED)

    assert signal.getsignal(signal.SIGTERM) is before
