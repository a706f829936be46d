"""What an artifact's id is made of: its inputs, its parameters and the code that made it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from trademl._version import __version__

_PACKAGE = Path(__file__).resolve().parent.parent
# What only shows results cannot change them, and studies of AWS have ids of their own.
_NOT_IN_RESULTS = {"cli", "monitor", "aws"}


def digest_bytes(content: bytes) -> str:
    """Return the SHA-256 of ``content`` in hex."""
    return hashlib.sha256(content).hexdigest()


def digest_file(path: Path) -> str:
    """Return the SHA-256 of a file in hex, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@cache
def code_version() -> str:
    """Return the version and a digest of the source that can change a result.

    Two installations of one release agree; an edited checkout differs, so that a result of
    older code is never taken for one of the code at hand.
    """
    digest = hashlib.sha256()
    for path in sorted(_PACKAGE.rglob("*.py")):
        relative = path.relative_to(_PACKAGE)
        if relative.parts[0] not in _NOT_IN_RESULTS:
            digest.update(f"{relative.as_posix()}\0".encode() + path.read_bytes() + b"\0")
    return f"{__version__}+{digest.hexdigest()[:8]}"


def artifact_id(
    kind: str,
    inputs: Mapping[str, str],
    parameters: Mapping[str, Any],
    *,
    code: str | None = None,
) -> str:
    """Return ``kind-<12 hex>``, the same for the same inputs, parameters and code.

    Parameters
    ----------
    kind : str
        A word such as ``dataset``.
    inputs : mapping of str to str
        Name of each input and its id or content digest; never a path.
    parameters : mapping
        Values that JSON can hold.
    code : str, optional
        What stands for the code that makes it; `code_version` by default.
    """
    code = code or code_version()
    identity = {"kind": kind, "inputs": inputs, "parameters": parameters, "code": code}
    canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"))
    return f"{kind}-{digest_bytes(canonical.encode())[:12]}"
