"""Bodies on their way in, and how many requests are worked on: no body is too large, too slow, or one too many."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import anyio
from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope

from search.web.options import ServeOptions
from search.web.problems import Problem

_AT_ONCE = 8  # of the largest bodies, in memory
_SENDING = 256  # answers in parts, each with a file and a part of it in memory
_READ = ("POST", "PUT", "PATCH")  # methods whose bodies are waited for; of others nobody reads one
_PACE = 10_000  # bytes a second, on average, once its first seconds are over


class Bodies:
    """Places for requests that are worked on, and memory for their bodies.

    A request whose body is still on its way has no place yet, and one whose answer is sent part by part has none any
    more: they would keep others out by being slow.
    """

    def __init__(self, options: ServeOptions) -> None:
        self._options = options
        self._working = 0
        self._sending = 0
        self._held = 0

    @contextmanager
    def serving(self, scope: Scope, receive: Receive) -> Iterator[Body]:
        """Yield what a request's body is received by. Raises Problem where there is no place, or no such body."""
        body = Body(scope, receive, self)
        try:
            if not body.is_coming:
                self.place(body)
            yield body
        finally:
            self._held -= body.seen
            self._working -= body.has_place
            self._sending -= body.is_answered

    def place(self, body: Body) -> None:
        """Give a request its place. Raises Problem where all are taken."""
        if self._working >= self._options.concurrency:
            raise Problem(429, "Too many requests at the same time; try again.", headers={"Retry-After": "1"})
        self._working += 1
        body.has_place = True

    def leave(self, body: Body) -> None:
        """Take a request's place back: nothing is left of it but to send, part by part; unless too many do that."""
        if body.has_place and self._sending < _SENDING:
            self._working -= 1
            self._sending += 1
            body.has_place, body.is_answered = False, True

    def hold(self, size: int) -> None:
        """Count bytes of a body. Raises Problem where there are too many of all bodies together."""
        self._held += size
        if self._held > _AT_ONCE * self._options.max_upload_bytes:
            raise Problem(429, "Too much is being sent at the same time; try again.", headers={"Retry-After": "1"})

    @property
    def most(self) -> int:
        return self._options.max_upload_bytes

    @property
    def patience_s(self) -> float:
        return self._options.body_timeout_s


class Body:
    """One request's body, up to its limit; who sends nothing, or next to nothing, is not waited for."""

    def __init__(self, scope: Scope, receive: Receive, bodies: Bodies) -> None:
        self._receive, self._bodies = receive, bodies
        self.seen = 0
        self.has_place = False
        self.is_answered = False
        self.is_coming = _has_body(Headers(scope=scope), bodies.most) and scope["method"] in _READ
        self._ended = False
        self._started: float | None = None

    async def __call__(self) -> Message:
        if self._ended:  # what comes now is the end of the connection, whenever that is
            return await self._receive()
        try:
            with anyio.fail_after(self._patience()):
                message = await self._receive()
        except TimeoutError:
            raise Problem(408, "The rest of the request did not come.") from None
        self._count(len(message.get("body", b"")))
        self._ended = not message.get("more_body", False)
        if self._ended and self.is_coming:
            self._bodies.place(self)
        return message

    def _patience(self) -> float:
        """Seconds to wait for more: as long as for a first byte, less where all of it comes too slowly."""
        now = anyio.current_time()
        self._started = now if self._started is None else self._started
        most = self._bodies.patience_s
        return max(0.0, min(most, self._started + most + self.seen / _PACE - now))

    def _count(self, size: int) -> None:
        self.seen += size
        self._bodies.hold(size)
        if self.seen > self._bodies.most:
            raise _too_large(self._bodies.most)


def _has_body(headers: Headers, most: int) -> bool:
    """Whether a request says that it has a body. Raises Problem for one that is said to be too large.

    Of two words on where it ends one would be wrong: what follows it could be another's request (RFC 9112, 6.3).
    """
    said = headers.get("content-length", "")
    if said and "transfer-encoding" in headers:
        raise Problem(400, "A body has a Content-Length or is chunked, not both.", headers={"Connection": "close"})
    if said.isascii() and said.isdecimal() and (len(said) > 18 or int(said) > most):
        raise _too_large(most)
    return said not in ("", "0") or "transfer-encoding" in headers


def _too_large(most: int) -> Problem:
    return Problem(413, f"A request's body may have {most} bytes at most.")
