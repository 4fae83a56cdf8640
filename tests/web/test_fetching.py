"""Pictures fetched from a server on this machine, and everything that must not be fetched."""

from __future__ import annotations

import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from search.errors import UsageError
from search.web.compat import fetching
from search.web.compat.fetching import Limits, fetch, is_allowed
from search.web.options import ClipRetrieval
from search.web.problems import Problem

HERE = ClipRetrieval(fetch_from=("127.0.0.0/8",))
PUBLIC = ClipRetrieval(fetch_from=("public",))
FEW = Limits(most_bytes=100_000, seconds=5)


class Pictures(BaseHTTPRequestHandler):
    """Answers by its path."""

    content = b""
    hosts: list[str]

    def do_GET(self) -> None:
        type(self).hosts.append(self.headers["Host"])
        if self.path == "/picture.jpg?size=1":
            self.said(200, {}, self.content)
        elif self.path == "/large":
            self.said(200, {}, b"x" * 100_001)
        elif self.path == "/round":
            self.said(302, {"Location": "/round"}, b"")
        elif self.path.startswith("/to/"):
            self.said(302, {"Location": self.path.removeprefix("/to/")}, b"")
        elif self.path == "/cut":
            self.said(200, {"Content-Length": "1000"}, b"x")
        elif self.path == "/slow":
            self.said(200, {"Content-Length": "1000"}, b"")
            self.server.released.wait()
        else:
            self.said(404, {}, b"")

    def said(self, status: int, headers: dict[str, str], content: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture(scope="module")
def server(pictures):
    Pictures.content = (pictures / "3.jpg").read_bytes()
    with ThreadingHTTPServer(("127.0.0.1", 0), Pictures) as server:
        server.released = threading.Event()
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.released.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def url(server):
    Pictures.hosts = []
    return f"http://127.0.0.1:{server.server_port}"


def status_of(url: str, allowed: ClipRetrieval, *, limits: Limits = FEW) -> int:
    with pytest.raises(Problem) as refused:
        fetch(url, allowed, limits=limits)
    assert "127.0.0.1" not in refused.value.detail
    return refused.value.status_code


def test_a_picture_is_fetched_from_where_it_is_allowed(url):
    assert fetch(f"{url}/picture.jpg?size=1", HERE, limits=FEW) == Pictures.content
    assert fetch(f"{url}/to//picture.jpg?size=1", HERE, limits=FEW) == Pictures.content


def test_a_client_searches_by_a_pictures_address(serve, url, ids):
    client = serve(clip_retrieval=HERE)
    body = {"image_url": f"{url}/picture.jpg?size=1", "modality": "image", "num_images": 1, "indice_name": None}
    [best] = client.post("/knn-service", content=json.dumps(body)).json()
    assert best["id"] == ids["3.jpg"]


def test_nothing_is_asked_where_it_is_not_allowed(url):
    assert status_of(f"{url}/picture.jpg?size=1", PUBLIC) == 403
    assert status_of(url.replace("127.0.0.1", "localhost"), PUBLIC) == 403
    assert status_of("http://no-such-name.invalid/x.jpg", PUBLIC) == 403
    assert Pictures.hosts == []


@pytest.mark.parametrize(
    "target",
    ["http://10.0.0.1/x", "http://[::1]/x", "file:///etc/hostname", "//169.254.169.254/latest", "ftp://a/x"],
)
def test_a_redirection_is_held_against_the_same_rules(url, target):
    assert status_of(f"{url}/to/{target}", HERE) in (400, 403)
    assert len(Pictures.hosts) == 1


@pytest.mark.parametrize("path", ["/round", "/nothing", "/cut"])
def test_what_gives_no_picture_is_an_error(url, path):
    assert status_of(url + path, HERE) == 502


def test_no_more_is_read_than_may_be_sent(url):
    assert status_of(f"{url}/large", HERE) == 413


def test_a_server_that_never_ends_is_cut_off(url):
    assert status_of(f"{url}/slow", HERE, limits=Limits(1000, seconds=0.2)) == 502


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/hostname",
        "ftp://127.0.0.1/x",
        "http:///x",
        "http://me:word@127.0.0.1/x",
        "http://127.0.0.1:99999/x",
        "http://127.0.0.1/x y",
        "http://127.0.0.1/x\r\nHost: other",
        "http://[::1/x",
        "//127.0.0.1/x",
        "",
    ],
)
def test_what_is_no_address_of_a_picture_is_refused(url):
    assert status_of(url, HERE) == 400


def test_the_connection_goes_to_the_very_address_that_was_looked_at(server, monkeypatch):
    """A name that leads elsewhere at the second look is only looked up once."""
    Pictures.hosts, asked, look_up = [], [], socket.getaddrinfo

    def rebinding(host, *rest, **more):
        asked.append(host)
        return look_up("127.0.0.1" if host == "pictures.example" else host, *rest, **more)

    monkeypatch.setattr(fetching.socket, "getaddrinfo", rebinding)
    name = f"pictures.example:{server.server_port}"
    assert fetch(f"http://{name}/picture.jpg?size=1", HERE, limits=FEW) == Pictures.content
    assert asked == ["pictures.example", "127.0.0.1"]
    assert Pictures.hosts == [name]


def test_a_name_that_leads_also_to_a_place_inside_is_refused(monkeypatch):
    places = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (place, 80)) for place in ("93.184.216.34", "10.0.0.1")]
    monkeypatch.setattr(fetching.socket, "getaddrinfo", lambda *_, **__: places)
    assert status_of("http://pictures.example/x", PUBLIC) == 403


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.8.8.8", "10.1.2.3", "172.16.0.1", "192.168.0.1", "169.254.169.254", "100.64.0.1"),
        *("0.0.0.0", "224.0.0.1", "255.255.255.255", "192.0.2.1", "198.18.0.1", "240.0.0.1"),
        *("::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1"),
        *("2002:7f00:1::", "64:ff9b::7f00:1", "2001:0:7f00:1::"),
    ],
)
def test_public_is_no_address_of_a_private_network(address):
    assert not is_allowed(address, PUBLIC)


def test_public_is_any_other():
    assert all(is_allowed(address, PUBLIC) for address in ("93.184.216.34", "2606:4700::1111", "64:ff9b::808:808"))


def test_only_the_networks_that_were_named_are_allowed():
    allowed = ClipRetrieval(fetch_from=("192.168.1.0/24", "fd00::/8"))
    assert all(is_allowed(address, allowed) for address in ("192.168.1.7", "::ffff:192.168.1.7", "fd00::1"))
    assert not any(is_allowed(address, allowed) for address in ("192.168.2.7", "93.184.216.34", "::1"))


@pytest.mark.parametrize("fields", [{"fetch_from": ("everywhere",)}, {"fetch_from": ("192.168.1.1/24",)}])
def test_what_is_no_network_is_wrong_usage(fields):
    with pytest.raises(UsageError):
        ClipRetrieval(**fields)
