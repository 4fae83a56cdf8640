"""Which user of this machine asks over the loopback, and that others than who started the server are refused."""

from __future__ import annotations

import http.client
import os
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager

import anyio
import pytest

from search.web import ServeOptions, create_app, neighbours
from search.web.guard import Guard
from search.web.options import Immich

OTHER = 65534  # nobody's, by custom

told = pytest.mark.skipif(not neighbours.can_tell(), reason="this system does not tell whose a connection is")


def listening(host: str) -> socket.socket:
    return socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)


def listens(host: str) -> bool:
    """Say whether this machine has an address: containers often have none of IPv6."""
    try:
        listening(host).close()
    except OSError:
        return False
    return True


@contextmanager
def being(user: int) -> Iterator[None]:
    """Make sockets as another user."""
    own = os.geteuid()
    os.seteuid(user)
    try:
        yield
    finally:
        os.seteuid(own)


@told
@pytest.mark.parametrize("host", [*filter(listens, ("127.0.0.1", "::1"))])
def test_a_connection_is_its_users_until_it_is_closed(host):
    with listening(host) as listener, closing(socket.create_connection(listener.getsockname()[:2])) as theirs:
        ours, place = listener.accept()
        with ours:
            ends = place[:2], ours.getsockname()[:2]
            assert neighbours.user_of(*ends) == os.getuid()
            theirs.shutdown(socket.SHUT_WR)
            assert neighbours.user_of(*ends) == os.getuid()
            theirs.close()
            assert neighbours.user_of(*ends) == neighbours.NOBODY
            assert neighbours.user_of(ours.getsockname()[:2], (host, 1)) == neighbours.NOBODY, "it only listens"


@pytest.mark.programs
@told
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_another_user_is_refused_unless_it_was_said_that_others_may_come(library, live):
    def asked(port: int, path: str) -> int:
        connection = http.client.HTTPConnection("localhost", port)
        with closing(connection), being(OTHER):
            connection.request("GET", path)
            return connection.getresponse().status

    with live(create_app(library, ServeOptions(immich=Immich()))) as port:
        assert [asked(port, path) for path in ("/", "/api/status", "/api/job/events")] == [403] * 3
        assert asked(port, "/ping") == 200  # what needs no token needs no user either
    with live(create_app(library, ServeOptions(other_users=True))) as port:
        assert asked(port, "/api/status") == 200


@pytest.mark.parametrize(
    ("user", "options", "status"),
    [
        (os.getuid(), {}, 204),
        (0, {}, 204),
        (None, {}, 204),
        (OTHER, {}, 403),
        (neighbours.NOBODY, {}, 403),
        (neighbours.NOBODY, {"other_users": True}, 204),
        (OTHER, {"token": "secret"}, 204),
        (OTHER, {"allowed_hosts": ("photos.home",)}, 403),
    ],
)
def test_who_may_come_is_root_and_who_started_it_or_who_has_the_token(user, options, status):
    codes = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    async def send(message):
        codes.append(message.get("status"))

    scope = {"type": "http", "method": "GET", "path": "/api/x", "query_string": b"", "scheme": "http",
             "headers": [(b"host", b"localhost"), (b"authorization", b"Bearer secret")], "client": None,
             "state": {} if user is None else {"user": user}}  # fmt: skip
    anyio.run(Guard(app, options=ServeOptions(**options)), scope, anyio.sleep_forever, send)
    assert codes[0] == status


def test_where_other_users_come_not_every_folder_can_be_indexed():
    assert ServeOptions().indexes_anywhere
    assert not ServeOptions(other_users=True).indexes_anywhere
