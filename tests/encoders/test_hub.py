from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import torch
from huggingface_hub import constants

from search.encoders import RECOMMENDED, load_encoder, parse_name
from search.encoders.blueprints import open_clip, pretrained_tags
from search.encoders.hub import (
    Fetcher,
    cached_file,
    download,
    known_models,
    no_network,
    reachable,
    tag_files,
    url_sha256,
)
from search.errors import CheckpointError, ModelError, ModelUnavailable
from search.resources import data_path

ROOT = Path(__file__).parents[2]


def python(code: str, **environment: str) -> str:
    """Run code in a fresh interpreter, warnings as errors, and return what it prints."""
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(code)]
    ran = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


# names


@pytest.mark.parametrize(
    ("name", "parsed"),
    [
        ("builtin", ("builtin", "")),
        (RECOMMENDED, ("open_clip", RECOMMENDED)),
        ("ViT-B-32//abs/w.pt", ("open_clip", "ViT-B-32//abs/w.pt")),
        ("hf-hub:org/name", ("hf-hub", "org/name")),
        ("dir:/a/b", ("dir", "/a/b")),
        ("clip:w.pt", ("clip", str(Path.cwd() / "w.pt"))),
        ("longclip:~/w.pt", ("longclip", str(Path.home() / "w.pt"))),
    ],
)
def test_a_name_says_where_a_model_comes_from(name: str, parsed: tuple[str, str]) -> None:
    assert parse_name(name) == parsed


@pytest.mark.parametrize("name", ["", "cat", "dir:", "hf-hub:org", "hf-hub:a/b/c", "s3://a/b", "ViT-B-32/", "/x"])
def test_a_name_of_no_form_is_refused_and_the_forms_are_named(name: str) -> None:
    with pytest.raises(ModelError, match=r"ARCH/PRETRAINED, hf-hub:ORG/NAME, dir:PATH.*search models list"):
        parse_name(name)


def test_an_unknown_architecture_or_tag_names_the_nearest() -> None:
    with pytest.raises(ModelError, match=r"did you mean ViT-B-32/openai"):
        load_encoder("ViT-B32/openai")
    with pytest.raises(ModelError, match=r"no weights 'openia' for ViT-B-32; did you mean ViT-B-32/openai\?"):
        load_encoder("ViT-B-32/openia")
    with pytest.raises(ModelError, match=RECOMMENDED):
        load_encoder("ViT-B-32-256")


# what there is


def test_the_listed_models_are_open_clips_with_their_sizes() -> None:
    """Their repositories and parameter counts are kept as data, so that listing them needs no torch."""
    tags = {f"{arch}/{tag}": config for arch, tag, config in pretrained_tags()}
    listed = known_models()[1:]
    from search.encoders.hub import _LISTED

    assert [model.name for model in listed] == [entry.name for entry in _LISTED]
    assert listed[0].name == RECOMMENDED
    for entry in _LISTED:
        assert tag_files(tags[entry.name]["hf_hub"])[0] == entry.repo
    with torch.device("meta"):
        for entry in _LISTED[:2]:
            model = open_clip.CLIP(**open_clip.get_model_config(entry.name.partition("/")[0]))
            assert sum(parameter.numel() for parameter in model.parameters()) == entry.parameters


def test_the_builtin_model_is_always_here() -> None:
    builtin = known_models()[0]
    assert (builtin.name, builtin.cached, builtin.size_bytes) == ("builtin", True, 40_237_996)


def test_all_models_are_listed_once() -> None:
    names = [model.name for model in known_models(all_=True)]
    assert len(names) == len(set(names)) > 150
    assert "ViT-B-32/openai" in names


def test_a_tags_place_on_the_hub() -> None:
    weights = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
    assert tag_files("org/name/") == ("org/name", weights)
    assert tag_files("org/name/w.bin") == ("org/name", ("w.safetensors", "w.bin"))
    assert tag_files("org/name/w.pt") == ("org/name", ("w.pt",))


# finding files


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache, and a server that nobody answers at."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    return tmp_path


def put(cache: Path, repo: str, name: str, content: bytes) -> Path:
    """Lay a file into the cache as huggingface_hub does."""
    folder = cache / f"models--{repo.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True, exist_ok=True)
    (folder / "refs" / "main").write_text("abc")
    path = folder / "snapshots" / "abc" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_a_cached_file_is_found_without_network(cache: Path) -> None:
    path = put(cache, "org/name", "open_clip_pytorch_model.bin", b"x")
    with no_network():
        found = Fetcher("hf-hub:org/name").file("org/name", "open_clip_model.safetensors", path.name)
    assert found == path
    assert cached_file("org/name", "other") is None


def test_a_model_in_the_cache_loads_offline(cache: Path) -> None:
    for name in ("open_clip_config.json", "open_clip_model.safetensors"):
        put(cache, "org/name", name, data_path("builtin", name).read_bytes())
    encoder = load_encoder("hf-hub:org/name", device="cpu", offline=True)
    assert (encoder.name, encoder.dim) == ("hf-hub:org/name", 256)
    assert download("hf-hub:org/name", offline=True)["fingerprint"] == encoder.fingerprint


def test_a_damaged_file_of_the_hubs_cache_is_not_loaded(cache: Path) -> None:
    """The cache keeps large files under their SHA-256 and links to them."""
    content = data_path("builtin", "open_clip_model.safetensors").read_bytes()
    blob = cache / "models--org--name" / "blobs" / hashlib.sha256(content).hexdigest()
    put(cache, "org/name", "open_clip_config.json", data_path("builtin", "open_clip_config.json").read_bytes())
    link = put(cache, "org/name", "open_clip_model.safetensors", b"")
    link.unlink()
    blob.parent.mkdir()
    blob.write_bytes(content)
    link.symlink_to(blob)
    assert load_encoder("hf-hub:org/name", device="cpu", offline=True).dim == 256
    blob.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(CheckpointError, match=f"not {blob.name}"):
        load_encoder("hf-hub:org/name", offline=True)


def test_the_urls_of_open_clips_table_say_what_the_file_is() -> None:
    urls = [config["url"] for _, _, config in pretrained_tags() if config.get("url")]
    openai = [url for url in urls if "openaipublic" in url]
    assert openai
    assert all(len(url_sha256(url)) == 64 and int(url_sha256(url), 16) for url in openai)
    assert (
        url_sha256("https://github.com/mlfoundations/x/releases/download/v0/rn50-yfcc-455df137.pt") == "455df137"
    )
    assert url_sha256("https://example.org/some-model.pt") == ""


def test_what_is_missing_is_not_fetched_when_offline_or_unreachable(cache: Path) -> None:
    announced: list[str] = []
    for offline in (True, False):
        with pytest.raises(ModelUnavailable, match=r"search models download org.*--model builtin"):
            Fetcher("org/x", offline=offline, on_download=announced.append).file("org/x", "a")
    assert announced == []
    assert not reachable("http://127.0.0.1:9")


def test_what_looks_things_up_itself_runs_first_without_network(cache: Path) -> None:
    seen: list[bool] = []

    def look_up() -> str:
        seen.append(constants.HF_HUB_OFFLINE)
        return "found"

    assert Fetcher("x").local_first(look_up) == "found"
    assert seen == [True]
    assert constants.HF_HUB_OFFLINE is False


def test_a_lookup_that_fails_locally_asks_the_network_only_if_it_may(cache: Path) -> None:
    def look_up() -> str:
        raise OSError("not in the cache\nand more")

    with pytest.raises(ModelUnavailable, match=r"x can't be had: not in the cache; connect once"):
        Fetcher("x", offline=True).local_first(look_up)
    with pytest.raises(ModelUnavailable, match=r"can't be reached"):
        Fetcher("x").local_first(look_up)


class Hub(BaseHTTPRequestHandler):
    """Answers as the hub does for one repository, org/name, that is the built-in model."""

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        folder, _, name = self.path.partition("/resolve/main/")
        file = data_path("builtin", name)
        self.send_response(200 if folder == "/org/name" and name and file.is_file() else 404)
        if folder == "/org/name":
            self.send_header("X-Repo-Commit", "a" * 40)
            self.send_header("X-Error-Code", "EntryNotFound")
        else:
            self.send_header("X-Error-Code", "RepoNotFound")
        content = file.read_bytes() if file.is_file() else b""
        self.send_header("ETag", '"' + hashlib.sha256(content).hexdigest() + '"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_what_is_missing_is_announced_once_fetched_and_then_cached(hub: str, tmp_path: Path) -> None:
    code = """
        import json
        from search.encoders.hub import Fetcher
        from search.errors import ModelError
        told = []
        fetcher = Fetcher("hf-hub:org/name", on_download=told.append)
        sizes = [fetcher.file("org/name", "nope.safetensors", "open_clip_config.json").stat().st_size,
                 fetcher.file("org/name", "open_clip_model.safetensors").stat().st_size]
        again = Fetcher("hf-hub:org/name", offline=True).file("org/name", "open_clip_config.json").name
        errors = []
        for repo, name in (("org/name", "nope.bin"), ("org/other", "open_clip_config.json")):
            try: fetcher.file(repo, name)
            except ModelError as error: errors.append(f"{type(error).__name__}: {error}")
        print(json.dumps([told, sizes, again, errors]))
    """
    environment = {"HF_ENDPOINT": hub, "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    told, sizes, again, errors = json.loads(python(code, **environment))
    assert told == ["hf-hub:org/name"]
    assert sizes == [data_path("builtin", "open_clip_config.json").stat().st_size, 40_237_996]
    assert again == "open_clip_config.json"
    assert errors == [
        "ModelError: org/name on the hub has no nope.bin: it is not in open_clip's layout",
        "ModelError: org/other is not on the hub, or not open to you",
    ]


# what must not happen


def test_neither_the_door_nor_the_list_of_models_loads_torch() -> None:
    code = """
        import sys
        import search.encoders, search.encoders.hub
        assert "numpy" not in sys.modules and "huggingface_hub" not in sys.modules
        search.encoders.hub.known_models()
        print([name for name in ("torch", "open_clip", "PIL", "numpy", "transformers") if name in sys.modules])
    """
    assert python(code).strip() == "[]"


def test_offline_with_an_empty_cache_is_one_quick_error_and_no_socket(tmp_path: Path) -> None:
    code = """
        import json, socket, time
        def refuse(*args, **kwargs): raise AssertionError("a socket was opened")
        socket.socket.connect = socket.getaddrinfo = refuse
        from search.encoders import RECOMMENDED, load_encoder, resolve_auto
        from search.errors import ModelUnavailable
        waits, time.sleep = [], lambda seconds: waits.append(seconds)
        try:
            load_encoder(RECOMMENDED, offline=True)
        except ModelUnavailable as error:
            text = str(error)
        encoder, warning = resolve_auto(offline=True)
        print(json.dumps([text, waits, encoder.name, warning]))
    """
    text, waits, name, warning = json.loads(python(code, HF_HOME=str(tmp_path), HOME=str(tmp_path)))
    assert text == (
        f"{RECOMMENDED} can't be had: offline, and its files are not on this machine; connect once and run "
        f"`search models download {RECOMMENDED}`, or use `--model builtin`"
    )
    assert waits == []  # it does not try again
    assert name == "builtin"
    assert f"search models download {RECOMMENDED}" in warning


def test_an_unreachable_hub_is_asked_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub's own client waits longer and longer between its tries."""
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    with pytest.raises(ModelUnavailable, match=r"http://127.0.0.1:9 can't be reached"):
        load_encoder(RECOMMENDED)
    assert waits == []
