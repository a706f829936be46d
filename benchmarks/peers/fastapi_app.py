"""The numpy model behind FastAPI."""

import os

import numpy as np
from fastapi import FastAPI
from pydantic import BaseModel

WEIGHTS_D = np.load(os.environ["WEIGHTS"])
app = FastAPI()


class Instance(BaseModel):
    features: list[float]


class Question(BaseModel):
    instances: list[Instance]


class Prediction(BaseModel):
    score: float
    predicted_label: float


class Answer(BaseModel):
    predictions: list[Prediction]


def answer(question: Question) -> Answer:
    rows_ND = np.array([instance.features for instance in question.instances], np.float32)
    score_N = 1 / (1 + np.exp(-(rows_ND @ WEIGHTS_D)))
    return Answer(
        predictions=[
            Prediction(score=score, predicted_label=float(score >= 0.5))
            for score in score_N.tolist()
        ]
    )


@app.post("/invocations")
def invoke(question: Question) -> Answer:
    return answer(question)


@app.post("/async")
async def invoke_async(question: Question) -> Answer:
    return answer(question)
