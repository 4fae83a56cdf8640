"""Strangers on a real connection, and what stands against each thing that they try.

binds the loopback, a token else   test_guard: other machines need a token · tests/cli/test_serve
other users of the machine         test_neighbours
DNS rebinding                      test_guard: a host that is not this server's
no CORS                            test_guard: no answer may be read by another origin · test_clip_retrieval
CSRF                               test_guard: another site writes nothing; a form proves that it is from here
CSP and the other headers          test_guard: every answer has the headers · here: on every kind of answer
fetching of addresses              test_fetching · here: addresses that lead inside by another way
uploads: bytes, pixels, bombs      test_guard: bodies, bombs · here: pictures wait by themselves; JSON that swells
traversal                          test_guard: no path leads out · here: a query names no file
rate, concurrency, guesses         test_guard: how often · here: by network; a slow body has no place; bodies' memory
slow senders and readers           here: on a real connection
request smuggling, odd requests    here: on a real connection
what errors tell                   test_guard: what errors tell
names of files                     here: they stay text
"""

from __future__ import annotations

import functools
import json
import os
import re
import socket
import threading
import time
from contextlib import closing
from dataclasses import replace
from html.parser import HTMLParser

import anyio
import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from search.web import ServeOptions, create_app, originals
from search.web.bodies import Bodies
from search.web.compat.fetching import is_allowed
from search.web.connections import Connection
from search.web.guard import Guard
from search.web.options import ClipRetrieval, Immich
from search.web.problems import Problem
from search.web.rates import client_of

PUBLIC = ClipRetrieval(fetch_from=("public",))
PATIENCE_S = 20  # of the tests, which wait for the server's own, much shorter


class Impatient(Connection):
    asking_s = 0.3
    taking_s = 0.3


async def endless(scope, receive, send):
    """An answer of more bytes than any system keeps for someone who does not take them."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(10_000):
        await send({"type": "http.response.body", "body": b"x" * 2**18, "more_body": True})
    endless.ended.set()


endless.ended = threading.Event()


@pytest.fixture(scope="module")
def port(library, live):
    """A real server's port, /endless beside it."""
    app = create_app(library, ServeOptions(clip_retrieval=ClipRetrieval(), immich=Immich()))

    async def both(scope, receive, send):
        await (endless if scope.get("path") == "/endless" else app)(scope, receive, send)

    with live(both, http=Impatient) as port:
        yield port


def said(port: int, *parts: bytes) -> bytes:
    """Send something and return all that comes until the server closes the connection."""
    with closing(socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)) as connection:
        answer = b""
        try:
            for part in parts:
                connection.sendall(part)
            while chunk := connection.recv(2**16):
                answer += chunk
        except (ConnectionResetError, BrokenPipeError):
            pass
        return answer


def head(method: str, path: str, *lines: str) -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *lines, "", ""]).encode("latin-1")


def statuses(answer: bytes) -> list[int]:
    return [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:]]


# ---- slow ones


@pytest.mark.parametrize("begin", [b"", b"G", b"GET / HTTP/1.1\r\nHost: localhost\r\nX-One: "])
def test_who_does_not_ask_is_not_waited_for(port, begin):
    assert statuses(said(port, begin)) == []


def test_a_byte_now_and_then_is_no_reason_to_wait_longer(port):
    place = ("127.0.0.1", port)
    with (
        closing(socket.create_connection(place, timeout=PATIENCE_S)) as connection,
        pytest.raises(OSError, match=r"reset|[Bb]roken"),
    ):
        for _ in range(20 * PATIENCE_S):
            connection.sendall(b"x")
            time.sleep(0.05)


def test_after_an_answer_the_next_question_has_to_come(port):
    assert statuses(said(port, head("GET", "/api/status"), b"GET /ap")) == [200]
    refused = head("POST", "/api/search", "Content-Type: text/plain", "Content-Length: 1000")
    assert statuses(said(port, refused, b"x")) == [415]


def test_who_takes_no_answer_is_cut_off(port):
    endless.ended.clear()
    with closing(socket.socket()) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", port))
        connection.sendall(head("GET", "/endless"))
        assert endless.ended.wait(PATIENCE_S)


# ---- odd ones


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (["Content-Length: 4", "Transfer-Encoding: chunked"], 400),
        (["Transfer-Encoding: chunked", "Content-Length: 4"], 400),
        (["Content-Length: 4", "Content-Length: 5"], 400),
        (["Content-Length: +4"], 400),
        (["Transfer-Encoding: xchunked"], 400),
        (["Transfer-Encoding: chunked, identity"], 400),
    ],
)
def test_a_body_ends_in_one_place_or_the_connection_does(port, lines, status):
    """What follows would be taken for a request of its own by one server, and for a body by another."""
    smuggled = b"0\r\n\r\n" + head("GET", "/api/status")
    assert statuses(said(port, head("POST", "/api/search", *lines), smuggled)) == [status]


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /api/status HTTP/1.1\r\nConnection: close\r\n\r\n", 400),
        (b"GET /api/status HTTP/1.0\r\n\r\n", 400),
        (b"GET /api/status HTTP/1.1\r\nHost : localhost\r\n\r\n", 400),
        (head("GET", "/api/status", "Host: evil.example"), 400),
        (head("GET", "/\xff"), 400),
        (head("GET", "http://evil.example/api/status", "Connection: close"), 404),
        (head("CONNECT", "localhost:22", "Connection: close"), 404),
        (head("TRACE", "/api/status", "Connection: close"), 405),
        (head("GET", "/api/status\0", "Connection: close"), 400),
        (head("GET", "/api/status", "Connection: close, Upgrade", "Upgrade: h2c"), 200),
    ],
)
def test_a_request_that_is_none_is_a_clear_error(port, request_, status):
    assert statuses(said(port, request_))[:1] == [status]


def test_a_head_without_end_is_cut_off(port):
    assert 200 not in statuses(said(port, head("GET", "/api/status", "X: " + "a" * 200_000)))


def test_a_part_of_an_original_is_never_more_than_the_original(client, pictures, ids):
    whole = (pictures / "3.jpg").read_bytes()
    for asked in (
        "bytes=0-9",
        "bytes=-1",
        "bytes=9-0",
        "bytes=" + ",".join(["0-"] * 2000),
        "bytes=0-99999999999999",
    ):
        answer = client.get(f"/api/photos/{ids['3.jpg']}/original", headers={"Range": asked})
        assert (answer.status_code, answer.content) == (200, whole)
    answer = client.head(f"/api/photos/{ids['3.jpg']}/original")
    assert (answer.content, answer.headers["content-length"]) == (b"", str(len(whole)))


def test_every_kind_of_answer_has_a_policy(client, ids):
    picture = f"/api/photos/{ids['3.jpg']}/original"
    known = {"If-None-Match": client.get(picture).headers["etag"]}
    for answer in (
        client.get(picture), client.get(picture, headers=known), client.head("/api/status"),
        client.options("/api/status"), client.get("/nothing"), client.post("/api/search", json={}),
        client.get("/api/status", headers={"Host": "evil.example"}),
    ):  # fmt: skip
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
        assert answer.headers["x-content-type-options"] == "nosniff"


# ---- places, memory and turns


def waiting_body() -> tuple[list[object], object]:
    """A body of which nothing comes."""
    return [(b"host", b"localhost"), (b"content-length", b"10")], anyio.sleep_forever


def test_a_slow_body_has_no_place_among_those_that_are_worked_on():
    codes = []

    async def app(scope, receive, send):
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    guard = Guard(app, options=ServeOptions(concurrency=1))

    async def ask(headers, receive):
        async def send(message):
            if message["type"] == "http.response.start":
                codes.append(message["status"])

        scope = {"type": "http", "method": "POST", "path": "/api/x", "headers": headers, "query_string": b"",
                 "scheme": "http", "client": None}  # fmt: skip
        await guard(scope, receive, send)

    async def arrived():
        return {"type": "http.request", "body": b"0123456789", "more_body": False}

    async def all_of_them():
        async with anyio.create_task_group() as tasks:
            slow, never = waiting_body()
            for _ in range(3):
                tasks.start_soon(ask, slow, never)
            await anyio.wait_all_tasks_blocked()
            await ask([(b"host", b"localhost")], arrived)
            await ask(slow, arrived)
            tasks.cancel_scope.cancel()

    anyio.run(all_of_them)
    assert codes == [204, 204]


async def answered(guard: Guard, codes: list[int], path: str, *headers: tuple[bytes, bytes]) -> None:
    """Ask a guard for something, and add the status of the answer to `codes`."""

    async def send(message):
        if message["type"] == "http.response.start":
            codes.append(message["status"])

    scope = {"type": "http", "method": "GET", "path": path, "headers": [(b"host", b"localhost"), *headers],
             "query_string": b"", "scheme": "http", "client": None}  # fmt: skip
    await guard(scope, anyio.sleep_forever, send)


def test_a_body_that_nobody_reads_is_no_way_around_the_places():
    codes = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await anyio.sleep_forever()

    guard = Guard(app, options=ServeOptions(concurrency=1))

    async def all_of_them():
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(answered, guard, codes, "/api/search", (b"content-length", b"1"))
                await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()

    anyio.run(all_of_them)
    assert codes == [200, 429, 429]


def test_what_is_sent_part_by_part_keeps_nobody_out():
    """A stream of events lasts as long as a job, and a download as long as who takes it likes."""
    codes = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"some", "more_body": scope["path"] == "/long"})
        if scope["path"] != "/short":
            await anyio.sleep_forever()

    guard = Guard(app, options=ServeOptions(concurrency=1))
    asked = functools.partial(answered, guard, codes)

    async def all_of_them():
        async with anyio.create_task_group() as tasks:
            for path in ("/long", "/long", "/short", "/working", "/short"):
                tasks.start_soon(asked, path)
                await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
        await asked("/short")

    anyio.run(all_of_them)
    assert codes == [200, 200, 200, 200, 429, 200]


def received(chunks, *, bodies: Bodies, pause_s: float = 0.0) -> int:
    """Receive a body; return the status of what is said of it."""

    async def work() -> int:
        left = list(chunks)

        async def receive():
            await anyio.sleep(pause_s)
            return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}

        try:
            with bodies.serving(
                {"type": "http", "method": "POST", "headers": [(b"transfer-encoding", b"chunked")]}, receive
            ) as body:
                while (await body()).get("more_body"):
                    pass
        except Problem as refused:
            return refused.status_code
        return 200

    return anyio.run(work)


def test_a_body_that_trickles_is_given_up():
    options = ServeOptions(body_timeout_s=0.2)
    assert received([b"x"] * 100, bodies=Bodies(options), pause_s=0.02) == 408
    assert received([b"x" * 5000] * 20, bodies=Bodies(options), pause_s=0.02) == 200


def test_all_bodies_together_take_bounded_memory():
    bodies = Bodies(ServeOptions(max_upload_bytes=100))
    held = []

    async def work():
        async def receive():
            return {"type": "http.request", "body": b"x" * 100, "more_body": False}

        async def hold(inside: int) -> None:
            scope = {"type": "http", "method": "POST", "headers": [(b"content-length", b"100")]}
            with bodies.serving(scope, receive) as body:
                await body()
                held.append(inside)
                await hold(inside + 1)

        await hold(1)

    with pytest.raises(Problem) as refused:
        anyio.run(work)
    assert (held, refused.value.status_code) == (list(range(1, 9)), 429)
    assert received([b"x" * 100], bodies=bodies) == 200  # all was given back


def test_pictures_wait_for_each_other_and_nobody_else_for_them(serve, monkeypatch, pictures):
    from search.decoding.pool import Decoders
    from search.web import uploads

    client = serve()
    decoding, release, codes = threading.Event(), threading.Event(), []
    submit = Decoders.submit

    def slow(self, path, preprocessing):
        decoding.set()
        release.wait(PATIENCE_S)
        return submit(self, path, preprocessing)

    monkeypatch.setattr(Decoders, "submit", slow)
    monkeypatch.setattr(uploads, "_WAITING", 1)
    content = (pictures / "3.jpg").read_bytes()

    def send():
        codes.append(client.post("/api/search", files={"image": content}).status_code)

    threads = [threading.Thread(target=send) for _ in range(12)]
    for thread in threads:
        thread.start()
    assert decoding.wait(PATIENCE_S)
    assert client.get("/api/status").status_code == 200
    assert client.get("/api/search?q=noise").status_code == 200
    ends = time.monotonic() + PATIENCE_S
    while codes.count(429) < 9 and time.monotonic() < ends:  # two are decoded and one waits
        time.sleep(0.01)
    release.set()
    for thread in threads:
        thread.join()
    assert sorted(codes) == [200] * 3 + [429] * 9


@pytest.mark.parametrize(
    ("path", "status", "detail"),
    [("/api/search", 413, "A query may have 131072 bytes at most."),
     ("/knn-service", 400, "the body has too many parts")],
)  # fmt: skip
def test_json_that_swells_when_it_is_read_is_not_read(serve, path, status, detail):
    client = serve(clip_retrieval=ClipRetrieval())
    body = b'{"x": [' + b"[]," * 500_000 + b"[]]}"
    refused = client.post(path, content=body, headers={"Content-Type": "application/json"})
    assert (refused.status_code, refused.json()["detail"]) == (status, detail)


def test_ipv6_is_counted_by_the_network_that_one_household_has():
    def who(host: str) -> str:
        return client_of({"type": "http", "client": (host, 1)})

    assert who("2001:db8::1") == who("2001:db8::ffff:1") != who("2001:db8:0:1::1")
    assert who("::ffff:192.0.2.1") == who("192.0.2.1") != who("192.0.2.2")
    assert who("testclient") == "testclient"


# ---- ways to the inside


@pytest.mark.parametrize(
    "address",
    [
        *("::7f00:1", "::10.0.0.1", "fec0::1", "64:ff9b:1::a00:1", "3fff::1", "5f00::1", "::ffff:0:127.0.0.1"),
        *("2606:4700::5efe:7f00:1", "2606:4700::200:5efe:10.0.0.1", "4000::1", "192.0.0.8", "192.88.99.1"),
    ],
)
def test_an_address_that_leads_inside_by_another_way_is_not_public(address):
    assert not is_allowed(address, PUBLIC)


@pytest.mark.parametrize("host", ["0x7f.1", "2130706433", "0177.0.0.1", "127.1", "localhost.", "[::ffff:7f00:1]"])
def test_however_an_address_is_written_it_is_looked_at_as_what_it_is(serve, host):
    client = serve(clip_retrieval=PUBLIC)
    body = {"image_url": f"http://{host}/x", "modality": "image", "num_images": 1, "indice_name": None}
    assert client.post("/knn-service", content=json.dumps(body)).status_code == 403


@pytest.mark.parametrize(
    "q", ["like:{}", "like:'{}'", 'like:"{}"', "a - like:{}", "2:like:{}", "like:./../{}", "like:file://{}"]
)
def test_a_query_reads_no_file(client, pictures, q, monkeypatch):
    from search.photos import decode

    monkeypatch.setattr(decode, "load", lambda *_, **__: pytest.fail("a file was read"))
    named = q.format(pictures / "3.jpg")
    for answer in (client.get("/api/search", params={"q": named}), client.post("/api/search", json={"q": named})):
        assert answer.status_code == 400
        assert str(pictures) not in answer.json()["detail"]
    assert client.get("/api/search", params={"q": "a", "like": str(pictures / "3.jpg")}).status_code == 400


# ---- names of files


HOSTILE = (
    *(
        '"><script>alert(1)</script>',
        "'onerror=alert(1) x='",
        "</title></script><!--",
        "&lt;b&gt;",
        "a\u202egpj.exe",
    ),
    *("two\nlines\r\n\r\n<b>", "\x1b[31m\x07", "{{7*7}}{% raw %}${7*7}", "\u2028\u2029\ufeff", "..", "%2e%2e%2f"),
)
NAMES = st.lists(
    st.one_of(
        st.sampled_from([name.encode() for name in HOSTILE]),
        st.text(min_size=1, max_size=20).map(lambda text: text.encode("utf-8", "replace")),
        st.binary(min_size=1, max_size=20),
    ),
    min_size=1,
    max_size=4,
).map(lambda parts: b"".join(parts).replace(b"/", b"_").replace(b"\0", b"_")[:200] + b".jpg")


class Inert(HTMLParser):
    """Collects what of a page could run or show something else."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [f"{tag} {name}" for name, _ in attrs if name.startswith("on")]
        links = [value or "" for name, value in attrs if name in ("href", "src", "action")]
        self.found += [f"{tag} {link}" for link in links if re.match(r"\s*(\w+:|//)", link)]
        if tag == "script" and not dict(attrs).get("src", "").startswith("/static/"):
            self.found.append("script of its own")
        self.found += [tag] * (tag in ("iframe", "object", "embed", "base", "b"))


@pytest.fixture(scope="module")
def named(client, library, ids):
    """Give a photo any name; return what each address then answers."""
    id_ = ids["3.jpg"]
    known = library.catalog.get([id_])[0]

    def answers(name: bytes):
        path = os.path.join(os.path.dirname(known.path), os.fsdecode(name))
        renamed = replace(known, path=path, labels=(os.fsdecode(name).encode("utf-8", "replace").decode(),))
        with pytest.MonkeyPatch.context() as patch:
            get = type(library.catalog).get
            patch.setattr(
                type(library.catalog), "get",
                lambda self, which: [renamed if one.id == id_ else one for one in get(self, which)],
            )  # fmt: skip
            yield client.get(f"/api/photos/{id_}")
            yield client.get("/api/search?q=noise&min_relevance=0&k=20")
            yield client.get(f"/photos/{id_}", headers={"Accept": "text/html"})
            yield client.get("/?q=noise&min_relevance=0", headers={"Accept": "text/html"})

    return answers


@settings(max_examples=20, deadline=None, derandomize=True, database=None, phases=[Phase.generate],
          suppress_health_check=list(HealthCheck))  # fmt: skip
@given(name=NAMES)
@example(name=HOSTILE[0].encode() + b".jpg")
@example(name=b"\xff\xfe\xed\xa0\x80.jpg")
def test_whatever_a_file_is_called_it_stays_text(named, name):
    seen: list[str] = []
    for answer in named(name):
        assert answer.status_code == 200, answer.text
        if answer.headers["content-type"].startswith("application/json"):
            photo = answer.json() if "path" in answer.json() else answer.json()["hits"][0]
            assert "path" in photo
            answer.content.decode("ascii")  # no direction, line or control of the name is in what is sent
            assert not any(byte < 32 for byte in answer.content)
        else:
            page = Inert()
            page.feed(answer.text)
            assert page.found == []
            assert not re.search("[\u202a-\u202e\u2066-\u2069\x00-\x08\x0e-\x1f]", answer.text)
            seen.append(answer.text)
    assert all("<title>" in text for text in seen)
    if b"alert(1)" in name:
        assert "alert(1)" in seen[0]  # it is there, as text


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_puts_anything_into_a_header(library, ids, name):
    id_ = ids["3.jpg"]
    known = library.catalog.get([id_])[0]
    descriptor = os.open(known.path, os.O_RDONLY)
    answer = originals.sent(
        replace(known, path=f"/x/{name.replace('/', '_')}"), os.fdopen(descriptor, "rb"), is_head=True
    )
    place = answer.headers["content-disposition"]
    assert re.fullmatch(r"inline; filename\*=UTF-8''[A-Za-z0-9%._~-]+", place)
