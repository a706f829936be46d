"""Start the processes of a job on this machine, follow them, and leave none behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from trademl.errors import TrainError
from trademl.ports import Progress, Silent
from trademl.train.parallel.devices import check_devices, n_cores
from trademl.train.parallel.job import NetworkJob, write_job
from trademl.train.parallel.run_files import FAILURE, LOG
from trademl.train.parallel.run_job import read_history, run_job

_LOOK_EVERY_S = 0.2
_GRACE_S = 10.0


def launch(
    job: NetworkJob, *, environment: Mapping[str, str], progress: Progress | None = None
) -> None:
    """Run a job to its end: in this process where it needs one, else under torchrun.

    Parameters
    ----------
    environment : mapping
        Of the processes; the job's own variables are added.

    Raises
    ------
    ConfigError
        If the processes, the batch and the network do not fit together; before any is started.
    TrainError
        If a process failed; the message is the first one's own.
    """
    progress = progress or Silent()
    dims = job.dims()
    check_devices(job.processes_per_host)
    job.folder.mkdir(parents=True, exist_ok=True)
    if dims.world == 1:
        run_job(job, report=lambda p: progress.advance(p.epoch, job.training.epochs))
        return
    (job.folder / FAILURE).unlink(missing_ok=True)
    with (job.folder / LOG).open("ab") as log:
        agent = subprocess.Popen(  # noqa: S603
            agent_command(job, write_job(job)),
            env=worker_environment(job, environment),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            _follow(agent, job, progress)
        finally:
            _end(agent)
    if agent.returncode or (job.folder / FAILURE).exists():
        raise _failure(job, agent.returncode)


def agent_command(job: NetworkJob, path: Path) -> list[str]:
    """Return the command that runs the workers of a job."""
    return [
        sys.executable,
        "-m",
        "trademl.train.parallel.agent",
        f"--job={path.resolve()}",
        f"--parent={os.getpid()}",
        f"--nproc={job.processes_per_host}",
        f"--max-restarts={job.training.max_restarts}",
    ]


def worker_environment(job: NetworkJob, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of the workers: the cores are shared out among them."""
    threads = max(1, n_cores() // job.processes_per_host)
    return {
        "OMP_NUM_THREADS": str(threads),
        # after a restart the shared store still holds the addresses of processes that are gone
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
        **environment,
        **job.distribution.environment,
    }


def _follow(agent: subprocess.Popen[bytes], job: NetworkJob, progress: Progress) -> None:
    """Return when the agent ends, or when a process says that starting again would not help."""
    n_epochs = 0
    while not (job.folder / FAILURE).exists():
        try:
            agent.wait(_LOOK_EVERY_S)
            return
        except subprocess.TimeoutExpired:
            if len(history := read_history(job.folder)) > n_epochs:
                n_epochs = len(history)
                progress.advance(n_epochs, job.training.epochs)


def _end(agent: subprocess.Popen[bytes]) -> None:
    """Ask the agent to end its workers, then insist; they end by themselves when it is gone."""
    if agent.poll() is not None:
        return
    agent.send_signal(signal.SIGTERM)
    try:
        agent.wait(_GRACE_S)
    except subprocess.TimeoutExpired:
        agent.kill()
        agent.wait()


def _failure(job: NetworkJob, code: int) -> TrainError:
    try:
        reason = (job.folder / FAILURE).read_text(encoding="utf-8")
    except OSError:
        reason = f"torchrun ended with exit code {code}"
    return TrainError(f"{reason} (log: {job.folder / LOG})")
