"""A strategy: everything that one run of the life cycle needs to know, in one value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from trademl.etl.recipe import FeatureRecipe
from trademl.etl.splits import SplitConfig
from trademl.ingest.order_bot import OrderBotConfig
from trademl.ingest.sources import FeedConfig
from trademl.market.costs import Costs
from trademl.market.health import HealthConfig
from trademl.serve.deployments import ServingConfig
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
    """

    name: str = "default"
    seed: int = 7
    feed: FeedConfig = field(default_factory=FeedConfig)
    orders: OrderBotConfig = field(default_factory=OrderBotConfig)
    costs: Costs = field(default_factory=Costs)
    health: HealthConfig = field(default_factory=HealthConfig)
    features: FeatureRecipe = field(default_factory=FeatureRecipe)
    split: SplitConfig = field(default_factory=SplitConfig)
    selection: SelectionFloors = field(default_factory=SelectionFloors)
    serving: ServingConfig = field(default_factory=ServingConfig)
    tuning: Mapping[str, Any] = field(default_factory=dict)
