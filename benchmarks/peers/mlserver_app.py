"""The numpy model as an MLServer runtime."""

import os

import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Linear(MLModel):
    async def load(self) -> bool:
        self._weights_D = np.load(os.environ["WEIGHTS"])
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        rows_ND = NumpyCodec.decode_input(payload.inputs[0])
        score_N = 1 / (1 + np.exp(-(rows_ND @ self._weights_D)))
        output = NumpyCodec.encode_output("score", score_N)
        return InferenceResponse(model_name=self.name, outputs=[output])
