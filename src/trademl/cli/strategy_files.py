"""Strategy files that are named on the command line of a deployment."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from trademl.pipeline.strategy import Strategy


def strategy_files(words: list[str]) -> list[Path]:
    """Return the strategy files among the words; none where they name a model."""
    files = [Path(word) for word in words if word.endswith(".toml")]
    if len(words) > 1 and len(files) < len(words):
        raise typer.BadParameter("give strategy files (.toml), or the id of one model")
    return files


def read_files(files: list[Path], workspace: Path | None) -> list[Strategy]:
    from trademl.config import find_strategy_file, load_settings

    return [load_settings(find_strategy_file(file), workspace=workspace).strategy for file in files]
