r"""What our own image's log says, as SageMaker reads it: metric names and their expressions.

The expressions are those that SageMaker fills in for Linear Learner (a job's description of 2020);
for AWS's own image they are not sent. Beginning and end of a line are open, as ``re.search`` reads.
"""

from __future__ import annotations

_FINAL = {
    "binary_classification_accuracy": r"binary_classification_accuracy <score>=(\S+)",
    "binary_f_beta": r"binary_f_\S+ <score>=(\S+)",
    "precision": r"precision <score>=(\S+)",
    "recall": r"recall <score>=(\S+)",
    "roc_auc_score": r"roc_auc_score <score>=(\S+)",
    "multiclass_accuracy": r"multiclass_accuracy <score>=(\S+)",
    "multiclass_top_k_accuracy": r"multiclass_top_k_accuracy_\S+ <score>=(\S+)",
    "dcg": r"dcg <score>=(\S+)",
    "macro_precision": r"macro_precision <score>=(\S+)",
    "macro_recall": r"macro_recall <score>=(\S+)",
    "macro_f_beta": r"macro_f_\S+ <score>=(\S+)",
    "mse": r"mse <loss>=(\S+)",
    "absolute_loss": r"absolute_loss <loss>=(\S+)",
}
_QUALITY = r"#quality_metric: host=\S+, "


def metric_definitions() -> list[dict[str, str]]:
    """Return ``MetricDefinitions`` of a request: 33 of the 40 that SageMaker allows."""
    expressions = {
        "train:progress": r"#progress_metric: host=\S+, completed (\S+) %",
        "train:throughput": (
            r"#throughput_metric: host=\S+, train throughput=(\S+) records/second"
        ),
    }
    for split in ("train", "validation"):
        loss = rf"{split} \S+_objective <loss>=(\S+)"
        expressions[f"{split}:objective_loss"] = rf"{_QUALITY}epoch=\S+, {loss}"
        expressions[f"{split}:objective_loss:final"] = _QUALITY + loss
    expressions["test:objective_loss"] = rf"{_QUALITY}test \S+_objective <loss>=(\S+)"
    for split in ("validation", "test"):
        for metric, ending in _FINAL.items():
            expressions[f"{split}:{metric}"] = f"{_QUALITY}{split} {ending}"
    return [{"Name": name, "Regex": regex} for name, regex in expressions.items()]
