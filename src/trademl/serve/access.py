"""Who may ask what: bearer tokens with a role, compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trademl.errors import ConfigError
from trademl.serve.messages import Answer, failure

Role = Literal["predict", "admin"]
SHORTEST = 16
_ASK = b"WWW-Authenticate: Bearer\r\n"
_OPEN_PATHS = frozenset(("/ping",))  # says nothing but that the server lives
_LINE = re.compile(r"(predict|admin)[ \t]+([!-~]+)")


@dataclass(frozen=True)
class Token:
    """A secret and what its bearer may do; only its digest is kept."""

    role: Role
    digest: bytes


class Access:
    """Decides from the head of a request, before its body is read.

    ``predict`` may ask for predictions and read; ``admin`` may also load and unload models.
    """

    def __init__(self, tokens: Sequence[Token] = ()) -> None:
        self._tokens = tuple(tokens)

    def refusal(self, method: str, path: str, headers: Mapping[bytes, bytes]) -> Answer | None:
        """Return the answer to a request that is not allowed, None to one that is."""
        is_change = path.startswith("/models") and (
            method == "DELETE" or (method == "POST" and path == "/models")
        )
        if is_change and b"origin" in headers:
            return failure(403, "no web page may change what this server holds")
        if not self._tokens or path in _OPEN_PATHS:
            return None
        role = self._role(headers.get(b"authorization", b""))
        if role is None:
            return failure(401, "a token is needed: send Authorization: Bearer TOKEN", head=_ASK)
        if is_change and role != "admin":
            return failure(403, f"{method} {path} needs a token of the role admin")
        return None

    def _role(self, header: bytes) -> Role | None:
        scheme, _, secret = header.partition(b" ")
        digest = hashlib.sha256(secret.strip()).digest()
        found: Role | None = None
        for token in self._tokens:  # all of them, so that time does not tell which was close
            if hmac.compare_digest(token.digest, digest):
                found = token.role
        return found if scheme.lower() == b"bearer" else None


def read_tokens(path: Path) -> tuple[Token, ...]:
    """Return the tokens of a file: one a line, ``predict SECRET`` or ``admin SECRET``.

    Raises
    ------
    ConfigError
        If the file cannot be read, others may read it, or a line is something else; the message
        never quotes a secret.
    """
    try:
        if path.stat().st_mode & 0o077:
            raise ConfigError(f"{path} can be read by other users: run chmod 600 {path}")
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: the token file cannot be read: {error}") from error
    tokens = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None or len(match[2]) < SHORTEST:
            raise ConfigError(
                f"{path}, line {number}: expected a role (predict or admin), a space and a token "
                f"of at least {SHORTEST} characters"
            )
        role: Role = "admin" if match[1] == "admin" else "predict"
        tokens.append(Token(role, hashlib.sha256(match[2].encode()).digest()))
    if not tokens:
        raise ConfigError(f"{path} holds no token: write a line such as: predict TOKEN")
    return tuple(tokens)
