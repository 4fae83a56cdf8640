"""What stands between strangers and the library: every request passes here first, and every answer on its way out.

A page on another site can make a browser send requests to this machine, and by DNS rebinding even read the answers.
So the Host must be a name of this server; what a browser says is asked by another site is refused, but for opening a
page by a link; no answer may be read by another origin. With a token, only who knows it gets further.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import logging
import math
import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterator
from http.cookies import CookieError, SimpleCookie
from time import monotonic
from urllib.parse import parse_qsl, urlencode

import anyio
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from search.web.compat import guests
from search.web.options import ServeOptions, as_address, is_loopback
from search.web.problems import Problem, problem_of, respond

_log = logging.getLogger("search.web")

OPEN_TO_IMMICH = ("/ping", "/predict")
"""What immich's server asks: it has no place for a token. The answers tell nothing of the library but its model."""

COOKIE = "search_token"
_COOKIE_AGE_S = 30 * 24 * 3600
_SAFE = ("GET", "HEAD", "OPTIONS")
_MOST_CLIENTS = 10_000  # addresses whose requests are counted
_GUESSES, _GUESSES_A_SECOND = 10, 0.1  # wrong tokens from one address

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
        self._token = options.token
        self._secret = secrets.token_bytes(32)
        self._rate = Rate(options.rate, options.burst, clock) if options.rate else None
        self._guesses = Rate(_GUESSES_A_SECOND, _GUESSES, clock)
        self._working = 0

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
            self._check_rate(scope, self._rate)
            if guest and (told := guests.preflight(scope, headers)) is not None:
                await told(scope, receive, send)
                return
            if not guest:
                _check_origin(scope, headers)
            self._check_who(scope, headers)
            if (entered := self._entering(scope)) is not None:
                await entered(scope, receive, send)
                return
            scope.setdefault("state", {})["form_token"] = self._form_token()
            with self._place():
                await self._app(scope, _Incoming(scope, receive, self._options), send)
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

    # ---- how often

    def _check_rate(self, scope: Scope, rate: Rate | None) -> None:
        wait = rate.take(_client(scope)) if rate else 0.0
        if wait > 0:
            raise Problem(429, "Too many requests; try again later.", headers=_after(wait))

    @contextlib.contextmanager
    def _place(self) -> Iterator[None]:
        """Hold one of the places for requests that are worked on. Raises Problem where all are taken."""
        if self._working >= self._options.concurrency:
            raise Problem(429, "Too many requests at the same time; try again.", headers=_after(1))
        self._working += 1
        try:
            yield
        finally:
            self._working -= 1

    # ---- who it is from

    def _check_who(self, scope: Scope, headers: Headers) -> None:
        """Raise Problem for who does not know the token, if there is one."""
        is_open = self._options.immich is not None and scope["path"] in OPEN_TO_IMMICH
        if self._token is not None and not is_open and not self._entrance(scope):
            self._check_token(scope, headers)

    def _check_token(self, scope: Scope, headers: Headers) -> None:
        cookie = _cookie(headers)
        if cookie is not None and _same(cookie, self._cookie_value()):
            return
        given = _given(headers)
        if given is None:
            raise _without_token(
                "This server asks for its token: in a browser open /?token=TOKEN once, elsewhere send "
                "'Authorization: Bearer TOKEN'."
            )
        self._check_guess(scope, given)

    def _check_guess(self, scope: Scope, given: str) -> None:
        """Compare a token; whoever gave too many wrong ones must wait, else one of them would be right one day."""
        assert self._token is not None
        if (wait := self._guesses.wait(_client(scope))) > 0:
            raise Problem(429, "Too many wrong tokens; try again later.", headers=_after(wait))
        if not _same(given, self._token):
            self._guesses.take(_client(scope))
            raise _without_token("That is not this server's token.")

    def _entrance(self, scope: Scope) -> bool:
        """Whether it is /?token=TOKEN that is opened."""
        is_asked = self._token is not None and scope["path"] == "/" and scope["method"] in ("GET", "HEAD")
        return is_asked and "token" in _query(scope)

    def _entering(self, scope: Scope) -> RedirectResponse | None:
        """Answer /?token=TOKEN with a cookie, and lead to the same address without the token. Raises Problem."""
        if not self._entrance(scope):
            return None
        query = _query(scope)
        self._check_guess(scope, query.pop("token"))
        response = RedirectResponse("/" + (f"?{urlencode(query)}" if query else ""), 303)
        response.set_cookie(
            COOKIE,
            self._cookie_value(),
            max_age=_COOKIE_AGE_S,
            httponly=True,
            samesite="strict",
            secure=scope["scheme"] == "https",
        )
        return response

    def _cookie_value(self) -> str:
        """What a browser keeps: of the token, but not the token."""
        return _mac((self._token or "").encode(), b"cookie")

    def _form_token(self) -> str:
        """What a form must send back (`scope["state"]["form_token"]`); `is_form_token` compares."""
        return _mac(self._secret, b"form")


def is_form_token(scope: Scope, given: object) -> bool:
    """Say whether a form sent back what the page that it stands on was given."""
    expected = scope.get("state", {}).get("form_token")
    return isinstance(given, str) and isinstance(expected, str) and _same(given, expected)


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


def _without_token(detail: str) -> Problem:
    return Problem(401, detail, headers={"WWW-Authenticate": "Bearer"})


def _given(headers: Headers) -> str | None:
    """Return the token that a request gives: by itself, or as the password that an address can hold."""
    kind, _, value = headers.get("authorization", "").partition(" ")
    if kind.lower() == "basic":
        with contextlib.suppress(ValueError):
            return base64.b64decode(value.strip(), validate=True).decode().partition(":")[2]
    return value.strip() if kind.lower() == "bearer" else None


def _cookie(headers: Headers) -> str | None:
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return None
    return found.value if found else None


def _query(scope: Scope) -> dict[str, str]:
    return dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))


def _same(given: str, expected: str) -> bool:
    """Compare in a time that does not tell how much is right, or how long the expected is."""
    one, other = (hashlib.sha256(text.encode("utf-8", "replace")).digest() for text in (given, expected))
    return hmac.compare_digest(one, other)


def _mac(key: bytes, purpose: bytes) -> str:
    return hmac.digest(key, b"search." + purpose, "sha256").hex()


def _client(scope: Scope) -> str:
    client = scope.get("client")
    return client[0] if client else ""


def _after(seconds: float) -> dict[str, str]:
    return {"Retry-After": str(max(1, math.ceil(seconds)))}


class Rate:
    """How often each of many may come: `rate` times a second on average, `burst` times at once."""

    def __init__(self, rate: float, burst: int, clock: Callable[[], float]) -> None:
        self._rate, self._burst, self._clock = rate, burst, clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # by who: how often yet, as of when

    def take(self, who: str) -> float:
        """Count one; return 0.0, or the seconds to wait where it is one too many and was not counted."""
        now, left = self._clock(), self._of(who)
        self._left.pop(who, None)
        self._left[who] = (left - 1 if left >= 1 else left, now)
        while len(self._left) > _MOST_CLIENTS:
            self._left.popitem(last=False)
        return 0.0 if left >= 1 else (1 - left) / self._rate

    def wait(self, who: str) -> float:
        """Return the seconds until one may come again, without counting it."""
        return max(0.0, (1 - self._of(who)) / self._rate)

    def _of(self, who: str) -> float:
        """How often one may come now."""
        left, then = self._left.get(who, (float(self._burst), 0.0))
        return min(float(self._burst), left + (self._clock() - then) * self._rate)


class _Incoming:
    """A request's body, up to its limit; who sends nothing is not waited for."""

    def __init__(self, scope: Scope, receive: Receive, options: ServeOptions) -> None:
        self._receive = receive
        self._most = options.max_upload_bytes
        self._timeout_s = options.body_timeout_s
        self._seen = 0
        self._ended = False
        self._too_large = Problem(413, f"A request's body may have {self._most} bytes at most.")
        said = Headers(scope=scope).get("content-length", "")
        if said.isascii() and said.isdecimal() and (len(said) > 18 or int(said) > self._most):
            raise self._too_large

    async def __call__(self) -> Message:
        if self._ended:  # what comes now is the end of the connection, whenever that is
            return await self._receive()
        try:
            with anyio.fail_after(self._timeout_s):
                message = await self._receive()
        except TimeoutError:
            raise Problem(408, "The rest of the request did not come.") from None
        self._seen += len(message.get("body", b""))
        self._ended = not message.get("more_body", False)
        if self._seen > self._most:
            raise self._too_large
        return message


class _Outgoing:
    """An answer on its way: puts on the headers that it has not put on itself."""

    def __init__(self, scope: Scope, send: Send, guest: str | None) -> None:
        self._send = send
        self._welcome = guests.welcome(guest) if guest else {}
        self._policy = _DATA_POLICY if scope["path"].startswith("/api/") else _PAGE_POLICY
        self.started = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            headers = MutableHeaders(scope=message)
            headers.update(self._welcome)
            for name, value in (*_HEADERS.items(), ("Content-Security-Policy", self._policy)):
                headers.setdefault(name, value)
        await self._send(message)
