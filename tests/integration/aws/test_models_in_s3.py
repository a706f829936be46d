"""A model's artifact in a bucket, brought into a workspace: over HTTP, against moto."""

from __future__ import annotations

import pytest

import trademl.aws.model_files  # noqa: F401  (teaches s3://)
from aws_cases import BUCKET, REGION
from serving_cases import add_artifact
from trademl.errors import CloudError, StoreError
from trademl.store.artifacts import ArtifactStore
from trademl.train.fetched_artifacts import artifact_at


@pytest.fixture
def uploaded(aws, tmp_path):
    """Address of an artifact in the bucket, and what changes an object of it."""
    import boto3

    model = add_artifact(ArtifactStore(tmp_path / "other"), 1)
    s3 = boto3.client("s3", region_name=REGION)

    def put(name, content):
        s3.put_object(Bucket=BUCKET, Key=f"models/one/{name}", Body=content)

    for path in model.path.iterdir():
        put(path.name, path.read_bytes())
    return f"s3://{BUCKET}/models/one", put, model


def test_an_artifact_in_a_bucket_is_taken_in(uploaded, store):
    address, _, model = uploaded

    found = artifact_at(address, store)

    assert found.id == model.id
    name = "model.tar.gz"
    assert found.file(name).read_bytes() == model.file(name).read_bytes()


def test_one_that_is_not_its_manifests_is_refused(uploaded, store):
    address, put, model = uploaded
    size = model.file("model.tar.gz").stat().st_size
    put("model.tar.gz", bytes(size))

    with pytest.raises(StoreError, match="is not the file that its manifest lists"):
        artifact_at(address, store)


def test_an_address_where_nothing_lies_is_one_line(uploaded, store):
    with pytest.raises(CloudError, match="nothing/manifest.json does not exist"):
        artifact_at(f"s3://{BUCKET}/nothing", store)
