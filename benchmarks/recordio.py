"""RecordIO: trademl against the SageMaker SDK, and against moving the same bytes unchanged.

Shape letters: N records, D features.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness import Benchmark, Measurement, Peer, Seconds, alternate, main, ratio, timed
from trademl.etl._frame import dense_layout
from trademl.etl.recordio import encode_records, read_recordio, write_recordio

N_FEATURES = 605
BENCHMARK = Benchmark(
    name="recordio",
    goals={
        "recordio_write_vs_sdk": {"min": 50},
        "recordio_write_vs_raw": {"min": 0.8},
        "recordio_read_vs_sdk": {"min": 45},
        "recordio_read_vs_raw": {"min": 0.7},
    },
    libraries=("numpy",),
    peers=("sagemaker",),
    does_not_show=(
        "The SDK is timed on fewer rows and scaled per row; its cost per row does not depend on N.",
        "Files live in the page cache: nothing waits for the disk. TMPDIR chooses the file system.",
        "Memory is warm: before each timed run the same bytes are written or read once, untimed.",
        "A virtual machine can need several times longer for pages that it did not use lately.",
        "Raw writing sends finished bytes in blocks of the same size.",
        "Raw reading fills fresh memory in one call, as a reader that returns arrays must.",
        "Sparse records and records of other number types take a slower path, not timed here.",
    ),
)

Arrays = tuple[NDArray[np.float32], NDArray[np.float32]]


def measure(quick: bool) -> Measurement:
    n, n_sdk, rounds = (5_000, 500, 3) if quick else (200_000, 10_000, 7)
    arrays = make_arrays(n)
    few = arrays[0][:n_sdk], arrays[1][:n_sdk]
    with tempfile.TemporaryDirectory() as name, Peer("sagemaker") as sdk:
        folder = Path(name)
        writing = time_writing(folder, arrays, few, sdk, rounds)
        reading = time_reading(folder, arrays, few, sdk, rounds)
        checks = check_bytes(folder, arrays, few, sdk)
    seconds = {f"write_{k}": v for k, v in writing.items()}
    seconds |= {f"read_{k}": v for k, v in reading.items()}
    ratios = {}
    for verb in ("write", "read"):
        ours, raw, peer = (seconds[f"{verb}_{side}"] for side in ("trademl", "raw", "sdk"))
        ratios[f"recordio_{verb}_vs_sdk"] = ratio(peer and peer * n / n_sdk, ours)
        ratios[f"recordio_{verb}_vs_raw"] = ratio(raw, ours)
    return Measurement(ratios, seconds, checks, [sdk.failure] if sdk.failure else [])


def make_arrays(n: int) -> Arrays:
    rng = np.random.default_rng(7)
    features_ND = rng.standard_normal((n, N_FEATURES), np.float32)
    return features_ND, (features_ND[:, 0] > 0).astype(np.float32)


def time_writing(
    folder: Path, arrays: Arrays, few: Arrays, sdk: Peer, rounds: int
) -> dict[str, Seconds]:
    path, few_path = folder / "written", folder / "few.npz"
    finished = memoryview(encode_records(*arrays))
    layout = dense_layout(N_FEATURES, with_label=True)
    block_bytes = layout.frames_per_block * layout.frame_bytes
    np.savez(few_path, features=few[0], label=few[1])

    def write_raw() -> None:
        with path.open("wb", buffering=0) as file:
            for start in range(0, len(finished), block_bytes):
                file.write(finished[start : start + block_bytes])

    def warm_memory() -> None:
        write_raw()
        path.unlink()

    def removing(seconds: Seconds) -> Seconds:
        path.unlink(missing_ok=True)  # so that no side pays for the file of another
        return seconds

    return alternate(
        {
            "trademl": lambda: removing(timed(lambda: write_recordio(path, *arrays))),
            "raw": lambda: removing(timed(write_raw)),
            "sdk": lambda: removing(sdk.call("write", arrays=str(few_path), path=str(path))),
        },
        rounds,
        before=warm_memory,
    )


def time_reading(
    folder: Path, arrays: Arrays, few: Arrays, sdk: Peer, rounds: int
) -> dict[str, Seconds]:
    path, few_path = folder / "all", folder / "few"
    write_recordio(path, *arrays)
    write_recordio(few_path, *few)

    def read_raw() -> None:
        with path.open("rb", buffering=0) as file:
            memory = np.empty(path.stat().st_size, np.uint8).data
            while memory:
                memory = memory[file.readinto(memory) :]

    return alternate(
        {
            "trademl": lambda: timed(lambda: read_recordio(path)),
            "raw": lambda: timed(read_raw),
            "sdk": lambda: sdk.call("read", path=str(few_path)),
        },
        rounds,
        before=read_raw,
    )


def check_bytes(folder: Path, arrays: Arrays, few: Arrays, sdk: Peer) -> dict[str, bool]:
    read = read_recordio(folder / "all")
    pairs = zip(read, arrays, strict=True)
    same = all(found is not None and np.array_equal(found, given) for found, given in pairs)
    checks = {"what_is_read_is_what_was_written": same}
    path = folder / "sdk"
    if sdk.call("write", arrays=str(folder / "few.npz"), path=str(path)) is not None:
        checks["bytes_equal_the_sdk"] = path.read_bytes() == encode_records(*few)
    return checks


if __name__ == "__main__":
    sys.exit(main(BENCHMARK, measure))
