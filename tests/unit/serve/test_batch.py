"""Whole files scored block by block: the rows' scores, and nothing left half done."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import orjson
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from trademl.errors import CodecError, ConfigError, DataError, LockedError
from trademl.etl import row_blocks
from trademl.etl.recordio import encode_records
from trademl.etl.row_blocks import feature_blocks
from trademl.etl.tables import table_writer
from trademl.ports import Silent
from trademl.serve.batch import predict_files
from trademl.serve.formats import JSON_LINES, format_response
from trademl.serve.served import served
from trademl.train.model import LinearModel, MulticlassModel, RegressionModel

COLUMNS = ("a", "b", "c")
FILES = ("rows.recordio", "rows.recordio.gz", "rows.csv", "rows.parquet")


@pytest.fixture
def model() -> LinearModel:
    return LinearModel(
        weights_D=np.array([2.0, -1.0, 0.5]), bias=0.25, mean_D=np.array([0.1, 0.0, -0.2]),
        scale_D=np.array([1.0, 2.0, 0.5]), threshold=0.6, columns=COLUMNS,
    )  # fmt: skip


@pytest.fixture
def features() -> np.ndarray:
    return np.random.default_rng(3).standard_normal((1000, 3)).astype(np.float32)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_blocks, "BLOCK_BYTES", 4096)


def by_hand(features: np.ndarray) -> np.ndarray:
    """Return the model's scores, written out as its definition says."""
    a, b, c = features.astype(np.float64).T
    logit = 2.0 * (a - 0.1) - b / 2.0 + 0.5 * (c + 0.2) / 0.5 + 0.25
    return 1.0 / (1.0 + np.exp(-logit))


def write(path: Path, features: np.ndarray, label_N: np.ndarray | None = None) -> Path:
    with table_writer(path, COLUMNS, with_label=label_N is not None) as writer:
        writer.write(features, label_N)
    return path


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("with_label", [False, True])
def test_blocks_of_a_file_are_its_rows_without_labels(tmp_path, features, name, with_label):
    label_N = (features[:, 0] > 0).astype(np.float32) if with_label else None
    path = write(tmp_path / name, features, label_N)

    blocks = [block.copy() for block in feature_blocks(path, COLUMNS)]

    np.testing.assert_array_equal(np.concatenate(blocks), features)


def test_a_large_file_comes_in_several_blocks(tmp_path, features):
    path = write(tmp_path / "rows.recordio", features)

    assert len(list(feature_blocks(path, COLUMNS))) > 5


def test_scores_are_the_models_whatever_the_format(tmp_path, model, features):
    paths = [write(tmp_path / name, features) for name in FILES]

    scored = predict_files(model, "m", paths, tmp_path / "out")

    for one in scored:
        rows = [orjson.loads(line) for line in Path(one.path).read_bytes().splitlines()]
        found = np.array([row["score"] for row in rows])
        np.testing.assert_allclose(found, by_hand(features), rtol=1e-6)
        np.testing.assert_array_equal(found.astype(np.float32), model.scores(features))
        assert [row["predicted_label"] for row in rows] == list(model.flags(found) * 1.0)


def test_lines_are_those_of_a_server(tmp_path, features):
    # scores between 0 and 1, both included, some of them too small for a plain decimal
    weights = np.array([40.0, 0.0, 0.0])
    binary = LinearModel(weights, 0.0, np.zeros(3), np.ones(3), 0.5, COLUMNS)
    features[:2, 0] = 200.0, -200.0
    several = MulticlassModel(
        np.eye(3), np.zeros(3), np.zeros(3), np.ones(3), COLUMNS,
        hyperparameters={"num_classes": 3},
    )  # fmt: skip
    value = RegressionModel(weights, -7e11, np.zeros(3), np.ones(3), COLUMNS)
    path = write(tmp_path / "rows.recordio", features)

    for name, model in {"binary": binary, "several": several, "value": value}.items():
        (scored,) = predict_files(model, name, [path], tmp_path / name)

        _, lines = format_response(JSON_LINES, served(model, name).scores(features))
        assert Path(scored.path).read_bytes() == lines + b"\n"


def test_every_output_format_holds_the_same_predictions(tmp_path, model, features):
    path = write(tmp_path / "rows.recordio", features)
    tables = {}
    for kind in ("csv", "parquet"):
        (scored,) = predict_files(model, "m", [path], tmp_path / "out", output_format=kind)
        read = pa_csv.read_csv if kind == "csv" else pq.read_table
        tables[kind] = read(scored.path)

    for table in tables.values():
        assert table.column_names == ["score", "predicted_label"]
        found = table["score"].to_numpy().astype(np.float32)
        np.testing.assert_array_equal(found, model.scores(features))


def test_a_second_run_keeps_what_is_done(tmp_path, model, features):
    path = write(tmp_path / "rows.csv", features)
    predict_files(model, "m", [path], tmp_path / "out")

    (again,) = predict_files(model, "m", [path], tmp_path / "out")

    assert again.is_kept


def test_another_model_scores_again(tmp_path, model, features):
    path = write(tmp_path / "rows.csv", features)
    predict_files(model, "m", [path], tmp_path / "out")

    (again,) = predict_files(model, "other", [path], tmp_path / "out")

    assert not again.is_kept


def test_predictions_that_are_no_longer_whole_are_made_again(tmp_path, model, features):
    path = write(tmp_path / "rows.csv", features)
    predict_files(model, "m", [path], tmp_path / "out")
    target = tmp_path / "out" / "rows.csv.jsonl"
    whole = target.read_bytes()
    target.write_bytes(whole[:100])

    (again,) = predict_files(model, "m", [path], tmp_path / "out")

    assert not again.is_kept
    assert target.read_bytes() == whole


def test_a_damaged_file_leaves_those_before_it_done_and_itself_without_predictions(
    tmp_path, model, features
):
    good = write(tmp_path / "good.recordio", features)
    cut = tmp_path / "cut.recordio"
    cut.write_bytes(encode_records(features)[:-6])

    with pytest.raises(CodecError, match=r"cut\.recordio: record 999"):
        predict_files(model, "m", [good, cut], tmp_path / "out")

    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == [".predictions.lock", "good.recordio.jsonl", "predictions.json"]
    assert list(json.loads((tmp_path / "out/predictions.json").read_text())) == [
        "good.recordio.jsonl"
    ]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_feature_that_is_no_number_names_its_row(tmp_path, model, features, bad):
    features[700, 1] = bad
    path = write(tmp_path / "rows.recordio", features)

    with pytest.raises(DataError, match="row 700 holds"):
        predict_files(model, "m", [path], tmp_path / "out")


def test_columns_in_another_order_are_refused(tmp_path, model, features):
    path = tmp_path / "rows.parquet"
    with table_writer(path, ("a", "c", "b"), with_label=False) as writer:
        writer.write(features, None)

    with pytest.raises(DataError, match="column 2 is c, the model expects b"):
        predict_files(model, "m", [path], tmp_path / "out")


def test_a_line_cut_in_its_last_number_is_refused(tmp_path, model):
    path = tmp_path / "rows.csv"
    path.write_text("1,2,3\n4,5,6")

    with pytest.raises(CodecError, match="last line has no end"):
        predict_files(model, "m", [path], tmp_path / "out")


def test_two_files_of_one_name_are_refused_before_work(tmp_path, model, features):
    (tmp_path / "b").mkdir()
    paths = [write(folder / "rows.csv", features) for folder in (tmp_path, tmp_path / "b")]

    with pytest.raises(ConfigError, match="another file is called"):
        predict_files(model, "m", paths, tmp_path / "out")

    assert not (tmp_path / "out").exists()


class RunsAnother(Silent):
    """Runs something in the middle of a run."""

    def __init__(self, another):
        self._another = another

    def step(self, name, detail=""):
        self._another()


def test_a_second_run_into_a_folder_is_refused_while_the_first_goes_on(tmp_path, model, features):
    path, out = write(tmp_path / "rows.csv", features), tmp_path / "out"

    def run_another():
        with pytest.raises(LockedError, match="another run writes predictions into"):
            predict_files(model, "m", [path], out, output_format="csv")

    (first,) = predict_files(
        model, "m", [path], out, output_format="csv", progress=RunsAnother(run_another)
    )
    (again,) = predict_files(model, "m", [path], out, output_format="csv")
    assert (first.n_rows, first.is_kept, again.is_kept) == (1000, False, True)
