"""Whether a selected model may trade: promote, hold or reject, by test rows alone.

Threshold and trial were chosen on validation rows. Test rows answer one question: does the edge
hold where nobody looked? A point estimate that fails is a reject; one that holds, with a bound that
does not, is a hold: more rows may prove it.

Shape letters: N test rows, F flagged ones in order of time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from trademl.errors import ConfigError
from trademl.etl.dataset import Split
from trademl.stats.bootstrap import MIN_BLOCKS, lower_bound_of_mean, overlap_length
from trademl.stats.proportion import wilson_lower_bound
from trademl.stats.sharpe import (
    SharpeRatio,
    deflated_sharpe_ratio,
    expected_maximum,
    minimum_track_record,
    probabilistic_sharpe_ratio,
    sharpe_ratio,
)
from trademl.stats.uniqueness import effective_size
from trademl.train.determinism import Stream, generator
from trademl.train.duel import Duel
from trademl.train.metrics import confusion, precision, recall

GateVerdict = Literal["promote", "hold", "reject"]
_SEVERITY: tuple[GateVerdict, ...] = ("promote", "hold", "reject")


@dataclass(frozen=True)
class GateConfig:
    """What a model must show on test rows.

    Parameters
    ----------
    min_recall : float
        Share of the profitable orders that it must flag.
    min_predicted_positives : int
        Orders that it must flag.
    confidence : float
        Of each one-sided bound, and of the deflated Sharpe ratio.
    max_loss_probability : float
        Share of the ways of halving validation time in which the trial that is best in one half
        loses money in the other.
    max_pbo : float
        Share in which it ranks at or below the median in the other. 1 turns the check off: among
        trials that are equally good it is about a half.
    """

    min_recall: float = 0.05
    min_predicted_positives: int = 30
    confidence: float = 0.95
    max_loss_probability: float = 0.5
    max_pbo: float = 1.0

    def __post_init__(self) -> None:
        for name in ("min_recall", "max_loss_probability", "max_pbo"):
            if not 0.0 <= (value := getattr(self, name)) <= 1.0:
                raise ConfigError(f"{name} is {value}, expected between 0 and 1")
        if self.min_predicted_positives < 1:
            raise ConfigError(
                f"min_predicted_positives is {self.min_predicted_positives}, expected at least 1"
            )
        if not 0.5 <= self.confidence < 1.0:
            raise ConfigError(f"confidence is {self.confidence}, expected from 0.5 to below 1")


@dataclass(frozen=True)
class Check:
    """One thing that the gate looked at, what it leads to by itself, and the words for it."""

    name: str
    verdict: GateVerdict
    says: str


@dataclass(frozen=True)
class GateFigures:
    """What the gate measured on test rows; PnL in quote currency per unit, None where undefined.

    Parameters
    ----------
    break_even : float or None
        Precision at which the mean win and the mean loss of flagged orders cancel out.
    effective_n : float
        Flagged orders without overlap that hold as much evidence: the sum of their uniqueness.
    precision_lower_bound : float or None
        Wilson's, for ``effective_n`` orders.
    sharpe, skew, kurtosis : float or None
        Of flagged orders' PnL, per order.
    n_tried : int
        Models and score cuts tried on this span, from all looks at it.
    lucky_sharpe : float or None
        The Sharpe ratio that the best of so many reaches by luck.
    deflated_sharpe : float or None
        Probability that the true Sharpe ratio is above that.
    min_track_record : float or None
        Effective orders that would prove such a Sharpe ratio to be above 0, were it the only one.
    """

    n_rows: int
    n_flagged: int
    effective_n: float
    recall: float | None
    precision: float | None
    base_rate: float | None
    break_even: float | None
    precision_lower_bound: float | None
    mean_pnl: float | None
    sum_pnl: float
    pnl_lower_bound: float | None
    block_length: int
    sharpe: float | None
    skew: float | None
    kurtosis: float | None
    probabilistic_sharpe: float | None
    n_tried: int
    lucky_sharpe: float | None
    deflated_sharpe: float | None
    min_track_record: float | None


@dataclass(frozen=True)
class GateResult:
    """The verdict: that of the check that is hardest on the model."""

    checks: tuple[Check, ...]
    figures: GateFigures | None = None
    duel: Duel | None = None

    @property
    def verdict(self) -> GateVerdict:
        """``promote`` where every check says so; else the hardest."""
        return max((check.verdict for check in self.checks), key=_SEVERITY.index)

    @property
    def reasons(self) -> list[str]:
        """Why it is not promoted; empty where it is."""
        return [check.says for check in self.checks if check.verdict != "promote"]

    @property
    def has_edge(self) -> bool:
        """Whether it holds by itself, whatever the champion is worth."""
        outside = ("champion", "history")
        return all(c.verdict == "promote" for c in self.checks if c.name not in outside)

    def as_dict(self) -> dict[str, Any]:
        """Return all of it as JSON can hold it."""
        return {
            "verdict": self.verdict,
            "has_edge": self.has_edge,
            "reasons": self.reasons,
            "checks": [asdict(check) for check in self.checks],
            "figures": asdict(self.figures) if self.figures else None,
            "duel": asdict(self.duel) if self.duel else None,
        }


def weigh(
    test: Split,
    is_flagged_N: NDArray[np.bool_],
    config: GateConfig,
    *,
    n_tried: int,
    overfitting: Mapping[str, Any] | None,
    duel: Duel | None,
    seed: int,
) -> GateResult:
    """Judge a model by what it flags among test rows.

    Parameters
    ----------
    is_flagged_N : ndarray of bool, shape (N,)
        At the threshold that validation rows gave.
    n_tried : int
        Models and score cuts tried on this span so far, this one included; see `looks`.
    overfitting : mapping, optional
        ``pbo`` and ``loss_probability`` of the search on validation rows.
    duel : Duel, optional
        The comparison with the champion; None where there is no champion.
    seed : int
        Of the bootstrap.
    """
    found = _measure(test, is_flagged_N, config, n_tried, seed)
    checks = (
        _recall(found, config),
        _count(found, config),
        _precision(found, config),
        _pnl(found, config),
        _luck(found, config),
        _overfitting(overfitting, config),
        _champion(duel),
    )
    return GateResult(checks, found, duel)


def _measure(
    test: Split, is_flagged_N: NDArray[np.bool_], config: GateConfig, n_tried: int, seed: int
) -> GateFigures:
    rows_F = np.flatnonzero(is_flagged_N)
    rows_F = rows_F[np.argsort(test.as_of_N[rows_F], kind="stable")]
    pnl_F, as_of_F, exit_F = test.pnl_N[rows_F], test.as_of_N[rows_F], test.exit_N[rows_F]
    effective_n = effective_size(as_of_F, exit_F)
    block = overlap_length(as_of_F, exit_F)
    counts = confusion(test.label_N, is_flagged_N)
    hit = precision(counts)
    found = sharpe_ratio(pnl_F, n=effective_n)
    return GateFigures(
        n_rows=len(test),
        n_flagged=len(rows_F),
        effective_n=effective_n,
        recall=recall(counts),
        precision=hit,
        base_rate=counts.positives / counts.total if counts.total else None,
        break_even=_break_even(pnl_F),
        precision_lower_bound=None
        if hit is None
        else wilson_lower_bound(hit, effective_n, confidence=config.confidence),
        mean_pnl=float(pnl_F.mean()) if len(pnl_F) else None,
        sum_pnl=float(pnl_F.sum()),
        pnl_lower_bound=lower_bound_of_mean(
            pnl_F,
            block_length=block,
            confidence=config.confidence,
            seed=int(generator(seed, Stream.BOOTSTRAP).integers(2**31)),
        ),
        block_length=block,
        n_tried=n_tried,
        **_sharpe_figures(found, n_tried, config.confidence),
    )


def _sharpe_figures(
    found: SharpeRatio | None, n_tried: int, confidence: float
) -> dict[str, float | None]:
    names = ("sharpe", "skew", "kurtosis", "probabilistic_sharpe", "lucky_sharpe",
             "deflated_sharpe", "min_track_record")  # fmt: skip
    if found is None or found.n <= 1.0:
        return dict.fromkeys(names)
    values = (
        found.ratio,
        found.skew,
        found.kurtosis,
        probabilistic_sharpe_ratio(found),
        expected_maximum(n_tried, variance=1.0 / (found.n - 1.0)),
        deflated_sharpe_ratio(found, n_tried),
        minimum_track_record(found, confidence=confidence),
    )
    return dict(zip(names, values, strict=True))


def _break_even(pnl_F: NDArray[np.float64]) -> float | None:
    """Return the precision at which flagged orders of these wins and losses would earn nothing."""
    wins, losses = pnl_F[pnl_F > 0], -pnl_F[pnl_F <= 0]
    if not len(wins) or not len(losses):
        return None
    return float(losses.mean() / (wins.mean() + losses.mean()))


def _recall(found: GateFigures, config: GateConfig) -> Check:
    if found.recall is None:
        return Check("recall", "reject", "recall is undefined: no test order was profitable")
    if found.recall < config.min_recall:
        says = f"recall {found.recall:.3g} is below the floor of {config.min_recall:g}"
        return Check("recall", "reject", says)
    says = f"recall {found.recall:.3g}, floor {config.min_recall:g}"
    return Check("recall", "promote", says)


def _count(found: GateFigures, config: GateConfig) -> Check:
    floor = config.min_predicted_positives
    if found.n_flagged < floor:
        says = f"{found.n_flagged} test orders are flagged, fewer than the floor of {floor}"
        return Check("count", "reject", says)
    says = f"{found.n_flagged} of {found.n_rows} test orders are flagged, floor {floor}"
    return Check("count", "promote", says)


def _precision(found: GateFigures, config: GateConfig) -> Check:
    name = "precision"
    if found.precision is None or found.precision_lower_bound is None:
        return Check(name, "reject", "precision is undefined: no test order is flagged")
    bar = max(found.base_rate or 0.0, found.break_even or 0.0)
    versus = f"the higher of break-even and base rate, {bar:.3g}"
    if found.precision <= bar:
        return Check(name, "reject", f"precision {found.precision:.3g} is not above {versus}")
    bound = (
        f"Wilson's {100 * config.confidence:.4g}% lower bound of precision "
        f"{found.precision:.3g}, for {found.effective_n:.1f} effective orders, is "
        f"{found.precision_lower_bound:.3g}"
    )
    if found.precision_lower_bound <= bar:
        return Check(name, "hold", f"{bound}, not above {versus}")
    return Check(name, "promote", f"{bound}, above {versus}")


def _pnl(found: GateFigures, config: GateConfig) -> Check:
    name = "net PnL"
    if found.mean_pnl is None:
        return Check(name, "reject", "net PnL is undefined: no test order is flagged")
    if found.mean_pnl <= 0.0:
        says = f"mean net PnL per flagged order is {found.mean_pnl:.4g}, not above 0"
        return Check(name, "reject", says)
    bound = f"{100 * config.confidence:.4g}% lower bound of the mean net PnL per flagged order"
    if found.pnl_lower_bound is None:
        says = (
            f"the {bound} is undefined: {found.n_flagged} flagged orders, in blocks of "
            f"{found.block_length} that depend on each other, are fewer than {MIN_BLOCKS} blocks"
        )
        return Check(name, "hold", says)
    says = f"the {bound} is {found.pnl_lower_bound:.4g}, the mean {found.mean_pnl:.4g}"
    if found.pnl_lower_bound <= 0.0:
        return Check(name, "hold", f"{says}: not above 0")
    return Check(name, "promote", says)


def _luck(found: GateFigures, config: GateConfig) -> Check:
    name = "deflated Sharpe"
    if found.sharpe is None or found.deflated_sharpe is None or found.lucky_sharpe is None:
        return Check(name, "hold", "the Sharpe ratio of flagged orders is undefined")
    says = (
        f"after {found.n_tried} tries on this span luck alone reaches a Sharpe ratio of "
        f"{found.lucky_sharpe:.3g} an order; that of {found.sharpe:.3g} is above it with "
        f"probability {found.deflated_sharpe:.4g}"
    )
    if found.deflated_sharpe < config.confidence:
        return Check(name, "hold", f"{says}, less than {config.confidence:g}")
    return Check(name, "promote", says)


def _overfitting(found: Mapping[str, Any] | None, config: GateConfig) -> Check:
    name = "overfitting"
    if found is None:
        return Check(name, "promote", "one trial, or too few rows: overfitting was not measured")
    says = (
        f"the trial that is best on half of validation time loses money on the other half in "
        f"{found['loss_probability']:.0%} of {found['n_combinations']} ways to halve it, and is "
        f"no better than the median in {found['pbo']:.0%}"
    )
    for key in ("loss_probability", "pbo"):
        if found[key] > (limit := getattr(config, f"max_{key}")):
            return Check(name, "hold", f"{says}: more than the {limit:.0%} of max_{key}")
    return Check(name, "promote", says)


def _champion(duel: Duel | None) -> Check:
    if duel is None:
        return Check("champion", "promote", "there is no champion yet")
    return Check("champion", "promote" if duel.is_won else "hold", duel.says)
