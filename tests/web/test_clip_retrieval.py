"""Requests as clip-retrieval's own clients send them: bodies written down here, byte for byte as they are made."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np
import pytest

from search.errors import UsageError
from search.web.options import ClipRetrieval

PAGE = "http://localhost:5005"

# What ClipClient(...).query(text="a dog") posts, with the defaults of its constructor.
FROM_CLIENT = (
    '{"text": "a dog", "image": null, "image_url": null, "embedding_input": null, "deduplicate": true, '
    '"use_safety_model": true, "use_violence_detector": true, "indice_name": "photos", "use_mclip": false, '
    '"aesthetic_score": 9, "aesthetic_weight": 0.5, "modality": "image", "num_images": 40, "num_result_ids": 40}'
)
# What the web page posts.
FROM_PAGE = (
    '{"text":"a dog","image":null,"image_url":null,"embedding_input":null,"modality":"image","num_images":2,'
    '"indice_name":"photos","num_result_ids":5,"use_mclip":false,"deduplicate":false,"use_safety_model":true,'
    '"use_violence_detector":true,"aesthetic_score":"","aesthetic_weight":"0.5"}'
)


@pytest.fixture(scope="module")
def client(serve):
    return serve(clip_retrieval=ClipRetrieval(origins=(PAGE,)))


def asking(**fields) -> str:
    """The page's body with other fields in it; those that are ... are left out."""
    given = {**json.loads(FROM_PAGE), **fields}
    return json.dumps({name: value for name, value in given.items() if value is not ...})


def ask(client, body: str, **headers) -> list[dict]:
    response = client.post("/knn-service", content=body, headers=headers)
    assert response.status_code == 200, response.text
    return response.json()


def test_a_clients_text_finds_what_the_library_finds(client, library):
    sent = client.build_request("POST", "/knn-service", content=FROM_CLIENT)
    assert "content-type" not in sent.headers
    found = client.send(sent).json()
    hits = {hit.photo.id: hit for hit in library.search("a dog", 40)}
    assert found
    assert [one["similarity"] for one in found] == pytest.approx(
        [hits[one["id"]].score for one in found], abs=1e-5
    )
    assert [one["similarity"] for one in found] == sorted((one["similarity"] for one in found), reverse=True)
    assert {(type(one["id"]), type(one["similarity"]), type(one["caption"])) for one in found} == {
        (int, float, str)
    }


def test_only_so_many_results_have_metadata_as_are_asked_for(client, ids):
    found = ask(client, FROM_PAGE)
    assert [sorted(one) for one in found] == [["caption", "id", "image_path", "similarity", "url"]] * 2 + [
        ["id", "similarity"]
    ] * 3
    names = {id_: name.partition(".")[0] for name, id_ in ids.items()}
    assert [one["caption"] for one in found[:2]] == [names[one["id"]] for one in found[:2]]
    assert {one["id"]: Path(one["image_path"]).name for one in found[:2]}.items() <= {
        id_: name for name, id_ in ids.items()
    }.items()


def test_results_are_as_many_as_images_unless_more_ids_are_asked_for(client):
    assert len(ask(client, asking(num_result_ids=...))) == 2
    assert ask(client, asking(num_images=0, num_result_ids=0)) == []


def test_a_picture_finds_itself(client, pictures, ids):
    picture = base64.b64encode((pictures / "3.jpg").read_bytes()).decode()
    [best, *_] = ask(client, asking(text=None, image=picture))
    assert best["id"] == ids["3.jpg"]
    assert best["similarity"] == pytest.approx(1, abs=2e-3)  # vectors are kept in float16


def test_an_embedding_is_taken_as_long_as_it_is(client, library, ids):
    row = library.model.answering()
    _, [vector] = library.catalog.embeddings(row, [ids["5.jpg"]])
    [best, *_] = ask(client, asking(text="", embedding_input=(3 * vector).tolist()))
    assert best["id"] == ids["5.jpg"]
    assert best["similarity"] == pytest.approx(3, abs=6e-3)


@pytest.mark.parametrize("width", [0, 3])
def test_an_embedding_of_another_model_is_refused(client, width):
    response = client.post("/knn-service", content=asking(text=None, embedding_input=[0.5] * width))
    assert response.status_code == 400


def test_of_several_examples_the_text_counts(client, pictures):
    picture = base64.b64encode((pictures / "3.jpg").read_bytes()).decode()
    assert ask(client, asking(image=picture, embedding_input=[1.0])) == ask(client, FROM_PAGE)


def test_a_text_is_never_read_as_a_query_that_names_files(client):
    assert ask(client, asking(text="like:/etc/hostname"))


def test_duplicates_are_left_out_where_that_is_asked_for(client, library):
    whole = [one["id"] for one in ask(client, asking(num_result_ids=8))]
    kept = [one["id"] for one in ask(client, asking(num_result_ids=8, deduplicate=True))]
    found, vectors = library.catalog.embeddings(library.model.answering(), whole)
    place = {id_: at for at, id_ in enumerate(found.tolist())}
    rows = vectors[[place[id_] for id_ in whole]]
    near = (rows @ rows.T > 0.94) & ~np.eye(len(rows), dtype=bool)
    assert near.any(), "these pictures must be alike for this to be seen"
    assert kept[0] == whole[0]
    assert len(kept) < len(whole)
    left = [whole.index(id_) for id_ in kept]
    assert not near[np.ix_(left, left)].any()


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"modality": ...}, "modality"),
        ({"modality": "text"}, "modality"),
        ({"num_images": ...}, "num_images"),
        ({"num_images": -1}, "num_images"),
        ({"num_images": True}, "num_images"),
        ({"num_result_ids": "40"}, "num_result_ids"),
        ({"indice_name": "laion5B"}, "indice_name"),
        ({"text": 5}, "text"),
        ({"text": "\ud800"}, "text"),
        ({"text": "dog " * 1001}, "text"),
        ({"text": None}, "text, image, image_url and embedding_input"),
        ({"text": None, "image": "not base64!"}, "image"),
        ({"text": None, "embedding_input": [1, "2"]}, "embedding_input"),
        ({"text": None, "embedding_input": [float("nan")]}, "embedding_input"),
        ({"deduplicate": "yes"}, "deduplicate"),
    ],
)
def test_a_field_that_is_wrong_is_named(client, fields, named):
    response = client.post("/knn-service", content=asking(**fields))
    assert response.status_code == 400
    assert named in response.json()["message"]


@pytest.mark.parametrize("body", ["", "[]", "{", "[" * 100_000, '"photos"'])
def test_a_body_that_is_no_json_object_is_refused(client, body):
    assert client.post("/knn-service", content=body).status_code == 400
    assert client.post("/metadata", content=body).status_code == 400


@pytest.mark.parametrize(
    "fields",
    [
        {"aesthetic_score": score, "aesthetic_weight": weight}
        for score, weight in ((9, 0.5), ("9", ""), (None, None))
    ]
    + [{"use_mclip": True}, {"indice_name": None}],
)
def test_what_can_not_be_served_changes_nothing(client, fields):
    assert ask(client, asking(**fields)) == ask(client, FROM_PAGE)


def test_a_file_that_is_no_picture_is_refused(client):
    body = asking(text=None, image=base64.b64encode(b"%PDF-1.7 no picture").decode())
    assert client.post("/knn-service", content=body).status_code == 415


def test_nothing_is_fetched_unless_that_was_allowed(client):
    response = client.post("/knn-service", content=asking(text=None, image_url="http://127.0.0.1:9/cat.jpg"))
    assert response.status_code == 403


def test_the_address_of_a_result_can_be_searched_by_with_nothing_fetched(client, ids):
    [shown, *_] = ask(client, FROM_PAGE)
    [best, *_] = ask(client, asking(text=None, image_url=shown["url"]))
    assert best["id"] == shown["id"]
    unknown = shown["url"].replace(str(shown["id"]), "999")
    assert client.post("/knn-service", content=asking(text=None, image_url=unknown)).status_code in (400, 404)


def test_metadata_come_by_id_and_unknown_ids_are_left_out(client, ids):
    wanted = [ids["2.jpg"], 10**6, ids["0.jpg"], 2**70, -1]
    response = client.post("/metadata", content=json.dumps({"ids": wanted, "indice_name": "photos"}))
    found = response.json()
    assert [one["id"] for one in found] == [ids["2.jpg"], ids["0.jpg"]]
    assert [one["metadata"]["caption"] for one in found] == ["2", "0"]
    assert client.post("/metadata", content='{"ids": [], "indice_name": "photos"}').json() == []
    assert client.post("/metadata", content='{"ids": ["1"], "indice_name": "photos"}').status_code == 400


def test_what_is_here_is_told(client):
    assert client.get("/indices-list").json() == ["photos"]
    assert client.get("/config.json").json() == {
        "defaultBackend": "http://localhost:8000",
        "defaultIndex": "photos",
        "urlColumn": "url",
    }


def test_searches_are_counted_as_prometheus_reads_it(serve):
    client = serve(clip_retrieval=ClipRetrieval())
    assert client.get("/metrics-summary").text == "No request yet, go do some"
    ask(client, FROM_PAGE)
    ask(client, FROM_PAGE)
    response = client.get("/metrics")
    lines = response.text.splitlines()
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert "# TYPE full_knn_request_time histogram" in lines
    assert 'full_knn_request_time_bucket{le="+Inf"} 2' in lines
    assert "full_knn_request_time_count 2" in lines


@pytest.mark.parametrize("path", ["/knn-service", "/metadata", "/indices-list", "/config.json", "/metrics"])
def test_nothing_of_it_is_there_unless_switched_on(serve, path):
    assert serve().get(path).status_code == 404


# ---- web pages of other origins


def test_a_page_that_was_named_may_ask_and_read_the_answer(client):
    response = client.post(
        "/knn-service", content=FROM_PAGE, headers={"Origin": PAGE, "Sec-Fetch-Site": "same-site"}
    )
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == PAGE
    wrong = client.post("/knn-service", content="{", headers={"Origin": PAGE, "Sec-Fetch-Site": "same-site"})
    assert (wrong.status_code, wrong.headers["access-control-allow-origin"]) == (400, PAGE)


def test_a_page_that_was_named_may_ask_whether_it_may(client):
    question = {"Origin": PAGE, "Access-Control-Request-Method": "POST", "Sec-Fetch-Site": "cross-site"}
    response = client.options("/knn-service", headers=question)
    assert response.status_code == 204
    assert response.headers["access-control-allow-methods"] == "POST, OPTIONS"


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "http://localhost:5006", "https://localhost:5005", "null"]
)
def test_other_pages_may_not(client, origin):
    for site in ("cross-site", "same-site"):
        headers = {"Origin": origin, "Sec-Fetch-Site": site}
        response = client.post("/knn-service", content=FROM_PAGE, headers=headers)
        assert response.status_code == 403
        assert "access-control-allow-origin" not in response.headers
        assert "access-control-allow-origin" not in client.options("/knn-service", headers=headers).headers


@pytest.mark.parametrize("path", ["/api/status", "/metrics", "/"])
def test_a_page_that_was_named_may_ask_nothing_else(client, path):
    response = client.get(path, headers={"Origin": PAGE, "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"})
    assert response.status_code == 403
    assert "access-control-allow-origin" not in response.headers


def test_a_named_page_needs_the_token_all_the_same(serve):
    client = serve(clip_retrieval=ClipRetrieval(origins=(PAGE,)), token="s3cret")
    assert client.post("/knn-service", content=FROM_PAGE, headers={"Origin": PAGE}).status_code == 401


def test_a_client_can_hold_the_token_in_its_address(serve):
    client = serve(clip_retrieval=ClipRetrieval(), token="s3cret")
    right = {"Authorization": "Basic " + base64.b64encode(b"me:s3cret").decode()}
    assert client.post("/knn-service", content=FROM_PAGE, headers=right).status_code == 200
    for wrong in (base64.b64encode(b"s3cret:").decode(), base64.b64encode(b"me:secret").decode(), "s3cret", "!"):
        headers = {"Authorization": f"Basic {wrong}"}
        assert client.post("/knn-service", content=FROM_PAGE, headers=headers).status_code == 401


def test_a_named_page_may_show_the_pictures_and_no_other_may(client):
    [shown, *_] = ask(client, FROM_PAGE)
    loading = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}
    response = client.get(shown["url"], headers={"Referer": f"{PAGE}/index.html", **loading})
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("image/")
    assert response.headers["cross-origin-resource-policy"] == "cross-origin"
    for referer in ("http://evil.example/", f"{PAGE}.evil.example/", f"http://evil.example/?{PAGE}", ""):
        assert client.get(shown["url"], headers={"Referer": referer, **loading}).status_code == 403


@pytest.mark.parametrize("origin", ["*", "localhost:5005", "http://localhost:5005/", "http://*.example", "null"])
def test_what_is_no_origin_is_wrong_usage(origin):
    with pytest.raises(UsageError):
        ClipRetrieval(origins=(origin,))
