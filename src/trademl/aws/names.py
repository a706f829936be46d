"""Names of jobs: made from the study's id, so that the same job is never started twice."""

from __future__ import annotations

import re

from trademl.errors import ConfigError

TRAINING_LIMIT = 63
TUNING_LIMIT = 32  # children are called <name>-NNN-<8 hex>
_NAME = r"[a-zA-Z0-9](-*[a-zA-Z0-9])*"


def job_name(study_id: str) -> str:
    """Return the name of a study's job.

    Examples
    --------
    >>> job_name("study-0123456789ab")
    'trademl-0123456789ab'
    """
    return f"trademl-{study_id.rpartition('-')[2]}"


def attempt_name(name: str, attempt: int, limit: int) -> str:
    """Return the name of an attempt: AWS never gives a name twice, not even after a failure.

    Examples
    --------
    >>> attempt_name("trademl-0123456789ab", 2, limit=32)
    'trademl-0123456789ab-r2'
    """
    ending = f"-r{attempt}" if attempt > 1 else ""
    return name[: limit - len(ending)] + ending


def check_name(name: str, limit: int) -> str:
    """Return the name of a job if SageMaker will take it.

    Raises
    ------
    ConfigError
        If it is too long, or holds what a name may not hold.
    """
    if len(name) > limit:
        raise ConfigError(f"job name {name!r} has {len(name)} characters, expected up to {limit}")
    if not re.fullmatch(_NAME, name):
        raise ConfigError(
            f"job name {name!r}: expected letters, digits and hyphens between them only"
        )
    return name
