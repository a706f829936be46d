"""The files of a new project: a strategy and its tuning job."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from trademl.store.artifacts import storage_errors, write_atomically

FILES = ("strategy.toml", "tuning.json")


def write_scaffold(folder: Path) -> list[Path]:
    """Write the files that do not exist yet, and return their paths."""
    sample = resources.files("trademl") / "sample"
    missing = [name for name in FILES if not (folder / name).exists()]
    with storage_errors(folder):
        for name in missing:
            content = (sample / name).read_bytes()
            if name == "strategy.toml":
                content = content.replace(
                    b"seed = 7\n",
                    b'seed = 7\ntuning = "tuning.json"  # the tuning job, as SageMaker takes it\n',
                )
            write_atomically(folder / name, content)
    return [folder / name for name in missing]
