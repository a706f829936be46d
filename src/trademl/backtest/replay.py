"""Replay of serving: a model's test rows, traded as serving answered them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from trademl.backtest.jobs import EQUITY, TRADES, record_backtest, settings_of, write_rows
from trademl.backtest.live_history import Live, live_at, live_history
from trademl.backtest.live_models import (
    cut_of,
    dataset_of,
    live_scores,
    model_of,
    refuse_seen,
    rows_of,
)
from trademl.backtest.recorded_answers import LiveRecord, live_record, recorded_predictions
from trademl.backtest.results import Row, ledger_rows
from trademl.backtest.run import backtest
from trademl.backtest.served_answers import (
    Answers,
    ReplayConfig,
    ServingKind,
    ideal_answers,
    modelled_answers,
)
from trademl.backtest.serving_costs import Served, as_served, serving_costs
from trademl.backtest.settings import BacktestConfig, realism
from trademl.backtest.signals import Signals
from trademl.errors import DataError
from trademl.etl.dataset import Split, load_split
from trademl.ingest.batch import Batch, read_batch
from trademl.ledger import Ledger, tables
from trademl.market.costs import Costs
from trademl.market.friction import with_volatility
from trademl.market.quotes import Quotes
from trademl.ports import Progress, Silent
from trademl.serve.ladder import ABSTAIN, LadderPolicy
from trademl.serve.served import served
from trademl.store.artifacts import Artifact, ArtifactStore
from trademl.store.identity import artifact_id, digest_bytes
from trademl.train.looks import record_look
from trademl.train.model import BinaryModel, load_binary_model
from trademl.train.model_archive import MODEL_FILE
from trademl.train.studies import read_trials


def backtest_replay(
    model: Artifact,
    costs: Costs,
    store: ArtifactStore,
    ledger: Ledger,
    *,
    kind: ServingKind = "modelled",
    endpoint: str = "default",
    strategy: str = "default",
    live: str | None = None,
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
        Whether answers come at once from the model, through a modelled load, or from the ledger:
        from the decisions of a live run of ``strategy``, else from predictions.
    endpoint, strategy : str
        Whose deployments, or else champions, say which model was live. Where none of them was live
        in the span of the rows, ``model`` answers throughout.
    live : str, optional
        The live run whose decisions are replayed. Only rows between its first and its last
        decision are traded.
    smaller : sequence of Artifact
        Smaller models of the ladder, biggest first; those of a live run are known from its
        decisions.

    Raises
    ------
    DataError
        If a model was trained on rows that it would be asked about, or nothing is recorded.
    StoreError
        If the ledger has no such live run, or has lost a model that answered.
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
    record = None
    if kind == "recorded":
        record = live_record(ledger, strategy, rows.as_of_N, run_id=live)
    if record is not None:
        covered_N = record.covers(rows.as_of_N)
        rows, record = rows.take(covered_N), record.take(covered_N)
        spans = [Live(record.model_id, record.from_ns, record.to_ns + 1)]
        smaller = [model_of(one, ledger) for one in record.smaller]
    serving = _served(
        model, smaller, spans, rows, batch, dataset, kind, record, policy, load, ledger, seed
    )
    parameters = {
        "serving": kind,
        **settings_of(costs, config),
        "engines": ["compiled"],
        "seed": seed,
        **({"load": asdict(load), "policy": asdict(policy)} if kind == "modelled" else {}),
        **({"live_run": record.run_id} if record else {}),
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
            _tell_answers(trades, rows, serving.answers)
            write_rows(draft.path / TRADES, trades, tables.Trade)
            write_rows(draft.path / EQUITY, equity, tables.Equity)
            draft.metrics.update(
                {
                    **result.metrics,
                    "decided_ns": rows.as_of_N[[0, -1]].tolist(),
                    "realism": realism(costs, config, quotes),  # without the moments of answers
                    "serving": {
                        "kind": kind,
                        "live_run": record.run_id if record else None,
                        **_shares(serving.answers),
                        **_models(model, spans, rows),
                        **serving_costs(quotes, signals, serving, costs, config, seed),
                    },
                }
            )
    found = store.get(identity)
    progress.done(f"served {found.metrics['serving']['served']:.2f}")
    record_backtest(found, model, dataset, _only_deployment(spans), ledger)
    return found


def _tell_answers(trades: list[Row], rows: Split, answers: Answers) -> None:
    """Write into trades when they were decided, which tier answered, and how late."""
    place = {order: k for k, order in enumerate(rows.order_id_N.tolist())}
    as_of_N, tier_N = rows.as_of_N.tolist(), answers.tiers.tolist()
    late_ms = (answers.latency_ns / 1e6).tolist()
    for row in trades:
        k = place[row["order_id"]]
        row["decided_at_ns"], row["tier"], row["latency_ms"] = as_of_N[k], tier_N[k], late_ms[k]


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
    row_N = rows_of(batch, rows)
    first = int(batch.orders.quote_index[row_N[0]])
    quotes = with_volatility(batch.quotes, costs).slice(first, len(batch.quotes))
    orders = batch.orders.take(row_N).shift(-first)
    return quotes, Signals(orders, rows.order_id_N, np.zeros(len(rows)))


def _served(
    model: Artifact,
    smaller: Sequence[Artifact],
    spans: Sequence[Live],
    rows: Split,
    batch: Batch,
    dataset: Artifact,
    kind: ServingKind,
    record: LiveRecord | None,
    policy: LadderPolicy,
    load: ReplayConfig,
    ledger: Ledger,
    seed: int,
) -> Served:
    given = load_binary_model(model.file(MODEL_FILE))
    ladder = _ladder(model, given, smaller, rows, dataset, ledger)
    given_N = given.scores(rows.features_ND).astype(np.float64)
    smaller_MN = np.array([m.scores(rows.features_ND) for m in ladder], np.float64)
    smaller_MN = smaller_MN.reshape(len(ladder), len(rows))
    live_N, live_cut_N = live_scores(model.id, given, given_N, spans, rows, batch, ledger)
    answers = ideal_answers(live_N)
    if record is not None:
        answers = record.answers
    elif kind == "modelled":
        score_MN = np.concatenate([live_N[None], smaller_MN])
        models = [served(m, str(k)) for k, m in enumerate((given, *ladder))]
        answers = modelled_answers(
            rows.as_of_N, rows.features_ND, score_MN, models, policy, load, seed=seed
        )
    elif kind == "recorded":
        answers = _predicted(spans, rows, dataset, ledger)
    if record is None:  # nothing was live: nothing can have been answered
        missing = np.isnan(live_N) & (answers.model <= 0)
        answers = replace(
            answers,
            model=np.where(missing, -1, answers.model),
            score=np.where(missing, np.nan, answers.score),
            tier=np.where(missing, ABSTAIN, answers.tiers),
        )
    cuts_M = np.array([cut_of(m) for m in ladder], np.float64)
    return Served(answers, given_N, live_N, smaller_MN, cut_of(given), live_cut_N, cuts_M)


def _ladder(
    model: Artifact,
    given: BinaryModel,
    smaller: Sequence[Artifact],
    rows: Split,
    dataset: Artifact,
    ledger: Ledger,
) -> list[BinaryModel]:
    """Return the smaller models, which take the same columns and have not seen the rows."""
    ladder = [load_binary_model(one.file(MODEL_FILE)) for one in smaller]
    for one, loaded in zip(smaller, ladder, strict=True):
        if loaded.schema_hash != given.schema_hash:
            raise DataError(
                f"{one.id} takes other columns than {model.id}: a ladder's take the same"
            )
        if one.manifest["parents"][1] != dataset.id:
            refuse_seen(one.id, dataset_of(one.id, ledger), rows)
    return ladder


def _predicted(spans: Sequence[Live], rows: Split, dataset: Artifact, ledger: Ledger) -> Answers:
    deployed = [span for span in spans if span.deployment_id]
    answers = recorded_predictions(ledger, deployed, dataset.id, rows.order_id_N, rows.as_of_N)
    if answers.is_abstention.all():
        raise DataError(
            "no live run decided these orders, and no live deployment has a recorded prediction "
            f"for the test rows of {dataset.id}: run trademl serve live, or choose --serving "
            "modelled or ideal"
        )
    return answers
