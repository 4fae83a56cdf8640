"""How a server is reached and what it lets through."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import urlsplit

from search.errors import UsageError

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")


PUBLIC = "public"  # any address that is not of some private network


@dataclass(frozen=True, slots=True)
class ClipRetrieval:
    """How clip-retrieval's clients are answered.

    origins: web pages that may ask from a browser, "http://localhost:5005".   fetch_from: networks from which a picture
    may be fetched whose address a client sends, as "192.168.1.0/24", or "public"; none: nothing is fetched.
    Raises UsageError.
    """

    origins: tuple[str, ...] = ()
    fetch_from: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for origin in self.origins:
            if not re.fullmatch(r"https?://(\[[0-9a-fA-F:.]+\]|[^\s/?#@:*\[\]]+)(:[0-9]{1,5})?", origin):
                raise UsageError(f"{origin} is no origin of a web page", hint="as http://localhost:5005")
        _ = self.networks

    @property
    def networks(self) -> tuple[Network, ...]:
        """The networks of `fetch_from`."""
        return tuple(_network(text) for text in self.fetch_from if text != PUBLIC)

    @property
    def fetches_public(self) -> bool:
        return PUBLIC in self.fetch_from


@dataclass(frozen=True, slots=True)
class Immich:
    """How immich's server is answered.

    upstream: address of a machine learning server that does what is not CLIP; None: nobody does.   timeout_s: how long
    it may take.   Raises UsageError.
    """

    upstream: str | None = None
    timeout_s: float = 120.0

    def __post_init__(self) -> None:
        if self.upstream is not None and not _is_server(self.upstream):
            raise UsageError(f"{self.upstream} is no address of a server", hint="as http://127.0.0.1:3003")


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """Where a server listens and what it asks of those who come.

    host, port: to listen on; port 0 is any that is free.   token: what every request must prove to know; None asks for
    nothing, which only the loopback permits.   other_users: without a token, other users of this machine may come, too;
    where the system does not tell users apart they may anyway.
    allowed_hosts: names by which browsers may call the server, beside the loopback's own, `host`, and plain addresses
    where it listens to other machines.
    max_upload_bytes: of a request's body.   max_megapixels: of an uploaded picture.
    rate: requests a second from one address, None for no limit; burst: so many may come at once.
    concurrency: requests that are worked on at the same time.   body_timeout_s: seconds without a byte of a body.
    max_thumbnail_bytes: of small pictures that are kept on the disk.
    index_under: folders that may be indexed from here, beside those of the library; see `indexes_anywhere`.
    clip_retrieval, immich: how their clients are answered, None: not at all.
    Raises UsageError.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = None
    other_users: bool = False
    allowed_hosts: tuple[str, ...] = ()
    max_upload_bytes: int = 32_000_000
    max_megapixels: float = 100.0
    rate: float | None = None
    burst: int = 200
    concurrency: int = 64
    body_timeout_s: float = 30.0
    index_under: tuple[str, ...] = ()
    max_thumbnail_bytes: int = 2_000_000_000
    clip_retrieval: ClipRetrieval | None = None
    immich: Immich | None = None

    def __post_init__(self) -> None:
        if self.token is not None and not _is_plain(self.token):
            raise UsageError("the token must be printable ASCII without spaces")
        if self.token is None and not is_loopback(self.host):
            raise UsageError(
                f"{self.host} can be reached from other machines, which needs a token",
                hint="give one with --token, or leave --host out to be reached from this machine alone",
            )

    @property
    def indexes_anywhere(self) -> bool:
        """Whether any folder may be indexed: only who sits at this machine asks for it."""
        return is_loopback(self.host) and not self.allowed_hosts and not self.other_users

    @property
    def is_for_one_user(self) -> bool:
        """Whether only who started the server is answered, of all users of this machine."""
        return self.token is None and not self.other_users

    @property
    def hosts(self) -> frozenset[str]:
        """The names, lower case, that a request's Host may have."""
        return frozenset(name.lower().strip("[]") for name in (*_LOOPBACK_NAMES, self.host, *self.allowed_hosts))


def is_loopback(host: str) -> bool:
    """Say whether only this machine reaches what listens there."""
    address = as_address(host)
    return host.lower() == "localhost" if address is None else address.is_loopback


def as_address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the IP address that a host is; None for a name."""
    try:
        return ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return None


def _is_plain(token: str) -> bool:
    return bool(token) and token.isascii() and token.isprintable() and " " not in token


def _network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        raise UsageError(
            f"{text} is no network to fetch from", hint=f"as 192.168.1.0/24, or {PUBLIC!r} for any public address"
        ) from None


def _is_server(url: str) -> bool:
    """Whether it is an address with nothing behind the host and port."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return False
    is_bare = parts.path in ("", "/") and not parts.query and not parts.fragment and "@" not in parts.netloc
    return parts.scheme in ("http", "https") and bool(parts.hostname) and is_bare
