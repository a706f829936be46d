"""The distribution block: the seeds' spelling, three file formats, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trademl.errors import ConfigError
from trademl.train.parallel.dims import ParallelDims, check_batch, parallel_dims
from trademl.train.parallel.distribution import (
    Distribution,
    parse_distribution,
    read_distribution,
    with_processes,
)

# As SageMaker's estimators take them, and as articles print them.
DATA_PARALLEL = """
distribution = {
"smdistributed": {
"dataparallel": {
"enabled": True,
"custom_mpi_options": "-verbose -x NCCL_DEBUG=VERSION"
}
}
}
"""
MODEL_PARALLEL = """
distribution={
"smdistributed": {
"modelparallel": {
"enabled":True,
"parameters": {
"microbatches": 8,
"placement_strategy": "cluster",
"pipeline": "interleaved",
"optimize": "speed",
"partitions": 2,
"auto_partition": True,
"ddp": True,
}
}
},
"mpi": {
"enabled": True,
"processes_per_host": 1,
"custom_mpi_options": "-verbose -x orte_base_help_aggregate=0"
},
},
"""
TOML = """
[distribution.smdistributed.modelparallel]
enabled = true
[distribution.smdistributed.modelparallel.parameters]
microbatches = 8
placement_strategy = "cluster"
pipeline = "interleaved"
optimize = "speed"
partitions = 2
auto_partition = true
ddp = true
[distribution.mpi]
enabled = true
processes_per_host = 1
custom_mpi_options = "-verbose -x orte_base_help_aggregate=0"
"""


def written(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text)
    return folder / name


def model_parallel(**parameters) -> dict:
    found = {"partitions": 2, "microbatches": 8, **parameters}
    return {"smdistributed": {"modelparallel": {"enabled": True, "parameters": found}}}


def test_data_parallel_as_printed(tmp_path):
    found = read_distribution(written(tmp_path, "alice.py", DATA_PARALLEL))

    assert (found.technique, found.environment) == ("ddp", {"NCCL_DEBUG": "VERSION"})


def test_model_parallel_as_printed(tmp_path):
    found = read_distribution(written(tmp_path, "diana.py", MODEL_PARALLEL))

    assert found.technique == "pipeline"
    assert (found.stages, found.microbatches, found.processes_per_host) == (2, 8, 1)
    assert (found.schedule, found.placement, found.memory_weight) == ("1f1b", "cluster", 0.2)
    assert found.replicate
    assert found.notes[0].startswith("smdistributed.modelparallel is archived")


def test_python_toml_and_json_say_the_same(tmp_path):
    python = read_distribution(written(tmp_path, "d.py", MODEL_PARALLEL))
    toml = read_distribution(written(tmp_path, "d.toml", TOML))
    table = {"mpi": {"enabled": True, "processes_per_host": 1}} | model_parallel(
        placement_strategy="cluster", pipeline="interleaved", optimize="speed", ddp=True
    )
    table["mpi"]["custom_mpi_options"] = "-verbose -x orte_base_help_aggregate=0"

    assert toml == python
    assert read_distribution(written(tmp_path, "d.json", json.dumps(table))) == python


def test_two_partitions_in_one_process_offer_a_fix(tmp_path):
    seed = read_distribution(written(tmp_path, "diana.py", MODEL_PARALLEL))

    with pytest.raises(ConfigError, match=r"set processes_per_host \(--nproc\) to 2 .* 2 hosts"):
        parallel_dims(seed, processes=seed.processes_per_host)
    assert parallel_dims(seed, processes=1, hosts=2) == ParallelDims(dp=1, pp=2)
    assert parallel_dims(with_processes(seed, 8), processes=8) == ParallelDims(dp=4, pp=2)


def test_a_literal_that_computes_is_refused_and_not_run(tmp_path):
    trap = tmp_path / "trap"
    path = written(tmp_path, "d.py", f"distribution = open({str(trap)!r}, 'w')")

    with pytest.raises(ConfigError, match="a Python literal of constants"):
        read_distribution(path)
    assert not trap.exists()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("d.py", "(" * 5000),
        ("d.py", "import os; os"),
        ("d.py", ""),
        ("d.json", "{"),
        ("d.json", "[1, 2]"),
        ("d.toml", "= 1"),
        ("d.py", "{'ddp': True, 3: 4}"),
        ("d.py", "{1: 2}"),
    ],
)
def test_rubbish_is_one_line_that_names_the_file(tmp_path, name, text):
    path = written(tmp_path, name, text)

    with pytest.raises(ConfigError) as caught:
        read_distribution(path)
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize("word", ["ddp", "fsdp", "auto"])
def test_a_word_is_enough(word):
    assert parse_distribution(word).technique == word
    assert parse_distribution({word: True}) == parse_distribution({word: {}})


def test_a_native_pipeline_has_two_stages_and_four_microbatches_each():
    found = parse_distribution("pipeline")

    assert (found.stages, found.microbatches, found.schedule) == (2, 8, "1f1b")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("dpd", "did you mean 'ddp'"),
        ({"pipeline": {"stage": 2}}, "did you mean 'stages'"),
        ({"pipeline": {"stages": "two"}}, "stages expected `int`, got `str`"),
        ({"ddp": True, "fsdp": True}, "names ddp, fsdp, expected one of"),
        ({"fsdp": {"stages": 2}}, "fsdp takes no settings"),
        ({"pipeline": {"stages": 2, "split_at": [2, 3]}}, "split_at names 2 layers, expected 1"),
        (model_parallel(partitons=2), "did you mean 'partitions'"),
        (model_parallel(partitions=True), "partitions is True"),
        (model_parallel(pipeline="fast"), "expected interleaved or simple"),
        (model_parallel(auto_partition=False), "needs split points"),
        (model_parallel(fp16=True), 'set precision = "bfloat16"'),
        (model_parallel(horovod=True), "horovod = True has no counterpart"),
        (model_parallel(pipeline_parallel_degree=2), "partitions and pipeline_parallel_degree"),
        ({"smdistributed": {"dataparallel": {"enabled": False}}}, "enables nothing"),
    ],
)
def test_what_cannot_be_meant_is_refused(value, message):
    with pytest.raises(ConfigError, match=message):
        parse_distribution(value)


def test_what_has_no_effect_is_said():
    found = parse_distribution(model_parallel(ddp_port=1234, active_microbatches=4))

    assert any(note.startswith("ddp_port has no effect") for note in found.notes)
    assert any(note.startswith("active_microbatches has no effect") for note in found.notes)


def test_placements_are_those_that_sagemaker_documents():
    """Eight processes, two parts: the groups of the SDK's documentation."""
    cluster, spread = (ParallelDims(dp=4, pp=2, placement=p) for p in ("cluster", "spread"))

    def pipelines(dims):
        copies = [dims.coordinates(rank)[0] for rank in range(8)]
        return [[r for r in range(8) if copies[r] == copy] for copy in range(4)]

    assert pipelines(cluster) == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert pipelines(spread) == [[0, 4], [1, 5], [2, 6], [3, 7]]


def pipeline(**settings) -> Distribution:
    return parse_distribution({"pipeline": {"stages": 2, "microbatches": 8, **settings}})


@pytest.mark.parametrize(
    ("distribution", "batch", "message"),
    [
        (pipeline(), 36, "microbatches 8: set batch_size to 32 or another multiple of 16"),
        (pipeline(microbatches=1), 32, "fewer than the 2 stages"),
        (
            pipeline(schedule="interleaved_1f1b", microbatches=5),
            80,
            "equal rounds .* set it to 4 or 6",
        ),
        (pipeline(stages=6), 96, "6 stages for a network of 5 layers"),
        (pipeline(split_at=[9]), 64, "split_at names layer 9, the last layer is 4"),
        (pipeline(stages_per_rank=2), 64, "need schedule interleaved_1f1b"),
    ],
)
def test_what_torch_would_hang_on_is_refused(distribution, batch, message):
    dims = parallel_dims(distribution, processes=2 * distribution.stages)

    with pytest.raises(ConfigError, match=message):
        check_batch(distribution, dims, batch_size=batch, accumulate=1, n_layers=5)


def test_copies_that_nobody_asked_for_are_refused():
    alone = parse_distribution(model_parallel(ddp=False))

    with pytest.raises(ConfigError, match="2 partitions leave 2 of 4 processes without work"):
        parallel_dims(alone, processes=4)
