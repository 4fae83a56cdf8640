"""Strangers, other sites and their browsers, tried on the guard: each attack by name."""

from __future__ import annotations

import io
import re
import struct
import zlib
from http.cookies import SimpleCookie

import anyio
import pytest
from PIL import Image
from starlette.testclient import TestClient

from search.errors import SearchError, UsageError
from search.web import ServeOptions, rates, tokens
from search.web.guard import Guard, host_of
from search.web.rates import Rate
from search.web.tokens import COOKIE

TOKEN = "correct-horse-battery"
OUTSIDE = ("203.0.113.9", 4711)


@pytest.fixture(scope="module")
def locked(serve) -> TestClient:
    """A server that other machines reach, and someone on one of them."""
    return serve(host="0.0.0.0", token=TOKEN, base_url="http://192.168.1.5:8000", client=OUTSIDE)


def bearer(token: str = TOKEN) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


# ---- DNS rebinding


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8000", "127.0.0.1:8000", "[::1]:8000", "localhost.:80"])
def test_the_loopbacks_own_names_are_answered(client, host):
    assert client.get("/api/status", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example", "localhost@evil.example",
     "192.168.1.5:8000", "0x7f.1", "127.1", "[::ffff:1.2.3.4]", "localhost:80:80", "localhost:", "", "[::1", "::1",
     "localhost/../", "localhost evil"],
)  # fmt: skip
def test_a_host_that_is_not_this_servers_is_refused(client, host):
    refused = client.get("/api/status", headers={"Host": host})
    assert refused.status_code == 421
    assert "photos" not in refused.json()


def test_a_name_that_was_allowed_is_answered(serve):
    client = serve(allowed_hosts=("Photos.Home",))
    assert client.get("/api/status", headers={"Host": "photos.home:8000"}).status_code == 200
    assert client.get("/api/status", headers={"Host": "other.home:8000"}).status_code == 421


def test_an_address_is_no_rebound_name_where_other_machines_may_come(locked):
    assert locked.get("/api/status", headers=bearer()).status_code == 200
    assert locked.get("/api/status", headers={**bearer(), "Host": "evil.example"}).status_code == 421


def test_two_hosts_are_one_too_many():
    assert exchange(headers=[(b"host", b"localhost"), (b"host", b"evil.example")])[0] == 400
    assert exchange(headers=[])[0] == 400


def test_a_host_is_taken_apart_as_browsers_do():
    assert host_of("[2001:DB8::1]:80") == "2001:db8::1"
    assert host_of("name:x") == ""
    assert host_of("[::1]x") == ""


# ---- other sites


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:3000"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"},
        {"Sec-Fetch-Site": "same-origin", "Origin": "https://evil.example"},
        {"Sec-Fetch-Site": "nonsense"},
    ],
)
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_another_site_writes_nothing(client, headers, method):
    assert client.request(method, "/api/search", headers=headers, json={"q": "a"}).status_code == 403


def test_this_site_and_programs_may_write(client):
    for headers in ({"Origin": "http://localhost:8000", "Sec-Fetch-Site": "same-origin"}, {}):
        assert client.post("/api/search", headers=headers, json={"q": "a"}).status_code == 200


def test_another_site_loads_nothing_but_may_link_here(client):
    loading = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}
    framing = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}
    linking = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert client.get("/api/photos/1/original", headers=loading).status_code == 403
    assert client.get("/api/photos/1/original", headers=framing).status_code == 403
    assert client.get("/api/status", headers=linking).status_code == 200


def test_no_answer_may_be_read_by_another_origin(client):
    asked = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    for answer in (client.get("/api/status", headers=asked), client.options("/api/search", headers=asked)):
        assert not [name for name in answer.headers if name.startswith("access-control")]
    assert client.options("/api/search", headers=asked).status_code in (403, 405)


# ---- headers


@pytest.mark.parametrize(
    "path", ["/api/status", "/api/photos/1/original", "/api/nothing", "/nothing", "/api/search"]
)
def test_every_answer_has_the_headers_that_browsers_heed(client, path):
    headers = client.get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["referrer-policy"] == "same-origin"
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert "*" not in policy
    assert "private" in headers["cache-control"]


def test_refusals_have_them_too(locked, client):
    for refused in (locked.get("/api/status"), client.get("/", headers={"Host": "evil.example"})):
        assert refused.status_code in (401, 421)
        assert refused.headers["x-content-type-options"] == "nosniff"


# ---- the token


@pytest.mark.parametrize(
    "headers",
    [{}, {"Authorization": ""}, {"Authorization": "Bearer"}, {"Authorization": f"Basic {TOKEN}"},
     {"Authorization": TOKEN}, {"Cookie": f"{COOKIE}={TOKEN}"}, {"Cookie": f"{COOKIE}="}, {"Cookie": "\xff;;=="}],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/api/status", "/", "/api/nothing", "/?k=1", "/api/status?token=" + TOKEN])
def test_without_the_token_nobody_gets_in(locked, headers, path):
    refused = locked.get(path, headers={name: value.encode("latin-1") for name, value in headers.items()})
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"] == "Bearer"
    assert TOKEN not in refused.text


def test_a_post_to_the_entrance_is_none(locked):
    assert locked.post(f"/?token={TOKEN}").status_code == 401
    assert locked.post("/?token=x").status_code == 401


def test_the_token_is_compared_in_constant_time(monkeypatch, serve):
    """Whatever is given, the comparison is hmac's, of two digests of the same length."""
    seen = []
    compare = tokens.hmac.compare_digest
    monkeypatch.setattr(
        tokens.hmac, "compare_digest", lambda one, two: (seen.append((one, two)), compare(one, two))[1]
    )
    client = serve(host="0.0.0.0", token=TOKEN, base_url="http://192.168.1.5:8000", client=OUTSIDE)
    for token in ("", "c", TOKEN[:-1], TOKEN + "x", "\u00e4" * 1000):
        given = f"Bearer {token}".encode("latin-1")
        assert client.get("/api/status", headers={"Authorization": given}).status_code == 401
    assert client.get("/api/status", headers=bearer()).status_code == 200
    assert len(seen) == 6
    assert {len(one) for pair in seen for one in pair} == {32}


def test_a_browser_keeps_a_cookie_that_is_not_the_token(serve):
    client = serve(host="0.0.0.0", token=TOKEN, base_url="http://192.168.1.5:8000", client=OUTSIDE)
    entered = client.get(f"/?token={TOKEN}&q=red+car")
    assert (entered.status_code, entered.headers["location"]) == (303, "/?q=red+car")
    cookie = SimpleCookie(entered.headers["set-cookie"])[COOKIE]
    assert (cookie["httponly"], cookie["samesite"], cookie["path"]) == (True, "strict", "/")
    assert TOKEN not in cookie.value
    assert client.get("/api/status").status_code == 200
    client.cookies.clear()
    client.cookies.set(COOKIE, cookie.value[:-1] + "x")
    assert client.get("/api/status").status_code == 401


def test_the_way_back_from_the_entrance_leads_nowhere_else(locked):
    for more in ("&next=https://evil.example", "&q=%0d%0aSet-Cookie:%20a=b", "&//evil.example"):
        entered = locked.get(f"/?token={TOKEN}{more}")
        assert entered.headers["location"].startswith("/?")
        assert "\n" not in entered.headers["location"]
        assert "a" not in SimpleCookie(entered.headers["set-cookie"])
    locked.cookies.clear()


def test_who_guesses_must_wait_and_who_has_a_cookie_need_not(serve):
    client = serve(host="0.0.0.0", token=TOKEN, base_url="http://192.168.1.5:8000", client=("203.0.113.77", 1))
    client.get(f"/?token={TOKEN}")
    kept = dict(client.cookies)
    client.cookies.clear()
    codes = [client.get("/api/status", headers=bearer(f"guess-{number}")).status_code for number in range(12)]
    assert codes == [401] * 10 + [429] * 2
    waiting = client.get("/api/status", headers=bearer())
    assert waiting.status_code == 429  # else a guess would be right in the end
    assert int(waiting.headers["retry-after"]) >= 1
    assert client.get(f"/?token={TOKEN}").status_code == 429
    client.cookies.update(kept)
    assert client.get("/api/status").status_code == 200


def test_a_cookie_can_be_guessed_no_more_often_than_a_token(serve):
    """It is made of the token alone: whoever guesses that can make it."""
    client = serve(host="0.0.0.0", token=TOKEN, base_url="http://192.168.1.5:8000", client=("203.0.113.78", 1))
    client.get(f"/?token={TOKEN}")
    kept = client.cookies[COOKIE]
    client.cookies.clear()

    def asked(cookie: str, **headers: str) -> int:
        return client.get("/api/status", headers={"Cookie": f"{COOKIE}={cookie}", **headers}).status_code

    assert [asked(f"guess-{number}") for number in range(12)] == [401] * 10 + [429] * 2
    assert asked(kept) == 429
    assert asked(kept, Authorization="Bearer wrong") == 401
    assert asked("of another day", **bearer()) == 200
    assert client.get(f"/?token={TOKEN}").status_code == 303


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "photos.home"])
def test_other_machines_need_a_token(host):
    with pytest.raises(UsageError, match="needs a token"):
        ServeOptions(host=host)
    assert ServeOptions(host=host, token=TOKEN).token == TOKEN


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_this_machine_needs_none(host):
    assert ServeOptions(host=host).token is None


@pytest.mark.parametrize("token", ["", "two words", "line\nbreak", "gr\u00fcn"])
def test_a_token_that_no_header_can_have_is_refused(token):
    with pytest.raises(UsageError, match="token"):
        ServeOptions(token=token)


# ---- traversal


@pytest.mark.parametrize(
    "path",
    ["/api/photos/../../etc/passwd/original", "/api/photos/%2e%2e%2f%2e%2e%2fetc%2fpasswd/original", "/..%2f..%2fetc",
     "/api/photos/1%00/original", "/api/photos/1/original/../../../etc/passwd", "//etc/passwd", "/%5c..%5cetc",
     "/api/photos/1;/etc/passwd/original", "/static/../../../etc/passwd"],
)  # fmt: skip
def test_no_path_leads_out(client, path):
    refused = client.get(path)
    assert refused.status_code == 404
    assert "root:" not in refused.text


# ---- bodies


def exchange(app=None, *, headers=None, chunks=(), method="POST", path="/api/x", waits=False, **options):
    """Send a request to a guard of its own; return the status, the headers, and how many chunks were taken."""
    if headers is None:
        headers = [(b"host", b"localhost")]
    taken, sent = [], []

    async def receive():
        if len(taken) == len(chunks):
            if waits:
                await anyio.sleep_forever()
            return {"type": "http.disconnect"}
        taken.append(chunks[len(taken)])
        return {"type": "http.request", "body": taken[-1], "more_body": waits or len(taken) < len(chunks)}

    async def send(message):
        sent.append(message)

    async def reads(scope, receive, send):
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    scope = {
        "type": "http", "method": method, "path": path, "headers": headers, "query_string": b"", "scheme": "http",
        "client": ("127.0.0.1", 1),
    }  # fmt: skip
    anyio.run(Guard(app or reads, options=ServeOptions(**options)), scope, receive, send)
    return sent[0]["status"], {k.decode(): v.decode() for k, v in sent[0]["headers"]}, len(taken)


def test_a_body_that_is_said_to_be_too_large_is_not_read():
    for length in (b"1001", b"9" * 5000):
        headers = [(b"host", b"localhost"), (b"content-length", length)]
        status, _, taken = exchange(headers=headers, chunks=[b"x" * 1001], max_upload_bytes=1000)
        assert (status, taken) == (413, 0)


def test_a_body_that_does_not_say_how_large_it_is_is_cut_off():
    status, _, taken = exchange(chunks=[b"x" * 100] * 1000, max_upload_bytes=1000)
    assert (status, taken) == (413, 11)
    assert exchange(chunks=[b"x" * 100] * 10, max_upload_bytes=1000)[0] == 204


def test_who_lies_about_the_length_is_cut_off():
    headers = [(b"host", b"localhost"), (b"content-length", b"5")]
    assert exchange(headers=headers, chunks=[b"x" * 600] * 9, max_upload_bytes=1000)[0] == 413


def test_who_sends_nothing_is_not_waited_for():
    assert exchange(chunks=[b"x"], waits=True, body_timeout_s=0.05)[0] == 408


def test_a_large_upload_is_refused_where_it_is_read(serve):
    client = serve(max_upload_bytes=10_000)
    assert client.post("/api/search", files={"image": b"x" * 11_000}).status_code == 413
    assert client.post("/api/search", content=iter([b"x" * 6000] * 2), headers={"Content-Type": "application/json"}
                       ).status_code == 413  # fmt: skip


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    parts = [b"\x89PNG\r\n\x1a\n"]
    for kind, data in chunks:
        parts += [struct.pack(">I", len(data)), kind, data, struct.pack(">I", zlib.crc32(kind + data))]
    return b"".join(parts)


def bomb_of_pixels() -> bytes:
    """A few hundred bytes that say they are two gigapixels."""
    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    return png((b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 1000)), (b"IEND", b""))


def bomb_of_text() -> bytes:
    """A small picture with twenty megabytes of text in it."""
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "PNG")
    small = stream.getvalue()
    text = b"Comment\0\0" + zlib.compress(b"\0" * 20_000_000, 1)
    return small[:33] + png((b"zTXt", text))[8:] + small[33:]


def test_bombs_do_not_go_off(client):
    refused = client.post("/api/search", files={"image": bomb_of_pixels()})
    assert (refused.status_code, refused.json()["reason"]) == (413, "too_large")
    assert client.post("/api/search", files={"image": bomb_of_text()}).status_code in (200, 422)
    assert client.get("/api/search?q=noise").status_code == 200


# ---- what errors tell


def leaks(text: str) -> list[str]:
    return re.findall(r"/tmp|/home|/root|/usr|site-packages|Traceback|\.py\b|line \d+|sqlite|catalog\.db", text)


def test_an_error_that_nobody_foresaw_tells_nothing(client, library, monkeypatch, caplog):
    def failing(*_, **__):
        raise RuntimeError(f"in {library.catalog.location}/catalog.db, line 12")

    monkeypatch.setattr(type(library), "status", failing)
    refused = client.get("/api/status")
    assert refused.status_code == 500
    assert refused.headers["x-content-type-options"] == "nosniff"
    assert leaks(refused.text) == []
    assert "RuntimeError" in caplog.text  # who runs the server can look


@pytest.mark.parametrize("name", sorted(kind.__name__ for kind in {SearchError, *SearchError.__subclasses__()}))
def test_the_librarys_own_errors_name_no_file(client, library, monkeypatch, name):
    from search import errors

    kind = getattr(errors, name)
    made = (
        kind("decode_error", "in /tmp/x/a.jpg")
        if name == "PhotoError"
        else kind("in /tmp/x/catalog.db", hint="/tmp")
    )

    def failing(*_, **__):
        raise made

    monkeypatch.setattr(type(library), "status", failing)
    refused = client.get("/api/status")
    assert refused.status_code >= 400
    assert refused.json()["error"] == name
    assert leaks(refused.text) == []


def test_refusals_of_all_kinds_name_no_file(client, ids):
    for refused in (
        client.get("/api/search?q=like:/tmp/x"), client.get("/api/search?q=a&folder=tmp"), client.get("/api/photos/99"),
        client.post("/api/search", files={"image": ("/tmp/x", b"x")}), client.get("/nothing"),
        client.get("/api/photos/99/original"), client.post("/api/search", content=b"x"),
    ):  # fmt: skip
        assert refused.status_code >= 400
        assert leaks(refused.text) == []


def test_what_to_do_next_is_told_unless_it_is_the_command_lines(client):
    assert client.get("/api/search").json()["detail"] == "the query asks for nothing"
    assert client.get("/api/search?q=a+-").json()["detail"].endswith("; put text with such signs in quotes")


def test_a_page_of_an_error_runs_nothing(client):
    refused = client.get("/<script>alert(1)</script>", headers={"Accept": "text/html"})
    assert refused.headers["content-type"].startswith("text/html")
    assert "<script>" not in refused.text


# ---- how often


def test_who_comes_too_often_is_told_when_to_come_again(serve):
    client = serve(rate=0.01, burst=3)
    codes = [client.get("/api/status").status_code for _ in range(4)]
    assert codes == [200, 200, 200, 429]
    refused = client.get("/api/status")
    assert refused.json()["title"] == "Too Many Requests"
    assert 90 <= int(refused.headers["retry-after"]) <= 100


def test_a_rate_is_counted_by_address_and_grows_again():
    now = [100.0]
    rate = Rate(2.0, 3, lambda: now[0])
    assert [rate.take("a") for _ in range(4)] == [0, 0, 0, 0.5]
    assert rate.take("b") == 0
    now[0] += 0.5
    assert [rate.take("a"), rate.take("a")] == [0, 0.5]
    now[0] += 1000
    assert [rate.take("a") for _ in range(4)] == [0, 0, 0, 0.5]


def test_counting_addresses_takes_bounded_memory():
    rate = Rate(1.0, 1, lambda: 0.0)
    for number in range(rates.MOST_CLIENTS + 10):
        rate.take(str(number))
    assert len(rate._left) == rates.MOST_CLIENTS


def test_beyond_so_many_at_once_others_are_told_to_try_again():
    codes = []

    async def both():
        entered, leave = anyio.Event(), anyio.Event()

        async def slow(scope, receive, send):
            entered.set()
            await leave.wait()
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body"})

        one = Guard(slow, options=ServeOptions(concurrency=1))

        async def ask():
            async def send(message):
                if message["type"] == "http.response.start":
                    codes.append((message["status"], dict(message["headers"]).get(b"retry-after")))

            scope = {
                "type": "http", "method": "GET", "path": "/api/x", "headers": [(b"host", b"localhost")],
                "query_string": b"", "scheme": "http", "client": None,
            }  # fmt: skip
            await one(scope, None, send)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            await entered.wait()
            await ask()
            leave.set()
        await ask()

    anyio.run(both)
    assert codes == [(429, b"1"), (204, None), (204, None)]


def test_a_failure_gives_its_place_back(serve, library, monkeypatch):
    client = serve(concurrency=1)
    with monkeypatch.context() as patch:
        patch.setattr(type(library), "status", lambda _: 1 / 0)
        assert [client.get("/api/status").status_code for _ in range(2)] == [500, 500]
    assert client.get("/api/status").status_code == 200


# ---- forms


def test_a_form_proves_that_it_is_from_here():
    given = []

    async def app(scope, receive, send):
        given.append(scope)
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    for _ in range(2):
        exchange(app)
    first, second = given
    token = first["state"]["form_token"]
    assert tokens.is_form_token(first, token)
    assert not tokens.is_form_token(second, token)  # another server's
    assert not tokens.is_form_token(first, "")
    assert not tokens.is_form_token(first, None)
    assert not tokens.is_form_token({}, None)
