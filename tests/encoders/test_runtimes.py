"""Exported models; what needs the runtime is skipped where it is not installed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from importlib import util
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from search.encoders import Encoder, exports, load_encoder
from search.encoders.hub import Fetcher
from search.encoders.runtimes import export, recorded
from search.errors import DimensionError, ModelError, StorageError

needs_runtime = pytest.mark.skipif(util.find_spec("openvino") is None, reason="openvino is not installed")
ROOT = Path(__file__).parents[2]
TEXTS = ["a photo of a cat", "two dogs on a beach at sunset"]


@pytest.fixture
def cache(cache_of_exports: Path) -> Path:
    return cache_of_exports


@pytest.fixture(scope="module")
def exports_of_it(steady_model: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the steady model's export, which takes seconds to make."""
    folder = tmp_path_factory.mktemp("once") / "exports"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exports, "default_cache", lambda: folder)
        load_encoder(steady_model, runtime="openvino")
    return folder


@pytest.fixture
def exported(steady_model: str, exports_of_it: Path, cache: Path) -> Encoder:
    shutil.copytree(exports_of_it, cache)
    return load_encoder(steady_model, runtime="openvino")


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)


def test_an_unknown_runtime_is_an_error() -> None:
    with pytest.raises(ModelError, match="no runtime 'abacus'"):
        load_encoder("builtin", runtime="abacus")


def test_a_runtime_that_is_not_installed_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exports, "is_possible", lambda: False)
    with pytest.raises(ModelError, match=r"pip install 'search\[fast\]'"):
        load_encoder("builtin", runtime="openvino")


def test_torch_answers_where_nothing_was_exported(tiny_model: str, cache: Path) -> None:
    assert load_encoder(tiny_model).runtime == "torch"
    assert not cache.exists()


@needs_runtime
def test_the_exported_encoder_agrees_with_torch(exported: Encoder, steady_model: str, images: np.ndarray) -> None:
    torch = load_encoder(steady_model, runtime="torch", precision="float32")
    assert (exported.runtime, torch.runtime) == ("openvino", "torch")
    for said in ("name", "fingerprint", "dim", "context_length", "logit_scale", "logit_bias", "preprocessing"):
        assert getattr(exported, said) == getattr(torch, said)
    vectors = exported.encode_images(images)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)  # normalised in float32
    assert (vectors * torch.encode_images(images)).sum(axis=1).min() >= 0.999  # bfloat16
    np.testing.assert_allclose(exported.encode_texts(TEXTS), torch.encode_texts(TEXTS), atol=1e-5)  # fp32 order
    assert exported.count_tokens(TEXTS) == torch.count_tokens(TEXTS)


@needs_runtime
def test_a_batch_of_the_exported_encoder_equals_its_singles(exported: Encoder, images: np.ndarray) -> None:
    singles = np.concatenate([exported.encode_images(image[None]) for image in images])
    assert (exported.encode_images(images) * singles).sum(axis=1).min() >= 0.999  # bfloat16's own noise
    assert exported.encode_images(images[:0]).shape == (0, exported.dim)
    images.flags.writeable = False
    assert exported.encode_images(images[::2]).shape == (3, exported.dim)
    with pytest.raises(DimensionError):
        exported.encode_images(images[:, :31])


@needs_runtime
def test_an_exported_model_indexes_and_answers_without_torch(
    exported: Encoder, steady_model: str, cache: Path, album: Path, tmp_path: Path
) -> None:
    code = f"""
        import sys
        from pathlib import Path
        from search.encoders import exports, load_encoder
        exports.default_cache = lambda: Path({str(cache)!r})
        from search import Library
        from search.library.model import LibraryModel
        runtime = "openvino"
        LibraryModel.load = lambda self, name, photos=0: load_encoder(name, runtime=runtime, offline=True)
        with Library.open({str(tmp_path / "library")!r}, model={steady_model!r}, offline=True) as library:
            print(library.index([{str(album)!r}]).encoded, len(library.search("a cat", k=3)))
        print(sorted({{"torch", "open_clip", "timm"}} & set(sys.modules)))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.stdout == "12 3\n[]\n", done.stderr


@needs_runtime
def test_the_faster_runtime_is_recorded_and_followed(exported: Encoder, steady_model: str, cache: Path) -> None:
    record = recorded(steady_model)
    assert record is not None
    assert record.images_per_second.keys() == {"torch", "openvino"}
    assert record.agreement is not None and record.agreement >= 0.999
    place = cache / f"{exports.key(steady_model)}.json"
    for runtime in ("torch", "openvino"):
        place.write_text(json.dumps(json.loads(place.read_text()) | {"runtime": runtime}))
        assert load_encoder(steady_model).runtime == runtime


@pytest.mark.slow
@needs_runtime
def test_a_model_is_exported_unasked_only_before_it_encodes_many_photos(
    tiny_model: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    assert load_encoder(tiny_model, photos=2000, on_export=said.append).runtime == "torch"  # a toy
    monkeypatch.setattr("search.encoders.exporting._LARGE", 1000)
    load_encoder(tiny_model, photos=1999, on_export=said.append)
    assert not said and recorded(tiny_model) is None
    load_encoder(tiny_model, photos=2000, on_export=said.append)
    assert len(said) == 1 and recorded(tiny_model) is not None


@needs_runtime
def test_a_model_is_exported_once(exported: Encoder, steady_model: str) -> None:
    def fail(name: str) -> None:
        raise AssertionError(f"{name} was exported again")

    assert load_encoder(steady_model, runtime="openvino", on_export=fail).runtime == "openvino"


@needs_runtime
@pytest.mark.parametrize(
    "suffix", [".xml", *(pytest.param(suffix, marks=pytest.mark.slow) for suffix in (".bin", ".json"))]
)
def test_a_damaged_export_is_made_again(exported: Encoder, steady_model: str, cache: Path, suffix: str) -> None:
    [file] = cache.glob(f"*{suffix}")
    content = bytearray(file.read_bytes())
    content[len(content) // 2 :] = b""
    file.write_bytes(content)
    said: list[str] = []
    assert load_encoder(steady_model, runtime="openvino", on_export=said.append).runtime == "openvino"
    assert said == [steady_model]
    assert sorted(path.suffix for path in cache.iterdir()) == [".bin", ".json", ".xml"]


@pytest.mark.slow
@needs_runtime
def test_other_weights_under_the_same_name_are_another_model(
    tiny_model: str, tiny_model_again: Callable[[], None]
) -> None:
    exported = load_encoder(tiny_model, runtime="openvino")
    tiny_model_again()
    assert recorded(tiny_model) is None
    assert load_encoder(tiny_model, runtime="openvino").fingerprint != exported.fingerprint


@pytest.mark.slow
@needs_runtime
def test_weights_replaced_since_they_were_loaded_are_not_recorded_as_exported(
    tiny_model: str, cache: Path, tiny_model_again: Callable[[], None]
) -> None:
    from search.encoders import blueprints, exporting, parse_name
    from search.encoders.hub import Fetcher

    loaded = blueprints.load(*parse_name(tiny_model), fetcher=Fetcher(tiny_model, offline=True))
    tiny_model_again()
    exporting.export(loaded, cache)
    assert recorded(tiny_model) is None


@pytest.mark.slow
@needs_runtime
def test_an_export_that_dies_on_the_way_is_not_taken_for_one(
    tiny_model: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(name: str, record: object, folder: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(exports, "save", die)
        with pytest.raises(KeyboardInterrupt):
            load_encoder(tiny_model, runtime="openvino")
    assert list(cache.glob("*.bin"))
    assert recorded(tiny_model) is None
    assert load_encoder(tiny_model).runtime == "torch"
    load_encoder(tiny_model, runtime="openvino")
    assert len(list(cache.glob("*.bin"))) == 1


@pytest.mark.slow
@needs_runtime
def test_a_runtime_that_computes_something_else_is_not_used(
    tiny_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from search.encoders import openvino

    right = openvino.ImageTower.__call__
    monkeypatch.setattr(openvino.ImageTower, "__call__", lambda self, images: right(self, images)[:, ::-1].copy())
    record, folder = export(tiny_model, fetcher=Fetcher(tiny_model, offline=True))
    assert (record.runtime, dict(record.exported)) == ("torch", {})
    assert "agree to" in record.reason
    assert not list(folder.glob("*.bin"))
    with pytest.raises(ModelError, match="agree to"):
        load_encoder(tiny_model, runtime="openvino")


@needs_runtime
def test_a_pinned_checkpoint_is_hashed_however_it_was_exported(exported: Encoder, steady_model: str) -> None:
    with pytest.raises(ModelError, match="SHA-256"):
        load_encoder(steady_model, runtime="openvino", trust_checkpoint="0" * 64)


@needs_runtime
def test_a_cache_that_can_not_be_written_is_told_to_those_who_asked(tiny_model: str, cache: Path) -> None:
    cache.touch()
    with pytest.raises(StorageError, match="can't be written"):
        load_encoder(tiny_model, runtime="openvino")


@pytest.mark.parametrize(
    "error", [pytest.param(error, marks=pytest.mark.slow) for error in ("ImportError", "OSError")]
)
def test_a_broken_runtime_is_none_unless_it_is_asked_for(error: str, tmp_path: Path) -> None:
    (tmp_path / "openvino").mkdir()
    (tmp_path / "openvino/__init__.py").write_text(f"raise {error}('libtbb.so.12 is not there')")
    script = f"""
        import sys
        sys.path.insert(0, {str(tmp_path)!r})
        from pathlib import Path
        from search.encoders import exports, load_encoder, recipes, runtimes
        from search.errors import ModelError
        exports.default_cache = lambda: Path({str(tmp_path / "exports")!r})
        assert exports.is_possible() and exports.runtime() is None and not recipes._has_runtime()
        assert not runtimes.is_worth_exporting("ViT-B-32/openai", 10**6)
        record = exports.Record({{}}, {{}}, {{}}, "openvino", "")
        assert runtimes._exported(record, Path(), None) is None
        assert load_encoder("builtin").runtime == "torch"
        try:
            load_encoder("builtin", runtime="openvino")
        except ModelError as error:
            assert "libtbb.so.12" in str(error) and "search[fast]" in error.hint
        else:
            raise AssertionError
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, cwd=ROOT)


@pytest.fixture
def kept(tmp_path: Path, builtin: Encoder, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The content of a record of the built-in model; it holds."""
    from search.encoders.exporting import card_of

    monkeypatch.setattr(exports, "made_by", lambda: "these")
    card = card_of(builtin)
    files = {"k.xml": "0" * 64, "k.bin": "1" * 64}
    place = exports.folder(tmp_path / "kept")
    assert place is not None
    exports.save("builtin", exports.Record(card, {}, files, "openvino", "", {}, 1.0, "these"), place)
    assert exports.find("builtin", place) is not None
    return cast("dict[str, Any]", json.loads((place / f"{exports.key('builtin')}.json").read_text()))


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("exported", {"k.bin": "1" * 64}),
        ("exported", ["k.xml", "k.bin"]),
        ("exported", {"k.xml": 1, "k.bin": 2}),
        ("exported", {"../k.xml": "0", "../k.bin": "1"}),
        ("card", {"name": "builtin"}),
        ("card", []),
        ("files", []),
        ("images_per_second", None),
        ("preprocessing", {"size": "large"}),
        ("dim", "256"),
    ],
)
def test_a_record_of_another_shape_is_none(kept: dict[str, Any], part: str, value: object, tmp_path: Path) -> None:
    place = tmp_path / "kept" / f"{exports.key('builtin')}.json"
    (kept if part in kept else kept["card"])[part] = value
    place.write_text(json.dumps(kept))
    assert exports.find("builtin", place.parent) is None


def test_a_leftover_that_another_process_removes_meanwhile_is_no_harm(tmp_path: Path) -> None:
    leftover = tmp_path / f".gone.{'0' * 8}-1-{'0' * 8}.xml"  # another machine's, so its time decides
    leftover.symlink_to(tmp_path / "nothing")  # listed, and without a size or time
    assert exports.folder(tmp_path) == tmp_path
