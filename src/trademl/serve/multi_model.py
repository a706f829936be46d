"""SageMaker's contract for containers of many models: they come and go over HTTP.

``POST /models`` loads, ``GET /models`` lists, ``GET`` and ``DELETE /models/{name}`` show and
unload, ``POST /models/{name}/invoke`` predicts; the same whichever worker is asked. A folder with
a ``serving.json`` (`trademl.serve.serving_folder`) says what its model is called and by which rules
it answers.
"""

from __future__ import annotations

import asyncio
import base64
import re
import secrets
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote

import orjson

from trademl.serve.loaded_models import Entry, LoadedModels
from trademl.serve.messages import Answer, Request, failure, identified
from trademl.serve.model_list import Listed
from trademl.serve.rows import RequestError, shown

PAGE = 100
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,255}")

Reply = Answer | asyncio.Future[Answer]


class MultiModel:
    """What answers for models by name.

    Parameters
    ----------
    folder : Path
        Models are read from below it, and from nowhere else.
    """

    def __init__(self, folder: Path, models: LoadedModels) -> None:
        self._folder, self._models = folder.resolve(), models
        self._running: set[asyncio.Task[Answer]] = set()

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
        ready = self._models.ready()
        names = sorted(name for name in ready if name > after)
        page = {"models": [_shown_model(name, ready[name]) for name in names[:PAGE]]}
        if len(names) > PAGE:
            last = names[PAGE - 1].encode()
            page["nextPageToken"] = base64.urlsafe_b64encode(last).decode()  # type: ignore[assignment]
        return Answer(200, orjson.dumps(page))

    def load(self, request: Request) -> Reply:
        """Load a model; the answer comes when every worker can predict with it."""
        name, url, sha256 = _asked(request.body)
        if self._models.find(name) is not None:
            raise RequestError(409, f"model {name} is loaded already: unload it first")
        wanted = Listed(secrets.token_hex(8), url, str(self._inside(url)), sha256)
        return self._later(request, self._load(name, wanted))

    async def _load(self, name: str, wanted: Listed) -> Answer:
        if failed := await self._models.load(name, wanted):
            return failure(*failed)
        return Answer(200, orjson.dumps(_shown_model(name, wanted)))

    def _show(self, request: Request) -> Answer:
        name = _name_in(request.path)
        return Answer(200, orjson.dumps(_shown_model(name, self._found(name))))

    def _unload(self, request: Request) -> Reply:
        return self._later(request, self._unloaded(_name_in(request.path)))

    async def _unloaded(self, name: str) -> Answer:
        if not await self._models.unload(name):
            raise RequestError(404, f"model {shown(name)} is not loaded")
        return Answer(200, b"{}")

    def _invoke(self, request: Request) -> Reply:
        name = _name_in(request.path)
        self._found(name)
        entry = self._models.entry(name)
        if entry.strategy is None:
            return self._later(request, self._invoke_late(name, entry, request))
        return entry.strategy.answer(request)

    async def _invoke_late(self, name: str, entry: Entry, request: Request) -> Answer:
        """Try once more to load what this worker alone could not."""
        if failed := await self._models.ensure(name, entry):
            return failure(503, f"model {name} is loaded, but not by this worker: {failed.message}")
        assert entry.strategy is not None  # noqa: S101  (nothing failed)
        reply = entry.strategy.answer(request)
        return reply if isinstance(reply, Answer) else await reply

    def _later(self, request: Request, work: Coroutine[Any, Any, Answer]) -> asyncio.Future[Answer]:
        async def finish() -> Answer:
            try:
                answer = await work
            except RequestError as error:
                answer = failure(error.status, str(error))
            except OSError as error:
                answer = failure(507, f"the list of models cannot be kept: {error}")
            return identified(answer, request) if answer.status >= 400 else answer

        task = asyncio.get_running_loop().create_task(finish())
        self._running.add(task)  # it ends what it began, although its client may leave
        task.add_done_callback(self._running.discard)
        return task

    def _found(self, name: str) -> Listed:
        listed = self._models.find(name)
        if listed is None:
            raise RequestError(404, f"model {shown(name)} is not loaded")
        return listed

    def _inside(self, url: str) -> Path:
        path = Path(url.removeprefix("file://")).resolve()
        if not path.is_relative_to(self._folder) or not path.exists():
            raise RequestError(
                400, f"url {shown(url)}: expected an existing path below {self._folder}"
            )
        return path


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


def _shown_model(name: str, listed: Listed) -> dict[str, str]:
    return {"modelName": name, "modelUrl": listed.url}
