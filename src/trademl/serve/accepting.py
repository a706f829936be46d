"""Connections out of a queue that several workers share, taken evenly.

The queue is one, so that a connection waits for whoever is free and not for a worker that hangs.
But who looks first could take nearly all of them; so each worker writes on the board how many it
has, and leaves the next one for a moment to another that has fewer.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Sized

from trademl.serve.board import Board, WorkerPlace

BEAT_S = 0.1
_ALERT_S = 0.5  # a worker that was silent for longer is not waited for
_LEAVE_S = 0.001
_MOST_LEFT = 5  # times that a connection is left to others before it is taken all the same
_NO_ROOM_S = 0.1  # until a connection is looked for again that found no descriptor


class Acceptor:
    """Accepts connections for one of several workers; make it on its event loop.

    Parameters
    ----------
    connections : sized
        Those that this worker has now.
    """

    def __init__(
        self,
        place: WorkerPlace,
        connect: Callable[[], asyncio.Protocol],
        connections: Sized,
        tls: ssl.SSLContext | None,
        handshake_s: float | None,
    ) -> None:
        self._connect, self._connections = connect, connections
        self._tls, self._handshake_s = tls, handshake_s
        self._socket = socket.socket(fileno=place.socket)
        self._socket.setblocking(False)
        self._board, self._number = Board(place.folder, place.count), place.number
        self._loop = asyncio.get_running_loop()
        self._n_left = 0
        self._is_closed = False
        self._opening: set[asyncio.Task[object]] = set()
        self._beating = self._loop.create_task(self._beat())
        self._look()

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """The listening socket."""
        return (self._socket,)

    def close(self) -> None:
        """Take no more; the queue stays with the other workers."""
        if not self._is_closed:
            self._is_closed = True
            self._beating.cancel()
            self._loop.remove_reader(self._socket)
            self._socket.close()

    async def _beat(self) -> None:
        while True:
            self._board.beat(self._number, len(self._connections))
            await asyncio.sleep(BEAT_S)

    def _look(self) -> None:
        if not self._is_closed:
            self._loop.add_reader(self._socket, self._accept)

    def _pause(self, seconds: float) -> None:
        self._loop.remove_reader(self._socket)
        self._loop.call_later(seconds, self._look)

    def _accept(self) -> None:
        n = len(self._connections) + len(self._opening)
        if self._n_left < _MOST_LEFT and n > self._board.fewest(_ALERT_S):
            self._n_left += 1
            self._pause(_LEAVE_S)
            return
        self._n_left = 0
        try:
            client, _ = self._socket.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return  # another worker was first, or the client has left
        except OSError:
            self._pause(_NO_ROOM_S)
            return
        self._board.beat(self._number, n + 1)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        opening = self._loop.create_task(self._open(client))
        self._opening.add(opening)
        opening.add_done_callback(self._opening.discard)

    async def _open(self, client: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(
                self._connect, client, ssl=self._tls, ssl_handshake_timeout=self._handshake_s
            )
        except OSError:  # no TLS, or no handshake in time
            client.close()
