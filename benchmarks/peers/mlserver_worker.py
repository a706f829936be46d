"""MLServer with a custom runtime, computing in the process that listens: its quickest way."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from serving import HERE, free_port, run, stop
from worker import serve

_FOLDER = tempfile.TemporaryDirectory()


def start(weights: str, core: int) -> int:
    """Start the server and return its port."""
    folder, port = Path(_FOLDER.name), free_port()
    settings = {
        "host": "127.0.0.1",
        "http_port": port,
        "grpc_port": free_port(),
        "metrics_port": free_port(),
        "parallel_workers": 0,
        "debug": False,
    }
    model = {"name": "linear", "implementation": "mlserver_app.Linear"}
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "model-settings.json").write_text(json.dumps(model))
    command = [sys.executable, "-m", "mlserver.cli.main", "start", str(folder)]
    script = Path(sys.executable).parent / "mlserver"
    if script.exists():
        command = [str(script), "start", str(folder)]
    run(command, port, core, {"WEIGHTS": weights, "PYTHONPATH": str(HERE)})
    return port


if __name__ == "__main__":
    serve(start, stop)
