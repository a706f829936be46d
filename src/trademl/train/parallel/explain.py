"""``trademl train --explain-plan``: the plan in words, and one step of it measured beside it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import torch

from trademl.ports import Progress
from trademl.train.network_config import NetworkConfig, NetworkTraining
from trademl.train.networks import Layers, build_layers
from trademl.train.parallel.costs import layer_costs
from trademl.train.parallel.devices import Device, n_cores, size_of
from trademl.train.parallel.distribution import Distribution
from trademl.train.parallel.job import NetworkJob
from trademl.train.parallel.launch import launch
from trademl.train.parallel.measure import MeasuredStep
from trademl.train.parallel.plan import Candidate, Plan
from trademl.train.parallel.run_files import MEASURED

_STEPS = 5
_ROWS = 64


@dataclass(frozen=True)
class Explanation:
    """A plan, and what a step of the chosen candidate took here; None where it cannot run here."""

    plan: Plan
    measured: MeasuredStep | None
    n_rows: int

    def lines(self) -> list[str]:
        """Return it for people."""
        return lines_of(self)

    def facts(self) -> dict[str, Any]:
        """Return it for machines, as JSON can hold it."""
        return facts_of(self)


def measured_device(
    device: Device,
    network: NetworkConfig,
    training: NetworkTraining,
    feature_dim: int,
    *,
    n_processes: int,
) -> Device:
    """Return a device of this machine with the arithmetic that one block of the network reaches.

    With the threads that each of the processes would have; alone, so without their contention.
    """
    n_threads = torch.get_num_threads()
    torch.set_num_threads(max(1, n_cores() // n_processes))
    try:
        found = _measure_block(network, training, feature_dim)
    finally:
        torch.set_num_threads(n_threads)
    return replace(device, flops_per_s=found)


def _measure_block(network: NetworkConfig, training: NetworkTraining, feature_dim: int) -> float:
    place = "cuda" if torch.cuda.is_available() else "cpu"
    block = Layers(build_layers(network, feature_dim, [1], seed=0), training.precision).to(place)
    x_BTW = torch.randn(_ROWS, network.n_steps, network.width, device=place, requires_grad=True)
    flops = 3 * layer_costs(network, feature_dim)[1].flops * _ROWS
    fastest = float("inf")
    for _ in range(6):
        began = time.perf_counter()
        block(x_BTW).sum().backward()
        if place == "cuda":
            torch.cuda.synchronize()
        fastest = min(fastest, time.perf_counter() - began)
    return flops / fastest


def measure_candidate(
    job: NetworkJob,
    distribution: Distribution,
    *,
    environment: Mapping[str, str],
    progress: Progress,
) -> MeasuredStep:
    """Take a few steps the chosen way, on this machine.

    Raises
    ------
    TrainError
        If a process fails.
    """
    accumulate = 1 if distribution.stages > 1 else job.training.accumulate
    training = replace(job.training, max_restarts=0, accumulate=accumulate)
    measuring = replace(job, distribution=distribution, training=training, measure_steps=_STEPS)
    launch(measuring, environment=environment, progress=progress)
    return msgspec.json.decode((job.folder / MEASURED).read_bytes(), type=MeasuredStep)


def lines_of(explanation: Explanation) -> list[str]:
    """Return the explanation for people."""
    plan = explanation.plan
    lines = [
        f"network: {plan.n_weights:,} weights, {size_of(16 * plan.n_weights)} with gradients and "
        f"moments; a row keeps {plan.activation_bytes_per_row:,} bytes of activations and takes "
        f"{plan.flops_per_row:,} flop",
        f"rows: {explanation.n_rows:,} to train on; a process has {plan.device.name}, "
        f"{size_of(plan.device.memory_bytes)}, {plan.device.flops_per_s / 1e9:.3g} Gflop/s",
        f"{'':14}{'split':>14}{'state':>11}{'activations':>13}{'bubble':>8}{'traffic':>11}"
        f"{'step':>11}",
    ]
    lines += [_line(candidate, plan) for candidate in plan.candidates]
    if plan.chosen is None:
        return [*lines, "nothing fits"]
    lines.append(f"chosen: {plan.chosen.name} parallelism: distribution = {spelling(plan.chosen)}")
    return [*lines, *_checked(plan.chosen, explanation.measured)]


def _line(candidate: Candidate, plan: Plan) -> str:
    dims = candidate.dims
    fits = "" if candidate.n_bytes <= plan.device.memory_bytes else "  does not fit"
    split = f"{dims.dp} x {dims.pp} stages"
    return (
        f"{candidate.name:14}{split:>14}{size_of(candidate.state_bytes):>11}"
        f"{size_of(candidate.activation_bytes):>13}{candidate.bubble:>8.1%}"
        f"{size_of(candidate.traffic_bytes):>11}{candidate.step_s:>9.3g} s{fits}"
    )


def spelling(candidate: Candidate) -> str:
    """Return how a strategy file would spell a candidate."""
    found = candidate.distribution
    if found.technique != "pipeline":
        return f'"{found.technique}"'
    return (
        f"{{ pipeline = {{ stages = {found.stages}, microbatches = {found.microbatches} }}, "
        f"processes_per_host = {found.processes_per_host} }}"
    )


def _checked(chosen: Candidate, measured: MeasuredStep | None) -> list[str]:
    if measured is None:
        return ["measured: not on this machine, it has fewer devices"]
    lines = [
        f"measured: a step takes {measured.step_s:.3g} s, {measured.step_s / chosen.step_s:.2f} of "
        "the estimate"
    ]
    if measured.peak_bytes is not None:
        share = measured.peak_bytes / chosen.n_bytes
        lines.append(
            f"measured: it holds {size_of(measured.peak_bytes)}, {share:.2f} of the estimated "
            f"{size_of(chosen.n_bytes)}"
        )
    return lines


def facts_of(explanation: Explanation) -> dict[str, Any]:
    """Return the explanation for machines."""
    plan, measured = explanation.plan, explanation.measured
    return {
        "rows": explanation.n_rows,
        "weights": plan.n_weights,
        "activation_bytes_per_row": plan.activation_bytes_per_row,
        "flops_per_row": plan.flops_per_row,
        "device": msgspec.to_builtins(plan.device),
        "candidates": [_facts(c, plan) for c in plan.candidates],
        "chosen": _facts(plan.chosen, plan) if plan.chosen else None,
        "distribution": spelling(plan.chosen) if plan.chosen else None,
        "measured": msgspec.to_builtins(measured) if measured else None,
    }


def _facts(candidate: Candidate, plan: Plan) -> dict[str, Any]:
    return {
        "name": candidate.name,
        "technique": candidate.distribution.technique,
        "dp": candidate.dims.dp,
        "pp": candidate.dims.pp,
        "microbatches": candidate.distribution.microbatches,
        "state_bytes": candidate.state_bytes,
        "activation_bytes": candidate.activation_bytes,
        "bubble": candidate.bubble,
        "traffic_bytes": candidate.traffic_bytes,
        "step_s": candidate.step_s,
        "fits": candidate.n_bytes <= plan.device.memory_bytes,
    }
