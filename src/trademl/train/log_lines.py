"""Training told as Linear Learner tells it in its log, line by line, in its order."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from trademl.train.finish import TrainedModel
from trademl.train.hyperparameters import LinearLearnerParameters
from trademl.train.metrics import PUBLISHED, REGRESSION
from trademl.train.observing import EpochReport

OBJECTIVE_NAMES = {
    "logistic": "binary_classification_cross_entropy_objective",
    "hinge_loss": "binary_classification_hinge_objective",
    "softmax_loss": "multiclass_cross_entropy_objective",
    "squared_loss": "mse_objective",
    "absolute_loss": "absolute_loss_objective",
    "eps_insensitive_squared_loss": "eps_insensitive_squared_loss_objective",
    "eps_insensitive_absolute_loss": "eps_insensitive_absolute_loss_objective",
    "quantile_loss": "quantile_loss_objective",
    "huber_loss": "huber_loss_objective",
}
_ALGORITHM = "Linear Learner"


class LogLines:
    """A `TrainingObserver` of one job that writes Linear Learner's log.

    Parameters
    ----------
    write : callable
        Takes one line without its end.
    host : str
        As in ``resourceconfig.json``.
    clock : callable
        Returns seconds since 1970.
    """

    def __init__(
        self,
        write: Callable[[str], None],
        *,
        host: str = "algo-1",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._write, self._host, self._clock = write, host, clock
        self._began = clock()
        self._parameters: LinearLearnerParameters | None = None

    def started(self, candidate: int, parameters: LinearLearnerParameters, n_models: int) -> None:
        """Write the configuration: what is default, what was given, and both together."""
        del candidate, n_models
        final = parameters.as_dict()
        given = {name: final[name] for name in sorted(parameters.given)}
        needed = {k: v for k, v in given.items() if k in ("predictor_type", "num_classes")}
        default = LinearLearnerParameters.from_strings(needed).as_dict()
        self._log(f"Reading default configuration: {_json(default)}")
        self._log(f"Merging with provided configuration: {_json(given)}")
        self._log(f"Final configuration: {_json(final)}")
        self._parameters, self._began = parameters, self._clock()

    def epoch_ended(self, report: EpochReport) -> None:
        """Write an epoch: every model's losses, then those of the first, and how far it is."""
        now = self._clock()
        splits = {"train": report.train_loss_M, "validation": report.validation_loss_M}
        for split, loss_M in splits.items():
            for number, loss in zip(report.model_M, loss_M, strict=False):
                self._write_metrics(split, number, loss, report.epoch, now)
        head = f"host={self._host}, epoch={report.epoch}"
        for split, loss_M in splits.items():
            if loss_M:
                value = _digits(loss_M[0])
                self._log(f"#quality_metric: {head}, {split} {self._objective} <loss>={value}")
        self._log(
            f"#early_stopping_criteria_metric: {head}, criteria={report.criterion}, "
            f"value={_digits(report.watched)}"
        )
        verdict = "improved. Updating best model" if report.is_improved else "did not improve"
        self._log(f"Epoch {report.epoch}: Loss {verdict}")
        done = 100 * (report.epoch + 1) // report.epochs
        self._log(f"#progress_metric: host={self._host}, completed {done} % of epochs")
        speed = report.n_records / max(report.seconds, 1e-9)
        self._log(
            f"#throughput_metric: host={self._host}, "
            f"train throughput={_digits(speed)} records/second"
        )
        self._began = now

    def finished(self, candidate: int, trained: TrainedModel) -> None:
        """Write the metrics of the model that is kept."""
        del candidate
        self._write_scores("train", trained)
        self._write_scores("validation", trained)
        best = json.dumps(trained.model.hyperparameters, sort_keys=True)
        self._log(f"Best model found for hyperparameters: {best}")
        if not self._write_scores("test", trained):
            self._log("Test data is not provided.")

    @property
    def _objective(self) -> str:
        loss = self._parameters.loss if self._parameters else "logistic"
        return OBJECTIVE_NAMES[loss]

    def _write_metrics(self, split: str, number: int, loss: float, epoch: int, now: float) -> None:
        value = {"count": 1, "max": loss, "sum": loss, "min": loss}
        record = {
            "Metrics": {f"{split}_{self._objective}": value},
            "EndTime": now,
            "Dimensions": {
                "model": number,
                "Host": self._host,
                "Operation": "training",
                "Algorithm": _ALGORITHM,
                "epoch": epoch,
            },
            "StartTime": self._began,
        }
        self._write(f"#metrics {json.dumps(record)}")

    def _write_scores(self, split: str, trained: TrainedModel) -> bool:
        """Write a split's metrics in both forms; return whether there are any."""
        settings = trained.model.hyperparameters
        scores = [
            (self._logged_name(name, settings), _kind(name), value)
            for name in PUBLISHED[settings["predictor_type"]]
            if (value := trained.metrics.get(f"{split}:{name}")) is not None
        ]
        for name, _, value in scores:
            self._log(f"#{split}_score ({self._host}) : {(name, value)}")
        for name, kind, value in scores:
            line = f"host={self._host}, {split} {name} <{kind}>={_digits(value)}"
            self._log(f"#quality_metric: {line}")
        return bool(scores)

    def _logged_name(self, metric: str, settings: Mapping[str, Any]) -> str:
        return {
            "objective_loss": OBJECTIVE_NAMES[settings["loss"]],
            "binary_f_beta": f"binary_f_{settings['f_beta']:.3f}",
            "macro_f_beta": f"macro_f_{settings['f_beta']:.3f}",
            "multiclass_top_k_accuracy": (
                f"multiclass_top_k_accuracy_{settings['accuracy_top_k']}"
            ),
        }.get(metric, metric)

    def _log(self, text: str) -> None:
        at = datetime.fromtimestamp(self._clock(), UTC)
        self._write(f"[{at:%m/%d/%Y %H:%M:%S} INFO trademl] {text}")


def _kind(metric: str) -> str:
    return "loss" if metric in REGRESSION else "score"


def _digits(value: float) -> str:
    return f"{value:.12g}"


def _json(values: Mapping[str, Any]) -> str:
    return json.dumps(values, sort_keys=True)
