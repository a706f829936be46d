"""Artifacts are complete or absent, and their ids stand for what made them."""

from __future__ import annotations

import json

import pytest

from trademl.errors import StoreError
from trademl.store.artifacts import ArtifactStore, write_atomically
from trademl.store.identity import artifact_id


@pytest.fixture
def store(tmp_path):
    return ArtifactStore(tmp_path / "artifacts")


def publish(store, identity="thing-1", content="hello"):
    with store.create(identity, parents=["p-1"], parameters={"k": 1}) as draft:
        (draft.path / "file.txt").write_text(content)
        draft.metrics["n"] = 3
    return store.get(identity)


def test_what_is_published_is_found(store):
    artifact = publish(store)
    assert artifact.metrics == {"n": 3}
    assert artifact.manifest["parents"] == ["p-1"]
    assert artifact.manifest["files"]["file.txt"] == {
        "bytes": 5,
        "sha256": "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
    }
    assert artifact.file("file.txt").read_text() == "hello"


def test_a_step_that_fails_publishes_nothing(store):
    with pytest.raises(RuntimeError), store.create("thing-1", parents=[], parameters={}) as draft:
        (draft.path / "half").write_text("")
        raise RuntimeError
    assert store.find("thing-1") is None
    assert store.all_of("thing") == []


def test_a_fresh_attempt_starts_empty_and_a_resumed_one_keeps_what_is_there(store):
    for resume, left in ((True, ["half"]), (False, [])):
        with pytest.raises(RuntimeError), store.create("t-1", parents=[], parameters={}) as draft:
            (draft.path / "half").write_text("")
            raise RuntimeError
        with store.create("t-1", parents=[], parameters={}, resume=resume) as draft:
            assert [p.name for p in draft.path.iterdir()] == left


def test_left_overs_of_a_killed_write_are_not_published(store):
    with store.create("t-1", parents=[], parameters={}) as draft:
        (draft.path / ".model.123").write_text("")
    assert store.get("t-1").manifest["files"] == {}


def test_a_missing_or_cut_file_is_named(store):
    artifact = publish(store)
    artifact.file("file.txt").write_text("he")
    with pytest.raises(StoreError, match=r"file.txt is missing or not the 5 bytes"):
        store.find("thing-1")


def test_a_damaged_manifest_is_named(store):
    (publish(store).path / "manifest.json").write_text("{")
    with pytest.raises(StoreError, match=r"manifest.json is damaged"):
        store.find("thing-1")


def test_a_manifest_of_a_newer_schema_is_refused(store):
    path = publish(store).path / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": 99}))
    with pytest.raises(StoreError, match="upgrade trademl"):
        store.find("thing-1")


def test_newest_is_the_last_published(store):
    publish(store, "thing-9"), publish(store, "thing-1")
    assert store.newest("thing").id == "thing-1"
    assert store.newest("thing", "thing-9").id == "thing-9"
    with pytest.raises(StoreError, match="no study under"):
        store.newest("study")
    with pytest.raises(StoreError, match="no artifact thing-7"):
        store.newest("thing", "thing-7")


def test_an_id_depends_on_inputs_parameters_and_code():
    base = ("dataset", {"batch": "b-1"}, {"n": 1})
    same = artifact_id("dataset", {"batch": "b-1"}, {"n": 1})
    others = [
        artifact_id("dataset", {"batch": "b-2"}, {"n": 1}),
        artifact_id("dataset", {"batch": "b-1"}, {"n": 2}),
        artifact_id("dataset", {"batch": "b-1"}, {"n": 1}, code="older"),
    ]
    assert artifact_id(*base) == same
    assert same.startswith("dataset-")
    assert len({same, *others}) == 4


def test_a_write_that_fails_leaves_the_old_content(tmp_path, monkeypatch):
    path = tmp_path / "f"
    write_atomically(path, b"old")
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError("disk")))
    with pytest.raises(OSError, match="disk"):
        write_atomically(path, b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["f"]
    assert path.read_bytes() == b"old"
