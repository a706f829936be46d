"""A model's scores and its file."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import sys
import tarfile
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trademl.errors import ConfigError, DataError, StoreError
from trademl.train import fetch
from trademl.train.model import LinearModel, load_model, save_model, sigmoid

MODEL = LinearModel(
    weights_D=np.array([2.0, -1.0]),
    bias=0.5,
    mean_D=np.array([10.0, 0.0]),
    scale_D=np.array([4.0, 1.0]),
    threshold=0.6,
    columns=("lag_1", "lag_2"),
    hyperparameters={"epochs": 3},
    metrics={"validation:precision": None},
)


def rewrite(path, **changed):
    """Write a model's archive again with members replaced, or dropped where None."""
    with tarfile.open(path) as tar:
        members = {m.name: tar.extractfile(m).read() for m in tar}
    members |= {name.replace("__", "."): content for name, content in changed.items()}
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            if content is not None:
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))


def facts_of(path):
    with tarfile.open(path) as tar:
        return json.loads(tar.extractfile("model.json").read())


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "model.tar.gz"
    save_model(MODEL, path)
    return path


def test_score_by_hand():
    # 2 * (12 - 10) / 4 - 1 * 3 + 0.5 = -1.5
    expected = np.float32(1.0 / (1.0 + np.exp(1.5)))

    np.testing.assert_array_equal(MODEL.scores(np.array([[12.0, 3.0]])), [expected])


def test_predict_flags_at_the_threshold_itself():
    score = MODEL.scores(np.array([[12.0, 0.5]]))
    at_score = replace(MODEL, threshold=float(score[0]))

    _, label = at_score.predict(np.array([[12.0, 0.5], [11.9, 0.5]]))

    assert label.tolist() == [1, 0]


@settings(max_examples=60)
@given(st.integers(1, 9000), st.integers(1, 700), st.integers(0, 2**31))
def test_a_row_scores_the_same_alone_and_in_a_batch(n, d, seed):
    rng = np.random.default_rng(seed)
    n = min(n, 400_000 // d)
    features = rng.normal(0, 50, (n, d)).astype(np.float32)
    zeros, ones = np.zeros(d), np.ones(d)
    model = LinearModel(
        rng.normal(size=d), 0.1, zeros + 0.3, ones * 7, 0.5, tuple(f"x{i}" for i in range(d))
    )
    row = int(rng.integers(n))

    batch = model.logits(features)

    assert model.logits(features[row : row + 1])[0] == batch[row]
    assert model.logits(np.asfortranarray(features))[row] == batch[row]
    assert model.scores(features[row : row + 1])[0] == model.scores(features)[row]


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_logits_are_the_sums_of_numpy_to_the_last_bit(kind):
    rng = np.random.default_rng(5)
    features = rng.normal(0, 50, (2000, 605)).astype(kind)
    weights, mean, scale = rng.normal(size=605), rng.normal(size=605), rng.uniform(1, 9, 605)
    model = LinearModel(weights, 0.3, mean, scale, 0.5, tuple(f"x{i}" for i in range(605)))

    products = np.multiply(features, weights / scale, dtype=np.float64)
    expected = products.sum(axis=1) + (0.3 - (weights / scale * mean).sum())
    np.testing.assert_array_equal(model.logits(features), expected)


def test_extreme_logits_do_not_overflow():
    with np.errstate(all="raise", under="ignore"):
        np.testing.assert_array_equal(sigmoid(np.array([-1e4, 0.0, 1e4])), [0.0, 0.5, 1.0])


@pytest.mark.parametrize("shape", [(1, 3), (2,)])
def test_wrong_width_names_found_and_expected(shape):
    with pytest.raises(DataError, match=r"rows have .*(3|\(2,\)).* features, the model expects 2"):
        MODEL.scores(np.zeros(shape))


def test_a_saved_model_comes_back_whole(saved):
    found = load_model(saved)

    for name in ("weights_D", "mean_D", "scale_D"):
        np.testing.assert_array_equal(getattr(found, name), getattr(MODEL, name))
    for name in ("bias", "threshold", "columns", "hyperparameters", "metrics", "status", "reasons"):
        assert getattr(found, name) == getattr(MODEL, name)
    assert found.schema_hash == MODEL.schema_hash


def test_the_same_model_is_the_same_bytes(saved, tmp_path):
    save_model(load_model(saved), tmp_path / "again.tar.gz")

    content = saved.read_bytes()
    assert (tmp_path / "again.tar.gz").read_bytes() == content
    assert content[4:8] == b"\0\0\0\0"  # no time of day in the header
    assert gzip.decompress(content)[:10] == b"mean.npy\0\0"  # members in order of name
    assert [p.name for p in tmp_path.glob(".*")] == []


def test_a_model_is_refused_until_selection_has_spoken():
    assert (MODEL.status, MODEL.reasons) == ("refused", ("selection has not judged it yet",))


def test_what_is_no_archive_is_refused(tmp_path):
    path = tmp_path / "model.tar.gz"
    path.write_bytes(b"not a tar")

    with pytest.raises(StoreError, match=r"is not a model\.tar\.gz"):
        load_model(path)


def test_half_an_archive_is_refused(saved):
    saved.write_bytes(saved.read_bytes()[:200])

    with pytest.raises(StoreError, match=r"is not a model\.tar\.gz"):
        load_model(saved)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(StoreError, match="does not exist"):
        load_model(tmp_path / "model.tar.gz")


@pytest.mark.parametrize("member", ["model.json", "weights.npy"])
def test_a_missing_member_is_named(saved, member):
    rewrite(saved, **{member: None})

    with pytest.raises(StoreError, match=f"holds no {member}"):
        load_model(saved)


def test_a_newer_schema_asks_for_an_upgrade(saved):
    rewrite(saved, **{"model.json": json.dumps(facts_of(saved) | {"schema_version": 3}).encode()})

    with pytest.raises(StoreError, match="schema version 3, this trademl reads up to 2: upgrade"):
        load_model(saved)


def test_weights_of_another_length_are_refused(saved):
    content = io.BytesIO()
    np.save(content, np.zeros(3))
    rewrite(saved, **{"weights.npy": content.getvalue()})

    with pytest.raises(StoreError, match=r"weights\.npy has shape \(3,\), expected \(2,\)"):
        load_model(saved)


def test_edited_columns_are_refused(saved):
    facts = facts_of(saved) | {"columns": ["lag_2", "lag_1"]}
    rewrite(saved, **{"model.json": json.dumps(facts).encode()})

    with pytest.raises(StoreError, match="its columns hash to"):
        load_model(saved)


# What a stranger may send


def archive(*entries, content=b""):
    """Return a tar.gz of raw headers, each with as much content as is given."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for entry in entries:
            tar.addfile(entry, io.BytesIO(content) if content else None)
    return buffer.getvalue()


def entry_of(name, **values):
    entry = tarfile.TarInfo(name)
    for key, value in values.items():
        setattr(entry, key, value)
    return entry


def test_an_archive_that_claims_to_be_huge_is_refused_unread(tmp_path):
    path = tmp_path / "model.tar.gz"
    path.write_bytes(archive(entry_of("model.json", size=1 << 40)))

    with pytest.raises(StoreError, match="unpacks to more than 1024 MiB"):
        load_model(path)


def test_an_archive_of_very_many_files_is_refused(tmp_path):
    path = tmp_path / "model.tar.gz"
    path.write_bytes(archive(*(entry_of(f"{n}.npy") for n in range(1001))))

    with pytest.raises(StoreError, match="or 1000 files"):
        load_model(path)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_links_and_pipes_are_not_followed(saved, kind):
    path = saved.with_name("linked.tar.gz")
    path.write_bytes(archive(entry_of("model.json", type=kind, linkname="/etc/passwd")))

    with pytest.raises(StoreError, match=r"holds no model\.json"):
        load_model(path)


def test_names_that_lead_outside_are_never_written(saved, tmp_path):
    rewrite(saved, **{"../escape.npy": b"x", "/tmp/escape.npy": b"x"})

    load_model(saved)

    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.tar.gz"]


@pytest.mark.parametrize(
    "member",
    [
        np.array([{}], dtype=object),
        np.zeros(2, np.float32),
        np.zeros((2, 1)),
    ],
)
def test_an_array_that_is_no_row_of_float64_is_refused(saved, member):
    content = io.BytesIO()
    np.save(content, member, allow_pickle=True)
    rewrite(saved, **{"weights.npy": content.getvalue()})

    with pytest.raises(StoreError, match="is damaged|has shape"):
        load_model(saved)


def test_an_array_that_claims_more_than_it_holds_is_refused_unread(saved):
    content = io.BytesIO()
    np.save(content, np.zeros(2))
    claimed = content.getvalue().replace(b"(2,), ", b"(99999999999,), ")[: len(content.getvalue())]
    rewrite(saved, **{"weights.npy": claimed})

    with pytest.raises(StoreError, match="damaged|has shape"):
        load_model(saved)


@pytest.mark.parametrize("document", [b"[]", b"{", b"null", b'{"schema_version": 1}'])
def test_a_document_that_is_no_model_is_refused(saved, document):
    rewrite(saved, **{"model.json": document})

    with pytest.raises(StoreError, match=r"damaged|holds no"):
        load_model(saved)


def test_a_model_of_the_first_schema_is_still_read(saved):
    facts = facts_of(saved) | {"schema_version": 1}
    for newer in ("link", "parents", "code_version", "rules"):
        del facts[newer]
    rewrite(saved, **{"model.json": json.dumps(facts).encode()})

    found = load_model(saved)

    features = np.array([[12.0, 3.0]])
    np.testing.assert_array_equal(found.scores(features), MODEL.scores(features))
    assert (found.link, found.parents) == ("logistic", ())


# Paths and URLs


def test_a_model_is_read_from_a_file_url(saved):
    assert load_model(saved.as_uri()).columns == MODEL.columns
    assert load_model(str(saved)).columns == MODEL.columns


@pytest.fixture
def server(saved):
    handler = partial(SimpleHTTPRequestHandler, directory=str(saved.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        thread = Thread(target=httpd.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()
        thread.join()


def test_a_model_is_read_over_http(server):
    assert load_model(f"{server}/model.tar.gz").columns == MODEL.columns


def test_a_url_without_a_model_says_so(server):
    with pytest.raises(StoreError, match=r"absent\.tar\.gz cannot be read \(HTTP Error 404"):
        load_model(f"{server}/absent.tar.gz")


def test_an_unknown_scheme_names_the_known_ones():
    with pytest.raises(ConfigError, match=r"URLs of ftp cannot be read here; known: file, http"):
        load_model("ftp://example.org/model.tar.gz")


def test_a_scheme_can_be_taught(saved, monkeypatch):
    monkeypatch.setattr(fetch, "_readers", {})
    fetch.register_scheme("s3", {"s3://bucket/model.tar.gz": saved.read_bytes()}.__getitem__)

    assert load_model("s3://bucket/model.tar.gz").columns == MODEL.columns


def test_a_model_scores_without_torch_and_numba(saved):
    script = (
        "import sys; from trademl import load_model; import numpy as np;"
        f"print(load_model({str(saved)!r}).predict(np.array([[12.0, 3.0]]))[1]);"
        "assert not {'torch', 'numba', 'pandas', 'sqlalchemy'} & set(sys.modules)"
    )

    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=True, text=True
    )

    assert done.stdout == "[0]\n"
