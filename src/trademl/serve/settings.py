"""How the server listens, and the limits that it holds every client to."""

from __future__ import annotations

from dataclasses import dataclass

from trademl.errors import ConfigError

MIB = 2**20
MAX_BODY_MIB = 25


@dataclass(frozen=True)
class ServerConfig:
    """Address, size limits and time limits of one server.

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
        From the first byte of a request to its last.
    linger_s : float
        How long a refused client may go on sending, so that it gets to read the refusal.
    drain_s : float
        How long a stopping server waits for requests in flight; SageMaker kills it after 30 s.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    max_body_bytes: int = 6 * MIB
    max_head_bytes: int = 16 * 1024
    max_connections: int = 1024
    idle_timeout_s: float = 75.0
    read_timeout_s: float = 60.0
    linger_s: float = 2.0
    drain_s: float = 30.0

    def __post_init__(self) -> None:
        """Refuse settings that no server can hold."""
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"port {self.port} is out of range: expected 0 to 65535")
        if not 0 < self.max_body_bytes <= MAX_BODY_MIB * MIB:
            raise ConfigError(
                f"max_body_bytes is {self.max_body_bytes}: expected 1 to {MAX_BODY_MIB * MIB}"
            )
        for name in ("max_head_bytes", "max_connections", "idle_timeout_s", "read_timeout_s"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}: expected more than 0")
        for name in ("linger_s", "drain_s"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}: expected 0 or more")
