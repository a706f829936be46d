"""Compile functions that call the fill model, and keep the result on disk without it going stale.

Numba keys its disk cache by the file that holds a function, and would go on with an old fill model
after `fills.py` has changed. Its key also holds what a function closes over: here, a digest of the
sources that it may call.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import CellType, FunctionType
from typing import Any

from numba import njit

MARKET = Path(__file__).resolve().parent


def fill_kernel(function: Callable[..., Any]) -> Any:
    """Compile a function; its cache holds while its folder and `trademl.market` are as they are."""
    code = function.__code__
    folder = Path(code.co_filename).resolve().parent
    closed = FunctionType(
        code.replace(co_freevars=("sources",)),
        function.__globals__,
        function.__name__,
        closure=(CellType(_digest(folder)),),
    )
    closed.__doc__, closed.__module__ = function.__doc__, function.__module__
    closed.__qualname__ = function.__qualname__
    return njit(nogil=True, cache=True)(closed)


@cache
def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted({*MARKET.glob("*.py"), *folder.glob("*.py")}):
        digest.update(path.read_bytes())
    return digest.hexdigest()
