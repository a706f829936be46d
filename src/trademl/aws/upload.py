"""A dataset's copy in S3: every object checked on its way, the list of them written last.

The copy lies below ``<prefix>/datasets/<dataset id>``; ids are digests of contents, so an object
that is there is the right one. An upload that was cut short goes on with what is missing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from trademl.aws.channels import SHUFFLE_SEED, dataset_folder, object_name
from trademl.aws.failures import aws_errors, code_of
from trademl.aws.settings import AwsConfig
from trademl.aws.shuffle import shuffle_rows
from trademl.errors import CloudError
from trademl.etl.dataset import SPLITS, record_files
from trademl.ports import Progress
from trademl.store.artifacts import Artifact, storage_errors
from trademl.store.identity import digest_bytes, digest_file

LIST = "uploaded.json"
SCHEMA = "train/schema.json"
_SHA = "sha256"  # of an object's metadata


@dataclass(frozen=True)
class Destination:
    """A bucket, the part of keys that a copy has, and how objects are encrypted."""

    s3: Any
    bucket: str
    folder: str
    kms_key: str

    def key(self, name: str) -> str:
        """Return the key of one of the copy's objects."""
        return f"{self.folder}/{name}"

    @property
    def encryption(self) -> dict[str, str]:
        """What S3 is told about encryption; nothing where the bucket's own rule holds."""
        if not self.kms_key:
            return {}
        return {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": self.kms_key}


def upload_dataset(dataset: Artifact, config: AwsConfig, s3: Any, progress: Progress) -> bool:
    """Bring a dataset's copy to where the channels of its jobs expect it.

    Returns
    -------
    bool
        Whether anything had to be sent.

    Raises
    ------
    CloudError
        If the bucket is not there or not in the region, or S3 refuses an object.
    """
    uri = dataset_folder(dataset, config)
    folder = uri.removeprefix(f"s3://{config.bucket}/")
    copy = Destination(s3, config.bucket, folder, config.output_kms_key)
    with aws_errors(f"uploading {dataset.id} to {uri}"):
        _check_bucket(config, s3)
        if _is_complete(copy):
            return False
        progress.step("upload", uri)
        with _files(dataset, config) as files:
            _send(files, copy, dataset.id, progress)
    progress.done(f"{dataset.id} to {uri}")
    return True


def upload_files(
    files: Mapping[str, Path], uri: str, config: AwsConfig, s3: Any, progress: Progress
) -> None:
    """Bring files below an address in the bucket, by name; one that is there already is not sent.

    Raises
    ------
    CloudError
        As `upload_dataset`.
    """
    folder = uri.removeprefix(f"s3://{config.bucket}/")
    copy = Destination(s3, config.bucket, folder, config.output_kms_key)
    progress.step("upload", uri)
    with aws_errors(f"uploading to {uri}"):
        _check_bucket(config, s3)
        for number, (name, path) in enumerate(files.items(), 1):
            digest = digest_file(path)
            if _digest_there(copy, name) != digest:
                _put(copy, name, path, digest)
            progress.advance(number, len(files))
    progress.done(f"{len(files)} files")


def check_uploaded(digests: Mapping[str, str], uri: str, config: AwsConfig, s3: Any) -> None:
    """Return if exactly these files lie below an address, each with its SHA-256; they are read.

    Raises
    ------
    CloudError
        The message names what is missing, is of another digest, or lies there besides.
    """
    folder = uri.removeprefix(f"s3://{config.bucket}/")
    copy = Destination(s3, config.bucket, folder, config.output_kms_key)
    with aws_errors(f"checking {uri}"):
        found = set(_names_there(copy))
        if missing := sorted(digests.keys() - found):
            raise CloudError(f"{uri}/{missing[0]} is gone: --stop the endpoint, then deploy again")
        if strange := sorted(found - digests.keys()):
            raise CloudError(
                f"{uri}/{strange[0]} is none of this release, but could be asked: remove it"
            )
        for name, expected in digests.items():
            if (digest := _read_digest(copy, name)) != expected:
                raise CloudError(
                    f"{uri}/{name} has SHA-256 {digest[:12]}, its manifest lists {expected[:12]}: "
                    "someone has written over it; --stop the endpoint, then deploy again"
                )


def _names_there(copy: Destination) -> Iterator[str]:
    pages = copy.s3.get_paginator("list_objects_v2").paginate(
        Bucket=copy.bucket, Prefix=copy.key("")
    )
    for page in pages:
        yield from (entry["Key"].removeprefix(copy.key("")) for entry in page.get("Contents", []))


def _read_digest(copy: Destination, name: str) -> str:
    found = hashlib.sha256()
    body = copy.s3.get_object(Bucket=copy.bucket, Key=copy.key(name))["Body"]
    for block in body.iter_chunks(2**20):
        found.update(block)
    return found.hexdigest()


def _send(
    files: dict[str, Path | bytes], copy: Destination, dataset_id: str, progress: Progress
) -> None:
    total = sum(_size(content) for content in files.values())
    listed: dict[str, dict[str, Any]] = {}
    done = 0
    for name, content in files.items():
        digest = digest_bytes(content) if isinstance(content, bytes) else digest_file(content)
        if _digest_there(copy, name) != digest:
            _put(copy, name, content, digest)
        done += _size(content)
        listed[name] = {"sha256": digest, "bytes": _size(content)}
        progress.advance(done, total)
    written = json.dumps({"dataset": dataset_id, "objects": listed}, indent=1).encode()
    _put(copy, LIST, written, digest_bytes(written))


def _put(copy: Destination, name: str, content: Path | bytes, digest: str) -> None:
    """Send one object; S3 checks what arrives, and keeps the digest for the next run to see."""
    extra = {"Metadata": {_SHA: digest}, "ChecksumAlgorithm": "SHA256", **copy.encryption}
    if isinstance(content, bytes):
        copy.s3.put_object(Bucket=copy.bucket, Key=copy.key(name), Body=content, **extra)
    else:
        copy.s3.upload_file(str(content), copy.bucket, copy.key(name), ExtraArgs=extra)


def _check_bucket(config: AwsConfig, s3: Any) -> None:
    """Refuse a bucket that is not there, not ours, or in another region than the job."""
    from botocore.exceptions import ClientError

    try:
        answer = s3.head_bucket(Bucket=config.bucket)
    except ClientError as error:
        if code_of(error) in ("404", "NoSuchBucket"):
            raise CloudError(
                f"bucket {config.bucket} does not exist: make it with aws s3 mb "
                f"s3://{config.bucket} --region {config.region}, or correct aws.bucket"
            ) from error
        raise
    headers = answer["ResponseMetadata"]["HTTPHeaders"]
    found = answer.get("BucketRegion") or headers.get("x-amz-bucket-region") or config.region
    if found != config.region:
        raise CloudError(
            f"bucket {config.bucket} is in {found}, aws.region is {config.region}: SageMaker reads "
            "buckets of its own region only; set one of them to match"
        )


def _is_complete(copy: Destination) -> bool:
    """Return whether the list is there, and every object that it lists with its size."""
    from botocore.exceptions import ClientError

    try:
        body = copy.s3.get_object(Bucket=copy.bucket, Key=copy.key(LIST))["Body"].read()
    except ClientError as error:
        if code_of(error) in ("404", "NoSuchKey"):
            return False
        raise
    pages = copy.s3.get_paginator("list_objects_v2").paginate(
        Bucket=copy.bucket, Prefix=copy.key("")
    )
    sizes = {found["Key"]: found["Size"] for page in pages for found in page.get("Contents", [])}
    try:
        listed = {name: entry["bytes"] for name, entry in json.loads(body)["objects"].items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return False  # not the list that we wrote: every object is looked at again
    return all(sizes.get(copy.key(name)) == size for name, size in listed.items())


def _digest_there(copy: Destination, name: str) -> str | None:
    from botocore.exceptions import ClientError

    try:
        found = copy.s3.head_object(Bucket=copy.bucket, Key=copy.key(name))
    except ClientError as error:
        if code_of(error) in ("404", "NoSuchKey"):
            return None
        raise
    digest: str | None = found["Metadata"].get(_SHA)
    return digest


@contextmanager
def _files(dataset: Artifact, config: AwsConfig) -> Iterator[dict[str, Path | bytes]]:
    """Yield what is sent, by name: the records, the lists of parts, and the schema of columns."""
    with storage_errors(dataset.path), TemporaryDirectory(prefix="trademl-") as scratch:
        found: dict[str, Path | bytes] = {SCHEMA: dataset.file("schema.json")}
        for split in SPLITS:
            names = []
            for path in record_files(dataset, split):
                name = object_name(dataset, split, path)
                names.append(name.removeprefix(f"{split}/"))
                found[name] = path
                if config.is_linear_learner and split == "train":
                    found[name] = _shuffled(path, Path(scratch) / name)
            if f"{split}.manifest" in dataset.manifest["files"]:
                prefix = f"{dataset_folder(dataset, config)}/{split}/"
                found |= _manifests(split, prefix, names)
        yield found


def _shuffled(path: Path, target: Path) -> Path:
    target.parent.mkdir(exist_ok=True)
    shuffle_rows(path, target, SHUFFLE_SEED)
    return target


def _manifests(split: str, prefix: str, names: list[str]) -> dict[str, Path | bytes]:
    """Return a ``ManifestFile`` of a split's parts; of training rows also one with the schema."""
    lists = {f"{split}.manifest": [{"prefix": prefix}, *names]}
    if split == "train":
        with_schema = [{"prefix": prefix}, *names, SCHEMA.removeprefix("train/")]
        lists[f"{split}.with-schema.manifest"] = with_schema
    return {name: json.dumps(entries).encode() for name, entries in lists.items()}


def _size(content: Path | bytes) -> int:
    return len(content) if isinstance(content, bytes) else content.stat().st_size
