"""Artifacts brought into a store from a folder or an address, and never unchecked."""

from __future__ import annotations

import json
import shutil

import pytest

from serving_cases import add_artifact
from trademl.errors import ConfigError, StoreError
from trademl.store.artifacts import ArtifactStore
from trademl.train import fetch
from trademl.train.fetched_artifacts import artifact_at


@pytest.fixture
def elsewhere(tmp_path):
    """An artifact's folder outside the store."""
    model = add_artifact(ArtifactStore(tmp_path / "other"), 1)
    return model.path


@pytest.fixture
def store(tmp_path):
    return ArtifactStore(tmp_path / "store")


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """Addresses of ``s3`` that lie below a folder."""
    folder = tmp_path / "bucket"
    folder.mkdir()

    def read(url):
        path = folder / url.removeprefix("s3://bucket/")
        if not path.is_file():
            raise StoreError(f"{url} does not exist")
        return path.read_bytes()

    monkeypatch.setitem(fetch._readers, "s3", read)
    return folder


@pytest.mark.parametrize("where", ["{0}", "{0}/model.tar.gz", "file://{0}", "file://{0}/"])
def test_an_artifact_elsewhere_is_taken_in_whole(elsewhere, store, where):
    found = artifact_at(where.format(elsewhere), store)

    assert found.path.is_relative_to(store.root)
    expected = (elsewhere / "model.tar.gz").read_bytes()
    assert found.file("model.tar.gz").read_bytes() == expected


@pytest.mark.parametrize("end", ["", "/", "/model.tar.gz"])
def test_an_artifact_in_s3_is_taken_in_once(elsewhere, store, bucket, end):
    shutil.copytree(elsewhere, bucket / "models" / "one")
    address = f"s3://bucket/models/one{end}"
    first = artifact_at(address, store)
    (bucket / "models" / "one" / "model.tar.gz").unlink()

    assert artifact_at(address, store).id == first.id == "model-000000000001"


@pytest.mark.parametrize("end", ["", "/model.tar.gz"])
def test_a_file_that_is_not_its_manifests_is_refused(elsewhere, store, bucket, end):
    shutil.copytree(elsewhere, bucket / "one")
    path = bucket / "one" / "model.tar.gz"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)

    with pytest.raises(StoreError, match="is not the file that its manifest lists"):
        artifact_at(f"s3://bucket/one{end}", store)
    assert store.find("model-000000000001") is None


@pytest.mark.parametrize(
    ("key", "value"),
    [("id", "../../evil"), ("id", "model-..%2f"), ("files", {"../../evil": {}}), ("id", None)],
)
def test_a_manifest_cannot_name_a_place(elsewhere, store, bucket, key, value):
    shutil.copytree(elsewhere, bucket / "one")
    path = bucket / "one" / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), key: value}))
    (bucket / "evil").write_text("evil")

    with pytest.raises(StoreError, match=r"leads out of it|expected a model or network"):
        artifact_at("s3://bucket/one", store)


def test_a_folder_without_a_manifest_is_no_artifact(tmp_path, store):
    with pytest.raises(StoreError, match="holds no artifact"):
        artifact_at(str(tmp_path), store)


def test_an_address_of_an_unknown_scheme_is_refused(store):
    with pytest.raises(ConfigError, match="URLs of gopher cannot be read here"):
        artifact_at("gopher://x/y", store)
