"""Ray Serve, one replica behind one HTTP proxy."""

from __future__ import annotations

import sys

from serving import free_port, run, stop
from worker import serve


def start(weights: str, core: int) -> int:
    """Start the server and return its port."""
    port = free_port()
    environment = {
        "WEIGHTS": weights,
        "PORT": str(port),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DEDUP_LOGS": "0",
    }
    run([sys.executable, "ray_app.py"], port, core, environment)
    return port


if __name__ == "__main__":
    serve(start, stop)
