"""FastAPI with pydantic on uvicorn, as its users write it: a plain and an async function."""

from __future__ import annotations

import sys

from serving import free_port, run, stop
from worker import serve


def start(weights: str, core: int) -> int:
    """Start the server and return its port."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "fastapi_app:app", "--port", str(port)]
    run([*command, "--no-access-log", "--log-level", "error"], port, core, {"WEIGHTS": weights})
    return port


if __name__ == "__main__":
    serve(start, stop)
