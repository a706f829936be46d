"""Captured requests in S3: objects where SageMaker would put them, errors before a request is lost."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from aws_cases import BUCKET, REGION
from trademl.aws.capture import BucketSink
from trademl.errors import CloudError
from trademl.serve.capture import Capture, CaptureConfig
from trademl.serve.capture_file import read_captures
from trademl.serve.capture_sinks import open_sink
from trademl.serve.messages import Answer, Request

AT_S = 1_644_859_549.0  # 2022-02-14T17:25:49Z
ASKED = Request("POST", "/invocations", b"1,2", {b"content-type": b"text/csv"})
ANSWER = Answer(200, b'{"predictions":[]}')


@pytest.fixture
def s3(aws: str) -> Iterator[Any]:
    import boto3

    return boto3.client("s3", region_name=REGION)


def test_captures_are_objects_by_endpoint_variant_and_hour(s3, tmp_path):
    uri = f"s3://{BUCKET}/captured/here/"
    capture = Capture(CaptureConfig(uri), open_sink(uri), wall_s=lambda: AT_S)
    for _ in range(2):
        capture.see(ASKED, ANSWER, "btc")
    capture.close()

    (found,) = s3.list_objects_v2(Bucket=BUCKET)["Contents"]
    body = s3.get_object(Bucket=BUCKET, Key=found["Key"])["Body"].read()
    (tmp_path / "x.jsonl").write_bytes(body)
    assert found["Key"].startswith("captured/here/btc/AllTraffic/2022/02/14/17/25-49-000-")
    assert [captured.input for captured in read_captures(tmp_path / "x.jsonl")] == [b"1,2"] * 2


@pytest.mark.usefixtures("aws")
@pytest.mark.parametrize("uri", ["s3://no-such-bucket-here/x", "s3://"])
def test_a_bucket_that_is_not_there_is_refused_before_anything_is_served(uri):
    with pytest.raises(CloudError):
        BucketSink(uri)


def test_a_bucket_that_goes_away_costs_captures_and_nothing_else(s3, caplog):
    uri = f"s3://{BUCKET}"
    capture = Capture(CaptureConfig(uri), BucketSink(uri), wall_s=lambda: AT_S)
    s3.delete_bucket(Bucket=BUCKET)

    capture.see(ASKED, ANSWER, "btc")
    capture.close()

    assert capture.n_failures == 1
    assert "1 files were not written, and are lost" in caplog.text
