"""Passwords of databases that AWS keeps, or makes: Secrets Manager, and IAM tokens of RDS."""

from __future__ import annotations

import json
import re
import threading
from typing import Any

from trademl.aws.clients import client
from trademl.aws.failures import aws_errors
from trademl.errors import ConfigError
from trademl.ports import Credentials, Login

_ARN = re.compile(r"arn:aws[a-z\-]*:secretsmanager:([a-z0-9\-]+):\d{12}:secret:\S+")
_REGION = re.compile(r"[a-z]{2}(?:-[a-z]+)+-\d")
_RDS_HOST = re.compile(rf"\.({_REGION.pattern})\.rds\.amazonaws\.com(?:\.cn)?$")


class StoredSecret:
    """A secret of Secrets Manager, as RDS writes it; asked for once, and again when refused.

    The user that the secret names comes before that of the URL: rotation may change between two.

    Parameters
    ----------
    arn : str
    login : Login

    Raises
    ------
    ConfigError
        If it is no ARN of a secret.
    """

    def __init__(self, arn: str, login: Login) -> None:  # noqa: ARG002  (told to every source)
        if (found := _ARN.fullmatch(arn)) is None:
            raise ConfigError(
                f"ledger.password_from is secretsmanager:{arn}, expected the secret's ARN: "
                "secretsmanager:arn:aws:secretsmanager:<region>:<12 digits>:secret:<name>"
            )
        self._arn = arn
        self._client = client("secretsmanager", found[1])
        self._held: Credentials | None = None
        self._lock = threading.Lock()

    def credentials(self, *, renewed: bool = False) -> Credentials:
        """Return user and password of the secret's current version."""
        with self._lock:
            if self._held is None or renewed:
                with aws_errors(f"reading {self._arn}"):
                    answer = self._client.get_secret_value(SecretId=self._arn)
                self._held = parse_secret(self._arn, answer)
            return self._held


def parse_secret(arn: str, answer: dict[str, Any]) -> Credentials:
    """Return what a secret holds: JSON with ``password`` and ``username``, or the bare password.

    Raises
    ------
    ConfigError
        If there is no password in it; the message does not tell what is.
    """
    text = str(answer.get("SecretString", ""))
    try:
        held = json.loads(text)
    except ValueError:
        held = text
    if isinstance(held, dict):
        password, user = held.get("password"), held.get("username")
    else:
        password, user = text, None
    if not isinstance(password, str) or not password:
        names = f"the keys {', '.join(sorted(held))}" if isinstance(held, dict) else "nothing"
        raise ConfigError(
            f"{arn} holds {names}, expected JSON with password and username, as RDS writes it"
        )
    return Credentials(password, str(user) if user else None)


class TokenSecret:
    """A token of RDS that stands for the caller's IAM identity: made anew for each connection.

    It is signed here, without a call, and taken for 15 minutes, over TLS only.

    Parameters
    ----------
    region : str
        That of the host's name where empty.
    login : Login
        Its user is granted ``rds_iam`` (PostgreSQL) or uses ``AWSAuthenticationPlugin`` (MySQL).

    Raises
    ------
    ConfigError
        If there is no user, or the region is not known.
    """

    def __init__(self, region: str, login: Login) -> None:
        found = _RDS_HOST.search(login.host)
        self._region = region or (found[1] if found else "")
        if not _REGION.fullmatch(self._region):
            raise ConfigError(
                f"ledger.password_from is rds-iam{f':{region}' if region else ''} and the host is "
                f"{login.host or 'missing'}: expected a region, as in rds-iam:eu-west-2"
            )
        if not login.user:
            raise ConfigError(
                "ledger.password_from is rds-iam and ledger.url names no user: expected "
                "postgresql://user@host/name"
            )
        self._login = login
        self._client = client("rds", self._region)

    def credentials(self, *, renewed: bool = False) -> Credentials:  # noqa: ARG002
        """Return a new token; every one is new."""
        login = self._login
        with aws_errors(f"signing a token for {login.user} at {login.host}"):
            token = self._client.generate_db_auth_token(
                DBHostname=login.host, Port=login.port, DBUsername=login.user, Region=self._region
            )
        return Credentials(str(token))
