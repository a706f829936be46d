"""The compiled code of a server, loaded before the first request and without what none of it calls.

The first kernel that numba loads in a process makes it look for a BLAS, which is `scipy.linalg`
with all that it imports: 17 MB of each worker. It is hidden meanwhile; whatever asks later
finds it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from trademl.serve import number_text, row_sum

_BLAS = "scipy.linalg"


def warm_up() -> None:
    """Compile what reads and scores a row, or load what was compiled before."""
    with _hidden(_BLAS):
        number_text.warm_up()
        row_sum.warm_up()


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
