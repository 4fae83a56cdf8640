"""A model's text half by its recipe: the same vectors, whatever became of what was kept."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from search import files
from search.encoders import Encoder, load_encoder, recipes, text
from search.encoders.recipes import TextHalf
from search.encoders.text import open_text_encoder

TEXTS = ["a dog in the snow", "Émile’s café", "", "a long story about " * 40]
ATOL = 1e-5  # fp32 reduction order through all layers


class Opening:
    """The whole model, counting how often it is asked for and what it embeds."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder, self.opened, self.texts = encoder, 0, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.encoder, name)

    def encode_texts(self, texts):
        self.texts += len(texts)
        return self.encoder.encode_texts(texts)

    def whole(self) -> Encoder:
        self.opened += 1
        return self


@pytest.fixture
def half_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[torch.dtype], Encoder]:
    """The built-in model's weights rounded to another kind of number, and taken for more than they are."""
    from search.resources import data_path

    monkeypatch.setattr(text, "_WORTH_BYTES", 1)

    def make(dtype: torch.dtype) -> Encoder:
        folder = tmp_path / "model"
        folder.mkdir()
        tensors = load_file(data_path("builtin", "open_clip_model.safetensors"))
        tensors = {name: t.to(dtype) if t.is_floating_point() else t for name, t in tensors.items()}
        save_file(tensors, folder / "open_clip_model.safetensors")
        (folder / "open_clip_config.json").write_bytes(data_path("builtin", "open_clip_config.json").read_bytes())
        return load_encoder(f"dir:{folder}", device="cpu", precision="float32")

    return make


@pytest.fixture
def kept(tmp_path: Path, builtin: Encoder) -> Path:
    """A folder with the built-in model's recipe."""
    recipes.save(builtin, tmp_path / "encoders")
    return tmp_path / "encoders"


def half_of(folder: Path, encoder: Encoder, whole: Callable[[], Encoder] | None = None) -> TextHalf:
    half = recipes.open_half(folder, encoder.fingerprint, whole or Opening(encoder).whole)
    assert half is not None
    return half


# ---- weights that can't be mapped as they are


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_weights_of_less_precision_are_exported_once_and_mapped(half_model, tmp_path, dtype):
    encoder = half_model(dtype)
    recipes.save(encoder, tmp_path / "kept")
    [export] = (tmp_path / "kept").glob("*.safetensors")
    before = export.stat().st_mtime_ns
    half = recipes.open_text(tmp_path / "kept", encoder.fingerprint)
    np.testing.assert_allclose(half.encode_texts(TEXTS), encoder.encode_texts(TEXTS), rtol=0, atol=ATOL)
    array = half._tower.blocks[0].mlp_in.weight
    assert not array.flags.owndata
    assert not array.flags.writeable
    assert export.stat().st_mtime_ns == before
    assert set(load_file(export)) == {
        name for name in load_file(encoder.weights) if not name.startswith("visual.")
    }


def test_float32_weights_are_used_where_they_lie(half_model, tmp_path):
    recipes.save(half_model(torch.float32), tmp_path / "kept")
    assert [path.suffix for path in (tmp_path / "kept").iterdir()] == [".json"]


def test_weights_that_are_converted_in_no_time_are_not_exported(kept):
    assert [path.suffix for path in kept.iterdir()] == [".json"]


@pytest.mark.parametrize(
    "damage",
    [
        Path.unlink,
        lambda path: path.write_bytes(path.read_bytes()[:-4]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(bytes(path.stat().st_size)),
        lambda path: os.utime(path, (1, 1)),
    ],
    ids=["deleted", "cut", "emptied", "zeroed", "of another time"],
)
def test_an_export_that_is_damaged_or_gone_is_made_anew(half_model, tmp_path, damage):
    encoder = half_model(torch.float16)
    recipes.save(encoder, tmp_path / "kept")
    [export] = (tmp_path / "kept").glob("*.safetensors")
    whole = export.read_bytes()
    damage(export)
    for _ in range(2):
        half = recipes.open_text(tmp_path / "kept", encoder.fingerprint)
        np.testing.assert_allclose(half.encode_texts(TEXTS), encoder.encode_texts(TEXTS), rtol=0, atol=ATOL)
        assert export.read_bytes() == whole


def test_what_an_interrupted_export_left_is_never_read(half_model, tmp_path):
    encoder = half_model(torch.float16)
    recipes.save(encoder, tmp_path / "kept")
    [export] = (tmp_path / "kept").glob("*.safetensors")
    whole = export.read_bytes()
    export.write_bytes(whole[: len(whole) // 2])  # whole in no recipe's eyes
    (tmp_path / "kept" / f".{export.name}.tmp").write_bytes(whole[:100])
    half = recipes.open_text(tmp_path / "kept", encoder.fingerprint)
    np.testing.assert_allclose(half.encode_texts(TEXTS), encoder.encode_texts(TEXTS), rtol=0, atol=ATOL)


def test_where_no_export_can_be_made_weights_are_converted_at_every_start(half_model, tmp_path, monkeypatch):
    encoder = half_model(torch.float16)
    recipes.save(encoder, tmp_path / "kept")
    [export] = (tmp_path / "kept").glob("*.safetensors")
    export.unlink()
    export.mkdir()  # nothing can be renamed to it
    half = recipes.open_text(tmp_path / "kept", encoder.fingerprint)
    np.testing.assert_allclose(half.encode_texts(TEXTS), encoder.encode_texts(TEXTS), rtol=0, atol=ATOL)


def test_weights_replaced_since_they_were_loaded_get_no_recipe(half_model, tmp_path):
    encoder = half_model(torch.float32)
    tensors = load_file(encoder.weights)
    save_file({name: tensor + 1 for name, tensor in tensors.items()}, tmp_path / "others.safetensors")
    (tmp_path / "others.safetensors").replace(encoder.weights)
    recipes.save(encoder, tmp_path / "kept")
    assert not (tmp_path / "kept").exists()


def test_a_recipe_of_another_version_is_none(kept, builtin):
    [file] = kept.glob("*.json")
    recipe = json.loads(file.read_text())
    file.write_text(json.dumps({key: value for key, value in recipe.items() if key != "format"}))
    assert recipes.open_half(kept, builtin.fingerprint, Opening(builtin).whole) is None
    recipes.save(builtin, kept)
    assert json.loads(file.read_text()) == recipe


def test_the_built_in_model_of_another_installation_is_another(kept, builtin, tmp_path):
    [file] = kept.glob("*.json")
    there = tmp_path / "there.safetensors"
    shutil.copy2(builtin.weights, there)
    file.write_text(file.read_text().replace(str(builtin.weights), str(there)))
    assert recipes.open_half(kept, builtin.fingerprint, Opening(builtin).whole) is None
    recipes.save(builtin, kept)
    assert half_of(kept, builtin).fingerprint == builtin.fingerprint


# ---- what is remembered


def test_the_text_half_is_the_models(kept, builtin):
    half = half_of(kept, builtin)
    for fact in ("name", "fingerprint", "context_length", "logit_scale", "logit_bias"):
        assert getattr(half, fact) == getattr(builtin, fact), fact
    np.testing.assert_allclose(half.encode_texts(TEXTS), builtin.encode_texts(TEXTS), rtol=0, atol=ATOL)
    assert half.count_tokens(TEXTS) == builtin.count_tokens(TEXTS)
    assert half.count_tokens(["another"]) == builtin.count_tokens(["another"])
    assert half.encode_texts([]).shape == (0, 256)


def test_a_text_embedded_once_is_not_embedded_again_by_any_process(kept, builtin, monkeypatch):
    monkeypatch.setattr(recipes, "_MANY", 1)  # all by the whole model, which counts
    whole = Opening(builtin)
    first = half_of(kept, builtin, whole.whole).encode_texts(TEXTS)
    assert whole.texts == len(TEXTS)
    other = half_of(kept, builtin, whole.whole)
    again = other.encode_texts([*reversed(TEXTS), TEXTS[0]])
    np.testing.assert_array_equal(again, first[[3, 2, 1, 0, 0]])  # to the bit
    assert other.count_tokens(TEXTS) == builtin.count_tokens(TEXTS)
    assert whole.texts == len(TEXTS)


def test_only_texts_that_are_new_are_embedded_and_each_once(kept, builtin, monkeypatch):
    monkeypatch.setattr(recipes, "_MANY", 1)  # all by the whole model, which counts
    whole = Opening(builtin)
    half_of(kept, builtin, whole.whole).encode_texts(["a"])
    half_of(kept, builtin, whole.whole).encode_texts(["a", "b", "b", "c"])
    assert whole.texts == 3


def test_another_models_vectors_are_not_taken(kept, builtin, monkeypatch):
    monkeypatch.setattr(recipes, "_MANY", 1)  # all by the whole model, which counts
    half_of(kept, builtin).encode_texts(["a"])
    other = kept / f"{'0' * 64}.json"
    other.write_bytes((kept / f"{builtin.fingerprint}.json").read_bytes())
    whole = Opening(builtin)
    recipes.open_half(kept, "0" * 64, whole.whole).encode_texts(["a"])
    assert whole.texts == 1


def test_what_another_version_of_the_arithmetic_gave_is_not_taken(kept, builtin, monkeypatch):
    monkeypatch.setattr(recipes, "_MANY", 1)  # all by the whole model, which counts
    whole = Opening(builtin)
    half_of(kept, builtin, whole.whole).encode_texts(["a"])
    monkeypatch.setattr("search.encoders.remembered._VERSION", b"another")
    half_of(kept, builtin, whole.whole).encode_texts(["a"])
    assert whole.texts == 2


def test_what_an_interrupted_export_of_a_graph_left_is_swept(builtin, tmp_path):
    done = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    name = files.temporary_name(tmp_path / "graph").name.replace(f"-{os.getpid()}-", f"-{int(done.stdout)}-")
    left = [(tmp_path / name).with_suffix(suffix) for suffix in (".xml", ".bin")]
    for path in left:
        path.touch()
    recipes.save(builtin, tmp_path)
    assert not any(path.exists() for path in left)


def test_texts_are_not_written_down(kept, builtin):
    half_of(kept, builtin).encode_texts(["zanzibar holiday"])
    files = [path.read_bytes() for path in kept.iterdir()]
    assert len(files) > 1
    assert not any(b"zanzibar" in content for content in files)
    if os.name == "posix":
        assert (kept / "texts.db").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b"no database at all, but long enough for a header" * 100),
        lambda path: path.write_bytes(path.read_bytes()[:5000]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes().replace(b"\x00\x3c", b"\x01\x3d")),
        lambda path: path.write_bytes(path.read_bytes()[:4096] + os.urandom(path.stat().st_size - 4096)),
    ],
    ids=["foreign", "cut", "emptied", "flipped", "overwritten"],
)
def test_damage_to_what_is_remembered_changes_no_vector_and_heals(kept, builtin, damage):
    texts = [f"photo number {number}" for number in range(60)]
    expected = half_of(kept, builtin).encode_texts(texts)
    damage(kept / "texts.db")
    for _ in range(2):
        found = half_of(kept, builtin).encode_texts(texts)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)  # other batches sum in other orders
    whole = Opening(builtin)
    half_of(kept, builtin, whole.whole).encode_texts(texts)
    assert whole.texts == 0


def test_a_changed_number_of_a_vector_is_noticed(kept, builtin, monkeypatch):
    monkeypatch.setattr(recipes, "_MANY", 1)  # all by the whole model, which counts
    half_of(kept, builtin).encode_texts(["a"])
    with sqlite3.connect(kept / "texts.db") as database:
        [(vectors,)] = database.execute("SELECT vectors FROM kept")
        database.execute("UPDATE kept SET vectors = ?", [vectors[:-4] + b"\0\0\0\0"])
    database.close()
    whole = Opening(builtin)
    for _ in range(2):
        half_of(kept, builtin, whole.whole).encode_texts(["a"])
    assert whole.texts == 1


def test_where_nothing_can_be_remembered_texts_are_embedded(kept, builtin):
    (kept / "texts.db").mkdir()
    np.testing.assert_allclose(half_of(kept, builtin).encode_texts(TEXTS), builtin.encode_texts(TEXTS), atol=ATOL)


def test_a_file_held_by_another_process_is_not_waited_for(kept, builtin):
    half_of(kept, builtin).encode_texts(["a"])
    holder = sqlite3.connect(kept / "texts.db", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    try:
        found = half_of(kept, builtin).encode_texts(["a", "b"])
    finally:
        holder.close()
    np.testing.assert_allclose(found, builtin.encode_texts(["a", "b"]), rtol=0, atol=ATOL)


def test_the_oldest_are_forgotten_beyond_some_number(kept, builtin, monkeypatch):
    monkeypatch.setattr("search.encoders.remembered._MOST_TEXTS", 5)
    monkeypatch.setattr(recipes, "_MANY", 1)  # all by the whole model, which counts
    for letter in "abcdefgh":
        half_of(kept, builtin).encode_texts([letter])
    whole = Opening(builtin)
    half_of(kept, builtin, whole.whole).encode_texts(list("defgh"))
    assert whole.texts == 0
    half_of(kept, builtin, whole.whole).encode_texts(list("abc"))
    assert whole.texts == 3


def test_a_label_sets_prompts_are_remembered_as_one_and_flood_nothing(kept, builtin, monkeypatch):
    monkeypatch.setattr(recipes, "_MANY", 1)  # all by the whole model, which counts
    from search.labels import LabelSet

    monkeypatch.setattr(recipes, "_REMEMBERED", 3)
    labels = LabelSet.of(["cat", "dog"], ["a {}", "the {}", "one {}" + " more" * 90])
    expected, beyond = labels.embed(builtin)
    assert beyond > 0
    whole = Opening(builtin)
    for _ in range(2):
        half = half_of(kept, builtin, whole.whole)
        weights, more = labels.embed(half, half.remember)
        np.testing.assert_allclose(weights, expected, rtol=0, atol=ATOL)
        assert more == beyond
    assert whole.texts == 6
    assert not (kept / "texts.db").exists()
    half = half_of(kept, builtin, whole.whole)
    LabelSet.of(["cat dog"], ["a {}", "the {}", "one {}"]).embed(half, half.remember)
    assert whole.texts > 6


def test_the_same_prompts_divided_otherwise_are_another_set(kept, builtin):
    half = half_of(kept, builtin)
    one, _ = half.remember([["a", "b"], ["c"]], lambda: (builtin.encode_texts(["x"]), 1))
    two, _ = half.remember([["a"], ["b", "c"]], lambda: (builtin.encode_texts(["y"]), 1))
    assert not np.array_equal(one, two)


def test_what_is_remembered_of_few_texts_is_never_the_whole_models(kept, builtin):
    whole = Opening(load_encoder("builtin", device="cpu", precision="bfloat16"))
    half_of(kept, builtin, whole.whole).encode_texts(TEXTS)
    again = half_of(kept, builtin).encode_texts(TEXTS)
    assert whole.texts == 0
    np.testing.assert_allclose(again, builtin.encode_texts(TEXTS), rtol=0, atol=ATOL)


def test_many_texts_at_once_are_left_to_the_whole_model(kept, builtin, monkeypatch):
    monkeypatch.setattr(recipes, "_MANY", 4)
    whole = Opening(builtin)
    half = half_of(kept, builtin, whole.whole)
    half.encode_texts(list("abc"))
    assert whole.opened == 0
    half.encode_texts(list("abcd"))  # three of them are remembered
    assert whole.opened == 0
    half.encode_texts(list("efgh"))
    assert whole.texts == 4


def test_several_threads_and_processes_may_ask_at_once(kept, builtin):
    from concurrent.futures import ThreadPoolExecutor

    texts = [f"photo {number % 7}" for number in range(40)]
    expected = builtin.encode_texts(texts)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda text: half_of(kept, builtin).encode_texts([text])[0], texts))
    np.testing.assert_allclose(found, expected, rtol=0, atol=ATOL)


def test_a_thread_that_embeds_others_texts_takes_no_count_away(kept, builtin):
    from concurrent.futures import ThreadPoolExecutor

    half = half_of(kept, builtin)

    class Interrupted(list):
        """Texts that another thread has others embedded between two looks at them."""

        def __iter__(self):
            with ThreadPoolExecutor(1) as pool:
                looked = list(super().__iter__())
                yield from looked
                pool.submit(half.encode_texts, ["others"]).result()

    half.encode_texts(TEXTS)
    assert half.count_tokens(Interrupted(TEXTS)) == builtin.count_tokens(TEXTS)


def test_a_long_clips_positions_are_merged_without_torch(tmp_path):
    from search.encoders.openclip import open_clip

    torch.manual_seed(5)
    vision = {"layers": 1, "width": 64, "patch_size": 16, "image_size": 32}
    words = {"context_length": 248, "width": 64, "heads": 1, "layers": 2}
    model = open_clip.CLIP(embed_dim=32, vision_cfg=vision, text_cfg=words, quick_gelu=True)
    state = model.state_dict() | {"positional_embedding_res": torch.randn(248, 64)}
    torch.save(state, tmp_path / "longclip.pt")
    encoder = load_encoder(
        f"longclip:{tmp_path / 'longclip.pt'}", device="cpu", cache=tmp_path / "cache", precision="float32"
    )
    recipes.save(encoder, tmp_path / "kept")
    half = recipes.open_text(tmp_path / "kept", encoder.fingerprint)
    texts = [*TEXTS, "word " * 300]
    assert half.context_length == 248
    np.testing.assert_allclose(half.encode_texts(texts), encoder.encode_texts(texts), rtol=0, atol=ATOL)
    plain = open_text_encoder({**encoder.config}, encoder.tensors)
    assert plain is not None
