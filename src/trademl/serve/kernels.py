"""The compiled code of a server, loaded before the first request and without what none of it calls.

The first kernel that numba loads in a process makes it look for a BLAS, which is `scipy.linalg`
with all that it imports: 17 MB of each worker. It is hidden meanwhile; whatever asks later
finds it.

A process that compiles keeps 47 MB more than one that loads: the first server after an install has
another process compile for it.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trademl.serve import number_text, row_sum

_BLAS = "scipy.linalg"
_KERNELS = (*number_text.KERNELS, *row_sum.KERNELS)
_COMPILE = "from trademl.serve import kernels; kernels.load()"


def warm_up() -> None:
    """Have what reads and scores a row compiled, unless it was before, and load it."""
    if sys.executable and not all(map(_is_kept, _KERNELS)):
        # where it cannot be kept, or the other process fails, this one compiles
        subprocess.run(  # noqa: S603 - this very Python
            [sys.executable, "-P", "-c", _COMPILE],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )
    load()


def load() -> None:
    """Load what was compiled before, or compile it here."""
    with _hidden(_BLAS):
        number_text.warm_up()
        row_sum.warm_up()


def _is_kept(kernel: Any) -> bool:
    """Return whether numba has kept what it compiled of a function since its file was written."""
    source = Path(kernel.py_func.__code__.co_filename)
    kept = Path(kernel.stats.cache_path).glob(f"{source.stem}.{kernel.__name__}-*.nbi")
    return any(index.stat().st_mtime >= source.stat().st_mtime for index in kept)


@contextmanager
def _hidden(module: str) -> Iterator[None]:
    """Let nobody import a module for a while, unless somebody has."""
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment]  # as the language reference has it
    try:
        yield
    finally:
        del sys.modules[module]
