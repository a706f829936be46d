"""Train Linear Learner: one job, or many that share their pass over the data.

Shape letters: N rows, D feature columns, V rows held out.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from trademl.errors import ConfigError, TrainError
from trademl.etl.dataset import Split
from trademl.ports import Progress, Silent
from trademl.train.checkpoints import job_identity
from trademl.train.engine import Threads
from trademl.train.finish import TrainedModel, finish
from trademl.train.hyperparameters import LinearLearnerParameters
from trademl.train.inputs import check_inputs
from trademl.train.members import expand
from trademl.train.observing import Checkpoint, ShouldStop, TrainingObserver
from trademl.train.scaler import fit_label_scaler, fit_scaler, shifts_features
from trademl.train.training import Listeners, Training

__all__ = ["TrainedModel", "fit", "fit_together", "pass_key"]


def fit(
    train: Split,
    validation: Split | None,
    parameters: LinearLearnerParameters,
    *,
    seed: int,
    progress: Progress | None = None,
    columns: Sequence[str] = (),
    test: Split | None = None,
    observer: TrainingObserver | None = None,
    checkpoint: Checkpoint | None = None,
    should_stop: ShouldStop | None = None,
) -> TrainedModel:
    """Train one job; the same inputs and seed give the same bits.

    Parameters
    ----------
    train : Split
        Weights and normalisation come from these rows alone.
    validation : Split or None
        Calibrates the threshold, stops training, and picks epoch and model; without it rows of
        ``train`` do.
    parameters : LinearLearnerParameters
        See `LinearLearnerParameters.from_strings`.
    seed : int
        Decides the start, the variants, the order of rows and every sample.
    columns : sequence of str
        Names of the features; ``x0``, ``x1`` ... where empty.
    test : Split, optional
        Measured once at the end under ``test:``; it changes nothing.
    observer : TrainingObserver, optional
        Told of every epoch.
    checkpoint : Checkpoint, optional
        Gets the state after every epoch; what it holds is gone on with, to the same bits that an
        unbroken run ends with.
    should_stop : callable, optional
        Asked between epochs and every 65,536 rows; once it says True the best model so far is kept.

    Raises
    ------
    ConfigError
        If ``feature_dim`` is not the width of the data.
    DataError
        If a split cannot be trained on; see `check_inputs`.
    StoreError
        If the checkpoint is damaged or another job's, or cannot be written.
    TrainError
        If the weights of every model stop being finite; it names the hyperparameters.
    """
    (found,) = fit_together(
        train,
        validation,
        [parameters],
        seed=seed,
        progress=progress,
        columns=columns,
        test=test,
        observer=observer,
        checkpoint=checkpoint,
        should_stop=should_stop,
    )
    if isinstance(found, TrainError):
        raise found
    return found


def pass_key(parameters: LinearLearnerParameters) -> Hashable:
    """Return what candidates must share to be trained in one pass by `fit_together`.

    Everything else, the loss, the optimizer, ``use_bias`` and early stopping among it, is a
    candidate's own.
    """
    return (
        parameters.predictor_type,
        parameters.num_classes,
        parameters.mini_batch_size,
        parameters.num_point_for_scaler,
        parameters.normalize_data,
        shifts_features(parameters),
        parameters.normalize_label,
        parameters.unbias_label,
    )


def fit_together(
    train: Split,
    validation: Split | None,
    candidates: Sequence[LinearLearnerParameters],
    *,
    seed: int,
    progress: Progress | None = None,
    columns: Sequence[str] = (),
    test: Split | None = None,
    observer: TrainingObserver | None = None,
    checkpoint: Checkpoint | None = None,
    should_stop: ShouldStop | None = None,
) -> list[TrainedModel | TrainError]:
    """Train candidates that share their `pass_key` in one pass over the data; see `fit`.

    Returns
    -------
    list of TrainedModel or TrainError
        In the candidates' order; each the same, bit for bit, as its own `fit`.

    Raises
    ------
    ConfigError
        If there is no candidate, or two cannot share a pass.
    """
    keys = {pass_key(parameters) for parameters in candidates}
    if len(keys) != 1:
        raise ConfigError(f"{len(candidates)} candidates with {len(keys)} pass keys, expected one")
    listeners = Listeners(progress or Silent(), observer, checkpoint, should_stop or _never)
    with Threads() as threads:
        training, splits, names = prepare(
            train, validation, candidates, listeners, threads, columns=columns, test=test, seed=seed
        )
        is_kept = checkpoint is not None
        training.run(job_identity(train, validation, candidates, seed=seed) if is_kept else "")
        found = [finish(training, c, splits, names) for c in range(len(candidates))]
    for c, trained in enumerate(found):
        if observer is not None and isinstance(trained, TrainedModel):
            observer.finished(c, trained)
    return found


def _never() -> bool:
    return False


SILENT = Listeners(Silent(), None, None, _never)


def prepare(
    train: Split,
    validation: Split | None,
    candidates: Sequence[LinearLearnerParameters],
    listeners: Listeners,
    threads: Threads,
    *,
    columns: Sequence[str],
    test: Split | None,
    seed: int,
) -> tuple[Training, dict[str, Split], tuple[str, ...]]:
    """Check everything, and return training at its start, the splits by name, and the columns."""
    names = tuple(columns) or tuple(f"x{i}" for i in range(train.features_ND.shape[1]))
    given = {"train": train, "validation": validation, "test": test}
    splits = {name: split for name, split in given.items() if split is not None}
    for parameters in candidates:
        check_inputs(splits, parameters, names)
    members = [
        member
        for c, parameters in enumerate(candidates)
        for member in expand(c, parameters, train.label_N, seed=seed)
    ]
    scalers = (
        fit_scaler(train.features_ND, candidates[0], seed=seed),
        fit_label_scaler(train.label_N, candidates[0], seed=seed),
    )
    training = Training(
        train, validation, candidates, members, scalers, listeners, threads, seed=seed
    )
    return training, splits, names
