"""Replay of serving: what late, smaller, stale and missing answers cost, each told by itself.

Every variant trades the same orders on the same quotes with the same costs; only what was answered,
when, and by which model differs. The cost of a degradation is what the account earns more with that
one switched off; what is left of the difference to ideal serving is named interaction.

Shape letters: N orders, M models of the ladder, L models that were live.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trademl.backtest.compiled import run_compiled
from trademl.backtest.jobs import EQUITY, TRADES, record_backtest, write_rows
from trademl.backtest.late import delayed
from trademl.backtest.live_history import Live, live_at, live_history
from trademl.backtest.results import ledger_rows
from trademl.backtest.run import backtest
from trademl.backtest.served_answers import (
    Answers,
    ReplayConfig,
    ServingKind,
    ideal_answers,
    modelled_answers,
    recorded_answers,
)
from trademl.backtest.settings import NO_LIMIT, BacktestConfig
from trademl.backtest.signals import Signals
from trademl.backtest.sizing import sized
from trademl.errors import DataError, StoreError
from trademl.etl.dataset import Split, load_split
from trademl.etl.features import feature_matrix, usable_rows
from trademl.etl.recipe import FeatureRecipe, read_recipe
from trademl.ingest.batch import Batch, read_batch
from trademl.ledger import Ledger, tables
from trademl.market.costs import Costs
from trademl.market.friction import with_volatility
from trademl.market.quotes import Quotes
from trademl.ports import Progress, Silent
from trademl.serve.ladder import LadderPolicy
from trademl.serve.served import served
from trademl.store.artifacts import Artifact, ArtifactStore, get_artifact
from trademl.store.identity import artifact_id, digest_bytes
from trademl.train.jobs import MODEL_FILE
from trademl.train.looks import record_look
from trademl.train.model import BinaryModel, load_binary_model
from trademl.train.studies import read_trials

DEGRADATIONS = ("latency", "smaller tier", "stale cache", "abstention", "model changes")


@dataclass(frozen=True)
class Served:
    """Answers of serving, and what would have been answered instead.

    Parameters
    ----------
    answers : Answers
        As they were given.
    given_N, live_N : ndarray of float64, shape (N,)
        Scores of the model that is asked about, and of the one that was live at each order; NaN
        where nothing was.
    smaller_MN : ndarray of float64, shape (M - 1, N)
        Scores of the smaller models.
    given_cut : float
        Threshold of the first.
    live_cut_N, smaller_cut_M : ndarray of float64
        Thresholds of the others.
    """

    answers: Answers
    given_N: NDArray[np.float64]
    live_N: NDArray[np.float64]
    smaller_MN: NDArray[np.float64]
    given_cut: float
    live_cut_N: NDArray[np.float64]
    smaller_cut_M: NDArray[np.float64]

    def without(self, *off: str) -> tuple[Answers, NDArray[np.float64]]:
        """Return answers and thresholds with degradations switched off."""
        now, own = self.answers, "model changes" not in off
        biggest_N = self.live_N if own else self.given_N
        biggest_cut_N = self.live_cut_N if own else np.full(len(now), self.given_cut)
        model, latency_ns = now.model.copy(), now.latency_ns.copy()
        was_absent, is_stale = now.is_abstention.copy(), now.is_cached.copy()
        if "abstention" in off:
            model[was_absent] = 0
            answered = now.latency_ns[~was_absent]
            latency_ns[was_absent] = int(np.median(answered)) if len(answered) else 0
        if "smaller tier" in off:
            model = np.minimum(model, 0)
        if "stale cache" in off:
            is_stale[:] = False
        if "latency" in off:
            latency_ns[:] = 0
        table = np.concatenate([biggest_N[None], self.smaller_MN])
        cuts = np.concatenate([biggest_cut_N[None], np.repeat(
            self.smaller_cut_M[:, None], len(now), axis=1)])  # fmt: skip
        n = np.arange(len(now))
        score = np.where(model < 0, np.nan, table[model, n])
        kept = is_stale & (model == now.model)
        score[kept] = now.score[kept]
        age_ns = np.where(is_stale, now.age_ns, 0)
        cut_N = np.where(np.isnan(score), np.inf, cuts[model, n])
        return Answers(score, model, latency_ns, age_ns), cut_N


def serving_costs(
    quotes: Quotes,
    signals: Signals,
    serving: Served,
    costs: Costs,
    config: BacktestConfig,
    seed: int,
) -> dict[str, Any]:
    """Return what each degradation cost, in quote currency; negative where it paid.

    Returns
    -------
    dict
        ``ideal`` and ``served`` net PnL, where the venue rejects nothing, their ``difference``,
        under ``by`` the cost of each of `DEGRADATIONS`, and ``interaction``: the difference less
        their sum.
    """
    limits = replace(config.limits(seed), reject_share=0.0)  # chance would tell of other orders

    def net(*off: str) -> float:
        span, taken = as_served(quotes, signals, *serving.without(*off))
        wanted = sized(span, taken, costs, config).flagged(0.0)
        return float(run_compiled(span, wanted, costs, limits=limits).pnl.sum())

    ideal, real = net(*DEGRADATIONS), net()
    by = {name: net(name) - real for name in DEGRADATIONS}
    return {
        "ideal": ideal,
        "served": real,
        "difference": ideal - real,
        "by": by,
        "interaction": ideal - real - sum(by.values()),
    }


def as_served(
    quotes: Quotes, signals: Signals, answers: Answers, cut_N: NDArray[np.float64]
) -> tuple[Quotes, Signals]:
    """Return quotes and signals in which each score arrives when its answer did."""
    scored = replace(signals, score=np.nan_to_num(answers.score), threshold=cut_N)
    return delayed(quotes, scored, answers.latency_ns)


def backtest_replay(
    model: Artifact,
    costs: Costs,
    store: ArtifactStore,
    ledger: Ledger,
    *,
    kind: ServingKind = "modelled",
    endpoint: str = "default",
    strategy: str = "default",
    smaller: Sequence[Artifact] = (),
    policy: LadderPolicy = LadderPolicy(),  # noqa: B008 - frozen
    load: ReplayConfig = ReplayConfig(),  # noqa: B008 - frozen
    config: BacktestConfig = BacktestConfig(reject_share=0.0),  # noqa: B008 - frozen
    seed: int = 7,
    progress: Progress | None = None,
) -> Artifact:
    """Trade a model's test rows as serving answered them, and say what serving cost.

    Parameters
    ----------
    kind : {"ideal", "modelled", "recorded"}
        Whether answers come at once from the model, through a modelled load, or from the ledger.
    endpoint, strategy : str
        Whose deployments, or else champions, say which model was live. Where none of them was live
        in the span of the rows, ``model`` answers throughout.
    smaller : sequence of Artifact
        Smaller models of the ladder, biggest first.

    Raises
    ------
    DataError
        If a model was trained on rows that it would be asked about, or nothing is recorded.
    """
    progress = progress or Silent()
    progress.step("replay", f"{kind} serving")
    dataset = store.get(model.manifest["parents"][1])
    rows = load_split(dataset, "test")
    batch = read_batch(store.get(dataset.manifest["parents"][0]))
    if batch.bars is not None:
        raise DataError("the dataset's orders live on bars: a replay needs quotes")
    study = store.get(model.manifest["parents"][0])
    record_look(study, read_trials(study), rows, ledger, cuts=[model.metrics["threshold"]])
    spans = [] if kind == "ideal" else live_history(ledger, endpoint, strategy)
    serving = _served(model, smaller, spans, rows, batch, dataset, kind, policy, load, ledger, seed)
    parameters = {
        "serving": kind,
        "costs": asdict(costs),
        "backtest": {n: None if v == NO_LIMIT else v for n, v in asdict(config).items()},
        "engines": ["compiled"],
        "seed": seed,
        **({"load": asdict(load), "policy": asdict(policy)} if kind == "modelled" else {}),
    }
    answered, cut_N = serving.without()
    told = b"".join(a.tobytes() for a in (answered.score, answered.latency_ns, cut_N))
    inputs = {"model": model.id, "answers": digest_bytes(told)}
    identity = artifact_id("backtest", inputs, parameters)
    if store.find(identity) is None:
        with store.create(identity, parents=[model.id, dataset.id], parameters=parameters) as draft:
            quotes, signals = _signals(batch, rows, costs)
            span, taken = as_served(quotes, signals, answered, cut_N)
            result = backtest(
                span, taken, costs, threshold=0.0, engines=("compiled",), config=config, seed=seed
            )
            trades, equity = ledger_rows(result, span)
            write_rows(draft.path / TRADES, trades, tables.Trade)
            write_rows(draft.path / EQUITY, equity, tables.Equity)
            draft.metrics.update(
                {
                    **result.metrics,
                    "serving": {
                        "kind": kind,
                        **_shares(answered),
                        **_models(model, spans, rows),
                        **serving_costs(quotes, signals, serving, costs, config, seed),
                    },
                }
            )
    found = store.get(identity)
    progress.done(f"served {found.metrics['serving']['served']:.2f}")
    record_backtest(found, model, dataset, _only_deployment(spans), ledger)
    return found


def _only_deployment(spans: Sequence[Live]) -> str | None:
    ids = {span.deployment_id for span in spans}
    return ids.pop() if len(ids) == 1 else None


def _models(model: Artifact, spans: Sequence[Live], rows: Split) -> dict[str, Any]:
    """Return which models were live, and whether the ledger knows of any in this span."""
    own = sorted({spans[k].model_id for k in set(live_at(spans, rows.as_of_N)) if k >= 0})
    return {"models": own or [model.id], "is_live_history": bool(own)}


def _shares(answers: Answers) -> dict[str, Any]:
    late_ms = answers.latency_ns[~answers.is_abstention] / 1e6
    return {
        "n": len(answers),
        "n_smaller": int((answers.model > 0).sum()),
        "n_cached": int(answers.is_cached.sum()),
        "n_abstained": int(answers.is_abstention.sum()),
        "latency_p50_ms": float(np.median(late_ms)) if len(late_ms) else None,
        "latency_p99_ms": float(np.quantile(late_ms, 0.99)) if len(late_ms) else None,
    }


def _signals(batch: Batch, rows: Split, costs: Costs) -> tuple[Quotes, Signals]:
    """Return the rows as signals, on the recording from the first of them to its end."""
    row_N = _rows_of(batch, rows)
    first = int(batch.orders.quote_index[row_N[0]])
    quotes = with_volatility(batch.quotes, costs).slice(first, len(batch.quotes))
    orders = batch.orders.take(row_N).shift(-first)
    return quotes, Signals(orders, rows.order_id_N, np.zeros(len(rows)))


def _rows_of(batch: Batch, rows: Split) -> NDArray[np.int64]:
    row_N = np.searchsorted(batch.order_id, rows.order_id_N)
    if (
        not len(row_N)
        or not (batch.order_id[np.minimum(row_N, len(batch) - 1)] == rows.order_id_N).all()
    ):
        raise DataError("the dataset's rows are not orders of its batch: build it again")
    return row_N


def _served(
    model: Artifact,
    smaller: Sequence[Artifact],
    spans: Sequence[Live],
    rows: Split,
    batch: Batch,
    dataset: Artifact,
    kind: ServingKind,
    policy: LadderPolicy,
    load: ReplayConfig,
    ledger: Ledger,
    seed: int,
) -> Served:
    given = load_binary_model(model.file(MODEL_FILE))
    ladder = [load_binary_model(one.file(MODEL_FILE)) for one in smaller]
    for one, loaded in zip(smaller, ladder, strict=True):
        if loaded.schema_hash != given.schema_hash:
            raise DataError(
                f"{one.id} takes other columns than {model.id}: a ladder's take the same"
            )
        if one.manifest["parents"][1] != dataset.id:
            _refuse_seen(one.id, _dataset_of(one.id, ledger), rows)
    given_N = given.scores(rows.features_ND).astype(np.float64)
    smaller_MN = np.array([m.scores(rows.features_ND) for m in ladder], np.float64)
    smaller_MN = smaller_MN.reshape(len(ladder), len(rows))
    live_N, live_cut_N = _live(model.id, given, given_N, spans, rows, batch, ledger)
    score_MN = np.concatenate([live_N[None], smaller_MN])
    answers = ideal_answers(live_N)
    if kind == "modelled":
        models = [served(m, str(k)) for k, m in enumerate((given, *ladder))]
        answers = modelled_answers(
            rows.as_of_N, rows.features_ND, score_MN, models, policy, load, seed=seed
        )
    elif kind == "recorded":
        deployed = [span for span in spans if span.deployment_id]
        answers = recorded_answers(ledger, deployed, dataset.id, rows.order_id_N, rows.as_of_N)
        if answers.is_abstention.all():
            raise DataError(
                f"no live deployment has a recorded prediction for the test rows of {dataset.id}: "
                "choose --serving modelled or ideal"
            )
    missing = np.isnan(live_N) & (answers.model <= 0)
    answers = replace(
        answers,
        model=np.where(missing, -1, answers.model),
        score=np.where(missing, np.nan, answers.score),
    )
    cuts_M = np.array([_cut(m) for m in ladder], np.float64)
    return Served(answers, given_N, live_N, smaller_MN, _cut(given), live_cut_N, cuts_M)


def _cut(model: BinaryModel) -> float:
    return float(np.float32(model.threshold))


def _live(
    model_id: str,
    given: BinaryModel,
    given_N: NDArray[np.float64],
    spans: Sequence[Live],
    rows: Split,
    batch: Batch,
    ledger: Ledger,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return scores and thresholds of the model that was live at each row."""
    which_N = live_at(spans, rows.as_of_N)
    if (which_N < 0).all():
        return given_N, np.full(len(rows), _cut(given))
    score, cut = np.full(len(rows), np.nan), np.full(len(rows), np.inf)
    for number, span in enumerate(spans):
        own = which_N == number
        if not own.any():
            continue
        if span.model_id == model_id:
            score[own], cut[own] = given_N[own], _cut(given)
            continue
        loaded, recipe = _load_live(span, rows, own, ledger)
        at = batch.orders.quote_index[_rows_of(batch, rows)][own]
        can = usable_rows(batch.quotes, at, recipe)
        found = np.full(len(at), np.nan)
        if can.any():
            found[can] = loaded.scores(feature_matrix(batch.quotes, at[can], recipe))
        score[own], cut[own] = found, _cut(loaded)
    return score, cut


def _load_live(
    span: Live, rows: Split, own: NDArray[np.bool_], ledger: Ledger
) -> tuple[BinaryModel, FeatureRecipe]:
    dataset = _dataset_of(span.model_id, ledger)
    row = ledger.get(tables.Model, span.model_id)
    if row is None:
        raise StoreError(f"the ledger has no model {span.model_id}, which was live")
    _refuse_seen(span.model_id, dataset, rows, own)
    artifact = get_artifact(Path(row.path))
    recipe = read_recipe(dataset.file("schema.json"))
    return load_binary_model(artifact.file(MODEL_FILE)), recipe


def _dataset_of(model_id: str, ledger: Ledger) -> Artifact:
    row = ledger.get(tables.Model, model_id)
    of_row = ledger.get(tables.Dataset, row.dataset_id) if row else None
    if of_row is None:
        raise StoreError(f"the ledger has no model {model_id}, or no dataset of it")
    return get_artifact(Path(of_row.path))


def _refuse_seen(
    model_id: str, dataset: Artifact, rows: Split, own: NDArray[np.bool_] | None = None
) -> None:
    """Refuse a model that learned from orders which ended after it is asked for the first time."""
    asked = rows.as_of_N if own is None else rows.as_of_N[own]
    learned_until = max(
        int(load_split(dataset, name).exit_N.max()) for name in ("train", "validation")
    )
    if learned_until >= int(asked.min()):
        raise DataError(
            f"{model_id} learned from orders that ended at {learned_until} ns, after it is asked "
            f"at {int(asked.min())} ns: its answers would know the future"
        )
