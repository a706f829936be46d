"""Pipeline schedules: what each one needs, and the share of a step that it leaves devices idle.

Letters: P ranks of a pipeline, V stages on each rank, M microbatches of a batch.
"""

from __future__ import annotations

from typing import Literal

from trademl.errors import ConfigError

Schedule = Literal["gpipe", "1f1b", "interleaved_1f1b"]


def check_schedule(
    schedule: Schedule, *, n_ranks: int, stages_per_rank: int, microbatches: int
) -> None:
    """Refuse what torch would refuse on one rank, and hang on the others.

    Raises
    ------
    ConfigError
        If there are fewer microbatches than ``1f1b`` has stages, if the rounds of
        ``interleaved_1f1b`` do not come out even, or if the stages of a rank do not fit a schedule.
    """
    if schedule == "interleaved_1f1b":
        _check_rounds(n_ranks, microbatches)
        if stages_per_rank < 2:
            raise ConfigError(
                f"schedule interleaved_1f1b has stages_per_rank {stages_per_rank}, expected 2 or "
                "more: with one stage a rank take schedule 1f1b"
            )
    elif stages_per_rank != 1:
        raise ConfigError(
            f"schedule {schedule} has stages_per_rank {stages_per_rank}, expected 1: several "
            "stages a rank need schedule interleaved_1f1b"
        )
    if schedule == "1f1b" and microbatches < n_ranks:
        raise ConfigError(
            f"microbatches is {microbatches}, fewer than the {n_ranks} stages: schedule 1f1b "
            f"needs at least {n_ranks}; gpipe takes any number"
        )


def _check_rounds(n_ranks: int, microbatches: int) -> None:
    """Refuse microbatches that torch cannot deal out in equal rounds of about P."""
    if microbatches % max(1, microbatches // n_ranks):
        nearest = microbatches - microbatches % n_ranks
        raise ConfigError(
            f"microbatches is {microbatches}, which {n_ranks} ranks cannot take in equal rounds "
            f"with schedule interleaved_1f1b: set it to {nearest} or {nearest + n_ranks}"
        )


def bubble_share(*, n_ranks: int, stages_per_rank: int, microbatches: int) -> float:
    """Return the share of a step in which a rank waits: ``(P - 1) / (V M + P - 1)``.

    Notes
    -----
    Of stages that take equally long, without time for communication; the same for GPipe and for
    one-forward-one-backward, which differ in memory (Narayanan et al., 2021, section 2.2).

    Examples
    --------
    >>> bubble_share(n_ranks=2, stages_per_rank=1, microbatches=7)
    0.125
    """
    return (n_ranks - 1) / (stages_per_rank * microbatches + n_ranks - 1)


def microbatches_in_flight(
    schedule: Schedule, *, rank: int, n_ranks: int, stages_per_rank: int, microbatches: int
) -> int:
    """Return how many microbatches' activations a rank holds at once, over all of its stages.

    GPipe holds them all. One-forward-one-backward holds ``P - rank``. The interleaved schedule
    warms up with ``2 (P - rank - 1) + (V - 1) P`` forwards, then adds one.
    """
    everything = stages_per_rank * microbatches
    if schedule == "gpipe":
        return everything
    if schedule == "1f1b":
        return min(everything, n_ranks - rank)
    return min(everything, 2 * (n_ranks - rank - 1) + (stages_per_rank - 1) * n_ranks + 1)
