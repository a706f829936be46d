"""Which kind of parallelism suits a network, a batch and so many devices.

Each candidate is given a size in memory and a time for a step; the fastest that fits is chosen.
`docs/scaling.md` derives the formulas.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from trademl.errors import ConfigError
from trademl.train.network_config import NetworkConfig, NetworkTraining
from trademl.train.parallel.costs import BYTES_PER_WEIGHT, LayerCost, layer_costs
from trademl.train.parallel.devices import Device, size_of
from trademl.train.parallel.dims import ParallelDims, check_batch, parallel_dims
from trademl.train.parallel.distribution import Distribution
from trademl.train.parallel.partition import partition
from trademl.train.parallel.schedules import bubble_share, microbatches_in_flight

Name = Literal["one process", "data", "sharded data", "model", "hybrid"]
_MICROBATCHES_PER_STAGE = 4


@dataclass(frozen=True)
class Candidate:
    """One way to divide the work.

    Parameters
    ----------
    name : str
        In words.
    state_bytes, activation_bytes : int
        Of the process that needs the most.
    bubble : float
        Share of a step in which a device of a pipeline waits.
    traffic_bytes : int
        That a process sends in a step.
    step_s : float
        Arithmetic of the slowest process, stretched by the bubble, and the traffic that it cannot
        hide.
    """

    name: Name
    distribution: Distribution
    dims: ParallelDims
    state_bytes: int
    activation_bytes: int
    bubble: float
    traffic_bytes: int
    step_s: float

    @property
    def n_bytes(self) -> int:
        """Memory of the process that needs the most."""
        return self.state_bytes + self.activation_bytes


@dataclass(frozen=True)
class Plan:
    """Every candidate, and the one to take; None where nothing fits."""

    candidates: tuple[Candidate, ...]
    chosen: Candidate | None
    device: Device
    n_weights: int
    activation_bytes_per_row: int
    flops_per_row: int


def make_plan(
    network: NetworkConfig,
    training: NetworkTraining,
    feature_dim: int,
    *,
    n_processes: int,
    device: Device,
) -> Plan:
    """Return a plan for ``n_processes`` devices.

    Raises
    ------
    ConfigError
        If the batch cannot be dealt out to that many processes in any way.
    """
    costs = layer_costs(
        network, feature_dim, precision=training.precision, recompute=training.recompute
    )
    candidates: list[Candidate] = []
    refusal: ConfigError | None = None
    for distribution in _distributions(network, training, n_processes):
        try:
            candidates.append(_candidate(distribution, costs, training, n_processes, device))
        except ConfigError as error:
            refusal = error
    if not candidates:
        raise refusal or ConfigError(f"nothing can be divided among {n_processes} processes")
    fitting = [c for c in candidates if c.n_bytes <= device.memory_bytes]
    return Plan(
        candidates=tuple(candidates),
        chosen=min(fitting, key=lambda c: c.step_s, default=None),
        device=device,
        n_weights=sum(c.n_weights for c in costs),
        activation_bytes_per_row=sum(c.activation_bytes for c in costs),
        flops_per_row=_flops(costs, training),
    )


def choose(plan: Plan) -> Distribution:
    """Return the distribution of a plan.

    Raises
    ------
    ConfigError
        If nothing fits; the message says how far the smallest is from fitting.
    """
    if plan.chosen:
        return plan.chosen.distribution
    smallest = min(plan.candidates, key=lambda c: c.n_bytes)
    raise ConfigError(
        f"the network needs {size_of(smallest.n_bytes)} a process as {smallest.name}, "
        f"{plan.device.name} has {size_of(plan.device.memory_bytes)}: take more processes, a "
        "smaller batch_size, recompute = true, or a smaller network"
    )


def _distributions(
    network: NetworkConfig, training: NetworkTraining, n_processes: int
) -> list[Distribution]:
    """Return what can be tried with so many processes, simplest first."""
    found = [Distribution("ddp", processes_per_host=n_processes)]
    if n_processes == 1:
        return found
    found.append(Distribution("fsdp", processes_per_host=n_processes))
    for stages in range(2, min(n_processes, network.n_layers) + 1):
        if n_processes % stages == 0:
            share = training.batch_size // (n_processes // stages)
            found.append(
                Distribution(
                    "pipeline",
                    stages=stages,
                    microbatches=_microbatches(share, stages),
                    processes_per_host=n_processes,
                )
            )
    return found


def _microbatches(share: int, stages: int) -> int:
    """Return a divisor of a copy's rows: the largest up to four for each stage."""
    most = min(share, _MICROBATCHES_PER_STAGE * stages)
    return max((m for m in range(1, most + 1) if share % m == 0), default=1)


def _candidate(
    distribution: Distribution,
    costs: Sequence[LayerCost],
    training: NetworkTraining,
    n_processes: int,
    device: Device,
) -> Candidate:
    dims = parallel_dims(distribution, processes=n_processes)
    if dims.pp > 1:
        training = replace(training, accumulate=1)
    check_batch(
        distribution,
        dims,
        batch_size=training.batch_size,
        accumulate=training.accumulate,
        n_layers=len(costs),
    )
    estimate_of = {"ddp": _copies, "fsdp": _shards, "pipeline": _pipeline}
    return estimate_of[distribution.technique](distribution, dims, costs, training, device)


def _copies(
    distribution: Distribution,
    dims: ParallelDims,
    costs: Sequence[LayerCost],
    training: NetworkTraining,
    device: Device,
) -> Candidate:
    weight_bytes = BYTES_PER_WEIGHT * sum(c.n_weights for c in costs)
    traffic = int(2 * weight_bytes * (dims.dp - 1) / dims.dp)  # a ring: reduce, then gather
    rows = training.batch_size // dims.dp
    seconds = _flops(costs, training) * rows / device.flops_per_s
    return Candidate(
        name="data" if dims.dp > 1 else "one process",
        distribution=distribution,
        dims=dims,
        state_bytes=sum(c.state_bytes for c in costs),
        activation_bytes=_activations(costs, rows // training.accumulate),
        bubble=0.0,
        traffic_bytes=traffic,
        # gradients are sent while the backward, the larger part of a step, goes on
        step_s=max(seconds, seconds / 3 + traffic / device.bytes_per_s),
    )


def _shards(
    distribution: Distribution,
    dims: ParallelDims,
    costs: Sequence[LayerCost],
    training: NetworkTraining,
    device: Device,
) -> Candidate:
    copies = _copies(distribution, dims, costs, training, device)
    rows = training.batch_size // dims.dp
    weight_bytes = BYTES_PER_WEIGHT * sum(c.n_weights for c in costs)
    largest = BYTES_PER_WEIGHT * max(c.n_weights for c in costs)
    # weights are gathered before the forward and again before the backward, gradients reduced once
    traffic = int((2 * training.accumulate + 1) * weight_bytes * (dims.dp - 1) / dims.dp)
    return replace(
        copies,
        name="sharded data",
        state_bytes=copies.state_bytes // dims.dp + 3 * largest,  # two layers whole, one gradient
        traffic_bytes=traffic,
        # the next layer is gathered while this one computes
        step_s=max(
            _flops(costs, training) * rows / device.flops_per_s, traffic / device.bytes_per_s
        ),
    )


def _pipeline(
    distribution: Distribution,
    dims: ParallelDims,
    costs: Sequence[LayerCost],
    training: NetworkTraining,
    device: Device,
) -> Candidate:
    stages = [[costs[n] for n in numbers] for numbers in partition(costs, distribution)]
    microbatches = distribution.microbatches
    rows = training.batch_size // dims.dp // microbatches
    slowest = max(_flops(stage, training) for stage in stages) * rows / device.flops_per_s
    shape = {"n_ranks": dims.pp, "microbatches": microbatches, "stages_per_rank": 1}
    sizes = [
        (
            sum(c.state_bytes for c in stage),
            _activations(
                stage, rows, microbatches_in_flight(distribution.schedule, rank=rank, **shape)
            ),
        )
        for rank, stage in enumerate(stages)
    ]
    state, activations = max(sizes, key=sum)
    handed_on = max(stage[-1].output_bytes for stage in stages) * rows * microbatches * 2
    among_copies = state / 2 * (dims.dp - 1) / dims.dp  # of weights, twice: a half of the state
    traffic = int(handed_on + among_copies)
    return Candidate(
        name="hybrid" if dims.dp > 1 else "model",
        distribution=distribution,
        dims=dims,
        state_bytes=state,
        activation_bytes=activations,
        bubble=bubble_share(**shape),
        traffic_bytes=traffic,
        # a stage waits for what is handed to it, and copies average once all is done
        step_s=slowest * (microbatches + dims.pp - 1) + traffic / device.bytes_per_s,
    )


def _flops(costs: Sequence[LayerCost], training: NetworkTraining) -> int:
    """Return the operations of forward and backward for a row."""
    passes = 4 if training.recompute else 3  # a backward is two forwards; recomputing is one more
    return passes * sum(c.flops for c in costs)


def _activations(costs: Sequence[LayerCost], rows: int, in_flight: int = 1) -> int:
    """Return what ``rows`` rows of each microbatch in flight keep between forward and backward.

    And the gradients of one layer's activations, which come and go while the backward passes it.
    """
    kept = [c.activation_bytes for c in costs]
    return rows * (in_flight * sum(kept) + max(kept))
