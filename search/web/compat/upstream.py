"""Requests handed on to another server as they came."""

from __future__ import annotations

import http.client
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from search.web.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Mapping

_MOST_BYTES = 64_000_000  # of an answer


@dataclass(frozen=True, slots=True)
class Reply:
    """What the other server said."""

    status: int
    content: bytes
    media_type: str | None


def post(server: str, path: str, body: bytes, *, headers: Mapping[str, str], timeout_s: float) -> Reply:
    """Send a body to a path of a server and return what it says.

    server: "http://host:port".   timeout_s: to connect, and between any two parts of the answer.
    Raises Problem: 504 where it took too long, 502 where there was no answer, or one that is too large.
    """
    parts = urlsplit(server)
    opened = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = opened(parts.hostname or "", parts.port, timeout=timeout_s)
    try:
        connection.request("POST", path, body, dict(headers))
        with connection.getresponse() as response:
            content = response.read(_MOST_BYTES + 1)
            if len(content) > _MOST_BYTES:
                raise Problem(502, "The upstream server's answer is too large.")
            return Reply(response.status, content, response.getheader("Content-Type"))
    except TimeoutError:
        raise Problem(504, "The upstream server took too long.") from None
    except (OSError, http.client.HTTPException):
        raise Problem(502, "The upstream server can't be reached.") from None
    finally:
        connection.close()
