"""An artifact of SageMaker's Linear Learner, built byte by byte as MXNet's source lays it out.

``NDArray::Save`` of Apache MXNet 1.x, ``src/ndarray/ndarray.cc``: list magic 0x112, reserved,
count; per array magic 0xF993FAC9, storage type, dimensions as uint32 and int64 each, device type
and number, element type, elements; then the names with their lengths.
"""

from __future__ import annotations

import gzip
import io
import json
import struct
import tarfile
import zipfile

import numpy as np
import pytest

from trademl.errors import CodecError, StoreError
from trademl.train.import_linear_learner import import_linear_learner, is_linear_learner
from trademl.train.model import load_model
from trademl.train.mxnet_params import read_params

# fc0_weight = [[0.5, -2.0]] and fc0_bias = [0.25], float32, typed in from the layout above.
PARAMS = bytes.fromhex(
    "1201000000000000 0000000000000000 0200000000000000"
    "c9fa93f9 00000000 02000000 0100000000000000 0200000000000000 01000000 00000000 00000000"
    "0000003f 000000c0"
    "c9fa93f9 00000000 01000000 0100000000000000 01000000 00000000 00000000 0000803e"
    "0200000000000000"
    "0e00000000000000 6172673a6663305f776569676874"
    "0c00000000000000 6172673a6663305f62696173"
)


def array_bytes(array, kind=0):
    shape = struct.pack(f"<I{array.ndim}q", array.ndim, *array.shape)
    return (
        struct.pack("<Ii", 0xF993FAC9, 0)
        + shape
        + struct.pack("<iii", 1, 0, kind)
        + array.tobytes()
    )


def params_bytes(**arrays):
    names = [f"arg:{name}".encode() for name in arrays]
    listed = b"".join(array_bytes(np.asarray(a, np.float32)) for a in arrays.values())
    named = b"".join(struct.pack("<Q", len(n)) + n for n in names)
    n = struct.pack("<Q", len(arrays))
    return struct.pack("<QQ", 0x112, 0) + n + listed + n + named


def artifact(params=PARAMS, more=None, folder=""):
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as file:
        file.writestr("mx-mod-0000.params", params)
        file.writestr("mx-mod-symbol.json", "{}")
        file.writestr("manifest.json", "{}")
        if more is not None:
            file.writestr("additional-params.json", json.dumps(more))
    tarred = io.BytesIO()
    with tarfile.open(fileobj=tarred, mode="w") as tar:
        entry = tarfile.TarInfo(f"{folder}model_algo-1")
        entry.size = len(zipped.getvalue())
        tar.addfile(entry, io.BytesIO(zipped.getvalue()))
    return gzip.compress(tarred.getvalue())


def test_arrays_are_read_by_name():
    found = read_params(PARAMS)

    np.testing.assert_array_equal(found["arg:fc0_weight"], np.float32([[0.5, -2.0]]))
    np.testing.assert_array_equal(found["arg:fc0_bias"], np.float32([0.25]))


@pytest.mark.parametrize("kind", range(7))
def test_every_element_type_is_read(kind):
    dtype = ("f4", "f8", "f2", "u1", "i4", "i1", "i8")[kind]
    array = np.array([[1, 2, 3]], dtype)
    one = struct.pack("<Q", 1)
    content = struct.pack("<QQ", 0x112, 0) + one + array_bytes(array, kind)

    (found,) = read_params(content + one + struct.pack("<Q", 1) + b"a").values()

    assert found.dtype == dtype
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize("n_bytes", range(0, len(PARAMS), 7))
def test_a_file_cut_anywhere_is_refused(n_bytes):
    with pytest.raises(CodecError):
        read_params(PARAMS[:n_bytes])


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        (0, 0x113, "begins with 0x113"),
        (24, 0x11, "is no MXNet array"),
        (28, 1, "storage type 1"),
        (32, 9, "9 dimensions"),
        (60, 7, "element type 7"),
        (16, 2_000, "2000 arrays"),
    ],
)
def test_a_wrong_field_is_named(at, value, message):
    content = PARAMS[:at] + struct.pack("<I", value) + PARAMS[at + 4 :]
    with pytest.raises(CodecError, match=message):
        read_params(content)


@pytest.mark.parametrize("folder", ["", "./"])
def test_the_model_scores_raw_features(folder):
    content = artifact(folder=folder)
    assert is_linear_learner(content)

    model = import_linear_learner(content, "model.tar.gz")

    features = np.array([[2.0, 1.0], [4.0, -1.0]])
    expected = 1 / (1 + np.exp(-(np.array([1.0 - 2.0, 2.0 + 2.0]) + 0.25)))
    np.testing.assert_allclose(model.scores(features), expected, rtol=1e-6)
    assert model.columns == ("x0", "x1")


def test_the_model_is_marked_as_an_experiment():
    model = import_linear_learner(artifact(), "m")

    assert model.status == "refused"
    assert model.reasons[0].startswith("experimental: imported from an artifact of SageMaker's")
    assert "0.5 stands in" in model.reasons[1]


def test_a_threshold_that_is_named_is_taken():
    model = import_linear_learner(artifact(more={"a": {"score_threshold": 0.75}}), "m")

    assert model.threshold == 0.75
    assert len(model.reasons) == 1


def test_two_thresholds_are_none():
    more = {"threshold": 0.75, "other_threshold": 0.5}
    assert import_linear_learner(artifact(more=more), "m").threshold == 0.5


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (params_bytes(fc1_weight=[1.0]), "no array fc0_weight: it holds fc1_weight"),
        (params_bytes(fc0_weight=np.ones((3, 2))), r"shape \(3, 2\), expected \(1, D\)"),
        (params_bytes(fc0_weight=[[1, 2]], stdev=[1, 2]), "also holds stdev, .* may be a scaler"),
        (params_bytes(fc0_weight=[[np.nan, 2]]), "not finite"),
        (params_bytes(fc0_weight=[[1, 2]], fc0_bias=[1, 2, 3]), "fc0_bias is empty or not finite"),
        (PARAMS[:50], "m is damaged: byte"),
    ],
)
def test_what_cannot_be_understood_is_refused(params, message):
    with pytest.raises(StoreError, match=message):
        import_linear_learner(artifact(params), "m")


def test_load_model_recognises_it(tmp_path):
    (tmp_path / "model.tar.gz").write_bytes(artifact())

    model = load_model(tmp_path / "model.tar.gz")

    assert model.reasons[0].startswith("experimental")


def test_other_files_are_not_taken_for_one():
    assert not is_linear_learner(b"")
    assert not is_linear_learner(gzip.compress(b"rubbish"))
    with pytest.raises(StoreError, match=r"m is no artifact .* no mx-mod-0000.params"):
        empty = io.BytesIO()
        zipfile.ZipFile(empty, "w").close()
        import_linear_learner(empty.getvalue(), "m")
    with pytest.raises(StoreError, match="m is damaged"):
        import_linear_learner(b"PK rubbish", "m")
