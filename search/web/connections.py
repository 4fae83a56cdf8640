"""Connections as they are served: none is kept open by who says nothing, says it slowly, or takes no answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from search.web import neighbours
from search.web.options import is_loopback

if TYPE_CHECKING:
    import socket
    from asyncio import TimerHandle

    from starlette.applications import Starlette

_MOST_CONNECTIONS = 1000  # open at a time, whoever has them and whatever they wait for


class Connection(H11Protocol):
    """uvicorn's, with an end to each wait for the other side.

    A byte now and then is no reason to wait longer: a thousand such connections would leave no room for anyone.
    What may be long is a body, whose pace `bodies` watches.
    `scope["state"]["user"]` is the user of this machine that asks, where the system tells (`neighbours`).
    """

    asking_s = 20.0
    """From the connection's begin, or an answer's end, until a request's head is there."""
    taking_s = 30.0
    """To take what is on its way out: what the system has no more room for, a quarter of a megabyte at most."""

    _asking: TimerHandle | None = None
    _taking: TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if self.client and self.server and is_loopback(self.client[0]) and neighbours.can_tell():
            theirs, (host, port) = self.client, self.server
            self.app_state = {**self.app_state, "user": neighbours.user_of(theirs, (host, port or 0))}
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._taking is None:
            self._taking = self.loop.call_later(self.taking_s, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        _cancel(self._taking)
        self._taking = None

    def connection_lost(self, exc: Exception | None) -> None:
        _cancel(self._asking)
        _cancel(self._taking)
        super().connection_lost(exc)

    def _watch(self) -> None:
        """Wait for a request unless one is being answered; what came of it so far makes it no longer."""
        if self.cycle is not None and not self.cycle.response_complete:
            _cancel(self._asking)
            self._asking = None
        elif self._asking is None:
            self._asking = self.loop.call_later(self.asking_s, self.transport.abort)


def config_of(app: Starlette, *, backlog: int) -> uvicorn.Config:
    """Return how uvicorn serves an application: a limit to all, and nothing believed that a proxy could have said."""
    return uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,  # an address may have the token in it
        server_header=False,
        proxy_headers=False,
        http=Connection,
        ws="none",
        limit_concurrency=_MOST_CONNECTIONS,
        backlog=backlog,
        timeout_keep_alive=10,
        timeout_graceful_shutdown=5,
    )


class Server(uvicorn.Server):
    """uvicorn's, which says that it ends before it waits for what is being answered: some of that would never end."""

    def __init__(self, config: uvicorn.Config, *, ending: Callable[[], None]) -> None:
        super().__init__(config)
        self._ending = ending

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._ending()
        await super().shutdown(sockets)


def _cancel(timer: TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
