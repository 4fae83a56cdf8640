"""How a server is reached and what it lets through."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from search.errors import UsageError

_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """Where a server listens and what it asks of those who come.

    host, port: to listen on; port 0 is any that is free.   token: what every request must prove to know; None asks for
    nothing, which only the loopback permits.   allowed_hosts: names by which browsers may call the server, beside the
    loopback's own, `host`, and plain addresses where it listens to other machines.
    max_upload_bytes: of a request's body.   max_megapixels: of an uploaded picture.
    rate: requests a second from one address, None for no limit; burst: so many may come at once.
    concurrency: requests that are worked on at the same time.   body_timeout_s: seconds without a byte of a body.
    Raises UsageError.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = None
    allowed_hosts: tuple[str, ...] = ()
    max_upload_bytes: int = 32_000_000
    max_megapixels: float = 100.0
    rate: float | None = None
    burst: int = 200
    concurrency: int = 64
    body_timeout_s: float = 30.0

    def __post_init__(self) -> None:
        if self.token is not None and not _is_plain(self.token):
            raise UsageError("the token must be printable ASCII without spaces")
        if self.token is None and not is_loopback(self.host):
            raise UsageError(
                f"{self.host} can be reached from other machines, which needs a token",
                hint="give one with --token, or leave --host out to be reached from this machine alone",
            )

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
