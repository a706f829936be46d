"""Names of the files that a run keeps in its folder while it goes on."""

from __future__ import annotations

JOB = "job.json"  # what its processes are to do
HISTORY = "history.json"  # losses of all epochs so far; stays
MEASURED = "measured.json"  # what a measured step took
FAILURE = "failure.txt"  # why it failed, in one line
LOG = "log.txt"  # what torchrun and its processes wrote
CHECKPOINTS, SPOOL = "checkpoints", "spool"  # folders
MODEL = "model.tar.gz"
