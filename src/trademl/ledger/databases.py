"""The ``[ledger]`` section of a strategy file: which database, whose password, who listens in."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from trademl.errors import ConfigError
from trademl.ports import Login
from trademl.store.identity import digest_bytes

if TYPE_CHECKING:
    from sqlalchemy import URL

Tls = Literal["auto", "off", "require", "verify-full"]
DRIVERS = {
    "sqlite": "sqlite",
    "postgresql": "postgresql+psycopg",
    "postgres": "postgresql+psycopg",
    "mysql": "mysql+pymysql",
    "mariadb": "mysql+pymysql",
}
PORTS = {"postgresql": 5432, "mysql": 3306}
SECRET_KINDS = ("env", "file", "secretsmanager", "rds-iam")
_PASSWORDS = ("password", "passwd", "sslpassword")  # where else a URL may carry one
_HIDDEN = "***"


@dataclass(frozen=True)
class Database:
    """Where the ledger is, and how to get in.

    Parameters
    ----------
    url : str
        SQLAlchemy URL, for example ``sqlite:///path/ledger.db`` or ``postgresql://user@host/name``;
        the driver may be left out. Empty: a file in the workspace.
    password_from : str
        ``env:NAME``, ``file:PATH``, ``secretsmanager:ARN``, ``rds-iam`` or ``rds-iam:REGION``;
        empty where the URL says it or none is needed.
    tls : {"auto", "off", "require", "verify-full"}
        Auto: as the server likes it where that is on this machine; else certificate and name are
        verified where ``ca_file`` is given, and TLS is required in any case.
    ca_file : str
        Certificates of those who may vouch for the server: PEM. Those of the system by default.

    Raises
    ------
    ConfigError
        If the URL is none or of an unknown kind of server, or settings do not go together.
    """

    url: str = field(default="", repr=False)
    password_from: str = ""
    tls: Tls = "auto"
    ca_file: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", _with_driver(self.url))
        if self.password_from:
            self._check_secret()
        if self.ca_file and not Path(self.ca_file).is_file():
            raise ConfigError(f"ledger.ca_file {self.ca_file} is no file, expected one of PEM")

    def _check_secret(self) -> None:
        if self.source_kind not in SECRET_KINDS:
            raise ConfigError(
                "ledger.password_from begins with none of "
                f"{', '.join(f'{kind}:' for kind in SECRET_KINDS)} (a password has no place here)"
            )
        if self.is_file:
            raise ConfigError(
                "ledger.password_from is set and ledger.url is a file of SQLite, which has no "
                "password: set ledger.url to a server's, or leave it out"
            )
        if self.source_kind == "rds-iam" and self.tls == "off":
            raise ConfigError(
                "ledger.tls is off, and RDS takes IAM tokens over TLS only: set it to require or "
                "verify-full, or leave it out"
            )

    @property
    def source_kind(self) -> str:
        """What ``password_from`` begins with."""
        return self.password_from.partition(":")[0]

    @property
    def is_file(self) -> bool:
        """Whether it is SQLite's: a file, or memory."""
        return not self.url or self.url.startswith("sqlite")

    @property
    def login(self) -> Login:
        """Whom the password is for."""
        url = make_url(self.url)
        port = url.port or PORTS[url.get_backend_name()]
        return Login(url.host or "", port, url.username or "")

    @property
    def tls_mode(self) -> Tls:
        """What ``tls`` comes down to; auto where the server may choose."""
        if self.tls != "auto":
            return self.tls
        if _is_local(make_url(self.url)) and self.source_kind != "rds-iam":
            return "auto"
        return "verify-full" if self.ca_file else "require"

    @property
    def spool_name(self) -> str:
        """Name of the file that results wait in: the same whoever logs in, and however."""
        url = make_url(self.url)
        parts = (
            url.get_backend_name(),
            url.host,
            url.port,
            url.database,
            sorted(url.query.items()),
        )
        return f"{url.get_backend_name()}-{digest_bytes(repr(parts).encode())[:12]}.spool"

    def at(self, root: Path) -> Database:
        """Return it with the file of the workspace at ``root`` where no URL was given."""
        return self if self.url else replace(self, url=f"sqlite:///{root / 'ledger.db'}")

    def with_password(self, environ: Mapping[str, str]) -> Database:
        """Return it with the password that ``env:NAME`` stands for; else as it is.

        Raises
        ------
        ConfigError
            If the variable is not set.
        """
        if self.source_kind != "env":
            return self
        name = self.password_from.partition(":")[2]
        if not environ.get(name):
            raise ConfigError(
                f"ledger.password_from is env:{name}, and there is no environment variable {name}: "
                "set it, or take another source"
            )
        url = make_url(self.url).set(password=environ[name])
        return replace(self, url=url.render_as_string(hide_password=False), password_from="")

    def __str__(self) -> str:
        return shown(self.url)


def as_database(where: str | Database) -> Database:
    """Return a database as it is, or the one at a URL."""
    return where if isinstance(where, Database) else Database(where)


def shown(url: str) -> str:
    """Return a URL as it may be printed: a path for SQLite, and never a password."""
    if not url:
        return "ledger.db of the workspace"
    try:
        parsed = make_url(url)
    except ArgumentError:
        return "a URL that cannot be read"
    hidden = {name: _HIDDEN for name in _PASSWORDS if name in parsed.query}
    text = parsed.update_query_dict(hidden).render_as_string(hide_password=True)
    return text.removeprefix("sqlite:///")


def _with_driver(url: str) -> str:
    if not url:
        return url
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise ConfigError(  # what was found may hold a password
            "ledger.url is no database URL: expected such as postgresql://user@host:5432/name, "
            "special characters of a password as %40"
        ) from None
    if (driver := DRIVERS.get(parsed.get_backend_name())) is None:
        raise ConfigError(
            f"ledger.url is of kind {parsed.get_backend_name()}, expected sqlite, postgresql, "
            "mysql or mariadb"
        )
    if parsed.drivername not in (driver, parsed.get_backend_name()):
        raise ConfigError(f"ledger.url asks for {parsed.drivername}, expected {driver}")
    return parsed.set(drivername=driver).render_as_string(hide_password=False)


def _is_local(url: URL) -> bool:
    host = url.host or str(url.query.get("host", url.query.get("unix_socket", "")))
    if not host or host.startswith("/") or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
