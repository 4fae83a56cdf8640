"""What stands between strangers and the library: every request passes here first, and every answer on its way out.

A page on another site can make a browser send requests to this machine, and by DNS rebinding even read the answers.
So the Host must be a name of this server; what a browser says is asked by another site is refused, but for opening a
page by a link; no answer may be read by another origin. With a token, only who knows it gets further.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from functools import partial
from time import monotonic

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from search.web.bodies import Bodies
from search.web.compat import guests
from search.web.options import ServeOptions, as_address, is_loopback
from search.web.problems import Problem, problem_of, respond
from search.web.rates import Rate, after, client_of
from search.web.tokens import Door

_log = logging.getLogger("search.web")

OPEN_TO_IMMICH = ("/ping", "/predict")
"""What immich's server asks: it has no place for a token. The answers tell nothing of the library but its model."""

_SAFE = ("GET", "HEAD", "OPTIONS")

_PAGE_POLICY = (
    "default-src 'none'; img-src 'self' data: blob:; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_DATA_POLICY = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; sandbox"
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "private, no-cache",
}


class Guard:
    """Lets a request through to `app` or answers it itself; the middleware around everything."""

    def __init__(self, app: ASGIApp, *, options: ServeOptions, clock: Callable[[], float] = monotonic) -> None:
        self._app = app
        self._options = options
        self._door = Door(options.token, clock=clock)
        self._rate = Rate(options.rate, options.burst, clock) if options.rate else None
        self._bodies = Bodies(options)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            guest = guests.guest(scope, Headers(scope=scope), self._options.clip_retrieval)
            await self._answer(scope, receive, _Outgoing(scope, send, guest), guest)
        elif scope["type"] == "websocket":  # there are none here
            await send({"type": "websocket.close", "code": 1008})

    async def _answer(self, scope: Scope, receive: Receive, send: _Outgoing, guest: str | None) -> None:
        """guest: the origin of a page of another site that may ask this, None for all else."""
        try:
            headers = Headers(scope=scope)
            self._check_host(headers.getlist("host"))
            self._check_rate(scope)
            if guest and (told := guests.preflight(scope, headers)) is not None:
                await told(scope, receive, send)
                return
            if not guest:
                _check_origin(scope, headers)
            if not self._is_open(scope):
                self._check_user(scope)
                self._door.check(scope, headers)
            if (entered := self._door.entering(scope)) is not None:
                await entered(scope, receive, send)
                return
            scope.setdefault("state", {})["form_token"] = self._door.form_token()
            with self._bodies.serving(scope, receive) as body:
                send.in_parts = partial(self._bodies.leave, body)
                await self._app(scope, body, send)
        except ClientDisconnect:
            return
        except Exception as error:
            if not isinstance(error, Problem):
                _log.exception("%s %r failed", scope["method"], scope["path"])
            if send.started:
                raise  # the connection is cut, so that nobody takes half an answer for a whole one
            await respond(problem_of(error), scope)(scope, receive, send)

    # ---- where it was sent

    def _check_host(self, given: list[str]) -> None:
        """Refuse a name that is not this server's: by DNS rebinding any site's name can lead here."""
        if len(given) != 1:
            raise Problem(400, "A request needs one Host.")
        host = host_of(given[0])
        if host in self._options.hosts:
            return
        # An address can't be rebound: whoever has it in a browser's bar is on the page that this server sent.
        if not is_loopback(self._options.host) and as_address(host) is not None:
            return
        raise Problem(421, "This server does not answer to that Host; --allow-host names further ones.")

    # ---- how often, and by whom

    def _check_user(self, scope: Scope) -> None:
        """Refuse other users of this machine, where they are told apart and nothing says that they may come.

        Root can do whatever it likes anyway.
        """
        user = scope.get("state", {}).get("user")
        if user is not None and self._options.is_for_one_user and user not in (0, os.getuid()):
            raise Problem(
                403, "This server answers the user who started it; --token or --other-users lets others in."
            )

    def _check_rate(self, scope: Scope) -> None:
        wait = self._rate.take(client_of(scope)) if self._rate else 0.0
        if wait > 0:
            raise Problem(429, "Too many requests; try again later.", headers=after(wait))

    def _is_open(self, scope: Scope) -> bool:
        """Whether it needs no token."""
        return self._options.immich is not None and scope["path"] in OPEN_TO_IMMICH


def host_of(header: str) -> str:
    """Return the name or address in a Host header, lower case, without port and brackets; '' if it is neither."""
    text = header.strip().lower()
    if text.startswith("["):
        address, found, rest = text[1:].partition("]")
        is_whole = found and (not rest or _is_port(rest))
        return address if is_whole else ""
    name, colon, port = text.partition(":")
    return name.removesuffix(".") if not colon or _is_port(colon + port) else ""


def _is_port(text: str) -> bool:
    return text[0] == ":" and text[1:].isascii() and text[1:].isdecimal()


def _check_origin(scope: Scope, headers: Headers) -> None:
    """Refuse what a browser says another site asks for; programs say nothing of the kind.

    Another port of this machine is another site: other people's programs may listen there.
    """
    site = headers.get("sec-fetch-site", "none")
    origin = headers.get("origin")
    is_own = origin is None or _is_own(origin, scope, headers)
    if scope["method"] not in _SAFE:
        if site not in ("same-origin", "none") or not is_own:
            raise Problem(403, "Another site may not change anything here.")
    elif site not in ("same-origin", "none") and not _is_followed_link(scope, headers):
        raise Problem(403, "Another site may not load this.")


def _is_own(origin: str, scope: Scope, headers: Headers) -> bool:
    """Whether an Origin is this server's; behind something that speaks HTTPS in front, its scheme may be another."""
    return origin.lower() in {f"{scheme}://{headers['host'].lower()}" for scheme in ("http", "https")}


def _is_followed_link(scope: Scope, headers: Headers) -> bool:
    """Whether someone follows a link to a page, which shows it and tells the other site nothing."""
    mode, target = headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest")
    return scope["method"] == "GET" and mode == "navigate" and target == "document"


class _Outgoing:
    """An answer on its way: puts on the headers that it has not put on itself.   in_parts: called if it comes so."""

    def __init__(self, scope: Scope, send: Send, guest: str | None) -> None:
        self._send = send
        self._welcome = guests.welcome(guest) if guest else {}
        self._policy = _DATA_POLICY if scope["path"].startswith("/api/") else _PAGE_POLICY
        self.started = False
        self.in_parts: Callable[[], None] = lambda: None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            headers = MutableHeaders(scope=message)
            headers.update(self._welcome)
            for name, value in (*_HEADERS.items(), ("Content-Security-Policy", self._policy)):
                headers.setdefault(name, value)
        elif message.get("more_body"):
            self.in_parts()
        await self._send(message)
