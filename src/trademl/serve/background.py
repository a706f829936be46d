"""``trademl serve`` in the background of this machine: started, asked how it is, stopped.

A file in the workspace says which process it is; see `trademl.serve.process` for why it cannot
name another one.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from trademl.errors import ServeError
from trademl.serve.process import ProcessIdentity, end_process, identify
from trademl.store.artifacts import storage_errors, write_atomically

STATE_FILE, LOG_FILE = "service.json", "service.log"
START_S = 60.0
WORKER_S = 5.0  # more for each further process
DRAIN_S = 35.0  # a server takes up to 30 s to finish what it has begun
_URL = re.compile(r" at (https?://\S+)$", re.MULTILINE)
_LOOK_S = 0.05


@dataclass(frozen=True)
class Service:
    """A server in the background.

    Parameters
    ----------
    process : ProcessIdentity
    url : str
        Empty until it listens.
    what : str
        What it serves, in words.
    log : str
        File of everything that it says.
    """

    process: ProcessIdentity
    url: str
    what: str
    log: str

    @property
    def is_running(self) -> bool:
        """Whether its process is there."""
        return self.process.is_running


def start_service(
    command: Sequence[str],
    folder: Path,
    what: str,
    check: Callable[[str], None],
    *,
    within_s: float = START_S,
) -> Service:
    """Start a server in the background and return it once it answers as it should.

    Parameters
    ----------
    command : sequence of str
        Says ``... at <url>`` on a line of its own once it listens.
    folder : Path
        Takes ``service.json`` and ``service.log``.
    check : callable
        Given the URL, raises `ServeError` where the server is not healthy or predicts otherwise.

    Raises
    ------
    ServeError
        If one runs already, or this one does not come up within ``within_s`` or fails the check;
        it is ended then.
    """
    refuse_second(folder)
    with storage_errors(folder):
        log = folder / LOG_FILE
        with log.open("wb") as file:
            started = subprocess.Popen(  # noqa: S603  # our own command line
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        process = identify(started.pid)
        if process is None:
            raise ServeError(f"the server ended at once: {_last_words(log)}")
        service = Service(process, "", what, str(log))
        _write(service, folder)
        try:
            service = Service(process, _url_of(service, started, within_s), what, str(log))
            _write(service, folder)
            check(service.url)
        except BaseException:
            end_process(process, patience_s=DRAIN_S)
            (folder / STATE_FILE).unlink(missing_ok=True)
            raise
    return service


def refuse_second(folder: Path) -> None:
    """Refuse to start a server where one runs.

    Raises
    ------
    ServeError
        The message says which.
    """
    if (standing := find_service(folder)) is not None and standing.is_running:
        raise ServeError(
            f"{standing.what} runs already at {standing.url or 'its port'} (process "
            f"{standing.process.pid}): trademl deploy local --stop"
        )


def find_service(folder: Path) -> Service | None:
    """Return the server that a workspace has started last, running or not, or None.

    Raises
    ------
    ServeError
        If its file is damaged.
    """
    path = folder / STATE_FILE
    try:
        found = json.loads(path.read_bytes())
        process = ProcessIdentity(**found.pop("process"))
        return Service(process, **found)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ServeError(
            f"{path} is damaged ({error}): look for the server with ps, then delete the file"
        ) from error


def stop_service(folder: Path, *, patience_s: float = DRAIN_S) -> Service:
    """End the server of a workspace, which finishes what it has begun, and return what it was.

    Its file stays, as that of one that ended by itself does: another server may have been started
    as soon as this one was gone, and the file be of that one.

    Raises
    ------
    ServeError
        If none runs.
    """
    service = find_service(folder)
    if service is None or not service.is_running:
        raise ServeError("no server runs in the background: trademl deploy local --start")
    end_process(service.process, patience_s=patience_s)
    return service


def _url_of(service: Service, started: subprocess.Popen[bytes], within_s: float) -> str:
    """Return the address that the server says it listens on."""
    log = Path(service.log)
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        if found := _URL.search(log.read_text(errors="replace")):
            return found[1]
        if started.poll() is not None:
            raise ServeError(f"the server ended with code {started.returncode}: {_last_words(log)}")
        time.sleep(_LOOK_S)
    raise ServeError(f"the server did not listen within {within_s:.0f} s: {_last_words(log)}")


def _last_words(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return f"{lines[-1][:300] if lines else 'it said nothing'} ({log})"


def _write(service: Service, folder: Path) -> None:
    write_atomically(folder / STATE_FILE, json.dumps(asdict(service), indent=1).encode())
