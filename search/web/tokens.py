"""The token: who knows it, the cookie that a browser keeps of it, and what a form proves that it is from here."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import secrets
from collections.abc import Callable
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import Headers
from starlette.responses import RedirectResponse
from starlette.types import Scope

from search.web.problems import Problem
from search.web.rates import Rate, after, client_of

COOKIE = "search_token"
_COOKIE_AGE_S = 30 * 24 * 3600
_GUESSES, _GUESSES_A_SECOND = 10, 0.1  # wrong tokens from one address


class Door:
    """Lets in who knows the token.   token: None lets everybody in."""

    def __init__(self, token: str | None, *, clock: Callable[[], float]) -> None:
        self._token = token
        self._secret = secrets.token_bytes(32)
        self._guesses = Rate(_GUESSES_A_SECOND, _GUESSES, clock)
        # Of their own: an old one keeps nobody from entering.
        self._cookies = Rate(_GUESSES_A_SECOND, _GUESSES, clock)

    def check(self, scope: Scope, headers: Headers) -> None:
        """Raise Problem for who does not know the token."""
        if self._token is None or self._is_entrance(scope):
            return
        cookie, given = _cookie(headers), _given(headers)
        if cookie is not None:
            try:  # it is made of the token, so whoever guesses that could try it here as well
                _compare(cookie, _of_cookie(self._token), scope, self._cookies)
            except Problem as refused:
                if given is None:
                    raise _asked() if refused.status_code == 401 else refused from None
            else:
                return
        if given is None:
            raise _asked()
        _compare(given, self._token, scope, self._guesses)

    def entering(self, scope: Scope) -> RedirectResponse | None:
        """Answer /?token=TOKEN with a cookie, and lead to the same address without the token. Raises Problem."""
        if self._token is None or not self._is_entrance(scope):
            return None
        query = _query(scope)
        _compare(query.pop("token"), self._token, scope, self._guesses)
        response = RedirectResponse("/" + (f"?{urlencode(query)}" if query else ""), 303)
        response.set_cookie(
            COOKIE,
            _of_cookie(self._token),
            max_age=_COOKIE_AGE_S,
            httponly=True,
            samesite="strict",
            secure=scope["scheme"] == "https",
        )
        return response

    def form_token(self) -> str:
        """Return what a form must send back (`scope["state"]["form_token"]`); `is_form_token` compares."""
        return _mac(self._secret, b"form")

    def _is_entrance(self, scope: Scope) -> bool:
        """Whether it is /?token=TOKEN that is opened."""
        return scope["path"] == "/" and scope["method"] in ("GET", "HEAD") and "token" in _query(scope)


def _compare(given: str, expected: str, scope: Scope, guesses: Rate) -> None:
    """Compare a secret; whoever gave too many wrong ones must wait, else one of them would be right one day."""
    if (wait := guesses.wait(client_of(scope))) > 0:
        raise Problem(429, "Too many wrong tokens; try again later.", headers=after(wait))
    if not _same(given, expected):
        guesses.take(client_of(scope))
        raise _refused("That is not this server's token.")


def is_form_token(scope: Scope, given: object) -> bool:
    """Say whether a form sent back what the page that it stands on was given."""
    expected = scope.get("state", {}).get("form_token")
    return isinstance(given, str) and isinstance(expected, str) and _same(given, expected)


def check_form_token(scope: Scope, given: object) -> None:
    """Raise Problem for a form of a page that this server did not make."""
    if not is_form_token(scope, given):
        raise Problem(403, "The page is older than the server: load it again.")


def _asked() -> Problem:
    return _refused(
        "This server asks for its token: in a browser open /?token=TOKEN once, elsewhere send "
        "'Authorization: Bearer TOKEN'."
    )


def _refused(detail: str) -> Problem:
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


def _of_cookie(token: str) -> str:
    """What a browser keeps: of the token, but not the token."""
    return _mac(token.encode(), b"cookie")


def _query(scope: Scope) -> dict[str, str]:
    return dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))


def _same(given: str, expected: str) -> bool:
    """Compare in a time that does not tell how much is right, or how long the expected is."""
    one, other = (hashlib.sha256(text.encode("utf-8", "replace")).digest() for text in (given, expected))
    return hmac.compare_digest(one, other)


def _mac(key: bytes, purpose: bytes) -> str:
    return hmac.digest(key, b"search." + purpose, "sha256").hex()
