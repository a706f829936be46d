"""How the server listens, and the limits that it holds every client to."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path

from trademl.errors import ConfigError
from trademl.serve.board import WorkerPlace
from trademl.serve.capture import CaptureConfig

MIB = 2**20
MAX_BODY_MIB = 25
LONGEST_TIMEOUT_S = 3600.0
EMF_S = 60.0  # CloudWatch keeps one value a minute
LOOPBACK = "127.0.0.1"
EVERYWHERE = "0.0.0.0"  # noqa: S104  # of a container, which only its platform reaches


@dataclass(frozen=True)
class ServerConfig:
    """Address, size limits, time limits and shared hardware of one server.

    Parameters
    ----------
    host : str
        Address to listen on; the loopback interface unless told otherwise.
    port : int
        0 takes a free port.
    max_body_bytes : int
        Largest request body, at most 25 MiB. The default is what SageMaker's clients may send.
    max_head_bytes : int
        Largest request line with headers.
    max_connections : int
        Connections beyond it are answered 503 and closed.
    idle_timeout_s : float
        How long a connection may stay open without a request.
    read_timeout_s : float
        From the first byte of a request to its last; at most an hour.
    linger_s : float
        How long a refused client may go on sending, so that it gets to read the refusal.
    drain_s : float
        How long a stopping server waits for requests in flight; SageMaker kills it after 30 s.
    threads : int
        How many batches of big models one worker computes at once on its processor cores;
        0 takes one for each core, shared evenly by the workers.
    memory_bytes : int
        Most memory for models of one worker; the least recently used ones are let go of.
    token_file : Path, optional
        Tokens of those who may ask; see `trademl.serve.access`.
    is_open : bool
        Answer anyone, although the address is not the loopback interface and there are no tokens.
    tls_cert, tls_key : Path, optional
        PEM files; the server then speaks HTTPS.
    follow_s : float
        How often the server looks whether another model should answer.
    model_folder : Path, optional
        Models may be loaded over HTTP from below it, and from nowhere else.
    worker : WorkerPlace, optional
        Set where this process is one of several; host and port are then those of all.
    log_per_s : float, optional
        Successes a second that are logged, see `trademl.serve.request_log`; None logs no requests.
    emf_s : float, optional
        How often figures are logged for CloudWatch; None never.
    capture : CaptureConfig, optional
        Which requests are kept with their answers, and where.
    """

    host: str = LOOPBACK
    port: int = 8080
    max_body_bytes: int = 6 * MIB
    max_head_bytes: int = 16 * 1024
    max_connections: int = 1024
    idle_timeout_s: float = 75.0
    read_timeout_s: float = 60.0
    linger_s: float = 2.0
    drain_s: float = 27.0
    threads: int = 0
    memory_bytes: int = 1024 * MIB
    token_file: Path | None = None
    is_open: bool = False
    tls_cert: Path | None = None
    tls_key: Path | None = None
    follow_s: float = 1.0
    model_folder: Path | None = None
    worker: WorkerPlace | None = None
    log_per_s: float | None = None
    emf_s: float | None = None
    capture: CaptureConfig | None = None

    def __post_init__(self) -> None:
        """Refuse settings that no server can hold."""
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"port {self.port} is out of range: expected 0 to 65535")
        if not 0 < self.max_body_bytes <= MAX_BODY_MIB * MIB:
            raise ConfigError(
                f"max_body_bytes (--max-body-mib) is {self.max_body_bytes / MIB:g} MiB: expected "
                f"above 0, up to {MAX_BODY_MIB} MiB"
            )
        if not 0 < self.read_timeout_s <= LONGEST_TIMEOUT_S:
            raise ConfigError(
                f"read_timeout_s (--timeout-s) is {self.read_timeout_s:g}: expected above 0, up to "
                f"{LONGEST_TIMEOUT_S:g}"
            )
        for name in ("max_head_bytes", "max_connections", "idle_timeout_s"):
            self._check(name, getattr(self, name) > 0, "more than 0")
        self._check("follow_s", self.follow_s > 0, "more than 0")
        for name in ("linger_s", "drain_s", "threads"):
            self._check(name, getattr(self, name) >= 0, "0 or more")
        for name, least in (("log_per_s", 0.0), ("emf_s", 0.1)):
            value = getattr(self, name)
            self._check(name, value is None or value >= least, f"{least:g} or more")
        self._check("memory_bytes", self.memory_bytes > 0, "more than 0")
        self._check_together()

    def _check(self, name: str, is_possible: bool, expected: str) -> None:
        if not is_possible:
            raise ConfigError(f"{name} is {getattr(self, name)}: expected {expected}")

    def _check_together(self) -> None:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ConfigError("tls_cert and tls_key go together: give both files, or none")
        if not self.is_open and self.token_file is None and not is_loopback(self.host):
            raise ConfigError(
                f"host is {self.host}, which others can reach: give a token file, or say that "
                "anyone may ask (--open)"
            )

    @property
    def slots(self) -> int:
        """Batches computed at once on the processor."""
        n_workers = 1 if self.worker is None else self.worker.count
        return self.threads or max(1, len(os.sched_getaffinity(0)) // n_workers)


def is_loopback(host: str) -> bool:
    """Return whether only programs of this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
