"""Walk-forward: train, select, gate, trade what comes next, roll; stitched into one account.

Windows are learned side by side and judged one after the other, as they would have been. A window
whose model does not pass the gate trades nothing; what it would have earned is told beside.

Shape letters: N orders traded, W windows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trademl.backtest.jobs import EQUITY, TRADES, record_result, signals_on, write_rows
from trademl.backtest.results import ledger_rows
from trademl.backtest.run import BacktestResult, backtest
from trademl.backtest.settings import NO_LIMIT, BacktestConfig
from trademl.backtest.signals import Signals
from trademl.backtest.walk_processes import Learned, learn_windows
from trademl.backtest.walk_windows import LearnSettings, Window, plan_windows
from trademl.errors import DataError, require_extra
from trademl.etl.features import feature_matrix, usable_rows
from trademl.etl.recipe import FeatureRecipe
from trademl.ingest.batch import Batch, read_batch
from trademl.ingest.replay import record_batch
from trademl.ledger import Ledger, tables
from trademl.market.friction import with_volatility
from trademl.market.quotes import Quotes
from trademl.ports import Progress, Silent
from trademl.store.artifacts import Artifact, ArtifactStore
from trademl.store.identity import artifact_id
from trademl.train.gate import GateConfig
from trademl.train.looks import widen_look
from trademl.train.model import load_binary_model
from trademl.train.model_archive import MODEL_FILE
from trademl.train.selection import NO_EDGE
from trademl.train.verdicts import judge_model

WINDOWS = ".windows"  # folder of the windows' own artifacts, apart from those of the workspace
SCORES = "scores.parquet"
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class _Turn:
    """A window as it was judged; ``rows_N`` of the batch, their scores, and the model's cut."""

    window: Window
    model_id: str | None
    verdict: str
    reasons: list[str]
    rows_N: NDArray[np.int64]
    order_id_N: NDArray[np.int64]
    score_N: NDArray[np.float64]
    threshold: float

    @property
    def passes(self) -> bool:
        return self.verdict == "promote"


def backtest_walk_forward(
    batch: Artifact,
    settings: LearnSettings,
    gate: GateConfig,
    config: BacktestConfig,
    store: ArtifactStore,
    ledger: Ledger,
    *,
    progress: Progress | None = None,
) -> Artifact:
    """Walk over a batch and publish the stitched trades, the equity and a line for each window.

    A walk-forward that was interrupted goes on where it stopped, and ends the same.

    Returns
    -------
    Artifact
        ``metrics`` holds ``headline``, ``windows``, the figures of `backtest` for the models that
        passed the gate, and under ``ungated`` those of all of them.

    Raises
    ------
    DataError
        If the batch is too short, or its orders live on bars.

    Notes
    -----
    Causal: a window's model reads nothing from its first decision on. Looks at its test rows, and
    at what it traded, are counted against every later model that is tested there.
    """
    progress = progress or Silent()
    require_extra("train")
    parameters = _parameters(settings, gate, config)
    identity = artifact_id("walkforward", {"batch": batch.id}, parameters)
    record_batch(batch, ledger)
    if (published := store.find(identity)) is not None:
        progress.step("walk-forward")
        progress.done(f"kept {published.id}")
        _record(published, batch, ledger)
        return published
    held = read_batch(batch)
    if held.bars is not None:
        raise DataError(
            "the batch's orders live on bars, whose paths are not known: a walk-forward needs "
            "quotes"
        )
    windows = plan_windows(held, settings)
    own = ArtifactStore(store.root / WINDOWS)
    progress.step("walk-forward", f"{len(windows)} windows")
    learned = learn_windows(held, batch, windows, settings, own, ledger, progress)
    turns = [
        _judge(held, batch.id, window, one, settings, gate, own, ledger)
        for window, one in zip(windows, learned, strict=True)
    ]
    with store.create(identity, parents=[batch.id], parameters=parameters) as draft:
        n_before = len(_earlier_walks(windows, batch, ledger, identity))
        config = replace(config, n_trials=config.n_trials + n_before)
        quotes, gated, ungated = _trade(held, turns, settings, config)
        trades, equity = ledger_rows(gated, quotes)
        write_rows(draft.path / TRADES, trades, tables.Trade)
        write_rows(draft.path / EQUITY, equity, tables.Equity)
        told = _windows(turns, gated, ungated)
        draft.metrics.update(
            {
                **gated.metrics,
                "headline": _headline(turns, gated, config.n_trials),
                "windows": told,
                "n_walks_before": n_before,
                "ungated": ungated.metrics,
                "from_ns": windows[0].traded_from_ns,
                "to_ns": windows[-1].traded_to_ns,
            }
        )
    published = store.get(identity)
    progress.done(str(published.metrics["headline"]))
    _record(published, batch, ledger)
    return published


def _parameters(
    settings: LearnSettings, gate: GateConfig, config: BacktestConfig
) -> dict[str, Any]:
    learn = asdict(settings)
    del learn["walk"]["processes"]  # changes no result
    plain = {n: None if v == NO_LIMIT else v for n, v in asdict(config).items()}
    return {**learn, "tuning": dict(settings.tuning), "gate": asdict(gate), "backtest": plain}


def _judge(
    batch: Batch,
    batch_id: str,
    window: Window,
    learned: Learned,
    settings: LearnSettings,
    gate: GateConfig,
    own: ArtifactStore,
    ledger: Ledger,
) -> _Turn:
    """Gate a window's model and score what it trades; the first answer about it stands."""
    if learned.model_id is None:
        rows_N = scorable(batch, window.traded_N, settings.features)
        silent = np.full(len(rows_N), np.nan)
        why = [learned.why_not]
        ids = batch.order_id[rows_N]
        return _Turn(window, None, "untrained", why, rows_N, ids, silent, float("inf"))
    model = own.get(learned.model_id)
    parameters = {
        "gate": asdict(gate),
        "seed": settings.seed,
        "traded": [window.traded_from_ns, window.traded_to_ns],
    }
    identity = artifact_id("window", {"model": model.id, "batch": batch_id}, parameters)
    if (found := own.find(identity)) is None:
        with own.create(identity, parents=[model.id, batch_id], parameters=parameters) as draft:
            result = judge_model(model, gate, own, ledger, seed=settings.seed)
            rows_N = scorable(batch, window.traded_N, settings.features)
            loaded = load_binary_model(model.file(MODEL_FILE))
            score_N = np.empty(0)
            if len(rows_N):
                at_N = batch.orders.quote_index[rows_N]
                features = feature_matrix(batch.quotes, at_N, settings.features)
                score_N = loaded.scores(features).astype(np.float64)
            _write_scores(draft.path / SCORES, rows_N, score_N)
            draft.metrics.update(
                verdict=result.verdict,
                reasons=result.reasons,
                gate=result.as_dict(),
                threshold=float(np.float32(loaded.threshold)),
            )
        found = own.get(identity)
    widen_look(ledger, model.manifest["parents"][0], window.traded_to_ns)
    rows_N, score_N = _read_scores(found)
    metrics = found.metrics
    return _Turn(
        window,
        model.id,
        metrics["verdict"],
        metrics["reasons"],
        rows_N,
        batch.order_id[rows_N],
        score_N,
        metrics["threshold"],
    )


def scorable(batch: Batch, rows_N: NDArray[np.int64], recipe: FeatureRecipe) -> NDArray[np.int64]:
    """Return the rows whose features can be made: full history, decided on an executable quote."""
    quotes, at_N = batch.quotes, batch.orders.quote_index[rows_N]
    rows_N, at_N = (values[quotes.is_executable[at_N]] for values in (rows_N, at_N))
    return rows_N[usable_rows(quotes, at_N, recipe)] if len(rows_N) else rows_N


def _write_scores(path: Path, rows_N: NDArray[np.int64], score_N: NDArray[np.float64]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"row": rows_N, "score": score_N}), path)


def _read_scores(window: Artifact) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    import pyarrow.parquet as pq

    table = pq.read_table(window.file(SCORES))
    return table["row"].to_numpy(), table["score"].to_numpy()


def _trade(
    batch: Batch, turns: Sequence[_Turn], settings: LearnSettings, config: BacktestConfig
) -> tuple[Quotes, BacktestResult, BacktestResult]:
    """Trade all windows as one account: with the models that passed, and with all of them."""
    rows_N = np.concatenate([turn.rows_N for turn in turns])
    if not len(rows_N):
        raise DataError("no order of any window has the history that its features need")
    score_N = np.concatenate([turn.score_N for turn in turns])
    costs = settings.costs
    whole = replace(batch, quotes=with_volatility(batch.quotes, costs))
    signals, span = signals_on(whole, batch.order_id[rows_N], score_N, costs)
    runs = []
    for is_gated in (True, False):
        cut_N = np.concatenate(
            [
                np.full(len(t.rows_N), t.threshold if t.passes or not is_gated else np.inf)
                for t in turns
            ]
        )
        runs.append(_backtest(span.quotes, signals, cut_N, settings, config))
    return span.quotes, runs[0], runs[1]


def _backtest(
    quotes: Quotes,
    signals: Signals,
    cut_N: NDArray[np.float64],
    settings: LearnSettings,
    config: BacktestConfig,
) -> BacktestResult:
    return backtest(
        quotes,
        replace(signals, score=np.nan_to_num(signals.score), threshold=cut_N),
        settings.costs,
        threshold=0.0,
        engines=("compiled",),
        config=config,
        seed=settings.seed,
    )


def _windows(
    turns: Sequence[_Turn], gated: BacktestResult, ungated: BacktestResult
) -> list[dict[str, Any]]:
    return [
        {
            "number": turn.window.number,
            "model": turn.model_id,
            "verdict": turn.verdict,
            "reasons": turn.reasons,
            "n_learned": len(turn.window.learned_N),
            "n_orders": len(turn.window.traded_N),
            "traded_from_ns": turn.window.traded_from_ns,
            "traded_to_ns": turn.window.traded_to_ns,
            **_earned(gated, turn),
            **{f"ungated_{name}": value for name, value in _earned(ungated, turn).items()},
        }
        for turn in turns
    ]


def _earned(result: BacktestResult, turn: _Turn) -> dict[str, Any]:
    own = np.isin(result.trades.order_id, turn.order_id_N)
    return {"n_trades": int(own.sum()), "pnl": float(result.trades.pnl[own].sum())}


def _headline(turns: Sequence[_Turn], gated: BacktestResult, n_trials: int) -> str:
    """Return in one line whether what was traded shows an edge."""
    passed = sum(turn.passes for turn in turns)
    if not passed:
        return f"{NO_EDGE}: no model of {len(turns)} windows passed the gate, nothing was traded"
    figures = gated.metrics["figures"]
    low, luck = figures["average_trade"]["low"], figures["deflated_sharpe"]["value"]
    of = f"{passed} of {len(turns)} windows passed the gate"
    if low is None or low <= 0:
        return f"{NO_EDGE}: {of}, and the 95 % interval of the mean trade reaches {_shown(low)}"
    if luck is None or luck < CONFIDENCE:
        return (
            f"{NO_EDGE}: {of}, and after {n_trials} tries on this span luck explains the Sharpe "
            f"ratio with probability {1 - (luck or 0):.2g}"
        )
    return f"an edge after costs: {of}, 95 % interval of the mean trade from {low:.4g} on"


def _shown(value: float | None) -> str:
    return "nothing that is defined" if value is None else f"{value:.4g}"


def _earlier_walks(
    windows: Sequence[Window], batch: Artifact, ledger: Ledger, identity: str
) -> list[str]:
    """Return earlier walk-forwards of the instrument whose traded span touches this one's."""
    batches = {row.id: row.instrument for row in ledger.rows(tables.Batch)}
    instrument = batches[batch.id]
    return [
        row.id
        for row in ledger.rows(tables.WalkForward)
        if row.id != identity
        and batches.get(row.batch_id) == instrument
        and row.from_ns <= windows[-1].traded_to_ns
        and row.to_ns >= windows[0].traded_from_ns
    ]


def _record(published: Artifact, batch: Artifact, ledger: Ledger) -> None:
    metrics = published.metrics
    row = tables.WalkForward(
        id=published.id,
        batch_id=batch.id,
        from_ns=metrics["from_ns"],
        to_ns=metrics["to_ns"],
        settings=dict(published.manifest["parameters"]),
        metrics={n: v for n, v in metrics.items() if n != "windows"},
        path=str(published.path),
    )
    ledger.replace(row, (tables.WalkWindow, "walk_forward_id", _rows(metrics["windows"])))
    record_result(published, tables.Backtest(engines=metrics["engines"]), ledger)


def _rows(windows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "number": one["number"],
            "model_id": one["model"],
            "verdict": one["verdict"],
            "reasons": one["reasons"],
            "n_learned": one["n_learned"],
            "traded_from_ns": one["traded_from_ns"],
            "traded_to_ns": one["traded_to_ns"],
            "n_trades": one["n_trades"],
            "pnl": one["pnl"],
            "ungated_pnl": one["ungated_pnl"],
        }
        for one in windows
    ]
