"""Where the ledger is: addresses, what of them is printed, and how connections are made."""

from __future__ import annotations

import json

import pytest

from trademl.config import load_settings
from trademl.errors import ConfigError
from trademl.ledger.connections import _connect_args
from trademl.ledger.databases import Database, shown
from trademl.ledger.secrets import open_secret
from trademl.ports import Credentials

SECRET = "s3cr%40t"
SERVER = f"postgresql://trader:{SECRET}@db.example.com:6000/ledger"


def test_no_url_is_the_file_of_the_workspace(tmp_path):
    database = Database().at(tmp_path)
    assert (database.url, database.is_file) == (f"sqlite:///{tmp_path}/ledger.db", True)
    assert str(database) == f"{tmp_path}/ledger.db"


@pytest.mark.parametrize(
    ("given", "driver"),
    [
        ("postgresql://h/n", "postgresql+psycopg"), ("postgres://h/n", "postgresql+psycopg"),
        ("postgresql+psycopg://h/n", "postgresql+psycopg"), ("mysql://h/n", "mysql+pymysql"),
        ("mariadb://h/n", "mysql+pymysql"),
    ],
)  # fmt: skip
def test_the_driver_may_be_left_out(given, driver):
    assert Database(given).url == f"{driver}://h/n"


@pytest.mark.parametrize(
    "url", ["rubbish", "oracle://h/n", "postgresql+asyncpg://h/n", f"postgresql://u:{SECRET}@h:x/n"]
)
def test_a_url_that_cannot_be_used_is_one_line_without_its_password(url):
    with pytest.raises(ConfigError, match=r"^ledger\.url ") as caught:
        Database(url)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "url", [SERVER, f"postgresql://h/n?user=u&password={SECRET}", f"mysql://h/n?passwd={SECRET}"]
)
def test_a_password_is_never_printed(url):
    database = Database(url)
    for text in (str(database), repr(database), shown(database.url)):
        assert SECRET not in text
        assert "s3cr@t" not in text


def test_the_url_comes_from_the_file_or_the_environment(tmp_path):
    file = tmp_path / "s.toml"
    file.write_text(f'[ledger]\nurl = "{SERVER}"\n')
    assert load_settings(file, environ={}).strategy.ledger.login.host == "db.example.com"
    environ = {"TRADEML_LEDGER_URL": "mysql://other/n"}
    assert load_settings(file, environ=environ).strategy.ledger.login.host == "other"


def test_settings_that_are_shown_hold_no_password(tmp_path):
    settings = load_settings(environ={"TRADEML_LEDGER_URL": SERVER})
    assert SECRET not in repr(settings)
    assert settings.origin["ledger.url"].value == (
        "postgresql+psycopg://trader:***@db.example.com:6000/ledger"
    )


def test_only_the_ledger_of_a_file_may_be_asked_for(tmp_path):
    file = tmp_path / "s.toml"
    file.write_text(f'name = "x"\n[no_section]\na = 1\n[ledger]\nurl = "{SERVER}"\n')
    strategy = load_settings(environ={}, ledger_of=file).strategy
    assert (strategy.name, strategy.ledger.login.port) == ("default", 6000)


def test_a_password_from_the_environment_gets_into_the_url_and_nowhere_else():
    environ = {
        "TRADEML_LEDGER_URL": "postgresql://u@h/n",
        "TRADEML_LEDGER__PASSWORD_FROM": "env:PGPASS",
        "PGPASS": "a@b/c",
    }
    settings = load_settings(environ=environ)
    assert settings.strategy.ledger.url == "postgresql+psycopg://u:a%40b%2Fc@h/n"
    assert "a@b/c" not in repr(settings)


def test_a_variable_that_is_not_set_is_named():
    environ = {
        "TRADEML_LEDGER_URL": "postgresql://u@h/n",
        "TRADEML_LEDGER__PASSWORD_FROM": "env:NOPE",
    }
    with pytest.raises(ConfigError, match="no environment variable NOPE"):
        load_settings(environ=environ)


def test_a_password_in_place_of_its_source_is_refused_and_not_repeated():
    with pytest.raises(ConfigError, match=r"password_from begins with none of") as caught:
        Database("postgresql://u@h/n", password_from=SECRET)
    assert SECRET not in str(caught.value)


def test_a_file_has_no_password():
    with pytest.raises(ConfigError, match="SQLite, which has no password"):
        Database(password_from="file:/x")


def test_a_password_in_a_file_is_read_for_each_connection(tmp_path):
    path = tmp_path / "password"
    path.write_text("one\n")
    source = open_secret(Database("postgresql://u@h/n", password_from=f"file:{path}"))
    assert source.credentials() == Credentials("one")
    path.write_text("two\n")
    assert source.credentials() == Credentials("two")


@pytest.mark.parametrize(("content", "says"), [(None, "No such file"), ("", "is empty")])
def test_a_file_without_a_password_is_named(tmp_path, content, says):
    path = tmp_path / "password"
    if content is not None:
        path.write_text(content)
    source = open_secret(Database("postgresql://u@h/n", password_from=f"file:{path}"))
    with pytest.raises(ConfigError, match=rf"{path}.*{says}"):
        source.credentials()


@pytest.mark.parametrize(
    ("host", "more", "mode"),
    [
        ("localhost", {}, "auto"), ("127.0.0.1", {}, "auto"), ("", {}, "auto"),
        ("db.example.com", {}, "require"), ("db.example.com", {"tls": "off"}, "off"),
        ("localhost", {"password_from": "rds-iam:eu-west-2"}, "require"),
        ("localhost", {"tls": "verify-full"}, "verify-full"),
    ],
)  # fmt: skip
def test_who_may_listen_in(host, more, mode):
    assert Database(f"postgresql://u@{host}/n", **more).tls_mode == mode


def test_certificates_that_are_given_are_verified(tmp_path):
    ca = tmp_path / "ca.pem"
    ca.write_text("-")
    arguments = _connect_args(Database("postgresql://u@db.example.com/n", ca_file=str(ca)))
    assert (arguments["sslmode"], arguments["sslrootcert"]) == ("verify-full", str(ca))


def test_certificates_of_the_system_vouch_for_a_server_of_mysql():
    import ssl

    arguments = _connect_args(Database("mysql://u@db.example.com/n", tls="verify-full"))
    assert arguments["ssl"].verify_mode == ssl.CERT_REQUIRED
    assert arguments["ssl"].check_hostname


def test_a_token_is_not_sent_in_the_clear():
    with pytest.raises(ConfigError, match="over TLS only"):
        Database("postgresql://u@h/n", password_from="rds-iam:eu-west-2", tls="off")


def test_results_wait_in_one_file_whoever_logs_in():
    one = Database("postgresql://a:x@h:5432/n")
    assert one.spool_name == Database("postgresql+psycopg://b@h:5432/n").spool_name
    assert one.spool_name != Database("postgresql://a:x@h:5432/m").spool_name


def test_a_database_goes_through_json_to_another_process():
    from dataclasses import asdict

    database = Database(SERVER, password_from="file:/p")
    assert Database(**json.loads(json.dumps(asdict(database)))) == database
