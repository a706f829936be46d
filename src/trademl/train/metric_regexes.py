"""The names of Linear Learner's metrics and the regular expressions that find them in its log.

SageMaker reads a job's metrics out of its log with these, and so does whoever reads ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from trademl.train.metrics import BINARY, MULTICLASS, PUBLISHED, REGRESSION

SPLITS = ("train", "validation", "test")
_HEAD = r"#quality_metric: host=\S+, "
# what a metric is called in the log, where that is not its published name
_LOGGED = {
    "objective_loss": r"\S+_objective",
    "binary_f_beta": r"binary_f_\S+",
    "multiclass_top_k_accuracy": r"multiclass_top_k_accuracy_\S+",
    "macro_f_beta": r"macro_f_\S+",
}


def _kind(metric: str) -> str:
    return "loss" if metric in REGRESSION or metric == "objective_loss" else "score"


def _final(split: str, metric: str) -> tuple[str, str]:
    """Return name and expression of a metric of the finished model."""
    name = f"{split}:{metric}"
    if metric == "objective_loss" and split != "test":
        name += ":final"
    return name, rf"{_HEAD}{split} {_LOGGED.get(metric, metric)} <{_kind(metric)}>=(\S+)"


METRIC_REGEXES: dict[str, str] = {
    "train:progress": r"#progress_metric: host=\S+, completed (\S+) %",
    "train:throughput": r"#throughput_metric: host=\S+, train throughput=(\S+) records/second",
    **{
        f"{split}:objective_loss": rf"{_HEAD}epoch=\S+, {split} \S+_objective <loss>=(\S+)"
        for split in ("train", "validation")
    },
    **dict(_final(s, metric) for s in SPLITS for metric in (BINARY | MULTICLASS | REGRESSION)),
}


def regexes_of(predictor_type: str) -> dict[str, str]:
    """Return the expressions of the metrics that a job of this ``predictor_type`` logs."""
    own = PUBLISHED[predictor_type]
    named = {name: name.split(":")[1] for name in METRIC_REGEXES}
    return {
        name: METRIC_REGEXES[name]
        for name, metric in named.items()
        if metric in own or metric in ("progress", "throughput")
    }


def read_metrics(lines: Iterable[str]) -> dict[str, list[float]]:
    """Return every value of every metric in a log, in its order."""
    patterns = {name: re.compile(text) for name, text in METRIC_REGEXES.items()}
    found: dict[str, list[float]] = {}
    for line in lines:
        for name, pattern in patterns.items():
            if match := pattern.search(line):
                found.setdefault(name, []).append(float(match.group(1)))
    return found
