"""``trademl train`` of a network: the options and the two functions behind them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trademl.cli.output import emit
from trademl.cli.session import Session, open_session

if TYPE_CHECKING:
    from trademl.train.network_jobs import NetworkRequest

Network = Annotated[
    bool, typer.Option("--network", help="Train the strategy's network, [network] and [training].")
]
DistributionFile = Annotated[
    Path | None,
    typer.Option(
        "--distribution",
        metavar="FILE",
        help="How to divide the network's training: TOML, JSON or a Python literal.",
    ),
]
Nproc = Annotated[
    int | None, typer.Option("--nproc", min=1, help="Processes to train the network with.")
]
ExplainPlan = Annotated[
    bool,
    typer.Option(
        "--explain-plan",
        help="Train nothing: compare the ways to divide the work, and measure a step.",
    ),
]
DeviceMemory = Annotated[
    float | None,
    typer.Option(
        "--device-memory",
        min=0.001,
        metavar="GIB",
        help="With --explain-plan: plan for devices of this size, not for this machine.",
    ),
]


@dataclass(frozen=True)
class Asked:
    """The options of a command."""

    dataset: str | None
    distribution: Path | None
    nproc: int | None
    config: Path | None
    workspace: Path | None
    json: bool


def train_network(asked: Asked) -> None:
    """Train the strategy's network and print what it measured."""
    from trademl.etl.adopt import open_dataset
    from trademl.train.network_config import NETWORK_KINDS
    from trademl.train.network_jobs import train_network as train

    with open_session(asked.config, asked.workspace) as session, session.workspace.lock():
        store, ledger = session.workspace.store, session.workspace.ledger
        network = train(
            open_dataset(asked.dataset, store, ledger),
            _request(asked, session),
            store,
            ledger,
            progress=session.progress,
        )
    found = network.metrics
    lines = [f"note: {note}" for note in found["notes"]]
    lines.append(
        f"{network.id}: validation loss {found['validation_loss']:.6g} after epoch "
        f"{found['best_epoch']} of {found['epochs']}, {found['processes']} processes "
        f"({found['copies']} copies x {found['pipeline_ranks']} stages)"
    )
    if found["kind"] == NETWORK_KINDS["logistic"]:
        lines.append(f"next: trademl models select {network.id}")
    emit({"id": network.id, **found}, as_json=asked.json, lines=lines)


def explain_plan(asked: Asked, device_memory_gib: float | None) -> None:
    """Print what each way to divide the training would cost."""
    from trademl.train.network_jobs import explain_plan as explain

    with open_session(asked.config, asked.workspace) as session:
        found = explain(
            session.workspace.store.newest("dataset", asked.dataset),
            _request(asked, session),
            memory_gib=device_memory_gib,
            progress=session.progress,
        )
    emit(found.facts(), as_json=asked.json, lines=found.lines())


def _request(asked: Asked, session: Session) -> NetworkRequest:
    from trademl.config import process_environment
    from trademl.train.network_jobs import NetworkRequest
    from trademl.train.parallel.distribution import (
        parse_distribution,
        read_distribution,
        with_processes,
    )

    strategy = session.strategy
    if asked.distribution:
        distribution = read_distribution(asked.distribution)
    else:
        distribution = parse_distribution(strategy.distribution)
    return NetworkRequest(
        network=strategy.network,
        training=strategy.training,
        distribution=with_processes(distribution, asked.nproc),
        seed=strategy.seed,
        environment=process_environment(),
    )
