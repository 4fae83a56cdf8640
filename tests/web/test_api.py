"""The REST interface says what the command line says, in pages, with ETags, and as its own OpenAPI document has it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from starlette.routing import Route

from search import Library, documents
from search.query import Kind, Query, Term
from search.web import api, table


def schema_errors(value, schema, whole, place="$"):
    """What of a document is not as its schema has it; what the schemas here use of JSON Schema."""
    while "$ref" in schema:
        schema = whole["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    if "enum" in schema:
        return [] if value in schema["enum"] else [f"{place}: {value!r}"]
    kinds = {
        "string": str, "integer": int, "number": (int, float), "boolean": bool, "array": list, "object": dict,
        "null": type(None),
    }  # fmt: skip
    types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    if not any(isinstance(value, kinds[kind]) and not (kind != "boolean" and value in (True, False) and
               isinstance(value, bool)) for kind in types):  # fmt: skip
        return [f"{place}: {value!r} is no {types}"]
    found = []
    if isinstance(value, dict) and "properties" in schema:
        found += [f"{place}: no {name}" for name in schema["required"] if name not in value]
        for name, inner in value.items():
            if name in schema["properties"]:
                found += schema_errors(inner, schema["properties"][name], whole, f"{place}.{name}")
            elif not schema["additionalProperties"]:
                found.append(f"{place}: {name} is unknown")
    elif isinstance(value, list):
        for at, inner in enumerate(value):
            found += schema_errors(inner, schema["items"], whole, f"{place}[{at}]")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        low, high = schema.get("minimum", value), schema.get("maximum", value)
        found += [] if low <= value <= high else [f"{place}: {value}"]
    return found


@pytest.fixture(scope="module")
def openapi(client):
    return client.get("/api/openapi.json").json()


def said(document):
    return {name: value for name, value in document.items() if name != "seconds"}


# ---- what the command line says


def test_a_text_search_is_the_command_lines_answer(client, library):
    expected = documents.answer_document(library.answer("a red wall", 3, min_relevance=0.0))
    got = client.get("/api/search", params={"q": "a red wall", "k": 3, "min_relevance": 0}).json()
    paging = {name: got.pop(name) for name in ("offset", "next_offset")}
    assert paging == {"offset": 0, "next_offset": 3}
    got.pop("below"), expected.pop("below")  # of the photos that were looked at: one more here
    assert said(got) == said(expected)
    assert len(got["hits"]) == 3


def test_without_a_cut_of_ones_own_the_usual_one_holds(client, library):
    expected = library.answer("a red wall", 8, min_relevance=None)
    got = client.get("/api/search", params={"q": "a red wall", "k": 8}).json()
    assert (got["cut"], len(got["hits"])) == (expected.cut, len(expected.hits))
    assert got["cut"] > 0


def test_terms_are_weighed_and_pushed_away(client, library, ids):
    first, second, third = ids["0.jpg"], ids["1.jpg"], ids["2.jpg"]
    parameters = {"q": f"2:noise + like:{first}", "like": [f"0.5:{second}"], "not": "a wall", "unlike": third}
    terms = (
        Term(Kind.TEXT, "noise", 2.0),
        Term(Kind.PHOTO, str(first)),
        Term(Kind.PHOTO, str(second), 0.5),
        Term(Kind.TEXT, "a wall", -1.0),
        Term(Kind.PHOTO, str(third), -1.0),
    )
    expected = library.answer(Query(terms), 10, min_relevance=None)
    for got in (
        client.get("/api/search", params=parameters),
        client.post("/api/search", json={**parameters, "not": ["a wall"], "unlike": [str(third)]}),
    ):
        assert [hit["id"] for hit in got.json()["hits"]] == [hit.photo.id for hit in expected.hits]
        assert got.json()["query"] == expected.query


def test_conditions_narrow_the_answer(client, pictures, ids):
    def found(**conditions):
        answer = client.get("/api/search", params={"q": "noise", "min_relevance": 0, **conditions}).json()
        return answer["candidates"], {hit["id"] for hit in answer["hits"]}

    png = ids['evil"><script>\n\u202e;x.png']
    assert found(where="format = png") == (1, {png})
    assert found(where=["format = png", "width > 64"]) == (0, set())
    assert found(folder=str(pictures))[0] == 8
    assert found(folder=str(pictures / "below"))[0] == 0
    assert found(camera="nikon")[0] == 0
    assert found(near="0,0,10")[0] == 0
    assert found(tag="cat")[0] == 0
    assert found(after="2000", before="2001")[0] == 0


def test_similar_photos_are_the_command_lines_answer(client, library, ids):
    id_ = ids["3.jpg"]
    expected = documents.answer_document(library.similar(id_, 4, min_relevance=None))
    got = client.get(f"/api/photos/{id_}/similar", params={"k": 4}).json()
    assert [hit["id"] for hit in got["hits"]] == [hit["id"] for hit in expected["hits"]]
    assert id_ not in {hit["id"] for hit in got["hits"]}


def test_a_photo_the_status_and_the_lists_are_the_command_lines(client, library, ids):
    id_ = ids["0.jpg"]
    photo = client.get(f"/api/photos/{id_}").json()
    assert photo == {**documents.whole_photo_document(library.photo(id_)), "label_records": []}
    assert client.get("/api/status").json() == documents.status_document(library.status())
    assert client.get("/api/labels").json() == {"labels": [], "total": 0, "offset": 0, "next_offset": None}
    [skip] = library.skipped()
    got = client.get("/api/skipped").json()
    assert got == {"skipped": [documents.skip_document(skip)], "total": 1, "offset": 0, "next_offset": None}
    assert Path(got["skipped"][0]["path"]).name == "broken.jpg"


# ---- pictures that are sent along


def test_a_picture_that_is_sent_finds_its_photo(client, pictures, ids):
    sent = client.post("/api/search", files={"image": (pictures / "4.jpg").read_bytes()})
    assert sent.status_code == 200
    hits = sent.json()["hits"]
    assert hits[0]["id"] == ids["4.jpg"]
    assert hits[0]["score"] == pytest.approx(1, abs=1e-3)  # vectors are kept as float16


def test_pictures_and_words_go_together_and_pictures_weigh(client, library, pictures, ids):
    files = [("image", (pictures / name).read_bytes()) for name in ("4.jpg", "5.jpg")]
    query = json.dumps({"k": 8, "image_weights": [1, -0.5], "not": ["zebra"]})
    answer = client.post("/api/search", files=files, data={"query": query}).json()
    four, five = (Term(Kind.PHOTO, str(ids[name])) for name in ("4.jpg", "5.jpg"))
    terms = (four, replace(five, weight=-0.5), Term(Kind.TEXT, "zebra", -1.0))
    expected = library.answer(Query(terms), 8, examples=True)
    assert [hit["id"] for hit in answer["hits"]] == [hit.photo.id for hit in expected.hits]
    assert answer["query"] == "like:image-1 - 0.5:like:image-2 - zebra"


@pytest.mark.parametrize(
    ("content", "status", "reason"),
    [
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, "unsupported_format"),
        (b"", 422, "empty"),
        (b"\xff\xd8\xff\xe0 no picture", 422, "decode_error"),
    ],
    ids=["svg", "empty", "damaged"],
)
def test_what_is_no_picture_is_refused_with_a_reason(client, content, status, reason):
    refused = client.post("/api/search", files={"image": ("../../../etc/passwd", content)})
    assert (refused.status_code, refused.json()["reason"]) == (status, reason)


# ---- pages and ETags


def test_pages_put_together_are_the_whole_answer(client):
    asked = {"q": "noise", "min_relevance": 0}
    whole = client.get("/api/search", params={**asked, "k": 8}).json()
    assert whole["next_offset"] is None
    hits, offset = [], 0
    while offset is not None:
        page = client.get("/api/search", params={**asked, "k": 3, "offset": offset}).json()
        hits += page["hits"]
        offset = page["next_offset"]
    assert [hit["rank"] for hit in hits] == list(range(1, 9))
    assert hits == whole["hits"]


def test_lists_come_in_pages(client):
    page = client.get("/api/skipped", params={"k": 1, "offset": 1}).json()
    assert page == {"skipped": [], "total": 1, "offset": 1, "next_offset": None}


@pytest.mark.parametrize("path", ["/api/search?q=noise", "/api/photos/1", "/api/status", "/api/photos/1/original"])
def test_what_the_caller_has_already_is_not_sent_again(client, path):
    first = client.get(path)
    again = client.get(path, headers={"If-None-Match": f'"other", {first.headers["etag"]}'})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    assert client.get(path, headers={"If-None-Match": '"other"'}).status_code == 200


def test_an_etag_is_of_the_answer_and_not_of_the_time_it_took(client):
    first, again = (client.get("/api/search?q=noise") for _ in range(2))
    assert first.json()["seconds"] != again.json()["seconds"]
    assert first.headers["etag"] == again.headers["etag"]
    assert client.get("/api/search?q=wall").headers["etag"] != first.headers["etag"]


# ---- originals


def test_an_original_is_the_file_itself(client, pictures, ids):
    got = client.get(f"/api/photos/{ids['0.jpg']}/original")
    assert got.content == (pictures / "0.jpg").read_bytes()
    assert got.headers["content-type"] == "image/jpeg"
    assert got.headers["x-content-type-options"] == "nosniff"
    assert got.headers["content-disposition"] == "inline; filename*=UTF-8''0.jpg"
    assert "sandbox" in got.headers["content-security-policy"]


def test_a_name_can_put_nothing_into_a_header(client, ids):
    got = client.get(
        f"/api/photos/{ids['evil' + chr(34) + '><script>' + chr(10) + chr(0x202E) + ';x.png']}/original"
    )
    assert got.status_code == 200
    assert re.fullmatch(r"inline; filename\*=UTF-8''[\w.%-]+", got.headers["content-disposition"])


def test_a_file_that_changed_is_not_the_photo_that_was_indexed(client, pictures, ids, tmp_path):
    photo, secret = pictures / "6.jpg", tmp_path / "secret"
    secret.write_text("secret")
    kept = pictures / "kept"
    photo.rename(kept)
    try:
        missing = client.get(f"/api/photos/{ids['6.jpg']}/original")
        photo.symlink_to(secret)
        changed = client.get(f"/api/photos/{ids['6.jpg']}/original")
    finally:
        photo.unlink()
        kept.rename(photo)
    assert (missing.status_code, missing.json()["reason"]) == (404, "missing")
    assert (changed.status_code, changed.json()["reason"]) == (409, "changed")
    assert client.get(f"/api/photos/{ids['6.jpg']}/original").status_code == 200


def test_only_what_browsers_show_as_a_picture_is_shown(client, library, ids):
    from search.web import originals

    photo = library.photo(ids["0.jpg"])
    for name in ("SVG", "HTML", "TIFF", "cr2", ""):
        with originals.opened(photo, library.sources) as file:
            sent = originals.sent(replace(photo, info=replace(photo.info, format=name)), file)
        assert sent.headers["content-disposition"].startswith("attachment;")
        assert not re.search("svg|html|xml|script", sent.headers["content-type"])


# ---- wrong requests


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("q=a&colour=red", "colour"),
        ("q=a&q=b", "q"),
        ("q=a&k=0", "k"),
        ("q=a&k=ten", "k"),
        ("q=a&k=1e3", "k"),
        ("q=a&k=" + "9" * 5000, "k"),
        ("q=a&offset=-1", "offset"),
        ("q=a&min_relevance=nan", "min_relevance"),
        ("q=a&diverse=yes", "diverse"),
        ("q=" + "a" * 2001, "q"),
        ("q=a%00b", "q"),
        ("like=../../etc/passwd", "like"),
        ("like=1:2:3", "like"),
        ("q=a" + "&tag=b" * 17, "tag"),
    ],
)
def test_a_wrong_parameter_is_named(client, query, parameter):
    refused = client.get(f"/api/search?{query}")
    assert refused.headers["content-type"] == "application/problem+json"
    assert (refused.status_code, refused.json()["parameter"]) == (400, parameter)


@pytest.mark.parametrize(
    "query",
    ["", "q=-+dogs", "q=like:/etc/passwd", 'q=like:"1"', "q=a&where=colour+%3D+red", "q=a&where=" + "(" * 900,
     "q=a&where=" + "not+" * 240 + "has+gps", "q=a&after=yesterday", "q=a&near=91,0,1", "q=a&near=nan,0,1",
     "q=a&folder=../etc", "q=0:a", "q=a&diverse=true&offset=1", "q=a&template=nothing"],
)  # fmt: skip
def test_a_query_that_can_not_be_meant_is_a_problem_of_the_caller(client, query):
    refused = client.get(f"/api/search?{query}")
    assert refused.status_code in (400, 200), refused.text  # a condition may be deep
    assert refused.status_code == 400 or query.startswith("q=a&where=not")


@pytest.mark.parametrize(
    "asked",
    [
        {"q": " + ".join("abcdefghijklmnopqrstuvwxyz" + "abcdefg")},
        {"q": "a + b + c + d + e", "template": [f"{number} {{}}" for number in range(13)]},
        {"q": "ab " * 100, "template": ["{}" * 30]},
        {"q": "ab " * 600, "not": ["ab " * 300] * 2},
    ],
    ids=["terms", "prompts", "braces", "characters"],
)
def test_nobody_keeps_the_model_busy_for_long(client, asked, monkeypatch):
    monkeypatch.setattr(Library, "answer", lambda *_, **__: pytest.fail("it was asked"))
    refused = client.get("/api/search", params=asked)
    assert refused.status_code == 400
    assert "too long" in refused.json()["detail"]


def test_a_wrong_query_tells_the_column(client):
    assert client.get("/api/search", params={"q": 'red + "car'}).json()["column"] == 7


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{", b'{"q": NaN}', b"[" * 100_000, b'{"k": ' + b"9" * 5000 + b"}", b'{"q": "\\ud800"}', b"\xff",
     b'{"q": 1}', b'{"like": "12"}', b'{"k": true, "q": "a"}', b'{"q": "a", "image_weights": [1]}', b'{"z": 1}'],
)  # fmt: skip
def test_a_wrong_body_is_a_problem_of_the_caller(client, body):
    refused = client.post("/api/search", content=body, headers={"Content-Type": "application/json"})
    assert refused.status_code == 400, refused.text


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("text/plain", b"{}", 415),
        ("application/x-www-form-urlencoded", b"q=a", 415),
        ("multipart/form-data", b"x", 400),
        ("multipart/form-data; boundary=x", b"--x\r\nnonsense", 400),
    ],
)
def test_a_body_of_another_kind_is_refused(client, kind, body, status):
    refused = client.post("/api/search", content=body, headers={"Content-Type": kind})
    assert refused.status_code == status


def test_a_form_has_pictures_and_a_query_and_nothing_else(client, pictures):
    photo = (pictures / "0.jpg").read_bytes()
    assert client.post("/api/search", files={"picture": photo}).status_code == 400
    assert client.post("/api/search", files={"query": photo}).status_code == 400
    assert client.post("/api/search", files=[("image", photo)] * 5).status_code == 400


@pytest.mark.parametrize(
    "id_", ["99", "0", "x", "-1", "1.5", "9" * 18, "9" * 5000, "%2e%2e", "..%2f..%2fetc%2fpasswd"]
)
@pytest.mark.parametrize("of", ["", "/similar", "/original"])
def test_what_is_no_photo_is_not_found(client, id_, of):
    refused = client.get(f"/api/photos/{id_}{of}")
    assert refused.status_code == 404
    assert refused.json()["status"] == 404


def test_other_methods_are_refused_with_those_that_there_are(client):
    refused = client.delete("/api/search")
    assert refused.status_code == 405
    assert {one.strip() for one in refused.headers["allow"].split(",")} == {"GET", "HEAD", "POST"}


# ---- the OpenAPI document


def test_the_document_and_the_routes_are_the_same(client, openapi):
    there = {
        (route.path, method)
        for route in client.app.routes
        if isinstance(route, Route) and route.path.startswith("/api/")
        for method in route.methods - {"HEAD"}
    }
    told = {(path, method.upper()) for path, methods in openapi["paths"].items() for method in methods}
    assert told == there
    assert openapi["openapi"] == "3.1.0"
    names = [one["operationId"] for methods in openapi["paths"].values() for one in methods.values()]
    assert len(set(names)) == len(names)


def test_every_reference_leads_somewhere(openapi):
    for name in re.findall(r'"#/components/schemas/(\w+)"', json.dumps(openapi)):
        assert name in openapi["components"]["schemas"]


READING = [one for one in table.OPERATIONS if one.answer and (one in api.OPERATIONS or one.method == "GET")]


@pytest.mark.parametrize("operation", READING, ids=lambda one: one.name)
def test_answers_are_as_the_document_has_them(client, openapi, operation):
    path = operation.path.replace("{id}", "1")
    asked = {"q": "noise"} if operation.name.startswith("search") else {}
    body = {"json": asked} if operation.method == "POST" else {"params": asked}
    answer = client.request(operation.method, path, **body)
    told = openapi["paths"][operation.path][operation.method.lower()]["responses"]
    assert answer.status_code == 200, answer.text
    schema = told["200"]["content"]["application/json"]["schema"]
    assert schema_errors(answer.json(), schema, openapi) == []


def test_every_parameter_that_is_told_is_taken(client, openapi):
    examples = {"q": "a", "like": "1", "unlike": "2", "near": "1,2,3", "where": "width > 1", "folder": "/x",
                "after": "2020", "before": "2021", "template": "a {}", "format": "csv"}  # fmt: skip
    for path, methods in openapi["paths"].items():
        for one in methods.get("get", {}).get("parameters", []):
            if one["in"] == "query":
                value = examples.get(one["name"], {"integer": 1, "number": 1, "boolean": "true"}.get(
                    one["schema"]["type"], "cat"))  # fmt: skip
                asked = {one["name"]: value} | ({"q": "a"} if path == "/api/search" else {})
                answer = client.get(path.replace("{id}", "1"), params=asked)
                status = (
                    404 if asked == {"label": "cat"} and path == "/api/labels/export" else 200
                )  # there is none
                assert answer.status_code == status, (path, asked, answer.text)


def test_problems_are_as_the_document_has_them(client, openapi):
    for refused in (client.get("/api/search"), client.get("/api/photos/99"), client.get("/api/nothing"),
                    client.get("/api/search?q=a&k=0"), client.post("/api/search", files={"image": b"x"})):  # fmt: skip
        assert refused.headers["content-type"] == "application/problem+json"
        assert schema_errors(refused.json(), {"$ref": "#/components/schemas/Problem"}, openapi) == []
        assert refused.json()["status"] == refused.status_code
