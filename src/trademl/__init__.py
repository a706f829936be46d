"""The whole life of a trading model: one clock and one fill model.

The names below are the library behind the command line, loaded when they are first used, so that
``import trademl`` stays cheap.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from trademl._version import __version__

if TYPE_CHECKING:
    from trademl.backtest.jobs import backtest_model
    from trademl.config import Settings, load_settings
    from trademl.etl.build import build_features
    from trademl.etl.dataset import Split, load_split
    from trademl.etl.features import feature_matrix
    from trademl.etl.folds import Fold, backtest_paths, combinatorial_purged, walk_forward
    from trademl.etl.from_files import build_features_from_files
    from trademl.etl.recipe import FeatureRecipe
    from trademl.etl.record_file import open_recordio
    from trademl.etl.recordio import read_recordio, write_recordio
    from trademl.etl.verify import verify_dataset
    from trademl.ingest.replay import export, replay
    from trademl.ingest.simulated import SimulatedMarket, simulate, write_simulation
    from trademl.ledger import Ledger
    from trademl.market.bars import Bars, settle_on_bars
    from trademl.market.costs import Costs
    from trademl.market.fills import settle
    from trademl.market.orders import Orders, Transactions
    from trademl.market.quotes import Quotes
    from trademl.pipeline.promotion import promote_model, rollback_model
    from trademl.pipeline.run import run
    from trademl.pipeline.strategy import Strategy
    from trademl.pipeline.workspace import Workspace
    from trademl.serve.client import predict
    from trademl.serve.deployments import deploy
    from trademl.serve.server import serve
    from trademl.train.card import model_card
    from trademl.train.evaluations import evaluate_model
    from trademl.train.jobs import select_model, train_dataset, tune_dataset
    from trademl.train.model import load_model
    from trademl.train.verdicts import gate_model

_HOME = {
    "Bars": "market.bars",
    "Costs": "market.costs",
    "FeatureRecipe": "etl.recipe",
    "Fold": "etl.folds",
    "Ledger": "ledger",
    "Orders": "market.orders",
    "Quotes": "market.quotes",
    "Settings": "config",
    "SimulatedMarket": "ingest.simulated",
    "Split": "etl.dataset",
    "Strategy": "pipeline.strategy",
    "Transactions": "market.orders",
    "Workspace": "pipeline.workspace",
    "backtest_model": "backtest.jobs",
    "backtest_paths": "etl.folds",
    "build_features": "etl.build",
    "combinatorial_purged": "etl.folds",
    "build_features_from_files": "etl.from_files",
    "deploy": "serve.deployments",
    "evaluate_model": "train.evaluations",
    "export": "ingest.replay",
    "feature_matrix": "etl.features",
    "gate_model": "train.verdicts",
    "load_model": "train.model",
    "load_settings": "config",
    "load_split": "etl.dataset",
    "model_card": "train.card",
    "open_recordio": "etl.record_file",
    "predict": "serve.client",
    "promote_model": "pipeline.promotion",
    "read_recordio": "etl.recordio",
    "replay": "ingest.replay",
    "rollback_model": "pipeline.promotion",
    "run": "pipeline.run",
    "select_model": "train.jobs",
    "serve": "serve.server",
    "settle": "market.fills",
    "simulate": "ingest.simulated",
    "settle_on_bars": "market.bars",
    "train_dataset": "train.jobs",
    "tune_dataset": "train.jobs",
    "verify_dataset": "etl.verify",
    "walk_forward": "etl.folds",
    "write_recordio": "etl.recordio",
    "write_simulation": "ingest.simulated",
}

__all__ = ["__version__", *sorted(_HOME)]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'trademl' has no attribute {name!r}")
    return getattr(import_module(f"trademl.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
