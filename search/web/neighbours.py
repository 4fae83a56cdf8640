"""Which user of this machine is at the other end of a connection over the loopback.

The loopback keeps other machines out, but not other users of this one. Linux tells whose a socket is; elsewhere
nobody does.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
from contextlib import closing
from functools import cache

NOBODY = -1
"""Nobody has the socket any more, or it can't be seen from here."""

_SOCK_DIAG, _BY_FAMILY, _REQUEST = 4, 20, 1  # sock_diag(7)
_LISTENING = 10
_HEADER = struct.Struct("=IHHII")  # length, type, flags, number, sender
_ASKED = struct.Struct("=BBxxI")  # family, protocol, states
_ENDS = struct.Struct(">HH16s16s")  # ports and addresses
_TOLD = struct.Struct("=BB2x48x12xII")  # family, state; user, inode

Place = tuple[str, int]


@cache
def can_tell() -> bool:
    """Say whether this system tells users apart; by a connection to ourselves."""
    if sys.platform != "linux":
        return False
    try:
        with closing(socket.create_server(("127.0.0.1", 0))) as listener:
            place = listener.getsockname()
            with closing(socket.create_connection(place, timeout=1)) as connection:
                return user_of(connection.getsockname(), place) == os.getuid()
    except OSError:
        return False


def user_of(theirs: Place, ours: Place) -> int:
    """Return the user id of the other end of a TCP connection within this machine, NOBODY where there is none.

    A socket that its process closed is nobody's, though the system would say it is root's.
    """
    if sys.platform != "linux":
        return NOBODY
    family = socket.AF_INET6 if ":" in theirs[0] else socket.AF_INET
    addresses = (socket.inet_pton(family, address).ljust(16, b"\0") for address in (theirs[0], ours[0]))
    ends = _ENDS.pack(theirs[1], ours[1], *addresses) + bytes(4) + b"\xff" * 8  # any interface, no cookie
    asked = _ASKED.pack(family, socket.IPPROTO_TCP, 0xFFFFFFFF) + ends
    request = _HEADER.pack(_HEADER.size + len(asked), _BY_FAMILY, _REQUEST, 1, 0) + asked
    try:
        with closing(socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _SOCK_DIAG)) as kernel:
            kernel.settimeout(1)
            kernel.sendto(request, (0, 0))
            told = kernel.recv(4096)
    except OSError:
        return NOBODY
    if _HEADER.unpack_from(told)[1] != _BY_FAMILY:
        return NOBODY
    _, state, user, inode = _TOLD.unpack_from(told, _HEADER.size)
    return int(user) if inode and state != _LISTENING else NOBODY
