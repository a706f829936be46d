"""torchrun for a job on this machine: ``agent.py --job job.json --parent PID --nproc N``.

It starts the workers, starts them again when one is lost, and ends with whoever started it.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from trademl.store.artifacts import write_atomically
from trademl.train.parallel.guard import die_with_parent
from trademl.train.parallel.run_files import FAILURE


def main(arguments: Sequence[str]) -> int:
    """Run the workers to their end; return the exit code."""
    parser = argparse.ArgumentParser(description="The processes of a training job.")
    parser.add_argument("--job", type=Path, required=True)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--nproc", type=int, required=True)
    parser.add_argument("--max-restarts", type=int, default=0)
    found = parser.parse_args(arguments)
    die_with_parent(found.parent)
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    try:
        torchrun(torchrun_arguments(found.job, found.nproc, found.max_restarts, os.getpid()))
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        path = found.job.parent / FAILURE
        if not path.exists():
            write_atomically(path, _describe(rank, failure.exitcode).encode())
        return 1
    return 0


def torchrun_arguments(job: Path, n_processes: int, max_restarts: int, agent: int) -> list[str]:
    """Return what torchrun is told: one machine, a free port, and how often to begin again."""
    return [
        "--standalone",
        "--nnodes=1",
        f"--nproc-per-node={n_processes}",
        f"--max-restarts={max_restarts}",
        "--monitor-interval=0.2",
        str(Path(__file__).with_name("worker.py")),
        f"--job={job}",
        f"--parent={agent}",
    ]


def _describe(rank: int, code: int) -> str:
    how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    return f"process {rank} {how}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
