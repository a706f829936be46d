"""``predict --on sagemaker``: a real container behind a runtime that speaks InvokeEndpoint."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import numpy as np
import pytest

from aws_cases import REGION
from hosting_cases import linear_model, model_artifact, runtime_before
from running import one_line
from trademl.aws.invoking import predict_on_endpoint
from trademl.errors import CloudError
from trademl.serve.freshness import Freshness
from trademl.serve.server import BackgroundServer, ServedModel, ServedStrategy, ServerConfig
from trademl.train.model_archive import MODEL_FILE

ROWS = np.array([[1.0, 2.0, 3.0], [0.5, -1.0, 0.0]], np.float32)
REFUSED = ServedModel(linear_model(), "model-1", "shadow", "refused", ("too few",))
ACCEPTED = ServedModel(linear_model(bias=0.5), "model-2")


@pytest.fixture
def endpoint(aws, monkeypatch) -> Iterator[None]:
    """An endpoint trademl-es of two variants, of which the first, main, has a refused model."""
    variants = [ServedStrategy("main", (REFUSED,)), ServedStrategy("next", (ACCEPTED,))]
    with (
        BackgroundServer(variants) as server,
        runtime_before(server.url) as url,
    ):
        monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", url)
        yield


@pytest.mark.usefixtures("endpoint")
@pytest.mark.parametrize("content_type", ["text/csv", "application/x-recordio-protobuf"])
def test_scores_and_standing_come_through_sagemaker(content_type):
    found = predict_on_endpoint("trademl-es", ROWS, REGION, content_type=content_type, batch_rows=1)

    np.testing.assert_array_equal(found.score_N, linear_model().scores(ROWS))
    assert (found.model_id, found.mode, found.status) == ("model-1", "shadow", "refused")
    assert found.reasons == ("too few",)


@pytest.mark.usefixtures("endpoint")
def test_what_the_container_refuses_is_quoted():
    with pytest.raises(CloudError, match=r"endpoint trademl-es answered 400: row 1 has 2 features"):
        predict_on_endpoint("trademl-es", ROWS[:, :2], REGION, content_type="text/csv")


@pytest.mark.usefixtures("endpoint")
def test_the_variant_that_is_named_is_asked():
    found = predict_on_endpoint("trademl-es", ROWS, REGION, variant="next")

    assert (found.model_id, found.status, found.reasons) == ("model-2", "", ())


@pytest.mark.usefixtures("aws")
def test_the_features_time_comes_through_sagemaker(monkeypatch):
    fresh = Freshness(needs_feature_time=True)
    with (
        BackgroundServer([ServedStrategy("main", (ACCEPTED,), freshness=fresh)]) as server,
        runtime_before(server.url) as url,
    ):
        monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", url)
        with pytest.raises(CloudError, match="answered 422: no decision: the features have no t"):
            predict_on_endpoint("trademl-es", ROWS, REGION)
        found = predict_on_endpoint("trademl-es", ROWS, REGION, feature_time_ns=time.time_ns())

    assert found.model_id == "model-2"


def test_a_model_of_a_multi_model_endpoint_is_named(aws, monkeypatch, tmp_path):
    archive = model_artifact(tmp_path).file(MODEL_FILE)
    config = ServerConfig(port=0, model_folder=tmp_path)
    with BackgroundServer((), config) as server, runtime_before(server.url) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", url)
        load(server.url, "es.tar.gz", archive)
        found = predict_on_endpoint("trademl-es", ROWS, REGION, model="es.tar.gz")
        with pytest.raises(CloudError, match="answered 404: model 'fx.tar.gz' is not loaded"):
            predict_on_endpoint("trademl-es", ROWS, REGION, model="fx.tar.gz")

    assert found.model_id == "es.tar.gz"
    np.testing.assert_array_equal(found.score_N, linear_model().scores(ROWS))


def load(url, name, archive):
    """Load a model as SageMaker does before it asks."""
    import requests

    document = {"model_name": name, "url": str(archive)}
    assert requests.post(f"{url}/models", json=document, timeout=10).status_code == 200


@pytest.mark.usefixtures("endpoint")
def test_predict_asks_the_strategys_endpoint(run, tmp_path):
    np.savetxt(tmp_path / "rows.csv", ROWS, delimiter=",")
    done = run("predict", "rows.csv", "--on", "sagemaker", "--json")
    shown = run("predict", "rows.csv", "--on", "sagemaker", "--endpoint", "trademl-es")
    elsewhere = run("predict", "rows.csv", "--on", "sagemaker", "--endpoint", "trademl-fx")

    found = json.loads(done.stdout)
    assert (found["id"], found["status"]) == ("model-1", "refused")
    scores = linear_model().scores(ROWS)
    assert [p["score"] for p in found["predictions"]] == scores.tolist()
    assert shown.stdout.splitlines()[0] == f"{scores[0]:.6f}  1"
    assert "model model-1 was refused: too few" in shown.stderr
    assert "endpoint trademl-fx cannot be asked: Endpoint trademl-fx of account 1 not found; " in (
        one_line(elsewhere)
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--on", "sagemaker", "--dry-run"), "--dry-run needs --batch"),
        (("--on", "sagemaker", "--url", "http://there"), "--url is of a server"),
        (("--variant", "main"), "--variant needs --on sagemaker"),
        (("--batch", "--endpoint", "es"), "--endpoint is of a server"),
        (("more.csv",), "several files need --batch"),
    ],
)
def test_options_that_would_be_passed_over_are_refused(run, words, message):
    done = run("predict", "rows.csv", *words)

    assert done.returncode == 2
    assert message in " ".join(done.stderr.replace("│", " ").split())
