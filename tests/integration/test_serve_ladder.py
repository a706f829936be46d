"""The ladder over HTTP: models that block until they are let go, deadlines, stale input."""

from __future__ import annotations

import http.client
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import orjson
import pytest

from serving_cases import Big, Small
from trademl.errors import ConfigError, ServeError
from trademl.serve import live_strategy
from trademl.serve.freshness import Freshness
from trademl.serve.ladder import LadderPolicy
from trademl.serve.server import BackgroundServer, ServedModel, ServedStrategy
from trademl.serve.shares import Quota

ROW = b"1,2"
SOON = {"X-Trademl-Deadline-Ms": "600"}


@pytest.fixture(autouse=True)
def _early(monkeypatch):
    """Let lower tiers take over so long before a deadline that a busy machine keeps it too."""
    monkeypatch.setattr(live_strategy, "FALLBACK_S", 0.3)


@pytest.fixture
def big():
    model = Big()
    yield model
    model.may_go.set()


def server(*models, **rules):
    ladder = tuple(ServedModel(model, f"m-{n}") for n, model in enumerate(models))
    return BackgroundServer(ServedStrategy("btc", ladder, **rules))


def ask(server, body=ROW, **headers):
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=20)
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request("POST", "/invocations", body, {"Content-Type": "text/csv", **sent})
    response = connection.getresponse()
    answer = response.read()
    connection.close()
    return response, orjson.loads(answer)


def metrics(server):
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=20)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    return dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))


def wait_for(server, name, value):
    until = time.monotonic() + 60
    while (found := metrics(server)[name]) != value:
        assert time.monotonic() < until, (name, found)


def tier(response):
    return response.status, response.headers["X-Trademl-Tier"], response.headers["X-Trademl-Model"]


def test_without_load_the_biggest_model_answers(big):
    with server(big, Small()) as running:
        response, answer = ask(running)

    assert tier(response) == (200, "biggest", "m-0")
    assert answer["predictions"] == [{"score": 3.0, "predicted_label": 1.0}]


def test_near_the_deadline_the_smallest_model_answers(big):
    with server(big, Small()) as running:
        big.may_go.clear()
        response, answer = ask(running, **SOON)
        big.may_go.set()

    assert tier(response) == (200, "smallest", "m-1")
    assert answer["predictions"][0]["score"] == 3.0


def test_a_kept_answer_is_given_where_no_model_can(big):
    with server(big) as running:
        ask(running)
        big.may_go.clear()
        response, answer = ask(running, **SOON)
        big.may_go.set()

    assert tier(response) == (200, "cached", "m-0")
    assert float(response.headers["X-Trademl-Age-Ms"]) > 100  # it waited for the deadline first
    assert answer["predictions"][0]["score"] == 3.0


def test_a_kept_answer_that_is_too_old_is_not_given(big):
    with server(big, policy=LadderPolicy(cache_max_age_s=0.05)) as running:
        ask(running)
        big.may_go.clear()
        response, _ = ask(running, **SOON)
        big.may_go.set()

    assert tier(response) == (200, "abstain", None)


def test_another_question_gets_no_kept_answer(big):
    with server(big) as running:
        ask(running)
        big.may_go.clear()
        response, answer = ask(running, b"1,3", **SOON)
        big.may_go.set()

    assert tier(response) == (200, "abstain", None)
    assert answer["predictions"] == []
    assert answer["trademl"]["tier"] == "abstain"
    assert answer["trademl"]["reason"]


def test_a_caller_may_want_an_error_instead_of_no_decision(big):
    with server(big) as running:
        big.may_go.clear()
        response, answer = ask(running, **SOON, X_Trademl_On_Abstain="error")
        big.may_go.set()

    assert response.status == 503
    assert answer["error"].startswith("no decision: ")


def test_equal_questions_in_flight_are_computed_once(big):
    with server(big) as running, ThreadPoolExecutor(2) as pool:
        big.may_go.clear()
        asked = [pool.submit(ask, running, X_Trademl_Deadline_Ms="20000") for _ in range(2)]
        wait_for(running, 'trademl_shared_computations_total{strategy="btc"}', "1")
        big.may_go.set()
        scores = [a.result()[1]["predictions"][0]["score"] for a in asked]

    assert scores == [3.0, 3.0]
    assert len(big.n_rows) == 1


def test_a_model_that_fails_is_passed_over(caplog):
    class Broken(Big):
        def predict(self, features_ND):
            if features_ND.any():
                raise RuntimeError("a defect")
            return super().predict(features_ND)

    with server(Broken(), Small()) as running:
        response, _ = ask(running)
        failures = metrics(running)['trademl_model_failures_total{strategy="btc"}']

    assert tier(response) == (200, "smallest", "m-1")
    assert failures == "1"


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({"X-Trademl-Feature-Time-Ns": "1"}, "s old, more than 2 s"),
        ({"X-Trademl-Feature-Time-Ns": str(2**63 - 1)}, "s in the future, by the server's clock"),
        ({"X-Trademl-Feed-Health": "stale quotes"}, "the feed is unhealthy: stale quotes"),
        ({"X-Trademl-Spread": "0.75"}, "the spread is 0.75, wider than 0.5"),
        ({"X-Amzn-SageMaker-Custom-Attributes": "trademl-spread=0.75"}, "the spread is 0.75"),
    ],
)
def test_stale_input_is_no_ground_for_a_decision(headers, reason):
    rule = Freshness(max_feature_age_s=2.0, max_spread=0.5)
    with server(Small(), freshness=rule) as running:
        response, answer = ask(running, **headers)
        refused, _ = ask(running, **headers, X_Trademl_On_Abstain="error")
        fresh, _ = ask(running, X_Trademl_Feature_Time_Ns=str(time.time_ns()))

    assert tier(response) == (200, "abstain", None)
    assert reason in response.headers["X-Trademl-Reason"]
    assert reason in answer["trademl"]["reason"]
    assert refused.status == 422
    assert tier(fresh) == (200, "biggest", "m-0")


@pytest.mark.parametrize("spread", ["-0.01", "nan", "inf", "wide"])
def test_a_spread_that_is_none_is_refused(spread):
    with server(Small(), freshness=Freshness(max_spread=0.5)) as running:
        response, answer = ask(running, X_Trademl_Spread=spread)

    assert response.status == 400
    assert answer["error"] == (
        f"X-Trademl-Spread is '{spread}': expected a finite number of 0 or more"
    )


@pytest.mark.parametrize(
    ("ahead_s", "rule_s", "said"),
    [(0.5, 1.0, "biggest"), (3600, 1.0, "abstain"), (3600, 7200, "biggest")],
)
def test_clocks_may_differ_by_so_much(ahead_s, rule_s, said):
    rule = Freshness(max_clock_ahead_s=rule_s)
    with server(Small(), freshness=rule) as running:
        time_ns = time.time_ns() + int(ahead_s * 1e9)
        response, _ = ask(running, X_Trademl_Feature_Time_Ns=str(time_ns))

    assert response.headers["X-Trademl-Tier"] == said


def test_a_body_says_where_its_answer_came_from_if_asked():
    with server(Small()) as running:
        _, plain = ask(running)
        _, explained = ask(running, X_Trademl_Explain="true")

    assert "trademl" not in plain
    assert explained["trademl"]["tier"] == "biggest"
    assert explained["trademl"]["model"] == "m-0"


@pytest.mark.parametrize("value", ["soon", "-1", "60001", "nan"])
def test_an_impossible_deadline_is_refused(value):
    with server(Small()) as running:
        response, answer = ask(running, X_Trademl_Deadline_Ms=value)

    assert response.status == 400
    assert answer["error"] == (
        f"X-Trademl-Deadline-Ms is '{value}': expected milliseconds from 0 to 60000"
    )


@pytest.mark.parametrize("name", ["Feature-Time-Ns", "Sent-Ns"])
@pytest.mark.parametrize("value", ["1.5", "-1", str(2**63)])
def test_a_time_that_is_none_is_refused(name, value):
    with server(Small()) as running:
        response, answer = ask(running, **{f"X-Trademl-{name}": value})

    assert response.status == 400
    assert answer["error"] == (
        f"X-Trademl-{name} is '{value}': expected whole nanoseconds since 1970"
    )


def test_several_strategies_answer_by_name():
    class Negative(Small):
        def predict(self, features_ND):
            return -features_ND.sum(axis=1), None

    both = [
        ServedStrategy("btc", (ServedModel(Small(), "m-btc"),), quota=Quota(0.7)),
        ServedStrategy("alice", (ServedModel(Negative(), "m-alice"),)),
    ]
    with BackgroundServer(both) as running:
        unnamed, _ = ask(running)
        named, answer = ask(running, X_Trademl_Strategy="alice")
        unknown, refusal = ask(running, X_Trademl_Strategy="diana")

    assert unnamed.headers["X-Trademl-Model"] == "m-btc"
    assert named.headers["X-Trademl-Model"] == "m-alice"
    assert answer["predictions"] == [{"score": -3.0}]
    assert unknown.status == 404
    assert "this server has btc, alice" in refusal["error"]


def test_models_of_other_columns_make_no_ladder():
    class Other(Small):
        schema_hash = "ba"

    with (
        pytest.raises(ServeError, match="m-0 takes other columns than m-1"),
        server(Other(), Small()),
    ):
        pass


def test_quotas_above_the_whole_are_refused():
    strategies = [
        ServedStrategy(name, (ServedModel(Small(), "m"),), quota=Quota(0.7)) for name in "ab"
    ]
    with pytest.raises(ConfigError, match="add up to 1.4"), BackgroundServer(strategies):
        pass


def test_load_that_the_biggest_model_cannot_bear_moves_the_strategy_down(big):
    with server(big, Small()) as running, ThreadPoolExecutor(8) as pool:
        big.may_go.clear()
        asked = [
            pool.submit(ask, running, b"1,%d" % n, X_Trademl_Deadline_Ms="2000") for n in range(8)
        ]
        wait_for(running, 'trademl_level{strategy="btc"}', "1")
        answers = [a.result()[0] for a in asked]
        big.may_go.set()
        changes = metrics(running)

    assert {a.status for a in answers} == {200}
    key = 'trademl_tier_changes_total{strategy="btc",old="biggest",new="smallest"}'
    assert changes[key] == "1"
