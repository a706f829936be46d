"""BentoML, one worker, an async API: the quicker of its two kinds."""

from __future__ import annotations

import sys
from pathlib import Path

from serving import free_port, run, stop
from worker import serve


def start(weights: str, core: int) -> int:
    """Start the server and return its port."""
    port = free_port()
    script = str(Path(sys.executable).parent / "bentoml")
    command = [script, "serve", "bentoml_app:Linear", "--host", "127.0.0.1", "--port", str(port)]
    environment = {"WEIGHTS": weights, "BENTOML_DO_NOT_TRACK": "True"}
    run(command, port, core, environment)
    return port


if __name__ == "__main__":
    serve(start, stop)
