"""A picture at an address that a client sent, fetched only from where that was allowed.

What a name leads to is looked up once, every address is held against what is allowed, and the connection goes to the
address that was looked at: a name that leads elsewhere a moment later gains nothing. Each redirection is a new address.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urljoin, urlsplit

from search.web.problems import Problem

if TYPE_CHECKING:
    from search.web.options import ClipRetrieval, Network

    Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_REDIRECTIONS = 3
_CHUNK = 2**16
_PORTS = {"http": 80, "https": 443}
_TRANSLATED = ipaddress.ip_network("64:ff9b::/96")  # IPv4 behind a translator, RFC 6052
_GLOBAL = ipaddress.ip_network("2000::/3")  # all of IPv6 that is given to anyone's network yet
# What Python's versions do not agree on, or hold to be global: IANA's special-purpose registries.
_SPECIAL = tuple(map(ipaddress.ip_network, ("192.0.0.0/24", "192.88.99.0/24", "2001::/23", "3fff::/20")))


@dataclass(frozen=True, slots=True)
class Limits:
    """What is fetched at most, and for how long all of it may take."""

    most_bytes: int
    seconds: float = 10.0


def fetch(url: str, allowed: ClipRetrieval, *, limits: Limits) -> bytes:
    """Return what is at an address. Raises Problem, which never tells what stands in the way of it."""
    for _ in range(_REDIRECTIONS + 1):
        parts = _parts(url)
        connection = _Pinned(parts, _address(parts, allowed), limits.seconds)
        ending = threading.Timer(limits.seconds, connection.cut)  # a byte now and then would outlast any timeout
        ending.daemon = True
        ending.start()
        try:
            content, further = _asked(connection, parts, limits)
        except (OSError, http.client.HTTPException):
            raise Problem(502, "The picture could not be fetched.") from None
        finally:
            ending.cancel()
            connection.close()
        if further is None:
            return content
        url = urljoin(url, further)
    raise Problem(502, "The picture's address leads on and on.")


def _asked(connection: _Pinned, parts: SplitResult, limits: Limits) -> tuple[bytes, str | None]:
    """Return the content, or the address it was moved to."""
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    connection.request("GET", target, headers={"Accept": "image/*", "User-Agent": "search", "Connection": "close"})
    with connection.getresponse() as response:
        if response.status in (301, 302, 303, 307, 308):
            return b"", response.getheader("Location", "")
        if response.status != 200:
            raise Problem(502, "The picture could not be fetched.")
        content = bytearray()
        while chunk := response.read1(_CHUNK):
            content += chunk
            if len(content) > limits.most_bytes:
                raise Problem(413, f"The picture has more than {limits.most_bytes} bytes.")
        if response.length:  # the connection ended before
            raise Problem(502, "The picture could not be fetched.")
    return bytes(content), None


class _Pinned(http.client.HTTPConnection):
    """A connection to one address, whatever its name leads to by now."""

    def __init__(self, parts: SplitResult, address: str, seconds: float) -> None:
        super().__init__(parts.hostname or "", parts.port or _PORTS[parts.scheme], timeout=seconds)
        self.default_port = _PORTS[parts.scheme]
        self._address = address
        self._context = ssl.create_default_context() if parts.scheme == "https" else None
        self._opened: socket.socket | None = None

    def connect(self) -> None:
        plain = socket.create_connection((self._address, self.port), self.timeout)
        if self._context is None:
            self.sock = self._opened = plain
            return
        secured = self._context.wrap_socket(plain, server_hostname=self.host, do_handshake_on_connect=False)
        self.sock = self._opened = secured
        secured.do_handshake()

    def cut(self) -> None:
        """End it from another thread."""
        if self._opened is not None:
            with suppress(OSError):
                self._opened.shutdown(socket.SHUT_RDWR)


def _parts(url: str) -> SplitResult:
    refused = Problem(
        400, "That is no address of a picture: http:// or https://, a host, and no name or password."
    )
    if not url.isascii() or not url.isprintable() or " " in url:
        raise refused
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise refused from None
    if parts.scheme not in _PORTS or not parts.hostname or "@" in parts.netloc:
        raise refused
    return parts


def _address(parts: SplitResult, allowed: ClipRetrieval) -> str:
    """Return the address that a name leads to. Raises Problem unless all of them are allowed."""
    refused = Problem(403, "This server does not fetch pictures from there.")
    try:
        port = parts.port or _PORTS[parts.scheme]
        found = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
        addresses = [str(place[0]) for *_, place in found]
    except (OSError, UnicodeError):  # a name that leads nowhere must not be told from one that leads inside
        raise refused from None
    if not addresses or not all(is_allowed(address, allowed) for address in addresses):
        raise refused
    return addresses[0]


def is_allowed(address: str, allowed: ClipRetrieval) -> bool:
    """Say whether pictures may be fetched from an address."""
    try:
        found = [ipaddress.ip_address(address)]
    except ValueError:  # a scope behind it, as fe80::1%eth0
        return False
    found += _inside(found[0])
    is_named = any(_is_in(one, network) for one in found for network in allowed.networks)
    return is_named or (allowed.fetches_public and all(map(_is_public, found)))


def _is_in(address: Address, network: Network) -> bool:
    return address.version == network.version and address in network


def _is_public(address: Address) -> bool:
    if not address.is_global or address.is_multicast or any(_is_in(address, network) for network in _SPECIAL):
        return False
    return address.version == 4 or address in _GLOBAL or address in _TRANSLATED


def _inside(address: Address) -> list[Address]:
    """Return the IPv4 addresses that an IPv6 address leads to in the end."""
    if isinstance(address, ipaddress.IPv4Address):
        return []
    teredo = address.teredo[1] if address.teredo else None
    translated = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF) if address in _TRANSLATED else None
    tunnelled = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF) if _is_isatap(address) else None
    every = (address.ipv4_mapped, address.sixtofour, teredo, translated, tunnelled)
    return [one for one in every if one is not None]


def _is_isatap(address: ipaddress.IPv6Address) -> bool:
    """Whether its last half stands for an IPv4 address, RFC 5214."""
    return int(address) >> 32 & 0xFCFF_FFFF == 0x0000_5EFE
