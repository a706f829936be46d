"""Passwords of databases from AWS: Secrets Manager as moto plays it, tokens of RDS made offline."""

from __future__ import annotations

import json
from urllib.parse import parse_qs, urlsplit

import boto3
import pytest

from aws_cases import REGION
from trademl.errors import CloudError, ConfigError
from trademl.ledger.databases import Database
from trademl.ledger.secrets import open_secret
from trademl.ports import Credentials

RDS = f"trademl.abcdefghijkl.{REGION}.rds.amazonaws.com"


@pytest.fixture
def manager(aws):
    return boto3.client("secretsmanager", region_name=REGION)


def made(manager, text):
    return manager.create_secret(Name="rds!db-1", SecretString=text)["ARN"]


def source(password_from, url=f"postgresql://trader@{RDS}/ledger"):
    return open_secret(Database(url, password_from=password_from))


def as_rds(password, user="trader"):
    return json.dumps({"username": user, "password": password})


def test_a_secret_is_read_as_rds_writes_it(manager):
    arn = made(manager, as_rds("p@ss/1"))
    assert source(f"secretsmanager:{arn}").credentials() == Credentials("p@ss/1", "trader")


def test_a_secret_may_be_the_bare_password(manager):
    arn = made(manager, "just-this")
    assert source(f"secretsmanager:{arn}").credentials() == Credentials("just-this")


def test_a_secret_is_kept_until_it_was_refused(manager):
    arn = made(manager, as_rds("one"))
    found = source(f"secretsmanager:{arn}")
    assert found.credentials().password == "one"
    manager.put_secret_value(SecretId=arn, SecretString=as_rds("two", "trader_clone"))
    assert found.credentials().password == "one"
    assert found.credentials(renewed=True) == Credentials("two", "trader_clone")
    assert found.credentials().password == "two"


def test_a_secret_without_a_password_is_named_and_not_told(manager):
    arn = made(manager, json.dumps({"token": "hush"}))
    with pytest.raises(ConfigError, match=r"holds the keys token, expected JSON") as caught:
        source(f"secretsmanager:{arn}").credentials()
    assert "hush" not in str(caught.value)


def test_a_secret_that_is_not_there_is_one_line(manager):
    arn = f"arn:aws:secretsmanager:{REGION}:123456789012:secret:nowhere"
    with pytest.raises(CloudError, match="ResourceNotFoundException") as caught:
        source(f"secretsmanager:{arn}").credentials()
    assert "\n" not in str(caught.value)


def test_something_else_than_an_arn_is_refused():
    with pytest.raises(ConfigError, match="expected the secret's ARN"):
        source("secretsmanager:my-secret")


def test_a_token_is_a_signed_url_for_one_user_of_one_server(aws):
    token = source("rds-iam").credentials().password
    host, _, query = token.partition("/?")
    fields = {name: value[0] for name, value in parse_qs(query).items()}
    assert host == f"{RDS}:5432"  # as AWS documents it: no scheme, then the query of a signature 4
    assert (fields["Action"], fields["DBUser"]) == ("connect", "trader")
    assert fields["X-Amz-Algorithm"] == "AWS4-HMAC-SHA256"
    assert fields["X-Amz-Expires"] == "900"
    assert f"/{REGION}/rds-db/aws4_request" in fields["X-Amz-Credential"]
    assert len(fields["X-Amz-Signature"]) == 64


def test_a_token_is_for_the_port_of_the_address(aws):
    token = source("rds-iam", f"mysql://trader@{RDS}:3307/ledger").credentials().password
    assert urlsplit(f"https://{token}").port == 3307


def test_the_region_of_a_token_may_be_given(aws):
    token = source("rds-iam:us-east-1", "mysql://trader@proxy.example.com/l").credentials().password
    assert "/us-east-1/rds-db/" in parse_qs(token)["X-Amz-Credential"][0]


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("postgresql://u@db.example.com/n", "expected a region"),
        (f"postgresql://{RDS}/n", "no user"),
    ],
)
def test_a_token_needs_a_region_and_a_user(url, says):
    with pytest.raises(ConfigError, match=says):
        source("rds-iam", url)


def test_a_token_without_credentials_is_one_line(aws, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(CloudError, match="no AWS credentials were found"):
        source("rds-iam").credentials()
