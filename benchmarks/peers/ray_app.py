"""The numpy model as a Ray Serve deployment."""

import os
import signal

import numpy as np
import ray
from ray import serve
from starlette.requests import Request


@serve.deployment(num_replicas=1, max_ongoing_requests=64, ray_actor_options={"num_cpus": 0.5})
class Linear:
    def __init__(self, weights: str) -> None:
        self._weights_D = np.load(weights)

    async def __call__(self, request: Request) -> dict:
        question = await request.json()
        rows = [instance["features"] for instance in question["instances"]]
        score_N = 1 / (1 + np.exp(-(np.array(rows, np.float32) @ self._weights_D)))
        return {
            "predictions": [
                {"score": score, "predicted_label": float(score >= 0.5)}
                for score in score_N.tolist()
            ]
        }


ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
serve.start(http_options={"host": "127.0.0.1", "port": int(os.environ["PORT"])})
serve.run(Linear.bind(os.environ["WEIGHTS"]), route_prefix="/")
signal.sigwait({signal.SIGTERM, signal.SIGINT})
serve.shutdown()
ray.shutdown()
