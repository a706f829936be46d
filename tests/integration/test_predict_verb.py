"""``trademl predict`` from the command line, against servers of several kinds."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest

from certificates import certificate
from running import one_line
from serving_cases import Small, linear_model, score_of
from trademl.errors import ConfigError, DataError, ServeError
from trademl.live.asking import ServerThere
from trademl.serve.client import predict
from trademl.serve.feature_file import read_feature_file
from trademl.serve.freshness import Freshness
from trademl.serve.server import BackgroundServer, ServedModel, ServedStrategy, ServerConfig
from trademl.train.model import save_model


class Negative(Small):
    def predict(self, features_ND):
        score_N, _ = super().predict(features_ND)
        return np.stack([-score_N, score_N], axis=1), np.zeros(len(score_N))


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("1,1\n2,2\n")
    return path


def test_a_strategy_of_several_is_asked_by_its_endpoint(trademl, rows):
    both = [
        ServedStrategy("btc", (ServedModel(Small(), "m-btc"),)),
        ServedStrategy("alice", (ServedModel(Negative(), "m-alice"),)),
    ]
    with BackgroundServer(both) as server:
        asked = ("predict", rows, "--url", server.url, "--endpoint", "alice")
        found = json.loads(trademl(*asked, "--json").stdout)
        shown = trademl(*asked).stdout

    assert found["id"] == "m-alice"
    assert [p["score"] for p in found["predictions"]] == [[-2.0, 2.0], [-4.0, 4.0]]
    assert shown == "-2.000000  2.000000  0\n-4.000000  4.000000  0\n"


def test_a_model_of_a_server_of_many_is_asked_by_its_name(trademl, rows, tmp_path):
    import requests

    save_model(linear_model(2.0), tmp_path / "m.tar.gz")
    with BackgroundServer((), ServerConfig(port=0, model_folder=tmp_path)) as server:
        document = {"model_name": "two", "url": str(tmp_path / "m.tar.gz")}
        assert requests.post(f"{server.url}/models", json=document, timeout=10).ok
        done = trademl("predict", rows, "--url", server.url, "--model", "two", "--json")

    found = json.loads(done.stdout)
    assert found["id"] == "two"
    assert found["predictions"][0]["score"] == pytest.approx(score_of(2.0), abs=1e-7)


@pytest.fixture
def https(tmp_path):
    """A server whose certificate an authority of its own signed; yields its url and that CA."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificates")
    authority = certificate(tmp_path, name="authority", host="DNS:authority")
    cert, key = certificate(tmp_path, signed_by=authority)
    config = ServerConfig(port=0, tls_cert=cert, tls_key=key)
    with BackgroundServer(ServedModel(Small(), "m"), config) as server:
        yield server.url, authority[0]


def test_an_authority_of_ones_own_is_trusted_where_it_is_given(trademl, rows, https):
    url, ca_file = https
    asked = ("predict", rows, "--url", url)
    trusted = trademl(*asked, "--ca-file", ca_file)
    refused = trademl(*asked)

    assert trusted.stdout == "2.000000  1\n4.000000  1\n"
    assert "its certificate is not trusted" in one_line(refused)
    assert "give the CA that signed it (--ca-file" in one_line(refused)


def test_a_ca_file_that_is_of_no_use_is_refused(tmp_path):
    rubbish = tmp_path / "rubbish.pem"
    rubbish.write_text("rubbish")
    row_ND = np.ones((1, 2), np.float32)

    none = tmp_path / "none.pem"
    for path, why in ((rubbish, "no certificates in PEM form"), (none, "no such file")):
        with pytest.raises(ConfigError, match=f"{path}: {why}"):
            predict("https://127.0.0.1:9", row_ND, ca_file=str(path))
    with pytest.raises(ConfigError, match="is for https, and http://127.0.0.1:9 is none"):
        predict("http://127.0.0.1:9", row_ND, ca_file=str(rubbish))


def test_a_live_strategy_trusts_it_too(https):
    url, ca_file = https
    with ServerThere(url, "default", {"m"}, ca_file=str(ca_file)) as there:
        assert there.ask(np.ones(2, np.float32), 0.0).score == 2.0
    untrusting = ServerThere(url, "default", {"m"})
    with pytest.raises(ServeError, match="its certificate is not trusted"), untrusting:
        pass


FRESH = Freshness(max_feature_age_s=3600.0, needs_feature_time=True)


def test_a_server_that_wants_the_features_time_is_told_it(trademl, rows):
    strategy = ServedStrategy("btc", (ServedModel(Small(), "m"),), freshness=FRESH)
    with BackgroundServer(strategy) as server:
        asked = ("predict", rows, "--url", server.url)
        told = trademl(*asked, "--feature-time", "now")
        untold = trademl(*asked)
        old = trademl(*asked, "--feature-time", "2020-01-01T01:00:00+01:00")

    assert told.stdout == "2.000000  1\n4.000000  1\n"
    assert "the features have no time; say of when they are: --feature-time now" in (
        one_line(untold)
    )
    assert "s old, more than 3600 s" in one_line(old)
    assert "--feature-time" not in one_line(old)


@pytest.mark.parametrize("text", ["yesterday", "2026-08-20T12:00:00", ""])
def test_a_time_without_its_zone_is_refused(trademl, rows, text):
    done = trademl("predict", rows, "--feature-time", text)

    assert done.returncode == 2
    assert "expected now, or a time with its zone" in " ".join(done.stderr.split())


@pytest.mark.parametrize("ending", [".jsonl", ".parquet", ".gz", ""])
def test_a_file_that_no_server_is_asked_about_is_told_which_are(tmp_path, ending):
    path = tmp_path / f"rows{ending}"
    path.write_text("1,2\n")

    expected = f"ends in {ending or 'nothing'}: a server is asked about .recordio or .csv; "
    with pytest.raises(DataError, match=re.escape(f"{path} {expected}trademl predict --batch")):
        read_feature_file(path)
