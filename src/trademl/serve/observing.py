"""Whoever looks on: a handler that shows each request with its answer to others.

Where nobody looks on, requests go straight to the handler and cost nothing more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from trademl.serve.messages import Answer, Request

Reply = Answer | asyncio.Future[Answer]


class Observer(Protocol):
    """Shown each request once it is answered; must be quick, and must not raise."""

    def see(self, request: Request, answer: Answer, strategy: str) -> None:
        """Look at a request and its answer.

        Parameters
        ----------
        strategy : str
            Which strategy answered; empty if none did.
        """

    def metrics(self) -> list[str]:
        """Return what it counted, as lines of Prometheus' text format."""

    def close(self) -> None:
        """Finish what has begun: the server ends."""


class Observed:
    """A handler with observers.

    Parameters
    ----------
    name_of : callable
        Returns the strategy that answers a request.
    """

    def __init__(
        self,
        handler: Callable[[Request], Reply],
        name_of: Callable[[Request], str],
        observers: Sequence[Observer],
    ) -> None:
        self._handler, self._name_of, self._observers = handler, name_of, observers

    def __call__(self, request: Request) -> Reply:
        """Return the handler's answer, and show it, at once or when it comes."""
        reply = self._handler(request)
        if type(reply) is Answer:
            self.show(request, reply)
        elif isinstance(reply, asyncio.Future):
            reply.add_done_callback(lambda done: self._show_late(request, done))
        return reply

    def show(self, request: Request, answer: Answer) -> None:
        """Show an answer to all observers."""
        strategy = self._name_of(request)
        for observer in self._observers:
            observer.see(request, answer, strategy)

    def metrics(self) -> list[str]:
        """Return what all observers counted."""
        return [line for observer in self._observers for line in observer.metrics()]

    def close(self) -> None:
        """Let all observers finish."""
        for observer in self._observers:
            observer.close()

    def _show_late(self, request: Request, done: asyncio.Future[Answer]) -> None:
        if not done.cancelled() and done.exception() is None:
            self.show(request, done.result())
