"""Captured requests in S3: importing this module teaches data capture destinations of ``s3``."""

from __future__ import annotations

from trademl.aws.clients import client
from trademl.aws.failures import aws_errors
from trademl.errors import CloudError
from trademl.serve.capture_sinks import register_sink


class BucketSink:
    """Objects below ``s3://bucket/prefix``.

    Raises
    ------
    CloudError
        If the address is none of S3, or the bucket is not there or not ours.
    """

    def __init__(self, uri: str) -> None:
        self._bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        if not uri.startswith("s3://") or not self._bucket:
            raise CloudError(f"{uri!r} is no place in S3, expected s3://bucket/prefix")
        self._prefix = f"{prefix.rstrip('/')}/" if prefix.strip("/") else ""
        self._s3 = client("s3", "us-east-1")  # S3 says itself where a bucket lies
        with aws_errors(f"looking at bucket {self._bucket}"):
            self._s3.head_bucket(Bucket=self._bucket)

    def put(self, key: str, content: bytes) -> None:
        """Write an object; see `trademl.serve.capture.Sink`."""
        with aws_errors(f"writing s3://{self._bucket}/{self._prefix}{key}"):
            self._s3.put_object(
                Bucket=self._bucket,
                Key=f"{self._prefix}{key}",
                Body=content,
                ContentType="application/jsonlines",
            )


register_sink("s3", BucketSink)
