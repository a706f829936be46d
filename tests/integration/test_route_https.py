"""A route to regions over HTTPS: which certificates it trusts, and what it says of the others."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import urllib.request
from contextlib import contextmanager

import pytest

from certificates import certificate
from serving_cases import Small
from trademl.errors import ConfigError, ServeError
from trademl.live.reach import any_server_answers, refuse_untrusted
from trademl.serve.routing.settings import RegionConfig
from trademl.serve.server import BackgroundServer, ServedModel, ServerConfig

pytestmark = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="openssl makes the certificates"
)
TOKEN = "us-token-us-token"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return a folder, an authority, and a server's certificate and key signed by it."""
    folder = tmp_path_factory.mktemp("certificates")
    authority = certificate(folder, name="authority", host="DNS:authority")
    return folder, authority, certificate(folder, signed_by=authority)


@contextmanager
def region(pair, **more):
    config = ServerConfig(port=0, tls_cert=pair[0], tls_key=pair[1], **more)
    with BackgroundServer(ServedModel(Small(), "m"), config) as server:
        yield server.url


@contextmanager
def routed(*words, **environment):
    """Run the command; return its URL and how the regions stood when it began."""
    line = [sys.executable, "-m", "trademl", "serve", "route", "--port", "0", "--json", *words]
    with subprocess.Popen(
        line, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment}
    ) as process:
        try:
            found = json.loads(process.stdout.readline())
            yield found["url"], {fact["name"]: fact for fact in found["regions"]}
        finally:
            process.terminate()


def answered_by(url):
    request = urllib.request.Request(f"{url}/invocations", b"1,1", {"Content-Type": "text/csv"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.headers["X-Trademl-Region"]


def test_an_authority_of_ones_own_is_trusted_and_the_token_goes_over_tls(made, tmp_path):
    _, authority, pair = made
    tokens = tmp_path / "tokens"
    tokens.write_text(f"predict {TOKEN}\n")
    tokens.chmod(0o600)
    (tmp_path / "us.token").write_text(TOKEN)
    shutil.copy(authority[0], tmp_path / "own.pem")
    with region(pair, token_file=tokens) as url:
        (tmp_path / "regions.toml").write_text(
            f'[[regions]]\nname = "us"\nurl = "{url}"\ntoken_file = "us.token"\n'
            f'ca_file = "own.pem"\n[[regions]]\nname = "hk"\nurl = "{url}"\nca_file = "own.pem"\n'
        )
        with routed("--regions", str(tmp_path / "regions.toml")) as (route, facts):
            assert facts["us"]["url"].startswith("https://")
            assert facts["us"]["is_up"]
            assert {answered_by(route) for _ in range(5)} == {"us"}  # hk has no token


def test_an_authority_of_the_machine_is_trusted(made):
    _, authority, pair = made
    with (
        region(pair) as url,
        routed("--region", f"us={url}", SSL_CERT_FILE=str(authority[0])) as (route, _),
    ):
        assert answered_by(route) == "us"


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (
            {"host": "IP:127.0.0.1"},
            r"its certificate is not trusted \(self.signed certificate\): give the CA that signed "
            r"it \(--ca-file, or ca_file of a region\)",
        ),
        ({"host": "DNS:hk.example", "signed": True}, "its certificate is refused: IP address mis"),
        (None, "it speaks no TLS: expected a server of https"),
    ],
)
def test_a_certificate_that_is_wrong_keeps_a_region_away_for_that_reason(
    made, tmp_path, other, reason
):
    _, authority, pair = made
    wrong = dict(other or {})
    if wrong.pop("signed", False):
        wrong["signed_by"] = authority
    bad = certificate(tmp_path, **wrong) if other else (None, None)
    with region(bad) as hk, region(pair) as us:
        hk = hk.replace("http://", "https://")
        (tmp_path / "regions.toml").write_text(
            "".join(
                f'[[regions]]\nname = "{name}"\nurl = "{url}"\nca_file = "{authority[0]}"\n'
                for name, url in (("hk", hk), ("us", us))
            )
        )
        with routed("--regions", str(tmp_path / "regions.toml")) as (route, facts):
            assert answered_by(route) == "us"
    assert not facts["hk"]["is_up"]
    assert re.search(reason, facts["hk"]["last_failure"])
    assert "\n" not in facts["hk"]["last_failure"]


def test_the_watch_of_a_region_trusts_the_same_certificates(made):
    _, authority, pair = made
    with region(pair) as url:
        assert any_server_answers([url], ca_file=str(authority[0]))
        with pytest.raises(ServeError, match="its certificate is not trusted"):
            refuse_untrusted([url])
        refuse_untrusted(["https://127.0.0.1:1"])  # nothing is there: that is no certificate


def test_a_ca_file_for_a_region_without_https_is_refused():
    with pytest.raises(ConfigError, match="region hk has a ca_file and the url http://x:1"):
        RegionConfig("hk", "http://x:1", ca_file="own.pem")
