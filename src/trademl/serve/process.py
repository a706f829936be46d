"""A process that is known by more than its number, which the system gives again to others.

Linux says when a process began, in ticks since the machine's start; with the number of that start
the three name one process for good, so that a stale file never leads to another's end.
"""

from __future__ import annotations

import os
import select
import signal
from dataclasses import dataclass
from pathlib import Path

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_STATE, _STARTED = 0, 19  # fields of /proc/<pid>/stat after the name in parentheses


@dataclass(frozen=True)
class ProcessIdentity:
    """Number of a process, its start in ticks, and the start of the machine that counts them."""

    pid: int
    started: int
    boot: str

    @property
    def is_running(self) -> bool:
        """Whether this very process is there and has not ended."""
        return identify(self.pid) == self


def identify(pid: int) -> ProcessIdentity | None:
    """Return a process's identity, or None where none of the number runs."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        boot = _BOOT.read_text().strip()
    except OSError:
        return None
    if fields[_STATE] in "ZX":
        return None
    return ProcessIdentity(pid, int(fields[_STARTED]), boot)


def end_process(process: ProcessIdentity, *, patience_s: float) -> bool:
    """Ask a process to end, and make it after a while; return whether it ended when asked.

    A process of the same number that is another one is never touched: the descriptor that is
    signalled is taken before the identity is looked at.
    """
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return True
    try:
        if not process.is_running:
            return True
        signal.pidfd_send_signal(descriptor, signal.SIGTERM)
        if _has_ended(descriptor, patience_s):
            return True
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        _has_ended(descriptor, patience_s)
        return False
    except ProcessLookupError:
        return True
    finally:
        os.close(descriptor)


def _has_ended(descriptor: int, within_s: float) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(within_s * 1000))
