"""What a database raises, as one line; and whether it is only away."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

from trademl.errors import AwayError, ClashError, StoreError
from trademl.ledger.databases import shown

MIN_FREE_BYTES = 2**20  # with less, SQLite cannot even map its shared memory
# SQLSTATE: lost, stopping, starting; disk, memory or connections used up; 40 is a deadlock, and
# 25006 a standby before it is promoted
_AWAY_STATES = ("08", "57P01", "57P02", "57P03", "53", "40", "25006")
# Used up, stopping, network, lost; 1205 and 1213 are a deadlock, 1290 and 1836 a read-only replica
_AWAY_NUMBERS = {
    *(1021, 1040, 1053, 1152, 1158, 1159, 1160, 1161, 1205, 1213, 1290, 1836),
    *(2002, 2003, 2006, 2013, 2055, 4031),
}
_FULL = ("No space left", "full")
_BETWEEN_TWO_STATES = (
    *("starting up", "shutting down", "recovery mode", "not yet accepting connections"),
    *("too many", "remaining connection slots", "administrator command"),
)
_REFUSALS = ("authentication failed", "no password supplied", "Access denied for user")


@contextmanager
def database_errors(url: str) -> Iterator[None]:
    """Turn a database's own errors into one line.

    Raises
    ------
    AwayError
        If it cannot be reached now.
    ClashError
        If a row stands already that may be there once, or one is missing that another refers to.
    StoreError
        Whatever else it says.
    """
    try:
        yield
    except DBAPIError as error:
        raise as_store_error(url, error) from error


def as_store_error(url: str, error: DBAPIError) -> StoreError:
    """Return what a database said as one line, without a password."""
    kind = StoreError
    if is_away(error):
        kind = AwayError
    elif isinstance(error, IntegrityError):
        kind = ClashError
    found = " ".join(str(error.orig).split())
    return kind(f"{shown(url)}: {found}: {_advice(url, error)}")


def is_away(error: DBAPIError) -> bool:
    """Return whether a server cannot be reached now; the same may well succeed in a minute."""
    if error.connection_invalidated:
        return True
    driver = type(error.orig).__module__.partition(".")[0]
    if driver == "pymysql":
        return bool(error.orig and error.orig.args and error.orig.args[0] in _AWAY_NUMBERS)
    if driver != "psycopg":
        return False
    if (state := getattr(error.orig, "sqlstate", None)) is not None:
        return str(state).startswith(_AWAY_STATES)
    if not isinstance(error, OperationalError):
        return False
    text = str(error.orig)  # libpq gives no state for what happens before a connection stands
    has_answered = "FATAL:" in text or "SSL" in text or "certificate" in text
    return not has_answered or any(words in text for words in _BETWEEN_TWO_STATES)


def is_refused(error: Exception) -> bool:
    """Return whether a server refused a user's password."""
    return any(words in str(error) for words in _REFUSALS)


def _advice(url: str, error: DBAPIError) -> str:
    reason = str(error.orig)
    if is_away(error):
        if any(words in reason for words in _FULL):
            return "the server's disk is full: free some space there and run again"
        return "check that it runs and can be reached, then try again; finished steps are kept"
    if error.orig is not None and is_refused(Exception(reason)):
        return "check the user of ledger.url, and ledger.password_from"
    if isinstance(error, IntegrityError):
        return "it stands there already, or refers to what does not"
    if "full" in reason or ("I/O error" in reason and _free_bytes(url) < MIN_FREE_BYTES):
        return "the disk is full: free some space and run again; finished steps are kept"
    if "locked" in reason:
        return "another process holds it: wait for it, or choose another --workspace"
    if isinstance(error, OperationalError):
        return "check that it is reachable and writable"
    if url.startswith("sqlite"):
        return (
            "it is no ledger that this trademl can read; restore it from a copy, or choose another "
            "--workspace"
        )
    return "it does not take what trademl wrote: see trademl ledger status"


def _free_bytes(url: str) -> int:
    return shutil.disk_usage(Path(shown(url)).parent).free
