"""Other programs' own clients, unmodified, from their packages: `make test-clients`."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from search.web import ServeOptions, create_app
from search.web.options import ClipRetrieval

pytestmark = pytest.mark.slow

PACKAGES = ("requests", "--no-deps", "clip-retrieval==2.45.0", "charset-normalizer", "idna", "urllib3", "certifi")
# The package's front wants flask, faiss and more; its client is a module of its own.
ASK = """
import importlib.util, json, sys
place = importlib.util.find_spec("clip_retrieval").submodule_search_locations[0]
sys.path.insert(0, place)
from clip_client import ClipClient
url, pictures, vector = json.loads(sys.argv[1])
client = ClipClient(url=url, indice_name="photos", num_images=5)
by_text = client.query(text="noise")
by_image = client.query(image=f"{pictures}/3.jpg")
print(json.dumps({
    "text": by_text,
    "image": by_image,
    "url": client.query(image=by_image[0]["url"]),
    "embedding": client.query(embedding_input=vector),
    "wrong index": ClipClient(url=url, indice_name="laion5B").query(text="a"),
    "defaults": ClipClient(url=url, indice_name="photos").query(text="noise"),
}))
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory, request) -> str:
    """The interpreter of an environment that has clip-retrieval's client, a given one or a new one."""
    if given := request.config.getoption("--clients-python"):
        return given
    folder = tmp_path_factory.mktemp("clients")
    python = str(folder / "bin" / "python")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    done = subprocess.run(
        [python, "-m", "pip", "install", "-q", *PACKAGES], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"clip-retrieval can't be installed here: {done.stderr[-200:]}")
    return python


def test_clip_retrievals_own_client_finds_photos(environment, live, library, pictures, ids):
    app = create_app(library, ServeOptions(clip_retrieval=ClipRetrieval()))
    [vector] = library.text_vectors(["noise"]).tolist()
    with live(app) as port:
        asked = json.dumps([f"http://127.0.0.1:{port}/knn-service", str(pictures), vector])
        done = subprocess.run(
            [environment, "-c", ASK, asked], capture_output=True, text=True, timeout=300, check=False
        )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for name in ("text", "image", "url", "embedding", "defaults"):
        assert isinstance(found[name], list), (name, found[name])
        assert all(type(hit["id"]) is int and type(hit["similarity"]) is float for hit in found[name])
        assert all(type(value) in (str, int, float, type(None)) for hit in found[name] for value in hit.values())
        assert [hit["similarity"] for hit in found[name]] == sorted(
            (hit["similarity"] for hit in found[name]), reverse=True
        )
    assert found["image"][0]["id"] == found["url"][0]["id"] == ids["3.jpg"]
    assert [hit["id"] for hit in found["embedding"]] == [hit["id"] for hit in found["text"]]
    assert {"id", "similarity", "url", "caption", "image_path"} == set(found["image"][0])
    assert "message" in found["wrong index"]
