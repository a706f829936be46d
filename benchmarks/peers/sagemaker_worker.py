"""RecordIO as the SageMaker Python SDK, version 2, writes and reads it."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

import numpy as np
from worker import serve

os.environ["SAGEMAKER_SUPPRESS_V2_WARNING"] = "1"
logging.disable(logging.INFO)


def write(arrays: str, path: str) -> float:
    """Return the seconds to write the features and labels of an ``.npz`` file as RecordIO."""
    from sagemaker.serializer_utils import write_numpy_to_dense_tensor

    held = np.load(arrays)
    features_ND, label_N = held["features"], held["label"]
    start = time.perf_counter()
    with Path(path).open("wb") as file:
        write_numpy_to_dense_tensor(file, features_ND, label_N)
    return time.perf_counter() - start


def read(path: str) -> float:
    """Return the seconds to read a RecordIO file into two arrays."""
    from sagemaker.amazon.record_pb2 import Record
    from sagemaker.serializer_utils import read_recordio

    start = time.perf_counter()
    features, labels = [], []
    with Path(path).open("rb") as file:
        for payload in read_recordio(file):
            record = Record.FromString(payload)
            features.append(np.array(record.features["values"].float32_tensor.values, np.float32))
            labels.append(record.label["values"].float32_tensor.values[0])
    features_ND, label_N = np.stack(features), np.array(labels, np.float32)
    seconds = time.perf_counter() - start
    if features_ND.ndim != 2 or len(features_ND) != len(label_N):
        raise ValueError(f"{features_ND.shape} features and {label_N.shape} labels")
    return seconds


if __name__ == "__main__":
    serve(write, read)
