"""A strategy: everything that one run of the life cycle needs to know, in one value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trademl.aws.ec2_settings import Ec2Config
from trademl.aws.hosting import HostingConfig
from trademl.aws.settings import AwsConfig
from trademl.backtest.quarterly_settings import QuarterlyConfig
from trademl.backtest.served_answers import ReplayConfig
from trademl.backtest.settings import BacktestConfig
from trademl.backtest.walk_settings import WalkForwardConfig
from trademl.backtest.walk_windows import LearnSettings
from trademl.errors import ConfigError
from trademl.etl.recipe import FeatureRecipe
from trademl.etl.splits import SplitConfig
from trademl.ingest.bar_batches import BarsConfig
from trademl.ingest.order_bot import OrderBotConfig
from trademl.ingest.sessions import session_days
from trademl.ingest.sources import FeedConfig
from trademl.ledger import Database
from trademl.live.hedge_size import HedgeConfig
from trademl.market.costs import Costs, realistic_costs
from trademl.market.health import HealthConfig
from trademl.serve.deployments import ServingConfig
from trademl.serve.freshness import Freshness
from trademl.serve.ladder import LadderPolicy
from trademl.train.gate import GateConfig
from trademl.train.network_config import NetworkConfig, NetworkTraining
from trademl.train.parallel.distribution import parse_distribution
from trademl.train.search_space import parse_tuning_config
from trademl.train.selection import SelectionFloors


@dataclass(frozen=True)
class Strategy:
    """A strategy file, resolved: one field a section.

    Parameters
    ----------
    name : str
        What runs and endpoints are called.
    seed : int
        Makes tuning, training and selection repeatable.
    tuning : mapping
        The tuning job as SageMaker's JSON: see `trademl.train.search_space`.
    distribution : mapping or str
        How the network's training is divided: see `trademl.train.parallel.distribution`.
    """

    name: str = "default"
    seed: int = 7
    feed: FeedConfig = field(default_factory=FeedConfig)
    bars: BarsConfig = field(default_factory=BarsConfig)
    orders: OrderBotConfig = field(default_factory=OrderBotConfig)
    costs: Costs = field(default_factory=realistic_costs)
    health: HealthConfig = field(default_factory=HealthConfig)
    features: FeatureRecipe = field(default_factory=FeatureRecipe)
    split: SplitConfig = field(default_factory=SplitConfig)
    selection: SelectionFloors = field(default_factory=SelectionFloors)
    gate: GateConfig = field(default_factory=GateConfig)
    backtest: BacktestConfig = field(default_factory=BacktestConfig)
    allocation: QuarterlyConfig = field(default_factory=QuarterlyConfig)
    walk_forward: WalkForwardConfig = field(default_factory=WalkForwardConfig)
    replay: ReplayConfig = field(default_factory=ReplayConfig)
    serving: ServingConfig = field(default_factory=ServingConfig)
    ladder: LadderPolicy = field(default_factory=LadderPolicy)
    freshness: Freshness = field(default_factory=Freshness)
    ledger: Database = field(default_factory=Database)
    hedge: HedgeConfig = field(default_factory=HedgeConfig)
    aws: AwsConfig = field(default_factory=AwsConfig)
    hosting: HostingConfig = field(default_factory=HostingConfig)
    ec2: Ec2Config = field(default_factory=Ec2Config)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    training: NetworkTraining = field(default_factory=NetworkTraining)
    tuning: Mapping[str, Any] = field(default_factory=dict)
    distribution: Mapping[str, Any] | str = "auto"

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**31:
            raise ConfigError(f"seed is {self.seed}, expected from 0 to 2147483647")


def check_strategy(strategy: Strategy) -> None:
    """Refuse, before any work is done, settings that cannot go together.

    Raises
    ------
    ConfigError
        If the tuning job or the distribution is refused, the job is made for another number of
        columns, or the session's opening or time zone cannot be understood.
    """
    parse_distribution(strategy.distribution)
    static = parse_tuning_config(strategy.tuning).static
    given, found = static.get("feature_dim", "auto"), strategy.features.feature_dim
    if given not in ("auto", str(found)):
        raise ConfigError(
            f"the tuning job's StaticHyperParameters have feature_dim {given}, the recipe of "
            f"[features] has {found} columns: set feature_dim to {found}, or to auto"
        )
    feed = strategy.feed
    session_days(
        np.zeros(1, np.int64), timezone=feed.timezone or "UTC", session_open=feed.session_open
    )


def learn_settings(strategy: Strategy) -> LearnSettings:
    """Return what of a strategy decides the models of a walk-forward."""
    return LearnSettings(
        features=strategy.features,
        split=strategy.split,
        health=strategy.health,
        costs=strategy.costs,
        selection=strategy.selection,
        tuning=strategy.tuning,
        walk=strategy.walk_forward,
        seed=strategy.seed,
    )
