"""How often each of many may come."""

from __future__ import annotations

import ipaddress
import math
from collections import OrderedDict
from collections.abc import Callable

from starlette.types import Scope

MOST_CLIENTS = 10_000  # addresses whose requests are counted


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
        while len(self._left) > MOST_CLIENTS:
            self._left.popitem(last=False)
        return 0.0 if left >= 1 else (1 - left) / self._rate

    def wait(self, who: str) -> float:
        """Return the seconds until one may come again, without counting it."""
        return max(0.0, (1 - self._of(who)) / self._rate)

    def _of(self, who: str) -> float:
        """How often one may come now."""
        left, then = self._left.get(who, (float(self._burst), 0.0))
        return min(float(self._burst), left + (self._clock() - then) * self._rate)


def client_of(scope: Scope) -> str:
    """Return whom a request is counted for: its address, of IPv6 the network, as each has 2**64 addresses there."""
    host, _ = scope.get("client") or ("", 0)
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return str(host)
    if isinstance(address, ipaddress.IPv6Address):
        address = address.ipv4_mapped or ipaddress.IPv6Address(int(address) >> 64 << 64)
    return str(address)


def after(seconds: float) -> dict[str, str]:
    """Return the header that tells when to come again."""
    return {"Retry-After": str(max(1, math.ceil(seconds)))}
