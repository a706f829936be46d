"""The numpy model as a BentoML service."""

import os

import bentoml
import numpy as np
from pydantic import BaseModel


class Instance(BaseModel):
    features: list[float]


@bentoml.service(workers=1)
class Linear:
    def __init__(self) -> None:
        self._weights_D = np.load(os.environ["WEIGHTS"])

    @bentoml.api
    async def predict(self, instances: list[Instance]) -> list[float]:
        rows_ND = np.array([instance.features for instance in instances], np.float32)
        return (1 / (1 + np.exp(-(rows_ND @ self._weights_D)))).tolist()
