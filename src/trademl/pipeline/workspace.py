"""A workspace: the folder of one user's ticks, ledger, artifacts and reports."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from trademl.errors import LockedError
from trademl.ingest.tick_store import TickStore
from trademl.ledger import Database, Ledger
from trademl.store.artifacts import ArtifactStore, storage_errors


def spool_folder(root: Path) -> Path:
    """Return the folder of a workspace in which results wait for a database that is away."""
    return root / "spool"


class Workspace:
    """Opened stores below one folder; use it as a context manager.

    Parameters
    ----------
    root : Path
        Made where it does not exist.
    ledger : Database, optional
        The ledger's database where it is no file in the workspace.

    Raises
    ------
    StoreError
        If the folder is not writable or a database is not readable.
    AwayError
        If the ledger's server cannot be reached now.
    SchemaError
        If another version of trademl made a database.
    """

    def __init__(self, root: Path, ledger: Database | None = None) -> None:
        self.root = root.resolve()
        with storage_errors(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
        self.store = ArtifactStore(self.root / "artifacts")
        database = (ledger or Database()).at(self.root)
        self.ledger = Ledger(database, spool=spool_folder(self.root))
        self.ticks = TickStore(f"sqlite:///{self.root / 'ticks.db'}")

    def __enter__(self) -> Workspace:
        return self

    def __exit__(self, *_: object) -> None:
        self.ledger.close()
        self.ticks.close()

    @contextmanager
    def lock(self, name: str = "run") -> Iterator[None]:
        """Hold the workspace, so that no two runs write at once; free again when the process ends.

        Parameters
        ----------
        name : str
            What only one process at a time may do here; other names do not wait for it.

        Raises
        ------
        LockedError
            If another process holds it.
        """
        lock = FileLock(self.root / f"{name}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise LockedError(
                f"{self.root} is in use by another run: wait for it to end, or choose another "
                "--workspace"
            ) from error
        try:
            yield
        finally:
            lock.release()
