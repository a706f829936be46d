"""Data capture: what is drawn, its form, its folders, and what happens when nothing can be kept."""

from __future__ import annotations

import base64
import json
import threading

import pytest

from trademl.errors import ConfigError, DataError, StoreError
from trademl.serve.capture import Capture, CaptureConfig, Event, line_of
from trademl.serve.capture_file import read_captures
from trademl.serve.capture_sinks import open_sink
from trademl.serve.messages import Answer, Request, failure

AT_S = 1_644_859_549.25  # 2022-02-14T17:25:49.250Z
CSV_ANSWER = Answer(200, b"0.5\n", "text/csv; charset=utf-8", head=b"X-Trademl-Tier: cached\r\n")


def asked(body=b"1,2", content_type=b"text/csv", **headers: bytes) -> Request:
    found = {name.replace("_", "-").encode(): value for name, value in headers.items()}
    return Request("POST", "/invocations", body, {b"content-type": content_type, **found})


class Kept:
    """A sink that keeps files in memory, and fails as often as it is told to."""

    def __init__(self, failures: int = 0) -> None:
        self.files: dict[str, bytes] = {}
        self.failures = failures
        self.tried = threading.Semaphore(0)

    def put(self, key: str, content: bytes) -> None:
        try:
            if self.failures:
                self.failures -= 1
                raise StoreError("the disk is full")
            self.files[key] = content
        finally:
            self.tried.release()


def capture(sink: Kept, percent=100.0, draw=lambda: 0.0, **settings) -> Capture:
    config = CaptureConfig("x", percent, **settings)
    return Capture(config, sink, draw=draw, wall_s=lambda: AT_S)


def test_a_line_is_as_sagemaker_writes_it():
    request = asked(x_amzn_sagemaker_inference_id=b"order-7")

    document = json.loads(line_of(Event(request, CSV_ANSWER, "btc", AT_S)))

    meta = document["eventMetadata"]
    assert document["captureData"] == {
        "endpointInput": {
            "observedContentType": "text/csv", "mode": "INPUT", "data": "1,2", "encoding": "CSV",
        },
        "endpointOutput": {
            "observedContentType": "text/csv; charset=utf-8", "mode": "OUTPUT", "data": "0.5\n",
            "encoding": "CSV",
        },
    }  # fmt: skip
    assert document["eventVersion"] == "0"
    assert (meta["inferenceTime"], meta["inferenceId"]) == ("2022-02-14T17:25:49Z", "order-7")
    assert meta["customAttributes"] == ["trademl-request-id=order-7", "trademl-tier=cached"]


def test_a_request_without_an_id_is_captured_with_the_one_that_was_made():
    request = asked()
    meta = json.loads(line_of(Event(request, CSV_ANSWER, "btc", AT_S)))["eventMetadata"]

    assert "inferenceId" not in meta
    assert meta["customAttributes"][0] == f"trademl-request-id={request.id.decode()}"


@pytest.mark.parametrize(
    ("content_type", "body", "encoding"),
    [
        (b"application/json", b'{"a": 1}', "JSON"),
        (b"application/jsonlines", b'{"a":1}\n{"a":2}', "JSON"),
        (b"application/x-recordio-protobuf", b"\x0a\x23\xd7\xce", "BASE64"),
        (b"text/csv", b"\xff", "BASE64"),
    ],
)
def test_what_is_no_text_is_base64(content_type, body, encoding):
    side = json.loads(line_of(Event(asked(body, content_type), CSV_ANSWER, "btc", AT_S)))[
        "captureData"
    ]["endpointInput"]

    assert side["encoding"] == encoding
    expected = base64.b64encode(body).decode() if encoding == "BASE64" else body.decode()
    assert side["data"] == expected


def test_files_lie_below_endpoint_variant_and_hour():
    sink = Kept()
    kept = capture(sink)
    for endpoint in ("btc", "alice", "btc"):
        kept.see(asked(), CSV_ANSWER, endpoint)
    kept.close()

    folders = {key.rpartition("/")[0]: content.count(b"\n") for key, content in sink.files.items()}
    assert folders == {"btc/AllTraffic/2022/02/14/17": 2, "alice/AllTraffic/2022/02/14/17": 1}
    assert all(key.rpartition("/")[2].startswith("25-49-250-") for key in sink.files)
    assert kept.n_captured == 3


@pytest.mark.parametrize("name", ["../../etc", "/etc", "..", "a/../b", "a\\b", ".hidden"])
def test_no_name_leads_out_of_the_destination(name):
    sink = Kept()
    kept = capture(sink)
    kept.see(asked(), CSV_ANSWER, name)
    kept.close()

    (key,) = sink.files
    assert len(key.split("/")) == 7
    assert not any(part.startswith(".") for part in key.split("/"))


def test_a_share_is_drawn():
    draws = iter([0.05, 0.5, 0.0999, 0.1])
    sink = Kept()
    kept = capture(sink, 10.0, lambda: next(draws))
    for _ in range(4):
        kept.see(asked(), CSV_ANSWER, "btc")
    kept.close()

    assert kept.n_captured == 2


def test_errors_and_what_no_strategy_answered_are_not_captured():
    sink = Kept()
    kept = capture(sink)
    kept.see(asked(), failure(400, "no"), "btc")
    kept.see(asked(), CSV_ANSWER, "")
    kept.close()

    assert sink.files == {}


def test_a_file_that_cannot_be_written_is_tried_again():
    sink = Kept(failures=1)
    kept = capture(sink, flush_s=0.01)
    kept.see(asked(), CSV_ANSWER, "btc")
    sink.tried.acquire(timeout=10)
    sink.tried.acquire(timeout=10)
    kept.close()

    assert len(sink.files) == 1
    assert (kept.n_failures, kept.n_dropped) == (1, 0)


def test_what_finds_no_room_is_dropped_and_counted(caplog):
    sink = Kept(failures=1000)
    kept = capture(sink, buffer_bytes=2000)
    for _ in range(10):
        kept.see(asked(), CSV_ANSWER, "btc")
    kept.close()

    assert kept.n_dropped == 7  # three of about 500 bytes fit
    assert "trademl_capture_dropped_total 7" in kept.metrics()
    assert "1 files were not written, and are lost" in caplog.text


def test_a_folder_gets_whole_files_and_reads_back_as_it_was(tmp_path):
    kept = Capture(CaptureConfig("x"), open_sink(str(tmp_path / "new")), wall_s=lambda: AT_S)
    for n in range(3):
        kept.see(asked(b"%d,2" % n), CSV_ANSWER, "btc")
    kept.close()

    (path,) = (tmp_path / "new").rglob("*.*")
    found = list(read_captures(path))
    assert [captured.input for captured in found] == [b"0,2", b"1,2", b"2,2"]
    assert found[1].features(2).tolist() == [[1.0, 2.0]]
    assert (found[0].output, found[0].output_type) == (b"0.5\n", "text/csv; charset=utf-8")
    assert found[0].time == "2022-02-14T17:25:49Z"


def test_a_folder_that_cannot_be_made_is_refused_at_once(tmp_path):
    (tmp_path / "file").write_text("x")

    with pytest.raises(StoreError, match="cannot be made"):
        open_sink(str(tmp_path / "file" / "below"))


def test_an_unknown_scheme_is_refused():
    with pytest.raises(ConfigError, match="captured requests go to a folder"):
        open_sink("gs://bucket/x")


@pytest.mark.parametrize(
    "settings", [{"percent": 0.0}, {"percent": 101.0}, {"variant": "../x"}, {"flush_s": 0.0}]
)
def test_impossible_settings_are_refused(settings):
    with pytest.raises(ConfigError):
        CaptureConfig("x", **settings)


@pytest.mark.parametrize(
    "line", ["{", "[]", '{"captureData":{}}', '{"captureData":1,"eventMetadata":{}}']
)
def test_a_line_that_is_no_capture_is_named(tmp_path, line):
    path = tmp_path / "x.jsonl"
    good = line_of(Event(asked(), CSV_ANSWER, "btc", AT_S)).decode()
    path.write_text(f"{good}{line}\n")

    with pytest.raises(DataError, match=r"x\.jsonl, line 2: no captured request"):
        list(read_captures(path))


def test_rows_of_another_width_are_named(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(line_of(Event(asked(), CSV_ANSWER, "btc", AT_S)))

    with pytest.raises(DataError, match=r"line 1: .*2"):
        next(read_captures(path)).features(3)
