"""The model server and its client.

Importing it needs the ``serve`` extra; without it the import is a `ServeError` that says so.
"""

from __future__ import annotations

from importlib.util import find_spec

from trademl.errors import ServeError

if _missing := [name for name in ("orjson", "httptools", "uvloop") if find_spec(name) is None]:
    raise ServeError(
        f"serving needs {', '.join(_missing)}: install the extra with pip install 'trademl[serve]'"
    )
