"""Models read out of Linear Learner's artifacts: believed only where they repeat AWS's figures."""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile

import numpy as np
import pytest

from aws_cases import COLUMNS, STATIC, make_dataset, write_archive
from trademl.aws.kept_models import keep_model
from trademl.store.artifacts import ArtifactStore
from trademl.train.floors import SelectionFloors
from trademl.train.model import NOT_JUDGED, load_model
from trademl.train.selection import judge
from trademl.train.trials import TrialResult


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_dataset(ArtifactStore(tmp_path_factory.mktemp("artifacts")))


def array_bytes(array):
    """Return an array as MXNet 1.x saves it (``NDArray::Save``): float32 on the CPU."""
    shape = struct.pack(f"<I{array.ndim}q", array.ndim, *array.shape)
    head = struct.pack("<Ii", 0xF993FAC9, 0) + shape
    return head + struct.pack("<iii", 1, 0, 0) + array.astype("<f4").tobytes()


def linear_learner_archive(path, weights, bias=0.0):
    """Write ``model.tar.gz`` with ``model_algo-1``, the zip that Linear Learner leaves."""
    arrays = {"arg:fc0_weight": np.array([weights]), "arg:fc0_bias": np.array([bias])}
    params = struct.pack("<QQQ", 0x112, 0, len(arrays))
    params += b"".join(array_bytes(array) for array in arrays.values())
    params += struct.pack("<Q", len(arrays))
    params += b"".join(struct.pack("<Q", len(n)) + n.encode() for n in arrays)
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as file:
        file.writestr("mx-mod-0000.params", params)
    with tarfile.open(path, "w:gz") as tar:
        entry = tarfile.TarInfo("model_algo-1")
        entry.size = len(inner.getvalue())
        tar.addfile(entry, io.BytesIO(inner.getvalue()))


def reported(accuracy=1.0, precision=1.0, recall=1.0):
    return {
        "validation:binary_classification_accuracy": accuracy,
        "validation:precision": precision, "validation:recall": recall,
    }  # fmt: skip


def keep(tmp_path, dataset, figures):
    # The label is the sign of the first feature: this model is right about every row.
    archive, path = tmp_path / "trial-00.sagemaker.tar.gz", tmp_path / "trial-00.tar.gz"
    linear_learner_archive(archive, [4.0, 0.0, 0.0])
    assert keep_model(archive, path, dataset, STATIC, figures) is None
    assert archive.exists()
    return load_model(path)


def test_a_model_that_repeats_awss_figures_is_left_to_selection(tmp_path, dataset):
    model = keep(tmp_path, dataset, reported())
    assert model.reasons == (NOT_JUDGED,)
    assert model.columns == COLUMNS


def test_a_model_that_does_not_stays_refused_with_both_figures(tmp_path, dataset):
    model = keep(tmp_path, dataset, reported(recall=0.5))
    assert model.status == "refused"
    assert any("experimental" in reason for reason in model.reasons)
    assert "validation:recall is 1.0000 here and 0.5000 on SageMaker" in model.reasons


def test_a_model_without_figures_to_hold_it_against_stays_refused(tmp_path, dataset):
    model = keep(tmp_path, dataset, {"validation:precision": 1.0})
    assert "AWS reported no validation:binary_classification_accuracy" in model.reasons[-1]


def test_selection_cannot_accept_an_unconfirmed_import(tmp_path, dataset):
    from trademl.etl.dataset import load_split

    keep(tmp_path, dataset, reported(recall=0.5))
    trial = TrialResult(0, STATIC, 1.0, "Maximize", {}, tmp_path / "trial-00.tar.gz")
    floors = SelectionFloors(min_recall=0.0, min_predicted_positives=1)
    judgement = judge(trial, load_split(dataset, "validation"), floors, 0.95, 1)
    assert any("experimental" in reason for reason in judgement.reasons)


def test_an_own_archive_becomes_the_trials_model_as_it_is(tmp_path, dataset):
    archive, path = tmp_path / "a.sagemaker.tar.gz", tmp_path / "a.tar.gz"
    content = write_archive(archive)
    assert keep_model(archive, path, dataset, STATIC, {}) is None
    assert path.read_bytes() == content
    assert not archive.exists()


def test_other_names_of_columns_are_refused(tmp_path, dataset):
    archive = tmp_path / "a.sagemaker.tar.gz"
    write_archive(archive, columns=("p", "q", "r"))
    failure = keep_model(archive, tmp_path / "a.tar.gz", dataset, STATIC, {})
    assert failure == "its model names other columns than the dataset, first p"
