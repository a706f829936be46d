"""Every exception that trademl raises on purpose.

TrademlError
├── ConfigError      a setting is unknown, missing or out of range
│   └── MissingExtraError  a library that an extra brings is not installed
├── DataError        a file or a recording cannot be used as it is
│   └── CodecError   a binary file is damaged: the message names record and byte offset
├── StoreError       an artifact or a database cannot be read or written
│   ├── AwayError    a database cannot be reached now; the same may succeed in a minute
│   ├── ClashError   a row stands in a database already, or refers to none
│   ├── SchemaError  the database was written by another version of trademl
│   ├── LockedError  another run holds the workspace
│   ├── LedgerAwayError  a server that runs cannot reach its ledger
│   └── RegistryError  a model cannot be promoted or taken back
├── TrainError       a training job cannot start or did not converge to a finite model
├── ServeError       a server or endpoint cannot be started, reached or understood
│   └── RefusedError  a server answered with an error of its own
├── BrokerError      a broker could not be reached, or gave no clear answer
│   └── OrderRejectedError  a broker refused an order for good
├── LeaseError       a region may not trade: its lease ended, or another has it
├── CloudError       AWS refused a call, could not be reached, or a job there failed
└── ParityError      two engines that must agree do not: a defect, never the user's fault

A message is one line: which item, what was found, what was expected, what to do.
"""

from __future__ import annotations

from importlib.util import find_spec


class TrademlError(Exception):
    """Root of every error that the command line prints as one line, with exit code 1."""


class ConfigError(TrademlError):
    """A setting is unknown, missing or out of range."""


class MissingExtraError(ConfigError):
    """A library that an extra brings is not installed."""


class DataError(TrademlError):
    """A file or a recording cannot be used as it is."""


class CodecError(DataError):
    """A binary file is damaged; the message names the record and the byte offset."""


class StoreError(TrademlError):
    """An artifact or a database cannot be read or written."""


class AwayError(StoreError):
    """A database cannot be reached now; the same may well succeed in a minute."""


class ClashError(StoreError):
    """A row stands in a database already: another was quicker; or it refers to none that stands."""


class SchemaError(StoreError):
    """The database was written by another version of trademl."""


class LockedError(StoreError):
    """Another run holds the workspace."""


class LedgerAwayError(StoreError):
    """A server that runs cannot reach its ledger: it goes on without."""


class RegistryError(StoreError):
    """A model cannot be promoted or taken back."""


class TrainError(TrademlError):
    """A training job cannot start, or did not end in a finite model."""


class ServeError(TrademlError):
    """A server or an endpoint cannot be started, reached or understood."""


class RefusedError(ServeError):
    """A server answered with an error of its own, whose HTTP status is ``status``."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class BrokerError(TrademlError):
    """A broker could not be reached, or gave no clear answer: whether it acted is unknown."""


class OrderRejectedError(BrokerError):
    """A broker refused an order for good: it will never fill."""


class LeaseError(TrademlError):
    """A region may not trade: its lease ended, or another region has it."""


class CloudError(TrademlError):
    """AWS refused a call, could not be reached, or a job there failed."""


class ParityError(TrademlError):
    """Two engines that must agree do not: a defect of trademl."""


EXTRAS = {
    "train": ("torch", "optuna"),
    "serve": ("orjson", "httptools", "uvloop"),
    "backtest": ("backtrader", "empyrical"),
    "calendars": ("exchange_calendars",),
    "monitor": ("matplotlib", "jinja2"),
    "aws": ("boto3",),
    "sagemaker": ("sagemaker",),
    "servers": ("psycopg", "pymysql"),
}


def require_extra(*names: str) -> None:
    """Return if every library of the named extras is installed; import none of them.

    Raises
    ------
    MissingExtraError
        The message names the libraries and the command that installs them.
    """
    for name in names:
        if missing := [library for library in EXTRAS[name] if find_spec(library) is None]:
            raise MissingExtraError(
                f"{', '.join(missing)} is not installed: pip install 'trademl[{name}]'"
            )
