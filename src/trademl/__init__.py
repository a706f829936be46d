"""The whole life of a trading model: one clock and one fill model.

The names below are the library behind the command line, loaded when they are first used, so that
``import trademl`` stays cheap.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from trademl._version import __version__

if TYPE_CHECKING:
    from trademl.aws.hosted import deploy_to_ec2, deploy_to_sagemaker, plan_hosting, plan_on_ec2
    from trademl.aws.jobs import stop_job, train_on_sagemaker, tune_on_sagemaker
    from trademl.aws.model_files import load_model
    from trademl.aws.plan import plan_training, plan_tuning
    from trademl.aws.prices import refresh_prices
    from trademl.aws.settings import AwsConfig
    from trademl.aws.torchrun import launch_torchrun
    from trademl.aws.transform import plan_transform, run_transform
    from trademl.backtest.allocation import run_allocation
    from trademl.backtest.compare import compare
    from trademl.backtest.explain import explain_trade
    from trademl.backtest.jobs import backtest_model
    from trademl.backtest.replay import backtest_replay
    from trademl.backtest.run import run_backtest
    from trademl.backtest.score_rule import sweep_scores, trade_scores
    from trademl.backtest.strategy_jobs import backtest_file, backtest_signals
    from trademl.backtest.walk_forward import backtest_walk_forward
    from trademl.config import Settings, load_settings, open_workspace
    from trademl.etl.adopt import open_dataset
    from trademl.etl.build import build_features
    from trademl.etl.dataset import Split, load_split
    from trademl.etl.features import feature_matrix
    from trademl.etl.folds import Fold, backtest_paths, combinatorial_purged, walk_forward
    from trademl.etl.from_files import build_features_from_files
    from trademl.etl.recipe import FeatureRecipe
    from trademl.etl.record_file import open_recordio
    from trademl.etl.recordio import read_recordio, write_recordio
    from trademl.etl.summary import inspect_dataset
    from trademl.etl.verify import verify_dataset
    from trademl.ingest.bar_builds import build_bars
    from trademl.ingest.bar_files import read_bars
    from trademl.ingest.replay import export, replay
    from trademl.ingest.simulated import SimulatedMarket, simulate, write_simulation
    from trademl.ledger import Database, Ledger
    from trademl.market.bars import Bars, settle_on_bars
    from trademl.market.costs import Costs
    from trademl.market.fills import settle
    from trademl.market.orders import Orders, Transactions
    from trademl.market.quotes import Quotes
    from trademl.monitor.tear_sheet import write_tear_sheet
    from trademl.pipeline.allocate import allocate
    from trademl.pipeline.hedging import HedgeOptions, plan_outage, watch_region
    from trademl.pipeline.ledger_upkeep import flush_ledger, ledger_status, upgrade_ledger
    from trademl.pipeline.live import LiveOptions, trade_live
    from trademl.pipeline.promotion import promote_model, rollback_model
    from trademl.pipeline.run import run
    from trademl.pipeline.strategy import Strategy
    from trademl.pipeline.workspace import Workspace
    from trademl.serve.background import start_service, stop_service
    from trademl.serve.batch import predict_files
    from trademl.serve.client import predict
    from trademl.serve.deployments import deploy
    from trademl.serve.routing.server import route
    from trademl.serve.server import serve
    from trademl.train.card import model_card
    from trademl.train.control import fit_control
    from trademl.train.evaluations import evaluate_model
    from trademl.train.hyperparameters import LinearLearnerParameters
    from trademl.train.jobs import select_model, train_dataset, tune_dataset
    from trademl.train.linear_learner import fit, fit_together
    from trademl.train.model import save_model
    from trademl.train.network_file import load_network
    from trademl.train.network_jobs import explain_plan, train_network
    from trademl.train.verdicts import gate_model

_HOME = {
    "AwsConfig": "aws.settings",
    "Bars": "market.bars",
    "Costs": "market.costs",
    "Database": "ledger",
    "FeatureRecipe": "etl.recipe",
    "Fold": "etl.folds",
    "HedgeOptions": "pipeline.hedging",
    "Ledger": "ledger",
    "LinearLearnerParameters": "train.hyperparameters",
    "LiveOptions": "pipeline.live",
    "Orders": "market.orders",
    "Quotes": "market.quotes",
    "Settings": "config",
    "SimulatedMarket": "ingest.simulated",
    "Split": "etl.dataset",
    "Strategy": "pipeline.strategy",
    "Transactions": "market.orders",
    "Workspace": "pipeline.workspace",
    "allocate": "pipeline.allocate",
    "backtest_file": "backtest.strategy_jobs",
    "backtest_model": "backtest.jobs",
    "backtest_paths": "etl.folds",
    "backtest_replay": "backtest.replay",
    "backtest_signals": "backtest.strategy_jobs",
    "backtest_walk_forward": "backtest.walk_forward",
    "build_bars": "ingest.bar_builds",
    "build_features": "etl.build",
    "build_features_from_files": "etl.from_files",
    "combinatorial_purged": "etl.folds",
    "compare": "backtest.compare",
    "deploy": "serve.deployments",
    "deploy_to_ec2": "aws.hosted",
    "deploy_to_sagemaker": "aws.hosted",
    "evaluate_model": "train.evaluations",
    "explain_plan": "train.network_jobs",
    "explain_trade": "backtest.explain",
    "export": "ingest.replay",
    "feature_matrix": "etl.features",
    "fit": "train.linear_learner",
    "fit_control": "train.control",
    "fit_together": "train.linear_learner",
    "flush_ledger": "pipeline.ledger_upkeep",
    "gate_model": "train.verdicts",
    "inspect_dataset": "etl.summary",
    "launch_torchrun": "aws.torchrun",
    "ledger_status": "pipeline.ledger_upkeep",
    "load_model": "aws.model_files",
    "load_network": "train.network_file",
    "load_settings": "config",
    "load_split": "etl.dataset",
    "model_card": "train.card",
    "open_dataset": "etl.adopt",
    "open_recordio": "etl.record_file",
    "open_workspace": "config",
    "plan_hosting": "aws.hosted",
    "plan_on_ec2": "aws.hosted",
    "plan_outage": "pipeline.hedging",
    "plan_training": "aws.plan",
    "plan_transform": "aws.transform",
    "plan_tuning": "aws.plan",
    "predict": "serve.client",
    "predict_files": "serve.batch",
    "promote_model": "pipeline.promotion",
    "read_bars": "ingest.bar_files",
    "read_recordio": "etl.recordio",
    "refresh_prices": "aws.prices",
    "replay": "ingest.replay",
    "rollback_model": "pipeline.promotion",
    "route": "serve.routing.server",
    "run": "pipeline.run",
    "run_allocation": "backtest.allocation",
    "run_backtest": "backtest.run",
    "run_transform": "aws.transform",
    "save_model": "train.model",
    "select_model": "train.jobs",
    "serve": "serve.server",
    "settle": "market.fills",
    "settle_on_bars": "market.bars",
    "simulate": "ingest.simulated",
    "start_service": "serve.background",
    "stop_job": "aws.jobs",
    "stop_service": "serve.background",
    "sweep_scores": "backtest.score_rule",
    "trade_live": "pipeline.live",
    "trade_scores": "backtest.score_rule",
    "train_dataset": "train.jobs",
    "train_network": "train.network_jobs",
    "train_on_sagemaker": "aws.jobs",
    "tune_dataset": "train.jobs",
    "tune_on_sagemaker": "aws.jobs",
    "upgrade_ledger": "pipeline.ledger_upkeep",
    "verify_dataset": "etl.verify",
    "walk_forward": "etl.folds",
    "watch_region": "pipeline.hedging",
    "write_recordio": "etl.recordio",
    "write_simulation": "ingest.simulated",
    "write_tear_sheet": "monitor.tear_sheet",
}

__all__ = ["__version__", *sorted(_HOME)]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'trademl' has no attribute {name!r}")
    return getattr(import_module(f"trademl.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
