"""The database's own clock as an SQL expression: one for all regions that share a ledger."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement


class DatabaseNowMs(FunctionElement[int]):
    """Milliseconds since 1970, UTC, when the database looks at the row.

    On MySQL it is when the statement began, so never later: a lease is then taken later and ends
    sooner, which is the safe side. SQLite has no clock but that of the machine it is on.
    """

    inherit_cache = True
    type = BigInteger()


@compiles(DatabaseNowMs, "sqlite")
def _sqlite(*_: Any, **__: Any) -> str:
    return "CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER)"


@compiles(DatabaseNowMs, "postgresql")
def _postgresql(*_: Any, **__: Any) -> str:
    return "CAST(FLOOR(EXTRACT(EPOCH FROM clock_timestamp()) * 1000) AS BIGINT)"


@compiles(DatabaseNowMs, "mysql")
@compiles(DatabaseNowMs, "mariadb")
def _mysql(*_: Any, **__: Any) -> str:
    return "(TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) DIV 1000)"
