"""Requests as immich's server sends them: a form with `entries` and a text, or a nameless file."""

from __future__ import annotations

import importlib.util
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest

from search.web.compat.immich import is_same_model, literal, read_entries
from search.web.options import Immich
from search.web.problems import Problem

TEXT = '{"clip":{"textual":{"modelName":"builtin","options":{"language":"de"}}}}'
IMAGE = '{"clip":{"visual":{"modelName":"builtin"}}}'
FACES = (
    '{"facial-recognition":{"detection":{"modelName":"buffalo_l","options":{"minScore":0.7}},'
    '"recognition":{"modelName":"buffalo_l"}}}'
)


@pytest.fixture(scope="module")
def client(serve):
    return serve(immich=Immich())


def predict(client, entries: str | None, *, text: str | None = None, image: bytes | None = None):
    """Post a form whose parts stand as Node's FormData writes them."""
    parts = [("entries", None, entries), ("text", None, text), ("image", "blob", image)]
    boundary = "----formdata-undici-014723816935"
    body = b""
    for name, file, value in parts:
        if value is None:
            continue
        kind = f'; filename="{file}"\r\nContent-Type: application/octet-stream' if file else ""
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{kind}\r\n\r\n'
        body += head.encode() + (value if isinstance(value, bytes) else value.encode()) + b"\r\n"
    body += f"--{boundary}--\r\n".encode()
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}", "Sec-Fetch-Mode": "cors"}
    return client.post("/predict", content=body, headers=headers)


def test_a_text_becomes_a_string_that_holds_a_json_array(client, library):
    answer = predict(client, TEXT, text="ein Hund am Strand").json()
    assert list(answer) == ["clip"]
    assert isinstance(answer["clip"], str)
    vector = np.array(json.loads(answer["clip"]), np.float32)
    assert vector.shape == (library.model.answering().dim,)
    assert np.array_equal(vector, library.text_vectors(["ein Hund am Strand"])[0])
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)


def test_a_picture_becomes_one_with_its_size_beside_it(client, library, pictures, ids):
    response = predict(client, IMAGE, image=(pictures / "3.jpg").read_bytes())
    assert response.headers["content-type"] == "application/json"
    answer = response.json()
    assert {name: answer[name] for name in answer if name != "clip"} == {"imageHeight": 48, "imageWidth": 64}
    _, [indexed] = library.catalog.embeddings(library.model.answering(), [ids["3.jpg"]])
    # what is indexed is kept in float16
    assert np.allclose(json.loads(answer["clip"]), indexed, atol=1e-3)


def test_a_picture_wins_over_a_text_beside_it(client, pictures):
    picture = (pictures / "3.jpg").read_bytes()
    assert (
        predict(client, IMAGE, image=picture, text="a dog").json() == predict(client, IMAGE, image=picture).json()
    )


@pytest.mark.parametrize("name", ["ViT-B-32__openai", "", "builtin/x", "../builtin"])
def test_no_vector_of_another_model_is_ever_given(client, pictures, name):
    text = json.dumps({"clip": {"textual": {"modelName": name}}})
    image = json.dumps({"clip": {"visual": {"modelName": name}}})
    picture = (pictures / "3.jpg").read_bytes()
    for response in (predict(client, text, text="a dog"), predict(client, image, image=picture)):
        assert response.status_code == 404
        assert "clip" not in response.json()
        assert "its model is builtin" in response.json()["detail"]


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ("ViT-B-32__openai", "ViT-B-32/openai"),
        ("ViT-B-32__laion2b-s34b-b79k", "ViT-B-32/laion2b_s34b_b79k"),
        ("XLM-Roberta-Base-ViT-B-32__laion5b_s13b_b90k", "xlm-roberta-base-ViT-B-32/laion5b_s13b_b90k"),
        ("ViT-SO400M-16-SigLIP2-384__webli", "ViT-SO400M-16-SigLIP2-384/webli"),
        ("builtin", "builtin"),
    ],
)
def test_names_that_mean_one_model_are_known_as_such(asked, name):
    assert is_same_model(asked, name)


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ("ViT-B-32__openai", "ViT-B-16/openai"),
        ("ViT-B-32__openai", "ViT-B-32/laion400m_e31"),
        ("ViT-B-32__laion400m_e31", "ViT-B-32/laion400m_e32"),
        ("ViT-B-32__openai", "ViT-B-32-quickgelu/openai"),
        ("ViT-B-32__openai", "ViT-B-32/openai+int8"),
        ("ViT-B-32__openai", "ViT-B-32/home/me/openai"),
        ("ViT-B-32__openai", "builtin"),
        ("ViT-B-32", "ViT-B-32/openai"),
    ],
)
def test_names_of_two_models_are_told_apart(asked, name):
    assert not is_same_model(asked, name)


@pytest.mark.parametrize(
    "entries",
    [
        None,
        "",
        "{",
        "[]",
        "{}",
        '{"clip": []}',
        '{"clip": {"textual": {}}}',
        '{"clip": {"textual": {"modelName": 5}}}',
        '{"clip": {"tactile": {"modelName": "builtin"}}}',
        '{"clip": {"textual": {"modelName": "builtin"}, "visual": {"modelName": "builtin"}}}',
        "[" * 100_000,
    ],
)
def test_entries_that_mean_nothing_are_refused_as_immich_does(client, entries):
    response = predict(client, entries, text="a dog")
    assert response.status_code == 422
    assert response.json()["detail"] == "Invalid request format."


def test_neither_text_nor_picture_is_refused(client):
    assert predict(client, TEXT).status_code == 400


def test_what_does_not_fit_the_half_of_the_model_is_refused(client, pictures):
    assert predict(client, IMAGE, text="a dog").status_code == 400
    assert predict(client, TEXT, image=(pictures / "3.jpg").read_bytes()).status_code == 400
    assert predict(client, IMAGE, image=b"no picture").status_code == 415


def test_entries_for_other_tasks_are_for_the_upstream():
    assert read_entries(FACES) is None
    with pytest.raises(Problem):
        read_entries('{"facial-recognition":{}}')


@pytest.mark.parametrize(
    ("dim", "names"),
    [
        (512, "ViT-B-32__openai ViT-B-16__openai RN101__openai"),
        (640, "ViT-B-16-plus-240__laion400m_e31 RN50x4__openai"),
        (768, "ViT-L-14__openai ViT-L-14-336__openai RN50x16__openai nllb-clip-base-siglip__v1"),
        (1024, "ViT-H-14__laion2b-s32b-b79k ViT-g-14__laion2b-s12b-b42k RN50__openai RN50x64__openai"),
        (1152, "nllb-clip-large-siglip__v1 ViT-SO400M-14-SigLIP-384__webli"),
    ],
)
def test_models_that_immich_knows_have_the_length_that_it_expects(dim, names):
    """Ours are OpenCLIP's, by its names; immich's database takes vectors of one length only."""
    [package] = importlib.util.find_spec("open_clip").submodule_search_locations
    for name in names.split():
        architecture, _, weights = name.partition("__")
        assert is_same_model(name, f"{architecture}/{weights.replace('-', '_')}")
        config = json.loads((Path(package) / "model_configs" / f"{architecture}.json").read_text())
        assert config["embed_dim"] == dim, name


def test_numbers_are_as_short_as_float32_allows_and_give_it_back():
    vector = np.array([0.1, -1e-8, 1, 1 / 3], np.float32)
    assert literal(vector) == "[0.1,-1e-08,1.0,0.33333334]"
    assert np.array_equal(np.array(json.loads(literal(vector)), np.float32), vector)


def test_immich_sees_that_it_is_there(client):
    response = client.get("/ping")
    assert (response.text, response.headers["content-type"]) == ("pong", "text/plain; charset=utf-8")
    assert client.get("/", headers={"Accept": "*/*"}).json() == {"message": "Immich ML"}
    assert "Immich" not in client.get("/", headers={"Accept": "text/html,*/*;q=0.8"}).text


def test_immich_needs_no_token_and_gets_nothing_else_without(serve):
    client = serve(immich=Immich(), token="s3cret")
    assert client.get("/ping").text == "pong"
    assert predict(client, TEXT, text="a dog").status_code == 200
    for path in ("/", "/api/status", "/ping/", "//ping", "/predict/../api/status", "/ping%2f..%2fapi/status"):
        assert client.get(path, headers={"Accept": "*/*"}).status_code == 401, path


def test_without_the_switch_a_token_guards_these_names_too(serve):
    client = serve(token="s3cret")
    assert client.get("/ping").status_code == 401
    assert serve().get("/ping").status_code == 404


def test_a_page_elsewhere_can_not_have_it_compute(client):
    headers = {"Origin": "http://evil.example", "Sec-Fetch-Site": "cross-site"}
    assert client.post("/predict", content=b"", headers=headers).status_code == 403


# ---- other tasks


class Upstream(BaseHTTPRequestHandler):
    """Remembers what it is sent, and answers."""

    seen: list[tuple[str, str, bytes]]
    answer = (200, b'{"facial-recognition":[],"imageHeight":48,"imageWidth":64}')

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        type(self).seen.append((self.path, self.headers["Content-Type"], body))
        status, content = self.answer
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def upstream():
    Upstream.seen = []
    with HTTPServer(("127.0.0.1", 0), Upstream) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_other_tasks_are_handed_on_as_they_came(serve, upstream, pictures):
    client = serve(immich=Immich(upstream=upstream), token="s3cret")
    picture = (pictures / "3.jpg").read_bytes()
    response = predict(client, FACES, image=picture)
    assert (response.status_code, response.json()) == (200, json.loads(Upstream.answer[1]))
    [(path, kind, body)] = Upstream.seen
    sent = response.request
    assert (path, kind, body) == ("/predict", sent.headers["content-type"], sent.content)
    assert picture in body


def test_clip_is_never_handed_on(serve, upstream):
    client = serve(immich=Immich(upstream=upstream))
    assert predict(client, TEXT, text="a dog").status_code == 200
    other = json.dumps({"clip": {"textual": {"modelName": "ViT-B-32__openai"}}})
    assert predict(client, other, text="a dog").status_code == 404
    assert Upstream.seen == []


def test_what_the_upstream_says_of_its_errors_is_passed_on(serve, upstream, monkeypatch):
    monkeypatch.setattr(Upstream, "answer", (422, b'{"detail":"no"}'))
    client = serve(immich=Immich(upstream=upstream))
    response = predict(client, FACES, image=b"x")
    assert (response.status_code, response.json()) == (422, {"detail": "no"})


def test_an_upstream_that_is_away_is_told_without_its_place(serve, upstream):
    with HTTPServer(("127.0.0.1", 0), Upstream) as closed:
        address = f"http://127.0.0.1:{closed.server_port}"
    response = predict(serve(immich=Immich(upstream=address)), FACES, image=b"x")
    assert response.status_code == 502
    assert "127.0.0.1" not in response.text


def test_without_an_upstream_other_tasks_are_an_error(client):
    assert predict(client, FACES, image=b"x").status_code == 501
