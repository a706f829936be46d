"""Models that lie in S3: importing this module teaches `load_model` URLs of ``s3``."""

from __future__ import annotations

from trademl.aws.clients import client
from trademl.aws.failures import aws_errors, code_of
from trademl.errors import CloudError
from trademl.train.fetch import register_scheme
from trademl.train.model import load_model

__all__ = ["load_model", "read_object", "split_uri"]


def split_uri(uri: str) -> tuple[str, str]:
    """Return the bucket and the key of ``s3://bucket/key``.

    Raises
    ------
    CloudError
        If it is no such address.

    Examples
    --------
    >>> split_uri("s3://bucket/jobs/model.tar.gz")
    ('bucket', 'jobs/model.tar.gz')
    """
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not uri.startswith("s3://") or not bucket or not key:
        raise CloudError(f"{uri!r} is no object in S3, expected s3://bucket/key")
    return bucket, key


def read_object(uri: str) -> bytes:
    """Return an object's bytes.

    Raises
    ------
    CloudError
        If it is not there, or S3 refuses or cannot be reached.
    """
    from botocore.exceptions import ClientError

    bucket, key = split_uri(uri)
    s3 = client("s3", "us-east-1")  # S3 says itself where a bucket lies, and boto3 goes there
    with aws_errors(f"reading {uri}"):
        try:
            content: bytes = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        except ClientError as error:
            if code_of(error) in ("404", "NoSuchKey"):
                raise CloudError(f"{uri} does not exist: check the address") from error
            raise
    return content


register_scheme("s3", read_object)
