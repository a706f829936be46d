"""Whole files scored: trademl against its own readers alone, and against pandas with numpy.

Shape letters: N rows, D features.
"""

from __future__ import annotations

import resource
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness import Benchmark, Measurement, Seconds, alternate, main, ratio, timed
from trademl.etl.row_blocks import feature_blocks
from trademl.etl.tables import read_table, table_writer
from trademl.serve.batch import predict_files
from trademl.train.model import LinearModel, sigmoid

N_FEATURES = 605
BENCHMARK = Benchmark(
    name="predict_batch",
    goals={
        "batch_vs_reader": {"min": 0.7},
        "batch_csv_vs_reader": {"min": 0.7},
        "batch_parquet_vs_reader": {"min": 0.7},
    },
    libraries=("numpy", "pyarrow", "pandas"),
    does_not_show=(
        "The reader is read_table, which returns the whole file as an array; batch_vs_blocks is "
        "against the same file read in blocks that nobody keeps, and has no goal.",
        "Files live in the page cache: nothing waits for the disk.",
        "The model is linear; a network takes far longer than the reader.",
        "batch_csv_vs_pandas has no goal: read_csv of pandas rounds some decimals to a neighbour, "
        "names no line, and holds the whole file; it scores with one matrix product.",
    ),
)


def measure(quick: bool) -> Measurement:
    n, rounds = (4_000, 3) if quick else (40_000, 3)
    model = make_model()
    features_ND = np.random.default_rng(7).standard_normal((n, N_FEATURES), np.float32)
    seconds: dict[str, Seconds] = {}
    checks: dict[str, bool] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for kind in ("recordio", "csv", "parquet"):
            path = folder / f"rows.{kind}"
            with table_writer(path, model.columns, with_label=False) as writer:
                writer.write(features_ND, None)
            found = alternate(sides(path, kind, model, folder), rounds)
            seconds |= {f"{kind}_{side}": value for side, value in found.items()}
            checks[f"{kind}_scores_are_the_models"] = scores_agree(path, model, folder, features_ND)
    return Measurement(ratios_of(seconds), seconds, checks, [peak_note()])


def sides(
    path: Path, kind: str, model: LinearModel, folder: Path
) -> dict[str, Callable[[], Seconds]]:
    def ours() -> Seconds:
        return timed(lambda: predict_files(model, fresh(), [path], folder / "out"))

    found: dict[str, Callable[[], Seconds]] = {
        "trademl": ours,
        "reader": lambda: timed(lambda: read_table(path, with_label=False)),
        "blocks": lambda: timed(lambda: exhaust(feature_blocks(path, model.columns))),
    }
    if kind == "csv":
        found["pandas"] = lambda: timed(lambda: with_pandas(path, model, folder / "pandas.csv"))
    return found


_RUNS = 0


def fresh() -> str:
    """Return a model id that no earlier run had, so that nothing is kept."""
    global _RUNS
    _RUNS += 1
    return f"model-{_RUNS}"


def exhaust(blocks: object) -> None:
    for _ in blocks:  # type: ignore[attr-defined]
        pass


def with_pandas(path: Path, model: LinearModel, target: Path) -> None:
    import pandas as pd

    rows_ND = pd.read_csv(path, header=None, dtype=np.float32).to_numpy()
    score_N = sigmoid((rows_ND - model.mean_D) / model.scale_D @ model.weights_D + model.bias)
    table = {"score": score_N, "predicted_label": score_N >= model.threshold}
    pd.DataFrame(table).to_csv(target, index=False)


def make_model() -> LinearModel:
    rng = np.random.default_rng(1)
    return LinearModel(
        weights_D=rng.standard_normal(N_FEATURES) / 25,
        bias=0.1,
        mean_D=rng.standard_normal(N_FEATURES) / 10,
        scale_D=np.full(N_FEATURES, 1.5),
        threshold=0.5,
        columns=tuple(f"x{i}" for i in range(N_FEATURES)),
    )


def scores_agree(
    path: Path, model: LinearModel, folder: Path, features_ND: NDArray[np.float32]
) -> bool:
    import pyarrow.json as pa_json

    predict_files(model, fresh(), [path], folder / "out")
    table = pa_json.read_json(folder / "out" / f"{path.name}.jsonl")
    found = table["score"].to_numpy().astype(np.float32)
    return bool(np.array_equal(found, model.scores(features_ND)))


def ratios_of(seconds: dict[str, Seconds]) -> dict[str, float | None]:
    def over(kind: str, side: str) -> float | None:
        return ratio(seconds[f"{kind}_{side}"], seconds[f"{kind}_trademl"])

    return {
        "batch_vs_reader": over("recordio", "reader"),
        "batch_vs_blocks": over("recordio", "blocks"),
        "batch_csv_vs_reader": over("csv", "reader"),
        "batch_parquet_vs_reader": over("parquet", "reader"),
        "batch_csv_vs_pandas": over("csv", "pandas"),
    }


def peak_note() -> str:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return f"peak of the whole benchmark, arrays of the readers included: {peak:.0f} MiB"


if __name__ == "__main__":
    sys.exit(main(BENCHMARK, measure))
