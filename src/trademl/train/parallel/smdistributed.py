"""The ``distribution`` argument of SageMaker's estimators, in terms of plain PyTorch.

============================================ ====================================================
dataparallel (SMDDP), torch_distributed      DistributedDataParallel
modelparallel (SMP 1)                        a pipeline of ``PipelineStage`` s
partitions, pipeline_parallel_degree         stages, one a rank
microbatches                                 microbatches
pipeline: interleaved                        1F1B, each backward as soon as it is ready; not the
                                             schedule that PyTorch calls interleaved
pipeline: simple                             GPipe
placement_strategy                           cluster: stages on neighbouring ranks; spread: copies
optimize, memory_weight                      speed: balance stages by 0.2 bytes, 0.8 arithmetic;
                                             memory: 0.8 bytes, 0.2 arithmetic
auto_partition                               balanced partition; False: ``default_partition`` is not
                                             known here, so ``split_at`` of the native spelling
ddp                                          DistributedDataParallel around each stage
processes_per_host                           processes that torchrun starts on a host
custom_mpi_options ``-x NAME=VALUE``         an environment variable; what else it holds is mpirun's
============================================ ====================================================

SMP 1 is archived since December 2023 and the newest SageMaker SDK knows neither library; nothing
of them is needed here. Source: ``smd_model_parallel_general`` of the documentation of SageMaker's
Python SDK 2.199.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any

from trademl.errors import ConfigError
from trademl.train.hyperparameters import closest
from trademl.train.parallel.distribution import Distribution, build_distribution

_SCHEDULES = {"interleaved": "1f1b", "simple": "gpipe"}
_MEMORY_WEIGHTS = {"speed": 0.2, "memory": 0.8}
_TRANSLATED = (
    "partitions",
    "pipeline_parallel_degree",
    "microbatches",
    "pipeline",
    "optimize",
    "memory_weight",
    "placement_strategy",
    "auto_partition",
    "ddp",
)
_WITHOUT_EFFECT = {
    "active_microbatches": "the schedule bounds how many microbatches are in flight",
    "deterministic_server": "there is no server, the schedule is fixed",
    "ddp_port": "torchrun chooses a free port",
    "ddp_dist_backend": "NCCL is used on GPUs, gloo elsewhere",
    "contiguous": "it belongs to TensorFlow",
}
_INSTEAD = {
    "horovod": "use ddp",
    "tensor_parallel_degree": "layers are not divided here; use partitions, or fsdp",
    "shard_optimizer_state": 'use distribution = "fsdp"',
    "sharded_data_parallel_degree": 'use distribution = "fsdp"',
    "offload_activations": "set recompute = true in [training]",
    "activation_loading_horizon": "set recompute = true in [training]",
    "fp16": 'set precision = "bfloat16" in [training]',
    "fp16_params": 'set precision = "bfloat16" in [training]',
    "bf16": 'set precision = "bfloat16" in [training]',
    "default_partition": "use the native spelling: pipeline = { split_at = [...] }",
}
_VARIABLE = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)


def translate(value: Mapping[str, Any]) -> Distribution:
    """Return the distribution that a SageMaker ``distribution`` argument asks for.

    Raises
    ------
    ConfigError
        If a key is unknown, if it asks for what has no counterpart, or for both libraries at once.
    """
    _check_keys(value, ("smdistributed", "torch_distributed", "mpi"), "distribution")
    libraries = _table(value, "smdistributed")
    _check_keys(libraries, ("dataparallel", "modelparallel"), "smdistributed")
    asked = [
        (name, block)
        for name, block in {
            **{name: _table(libraries, name) for name in libraries},
            "torch_distributed": _table(value, "torch_distributed"),
        }.items()
        if _flag(block, "enabled", name)
    ]
    if len(asked) != 1:
        names = " and ".join(name for name, _ in asked) or "nothing"
        raise ConfigError(
            f"distribution enables {names}, expected one of dataparallel, modelparallel and "
            "torch_distributed"
        )
    name, block = asked[0]
    mpi = _mpi(_table(value, "mpi"))
    return _model_parallel(block, mpi) if name == "modelparallel" else _data_parallel(block, mpi)


def _data_parallel(block: Mapping[str, Any], mpi: Mapping[str, Any]) -> Distribution:
    _check_keys(block, ("enabled", "custom_mpi_options"), "dataparallel")
    environment, notes = _environment(block.get("custom_mpi_options", ""))
    return build_distribution(
        {
            "technique": "ddp",
            "processes_per_host": mpi["processes_per_host"],
            "environment": {**mpi["environment"], **environment},
            "notes": (*mpi["notes"], *notes),
        }
    )


def _model_parallel(block: Mapping[str, Any], mpi: Mapping[str, Any]) -> Distribution:
    _check_keys(block, ("enabled", "parameters"), "modelparallel")
    found = _table(block, "parameters")
    _check_keys(found, (*_TRANSLATED, *_WITHOUT_EFFECT, *_INSTEAD), "parameters")
    notes = [
        "smdistributed.modelparallel is archived: a pipeline of plain PyTorch takes its place",
        *mpi["notes"],
    ]
    for key, instead in _INSTEAD.items():
        if _asks(found.get(key)):
            raise ConfigError(f"{key} = {found[key]!r} has no counterpart: {instead}")
    notes += [f"{key} has no effect: {why}" for key, why in _WITHOUT_EFFECT.items() if key in found]
    if not _flag(found, "auto_partition", "parameters", default=True):
        raise ConfigError(
            f"auto_partition is False, which needs split points: {_INSTEAD['default_partition']}"
        )
    stages = _stages(found)
    optimize = _choice(found, "optimize", _MEMORY_WEIGHTS, "memory")
    return build_distribution(
        {
            "technique": "pipeline" if stages > 1 else "ddp",
            "stages": stages,
            "microbatches": found.get("microbatches", 1) if stages > 1 else 1,
            "schedule": _choice(found, "pipeline", _SCHEDULES, "interleaved"),
            "placement": found.get("placement_strategy", "cluster"),
            "memory_weight": found.get("memory_weight", optimize),
            "replicate": _flag(found, "ddp", "parameters"),
            "processes_per_host": mpi["processes_per_host"],
            "environment": mpi["environment"],
            "notes": notes,
        }
    )


def _asks(value: Any) -> bool:
    """Return whether a setting asks for something: a degree of 1 does not."""
    return value not in (None, False) and (isinstance(value, bool) or value != 1)


def _stages(found: Mapping[str, Any]) -> int:
    given = [key for key in ("partitions", "pipeline_parallel_degree") if key in found]
    if len(given) != 1:
        raise ConfigError(f"parameters hold {' and '.join(given) or 'no partitions'}: give one")
    stages = found[given[0]]
    if isinstance(stages, bool) or not isinstance(stages, int) or stages < 1:
        raise ConfigError(f"{given[0]} is {stages!r}, expected an integer of 1 or more")
    return stages


def _mpi(block: Mapping[str, Any]) -> dict[str, Any]:
    _check_keys(block, ("enabled", "processes_per_host", "custom_mpi_options"), "mpi")
    environment, notes = _environment(block.get("custom_mpi_options", ""))
    if block:
        notes = ["mpi: torchrun starts the processes, mpirun is not used", *notes]
    return {
        "processes_per_host": block.get("processes_per_host", 0),
        "environment": environment,
        "notes": notes,
    }


def _environment(options: Any) -> tuple[dict[str, str], list[str]]:
    """Return the variables that mpirun's options set, and a note on what else they hold."""
    if not isinstance(options, str):
        raise ConfigError(f"custom_mpi_options is {options!r}, expected a text")
    try:
        words = shlex.split(options)
    except ValueError as error:
        raise ConfigError(f"custom_mpi_options {options!r} cannot be read: {error}") from error
    environment: dict[str, str] = {}
    left_over: list[str] = []
    is_variable = False
    for word in words:
        found = _VARIABLE.fullmatch(word) if is_variable else None
        if found:
            environment[found[1]] = found[2]
        elif word != "-x":
            left_over.append(word)
        is_variable = word == "-x"
    notes = [f"custom_mpi_options: {' '.join(left_over)} is for mpirun and left out"]
    return environment, notes if left_over else []


def _table(parent: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = parent.get(key, {})
    if not isinstance(found, Mapping):
        raise ConfigError(f"distribution: {key} is {found!r}, expected a dictionary")
    return found


def _flag(parent: Mapping[str, Any], key: str, where: str, *, default: bool = False) -> bool:
    found = parent.get(key, default)
    if not isinstance(found, bool):
        raise ConfigError(f"{key} of {where} is {found!r}, expected True or False")
    return found


def _choice(parent: Mapping[str, Any], key: str, choices: Mapping[str, Any], default: str) -> Any:
    found = parent.get(key, default)
    if not isinstance(found, str) or found not in choices:
        raise ConfigError(f"{key} is {found!r}, expected {' or '.join(choices)}")
    return choices[found]


def _check_keys(found: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    for key in found:
        if key not in known:
            raise ConfigError(f"{key!r} in {where} is unknown{closest(str(key), known)}")
