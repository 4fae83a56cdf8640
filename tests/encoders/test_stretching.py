"""Models stretched to longer texts: short texts keep their vectors, whatever the text tower is like."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from search.encoders import Encoder, load_encoder, recipes
from search.encoders.blueprints import open_clip
from search.encoders.hub import Fetcher
from search.encoders.stretching import RECIPE, Stretched, stretch, stretched_positions
from search.errors import ModelError, StorageError, UsageError

VISION = {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16}
TEXT = {"context_length": 77, "width": 32, "heads": 2, "layers": 2}
SIZES = {"embed_dim": 32, "vision_cfg": VISION, "text_cfg": TEXT}
COCA_VISION = {**VISION, "attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True}
CONFIGS: dict[str, dict[str, Any]] = {
    "clip": SIZES,
    "custom text": {**SIZES, "custom_text": True, "quick_gelu": True},
    "coca": {
        "embed_dim": 32,
        "custom_text": True,
        "vision_cfg": COCA_VISION,
        "text_cfg": {**TEXT, "context_length": 76, "embed_cls": True, "output_tokens": True},
        "multimodal_cfg": {"context_length": 76, "width": 32, "heads": 2, "layers": 1, "vocab_size": 100},
    },
}
SEEING_PADDING: dict[str, dict[str, Any]] = {
    "mobileclip2": {**SIZES, "custom_text": True, "text_cfg": {**TEXT, "no_causal_mask": True}},
    "siglip": {
        **SIZES,
        "custom_text": True,
        "init_logit_bias": -10,
        "text_cfg": {**TEXT, "context_length": 64, "no_causal_mask": True, "pool_type": "last", "proj_bias": True},
    },
}
SHORT = ["", "a photo of a cat", "dog " * 17, "dog " * 18]  # the last has 20 tokens
LONG = ["a very long story about " * 20, "dog " * 60, "dog " * 200]
ATOL = 1e-6  # the same sums, some in another order
HALF_ATOL = 1e-5  # numpy's order against torch's


def write_model(folder: Path, config: dict[str, Any]) -> str:
    """Random weights, none of them where open_clip starts, in its layout."""
    folder.mkdir()
    torch.manual_seed(4)
    built = deepcopy(config)
    kind = open_clip.CustomTextCLIP if built.pop("custom_text", False) else open_clip.CLIP
    model = (open_clip.CoCa if "multimodal_cfg" in config else kind)(**built)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.nan_to_num_(0, 0, 0).clamp_(-3, 3)  # CoCa leaves one as memory happens to be
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": config, "preprocess_cfg": {"size": 32}})
    )
    return f"dir:{folder}"


def opened(name: str) -> Encoder:
    return load_encoder(name, device="cpu", precision="float32")


def made(name: str, out: Path, **options: Any) -> Stretched:
    return stretch(name, out, fetcher=Fetcher(name, offline=True), **options)


# positions


def test_positions_are_kept_interpolated_and_at_the_end_extrapolated() -> None:
    table = torch.tensor([[0.0, 8.0], [4.0, 8.0], [8.0, 4.0], [16.0, 0.0]])
    known = [
        [0, 8],
        [4, 8],
        [5, 7],
        [6, 6],
        [7, 5],
        [8, 4],
        [10, 3],
        [12, 2],
        [14, 1],
        [16, 0],
        [18, -1],
        [20, -2],
        [22, -3],
    ]
    torch.testing.assert_close(stretched_positions(table, keep=1, ratio=4), torch.tensor(known).float())


@pytest.mark.parametrize(("keep", "ratio", "length"), [(20, 4, 248), (30, 3, 171), (0, 2, 154), (76, 4, 80)])
def test_as_many_positions_come_out_as_were_asked_for(keep: int, ratio: int, length: int) -> None:
    table = torch.randn(77, 8)
    found = stretched_positions(table, keep=keep, ratio=ratio)
    assert len(found) == length
    torch.testing.assert_close(found[:keep], table[:keep], rtol=0, atol=0)
    torch.testing.assert_close(found[keep::ratio], table[keep:], rtol=0, atol=0)


@pytest.mark.parametrize(("length", "keep"), [(77, 77), (77, 100), (1, 0)])
def test_at_least_one_position_is_left_to_stretch(length: int, keep: int) -> None:
    with pytest.raises(UsageError, match="can be kept"):
        stretched_positions(torch.zeros(length, 8), keep=keep, ratio=4)


# whole models


@pytest.mark.parametrize("kind", CONFIGS)
def test_short_texts_and_images_keep_their_vectors_with_torch_and_without(kind: str, tmp_path: Path) -> None:
    name = write_model(tmp_path / "short", CONFIGS[kind])
    done = made(name, tmp_path / "long")
    before, after = opened(name), opened(done.name)
    length = CONFIGS[kind]["text_cfg"]["context_length"]
    assert done.context_length == after.context_length == (length - 20) * 4 + 20
    assert done.unchanged == 20
    expected = before.encode_texts(SHORT)
    np.testing.assert_allclose(after.encode_texts(SHORT), expected, rtol=0, atol=ATOL)
    pixels = np.random.default_rng(1).integers(0, 256, (2, 32, 32, 3), np.uint8)
    np.testing.assert_allclose(after.encode_images(pixels), before.encode_images(pixels), rtol=0, atol=ATOL)
    assert after.preprocessing == before.preprocessing
    assert after.fingerprint != before.fingerprint

    # the end of a long text is read where it was cut
    ends = ["dog " * 150 + "cat", "dog " * 150 + "car"]
    assert np.abs(np.subtract(*before.encode_texts(ends))).max() < ATOL
    assert np.abs(np.subtract(*after.encode_texts(ends))).max() > 100 * ATOL

    recipes.save(after, tmp_path / "kept")
    half = recipes.open_text(tmp_path / "kept", after.fingerprint)
    assert half is not None
    assert half.context_length == done.context_length
    np.testing.assert_allclose(half.encode_texts(SHORT), expected, rtol=0, atol=HALF_ATOL)
    np.testing.assert_allclose(half.encode_texts(LONG), after.encode_texts(LONG), rtol=0, atol=HALF_ATOL)


@pytest.mark.parametrize("kind", SEEING_PADDING)
def test_of_a_tower_that_sees_padding_it_is_said_that_no_vector_stays(kind: str, tmp_path: Path) -> None:
    name = write_model(tmp_path / "short", SEEING_PADDING[kind])
    done = made(name, tmp_path / "long")
    assert done.unchanged == 0
    before, after = opened(name), opened(done.name)
    assert after.context_length == (before.context_length - 20) * 4 + 20
    assert after.logit_bias == before.logit_bias
    assert np.abs(after.encode_texts(SHORT) - before.encode_texts(SHORT)).max() > 100 * ATOL
    tables = [load_file(tmp_path / part / "open_clip_model.safetensors") for part in ("short", "long")]
    last = [table["text.positional_embedding"][-1] for table in tables]
    assert torch.equal(*last) == (kind == "siglip")  # which reads its vector off there


def test_open_clip_itself_loads_the_folder(tmp_path: Path) -> None:
    done = made(write_model(tmp_path / "short", CONFIGS["custom text"]), tmp_path / "long", keep=30, ratio=3)
    model = open_clip.create_model(f"local-dir:{done.path}").eval()
    tokens = open_clip.get_tokenizer(f"local-dir:{done.path}")(LONG)
    assert tokens.shape == (3, 171)
    with torch.inference_mode():
        theirs = model.encode_text(tokens, normalize=True).numpy()
    np.testing.assert_allclose(opened(done.name).encode_texts(LONG), theirs, rtol=0, atol=HALF_ATOL)


@pytest.mark.parametrize("source", ["builtin", "clip", "longclip"])
def test_models_of_other_sources_are_stretched(source: str, tmp_path: Path) -> None:
    name = source
    if source != "builtin":
        write_model(
            tmp_path / "short", {**SIZES, "quick_gelu": True, "text_cfg": {**TEXT, "width": 64, "heads": 1}}
        )
        state = load_file(tmp_path / "short" / "open_clip_model.safetensors")
        if source == "longclip":
            state["positional_embedding_res"] = torch.randn(77, 64)
        save_file(state, tmp_path / "model.safetensors")
        name = f"{source}:{tmp_path / 'model.safetensors'}"
    done = made(name, tmp_path / "long")
    before, after = opened(name), opened(done.name)
    assert done.source == before.name
    assert done.fingerprint == before.fingerprint
    np.testing.assert_allclose(after.encode_texts(SHORT), before.encode_texts(SHORT), rtol=0, atol=ATOL)


def test_a_tokenizer_of_hugging_faces_goes_along(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    text = {
        **TEXT,
        "context_length": 16,
        "vocab_size": 10,
        "hf_tokenizer_name": "x/y",
        "tokenizer_kwargs": {"clean": "lower"},
    }
    name = write_model(
        tmp_path / "short", {**SIZES, "custom_text": True, "text_cfg": {**text, "pool_type": "eos", "eos_id": 1}}
    )
    words = ["<pad>", "</s>", "<unk>", "a", "photo", "of", "cat", "two", "dogs", "on"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(tmp_path / "short")
    done = made(name, tmp_path / "long", keep=8, ratio=2)
    assert done.context_length == 24
    before, after = opened(name), opened(done.name)
    texts = ["a photo of a cat", "two dogs on", ""]
    np.testing.assert_allclose(after.encode_texts(texts), before.encode_texts(texts), rtol=0, atol=ATOL)
    assert after.count_tokens(["dogs " * 30]) == before.count_tokens(["dogs " * 30]) == [31]


def test_a_text_tower_of_hugging_faces_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from search.encoders import blueprints

    name = write_model(tmp_path / "short", CONFIGS["custom text"])
    load = blueprints.load

    def foreign(*given: Any, **options: Any) -> blueprints.Loaded:
        loaded = load(*given, **options)
        loaded.model.text = torch.nn.Identity()
        return loaded

    monkeypatch.setattr(blueprints, "load", foreign)
    with pytest.raises(ModelError, match="text tower of Hugging Face's"):
        made(name, tmp_path / "long")
    assert not (tmp_path / "long").exists()


# the folder


@pytest.fixture
def name(tmp_path: Path) -> str:
    return write_model(tmp_path / "short", {**SIZES, "text_cfg": {**TEXT, "vocab_size": 100}})  # that nobody asks


def test_what_it_was_made_of_is_recorded_and_changes_no_fingerprint(name: str, tmp_path: Path) -> None:
    done = made(name, tmp_path / "not" / "there" / "long", keep=30, ratio=3)
    recipe = json.loads((done.path / RECIPE).read_text())
    assert {key: recipe[key] for key in ("from", "fingerprint", "keep", "ratio", "context_length")} == {
        "from": name,
        "fingerprint": opened(name).fingerprint,
        "keep": 30,
        "ratio": 3,
        "context_length": 171,
    }
    before = opened(done.name).fingerprint
    (done.path / RECIPE).write_text("{}")
    assert opened(done.name).fingerprint == before
    assert {path.name for path in done.path.parent.iterdir()} == {"long"}


def test_a_folder_that_is_there_is_replaced_only_by_force_and_only_if_it_is_ours(
    name: str, tmp_path: Path
) -> None:
    out = tmp_path / "long"
    out.mkdir()  # an empty one is free
    made(name, out)
    with pytest.raises(UsageError, match="--force replaces it"):
        made(name, out, keep=30)
    assert made(name, out, keep=30, force=True).keep == 30
    assert json.loads((out / RECIPE).read_text())["keep"] == 30
    (out / "notes.txt").write_text("mine")
    for place in (out, tmp_path / "short"):
        before = {path: path.read_bytes() for path in place.iterdir()}
        with pytest.raises(UsageError, match="no model folder that stretching made"):
            made(name, place, force=True)
        assert {path: path.read_bytes() for path in place.iterdir()} == before


def test_a_model_is_not_stretched_into_itself(name: str, tmp_path: Path) -> None:
    done = made(name, tmp_path / "long")
    before = (done.path / RECIPE).read_bytes()
    with pytest.raises(UsageError, match="into itself"):
        made(done.name, done.path, force=True)
    assert (done.path / RECIPE).read_bytes() == before


@pytest.mark.parametrize("options", [{"keep": -1}, {"ratio": 1}, {"keep": 77}])
def test_numbers_that_mean_nothing_are_refused(options: dict[str, int], name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        made(name, tmp_path / "long", **options)
    with pytest.raises(UsageError, match="stretch builtin"):
        made("builtin+int8", tmp_path / "long")
    assert not (tmp_path / "long").exists()


@pytest.mark.parametrize("there", [False, True])
def test_on_a_full_disk_what_was_there_stays_and_nothing_is_left(
    there: bool, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out" / "long"
    if there:
        made(name, out)
    rename: Callable[..., Any] = Path.rename

    def full(self: Path, target: Path) -> Path:
        if target == out and ".tmp" in self.name and (self / RECIPE).exists() and _keeps(self) == 30:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(StorageError, match="No space left"):
        made(name, out, keep=30, force=True)
    assert {path.name for path in out.parent.iterdir()} == ({"long"} if there else set())
    if there:
        assert _keeps(out) == 20


def _keeps(folder: Path) -> int:
    return int(json.loads((folder / RECIPE).read_text())["keep"])
