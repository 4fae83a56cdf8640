"""Image halves in int8: models of their own, made on request and kept if they find the same photos."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from search import Library
from search.cli import cli
from search.encoders import canonical_name, exports, load_encoder, parse_name
from search.encoders.hub import Fetcher
from search.encoders.preprocessing import Preprocessing
from search.errors import ModelError, UsageError

PHOTOS = 44


@pytest.fixture
def place(tmp_path: Path, make_photo, monkeypatch) -> Path:
    """A library indexed with the built-in model, whose few photos are taken for enough."""
    from search.encoders import quantising

    monkeypatch.setattr(quantising, "LEAST_COMPARED", PHOTOS // 2)
    for number in range(PHOTOS):
        make_photo(tmp_path / "photos" / f"{number:02}.png", number)
    with Library.open(tmp_path / "library", model="builtin", offline=True) as library:
        library.index([tmp_path / "photos"])
    return tmp_path / "library"


def test_a_name_keeps_its_suffix_and_is_found_without_it(tmp_path: Path) -> None:
    (tmp_path / "W.pt").touch()
    assert canonical_name("builtin+int8") == "builtin+int8"
    assert canonical_name(f"ViT-B-32/{tmp_path}/W.pt+int8") == f"ViT-B-32/{tmp_path}/W.pt+int8"
    assert parse_name("builtin+int8") == ("builtin", "")


def test_a_model_that_was_never_made_says_how_to_make_it() -> None:
    pytest.importorskip("openvino")
    with pytest.raises(ModelError, match="was not made on this machine") as caught:
        load_encoder("builtin+int8")
    assert caught.value.hint == "search models export builtin --int8"


@pytest.mark.parametrize("option", [{"runtime": "torch"}, {"precision": "float32"}, {"device": "meta"}])
def test_int8_is_openvinos_on_the_processor(option: dict[str, str]) -> None:
    pytest.importorskip("openvino")
    with pytest.raises(ModelError, match="int8"):
        load_encoder("builtin+int8", **option)


def test_the_runtime_reports_nothing_to_its_maker() -> None:
    pytest.importorskip("openvino")
    script = "import sys, search.encoders.openvino; sys.exit(sys.modules['openvino_telemetry'] is not None)"
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.int8
def test_an_export_in_int8_is_a_model_of_its_own(place: Path, builtin) -> None:
    arguments = ["models", "export", "builtin", "--int8", "--force", "--json", "-L", str(place)]
    result = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    document = json.loads(result.stdout)
    assert (document["name"], document["kept"], result.exit_code) == ("builtin+int8", True, 0)
    assert (document["calibrated"], document["compared"]) == (PHOTOS // 2, PHOTOS - PHOTOS // 2)
    assert "int8" in document["images_per_second"] and len(document["images_per_second"]) == 2
    small = load_encoder("builtin+int8")
    assert small.fingerprint == document["fingerprint"] != builtin.fingerprint
    photos = [Image.open(path) for path in sorted((place.parent / "photos").iterdir())[:8]]
    images = np.stack([builtin.preprocess(photo) for photo in photos])
    assert (small.encode_images(images) * builtin.encode_images(images)).sum(axis=1).min() > 0.9
    assert (small.encode_texts(["a dog"]) @ builtin.encode_texts(["a dog"]).T).min() >= 0.999  # bfloat16
    with Library.open(place, model="builtin+int8", offline=True) as library:
        report = library.index([place.parent / "photos"], reencode=True)
        assert (report.encoded, report.not_encoded) == (PHOTOS, 0)
        assert library.catalog.encoder().name == "builtin+int8"
        assert len(library.search("a dog", k=3)) == 3
        assert library.encoder.precision == "int8"


@pytest.mark.int8
def test_an_export_that_finds_other_photos_is_not_kept(place: Path, monkeypatch, models_in_int8: Path) -> None:
    from search.encoders import quantising

    monkeypatch.setattr(quantising, "LEAST_OVERLAP", 1.01)
    result = CliRunner().invoke(cli, ["models", "export", "builtin", "--int8", "--json", "-L", str(place)])
    assert result.exit_code == 1
    assert json.loads(result.stdout)["kept"] is False
    assert not list(models_in_int8.glob("*"))


@pytest.mark.int8
def test_another_export_replaces_no_model_unasked_and_of_the_same_photos_is_the_same(
    place: Path, models_in_int8: Path, cache_of_exports: Path
) -> None:
    pytest.importorskip("nncf")
    with Library.open(place, model="builtin", offline=True) as library:
        first = library.quantise("builtin", force=True)
        assert {Path(file).parent for file in first.files} == {models_in_int8} and not cache_of_exports.exists()
        kept = {path: path.read_bytes() for path in models_in_int8.iterdir()}
        with pytest.raises(ModelError, match="would need --reencode") as caught:
            library.quantise("builtin")
        assert "--force" in (caught.value.hint or "")
        assert {path: path.read_bytes() for path in models_in_int8.iterdir()} == kept
        assert library.quantise("builtin", force=True).fingerprint == first.fingerprint


def test_models_in_int8_are_no_cache() -> None:
    place = exports.default_folder("builtin+int8")
    assert place == exports.default_models() != exports.default_folder("builtin")


@pytest.mark.int8
def test_fewer_photos_than_two_hundred_to_compare_are_no_sample() -> None:
    from search.encoders import quantising

    def read(preprocessing: Preprocessing) -> np.ndarray:
        return np.zeros((399, *preprocessing.size, 3), np.uint8)

    with pytest.raises(UsageError, match="at least 400 readable photos of yours, not 399"):
        quantising.export("builtin", read, ["a dog"], fetcher=Fetcher("builtin", offline=True))
