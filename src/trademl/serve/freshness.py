"""Which input is too old, or of too wide a spread, to decide on."""

from __future__ import annotations

from dataclasses import dataclass

from trademl.errors import ConfigError


@dataclass(frozen=True)
class Freshness:
    """Which input is too stale to decide on.

    Parameters
    ----------
    max_feature_age_s : float
        Oldest ``X-Trademl-Feature-Time-Ns``; 0 allows any age.
    max_spread : float
        Widest ``X-Trademl-Spread``, in quote currency; 0 allows any.
    needs_feature_time : bool
        Abstain where the caller does not say how old its features are.
    max_clock_ahead_s : float
        How far in the future, by the server's clock, a feature time may lie: clocks differ.
    """

    max_feature_age_s: float = 0.0
    max_spread: float = 0.0
    needs_feature_time: bool = False
    max_clock_ahead_s: float = 1.0

    def __post_init__(self) -> None:
        for name in ("max_feature_age_s", "max_spread", "max_clock_ahead_s"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}: expected 0 or more")
