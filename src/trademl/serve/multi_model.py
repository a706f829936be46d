"""SageMaker's contract for containers of many models: they come and go over HTTP.

``POST /models`` loads, ``GET /models`` lists, ``GET`` and ``DELETE /models/{name}`` show and
unload, ``POST /models/{name}/invoke`` predicts.
"""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote

import orjson

from trademl.errors import StoreError
from trademl.serve.live_strategy import LiveStrategy
from trademl.serve.messages import Answer, Request, failure
from trademl.serve.model_pool import Held, ModelFile, ModelPool, NoRoomError
from trademl.serve.rows import RequestError, shown

PAGE = 100
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,255}")

Reply = Answer | asyncio.Future[Answer]


@dataclass(eq=False)
class _Entry:
    url: str
    held: Held
    strategy: LiveStrategy | None = None  # None while it is being loaded


class MultiModel:
    """The models that came over HTTP, by name; each is a strategy of one model.

    Parameters
    ----------
    folder : Path
        Models are read from below it, and from nowhere else.
    open_strategy, close_strategy : callable
        Make a strategy of a model that is in memory, and end it.
    """

    def __init__(
        self,
        folder: Path,
        pool: ModelPool,
        open_strategy: Callable[[str, Held], LiveStrategy],
        close_strategy: Callable[[str], None],
    ) -> None:
        self._folder, self._pool = folder.resolve(), pool
        self._open, self._close = open_strategy, close_strategy
        self._entries: dict[str, _Entry] = {}

    def routes(self, path: str) -> Mapping[str, Callable[[Request], Reply]] | None:
        """Return what answers the methods of a path below ``/models/``."""
        parts = path.split("/")
        if parts[:2] != ["", "models"] or len(parts) not in (3, 4):
            return None
        if len(parts) == 4:
            return {"POST": self._invoke} if parts[3] == "invoke" else None
        return {"GET": self._show, "DELETE": self._unload}

    def show_all(self, request: Request) -> Answer:
        """Return a page of the models that are loaded, in order of their names."""
        token = parse_qs(request.query).get("next_page_token", [""])[0]
        after = _token_name(token) if token else ""
        names = sorted(n for n, entry in self._entries.items() if entry.strategy and n > after)
        page = {"models": [_shown_model(n, self._entries[n]) for n in names[:PAGE]]}
        if len(names) > PAGE:
            last = names[PAGE - 1].encode()
            page["nextPageToken"] = base64.urlsafe_b64encode(last).decode()  # type: ignore[assignment]
        return Answer(200, orjson.dumps(page))

    def load(self, request: Request) -> Reply:
        """Load a model; the answer comes when it can predict."""
        name, url, sha256 = _asked(request.body)
        if name in self._entries:
            raise RequestError(409, f"model {name} is loaded already: unload it first")
        file = ModelFile(name, str(self._inside(url)), sha256)
        entry = self._entries[name] = _Entry(url, self._pool.add(file, is_pinned=True))
        return asyncio.get_running_loop().create_task(self._load(name, entry))

    async def _load(self, name: str, entry: _Entry) -> Answer:
        try:
            await self._pool.begin(entry.held)
        except NoRoomError as error:
            return self._not_loaded(name, entry, failure(507, str(error)))
        except StoreError as error:
            return self._not_loaded(name, entry, failure(400, str(error)))
        except asyncio.CancelledError:
            return failure(409, f"model {name} was unloaded while it was being loaded")
        entry.strategy = self._open(name, entry.held)
        return Answer(200, orjson.dumps(_shown_model(name, entry)))

    def _not_loaded(self, name: str, entry: _Entry, answer: Answer) -> Answer:
        if self._entries.get(name) is entry:
            del self._entries[name]
            self._pool.remove(entry.held)
        return answer

    def _inside(self, url: str) -> Path:
        path = Path(url.removeprefix("file://")).resolve()
        if not path.is_relative_to(self._folder) or not path.exists():
            raise RequestError(
                400, f"url {shown(url)}: expected an existing path below {self._folder}"
            )
        return path

    def _show(self, request: Request) -> Answer:
        name = _name_in(request.path)
        return Answer(200, orjson.dumps(_shown_model(name, self._loaded(name))))

    def _unload(self, request: Request) -> Answer:
        name = _name_in(request.path)
        entry = self._entries.pop(name, None)
        if entry is None:
            raise RequestError(404, f"model {shown(name)} is not loaded")
        if entry.strategy is not None:
            self._close(name)
        self._pool.remove(entry.held)
        return Answer(200, b"{}")

    def _invoke(self, request: Request) -> Reply:
        entry = self._loaded(_name_in(request.path))
        assert entry.strategy is not None  # noqa: S101  (those that are loaded have one)
        return entry.strategy.answer(request)

    def _loaded(self, name: str) -> _Entry:
        entry = self._entries.get(name)
        if entry is None or entry.strategy is None:
            raise RequestError(404, f"model {shown(name)} is not loaded")
        return entry


def _asked(body: bytes) -> tuple[str, str, str]:
    expected = 'expected {"model_name": "...", "url": "..."}'
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RequestError(400, f"the body is not JSON: {expected}") from error
    if not isinstance(document, dict):
        raise RequestError(400, expected)
    name, url, sha256 = (document.get(key) for key in ("model_name", "url", "sha256"))
    if not isinstance(url, str) or not url or "\0" in url or not isinstance(sha256, str | None):
        raise RequestError(400, expected)
    return _checked_name(name), url, sha256 or ""


def _name_in(path: str) -> str:
    return _checked_name(unquote(path.split("/")[2]))


def _checked_name(name: Any) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise RequestError(
            400,
            f"the model's name is {shown(name)}: expected letters, digits, dot, dash, underscore",
        )
    return name


def _token_name(token: str) -> str:
    try:
        return base64.urlsafe_b64decode(token.encode("ascii")).decode()
    except ValueError as error:
        raise RequestError(400, f"next_page_token {shown(token)} is none of this server") from error


def _shown_model(name: str, entry: _Entry) -> dict[str, str]:
    return {"modelName": name, "modelUrl": entry.url}
