"""The program that torchrun starts, once for each process: ``worker.py --job job.json``.

On SageMaker it is the entry point of a training job, without arguments of its own: see
`trademl.train.parallel.sagemaker_job`.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from trademl.errors import TrademlError
from trademl.store.artifacts import write_atomically
from trademl.train.parallel.guard import die_with_parent
from trademl.train.parallel.run_files import FAILURE

CONTAINER_FAILURE = Path("/opt/ml/output/failure")


def main(arguments: Sequence[str]) -> int:
    """Run one process of a job; return the exit code."""
    parser = argparse.ArgumentParser(description="One process of a training job.")
    parser.add_argument("--job", type=Path, help="the job's file")
    parser.add_argument("--parent", type=int, help="end when this process is gone")
    found, _ = parser.parse_known_args(arguments)  # SageMaker adds hyperparameters
    if found.parent:
        die_with_parent(found.parent)
    from trademl.train.parallel.job import read_job
    from trademl.train.parallel.run_job import run_job
    from trademl.train.parallel.sagemaker_job import finish, job_of_container
    from trademl.train.parallel.world import joined

    path: Path | None = found.job
    try:
        with joined() as world:
            job = read_job(path) if path else job_of_container(world=world.size)
            run_job(job, world)
            if path is None and world.is_first:
                finish(job)
    except TrademlError as error:
        message = " ".join(str(error).split())
        write_atomically(path.with_name(FAILURE) if path else CONTAINER_FAILURE, message.encode())
        sys.stderr.write(f"trademl: {message}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.stdout.flush()
    code = main(sys.argv[1:])
    sys.stderr.flush()
    os._exit(code)  # threads of gloo and NCCL may wait for processes that are gone
