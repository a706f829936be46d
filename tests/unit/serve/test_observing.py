"""What is logged of requests, what is counted for CloudWatch, and in which form."""

from __future__ import annotations

import io
import json
import logging

import pytest

from trademl.errors import ConfigError
from trademl.serve.counters import StrategyCounters
from trademl.serve.emf import Reporter, count, metric_lines
from trademl.serve.logs import logging_to
from trademl.serve.messages import Answer, Request, failure, identified
from trademl.serve.request_log import RequestLog
from trademl.serve.settings import ServerConfig

FINE = Answer(200, b"{}", head=b"X-Trademl-Tier: biggest\r\nX-Trademl-Model: m-1\r\n")


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def asked(path="/invocations", **headers: bytes) -> Request:
    found = {name.replace("_", "-").encode(): value for name, value in headers.items()}
    return Request("POST", path, b"1,2", found, arrived_s=999.75)


def lines_of(form="json", worker=None, most=100):
    """Return a place to write and what was written there, a line each."""
    stream = io.StringIO()
    return stream, logging_to(stream, form, worker=worker, most=most)


def test_a_json_line_says_time_level_message_and_fields():
    stream, logged = lines_of(worker=3)
    with logged:
        logging.getLogger("trademl.x").warning("two\nlines %d", 7, extra={"fields": {"id": "a"}})

    (line,) = stream.getvalue().splitlines()
    said = json.loads(line)
    assert (said["level"], said["logger"], said["message"]) == (
        "warning",
        "trademl.x",
        "two\nlines 7",
    )
    assert (said["worker"], said["id"]) == (3, "a")
    assert said["time"].endswith("Z")


def test_an_exception_stays_one_json_line():
    stream, logged = lines_of()
    with logged:
        try:
            raise ValueError("first\nsecond")
        except ValueError:
            logging.getLogger("trademl.x").exception("failed")

    (line,) = stream.getvalue().splitlines()
    assert "ValueError: first\nsecond" in json.loads(line)["exception"]


def test_lines_that_do_not_fit_are_dropped_and_counted():
    class Slow(io.StringIO):
        def write(self, text: str) -> int:
            if not gate:
                gate.append(1)
                while len(gate) < 2:
                    pass
            return super().write(text)

    gate: list[int] = []
    stream = Slow()
    with logging_to(stream, "text", most=2):
        log = logging.getLogger("trademl.x")
        log.info("first")
        while not gate:
            pass
        for n in range(5):
            log.info("then %d", n)
        gate.append(1)
        while "then 1" not in stream.getvalue():
            pass
        log.info("last")

    text = stream.getvalue()
    assert "then 1" in text
    assert "then 2" not in text
    assert "3 lines of the log were dropped" in text
    assert "last" in text


def test_an_id_of_the_caller_is_kept_and_an_unsound_one_replaced():
    assert asked(x_request_id=b"order 7").id == b"order 7"
    assert asked(x_request_id=b"a", x_amzn_sagemaker_inference_id=b"b").id == b"b"
    for unsound in (b"", b"a" * 65, b"\xe4", b"a\tb"):
        request = asked(x_request_id=unsound)
        assert request.id not in (b"", unsound)
        assert request.id == request.id
        assert request.given_id == b""


def test_an_error_says_which_request_it_is_to_once():
    request = asked(x_request_id=b"r-1")

    answer = identified(identified(failure(400, "no"), request), request)

    assert answer.head == b"X-Request-Id: r-1\r\n"


def seen(caplog, log: RequestLog, request: Request, answer: Answer) -> list[dict]:
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="trademl"):
        log.see(request, answer, "btc")
    return [record.fields for record in caplog.records]


def test_a_logged_request_says_who_what_how_long_and_from_where(caplog):
    (fields,) = seen(caplog, RequestLog(1.0, Clock()), asked(x_request_id=b"r-1"), FINE)

    assert fields == {
        "request_id": "r-1", "method": "POST", "path": "/invocations", "status": 200,
        "strategy": "btc", "bytes_in": 3, "bytes_out": 2, "tier": "biggest", "model": "m-1",
        "ms": 250.0,
    }  # fmt: skip


def test_successes_are_logged_at_a_rate_and_the_rest_counted(caplog):
    clock = Clock()
    log = RequestLog(1.0, clock)
    logged = [len(seen(caplog, log, asked(), FINE)) for _ in range(5)]
    clock.now_s += 1.0
    (fields,) = seen(caplog, log, asked(), FINE)

    assert logged == [1, 0, 0, 0, 0]
    assert fields["left_out"] == 4


def test_errors_are_always_logged_with_their_reason(caplog):
    log = RequestLog(0.0, Clock())
    levels = []
    for status in (400, 503, 400):
        (fields,) = seen(caplog, log, asked(), failure(status, "why"))
        assert (fields["status"], fields["error"]) == (status, "why")
        levels.append(caplog.records[0].levelname)

    assert levels == ["WARNING", "ERROR", "WARNING"]


def test_whoever_sends_an_id_is_logged_although_the_rate_is_nothing(caplog):
    log = RequestLog(0.0, Clock())

    assert seen(caplog, log, asked(), FINE) == []
    assert len(seen(caplog, log, asked(x_request_id=b"mine"), FINE)) == 1
    assert seen(caplog, log, asked("/ping", x_request_id=b"mine"), FINE) == []


def counters() -> StrategyCounters:
    found = StrategyCounters(("biggest", "cached", "delayed", "abstain"))
    for _ in range(98):
        found.latency[0].add(0.0004)
    found.latency[0].add(0.03)
    found.latency[3].add(0.03)
    found.n_rows = 120
    found.refused[400] += 1
    return found


def test_embedded_metrics_are_as_cloudwatch_documents_them():
    whole, *tiers = map(json.loads, metric_lines("btc", count(counters()), 1, 1_790_000_000_000, 2))

    directive = whole["_aws"]["CloudWatchMetrics"][0]
    assert whole["_aws"]["Timestamp"] == 1_790_000_000_000
    assert directive["Dimensions"] == [["Strategy"]]
    assert (whole["Strategy"], whole["Worker"], whole["Level"]) == ("btc", 2, 1)
    assert (whole["Requests"], whole["Rows"], whole["Refused"], whole["Abstained"]) == (
        100, 120, 1, 1,
    )  # fmt: skip
    assert (whole["LatencyP50"], whole["LatencyP99"]) == (0.5, 50.0)  # bounds of the buckets, ms
    assert [(tier["Tier"], tier["Requests"]) for tier in tiers] == [("biggest", 99), ("abstain", 1)]
    for document in (whole, *tiers):
        (directive,) = document["_aws"]["CloudWatchMetrics"]
        assert set(directive["Dimensions"][0]) <= set(document)
        assert all(isinstance(document[m["Name"]], int | float) for m in directive["Metrics"])


class Standing:
    level = 0

    def __init__(self) -> None:
        self.counters = counters()


def test_each_report_is_of_its_own_period(caplog):
    strategy = Standing()
    reporter = Reporter(lambda: {"btc": strategy}, wall_s=lambda: 1.0)
    with caplog.at_level(logging.INFO, logger="trademl"):
        reporter.report()
        strategy.counters.latency[0].add(0.0004)
        strategy.counters.n_rows += 1
        reporter.report()

    wholes = [json.loads(record.raw) for record in caplog.records if '"Tier":' not in record.raw]
    assert [(whole["Requests"], whole["Rows"], whole["Refused"]) for whole in wholes] == [
        (100, 120, 1),
        (1, 1, 0),
    ]


@pytest.mark.parametrize("settings", [{"log_per_s": -1.0}, {"emf_s": 0.0}])
def test_impossible_settings_of_logs_are_refused(settings):
    with pytest.raises(ConfigError, match="or more"):
        ServerConfig(**settings)
