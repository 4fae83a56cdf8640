"""The text half in numpy against the whole model in torch: the same vectors, and None where it can't."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import zlib
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from search.encoders import load_encoder
from search.encoders.blueprints import open_clip
from search.encoders.text import TextEncoder, open_text_encoder
from search.encoders.tokens import END
from search.encoders.towers import arithmetic, clip
from search.resources import data_path

TEXTS = [
    "",
    "a",
    "a photo of a dog playing in the snow",
    "A red car, in the rain; at 5 o'clock!",
    "Émile’s café in Zürich &amp; 日本語の写真 🎉",
    "two\n lines\tand  more",
    "<end_of_text> spelt out in the middle <end_of_text>",
    "<start_of_text> spelt out",
    "dog " * 75,  # fills the context
    "dog " * 76,  # one too many
    "a long story about " * 100,
    "🎉" * 60,
]
LABELS = [f"a photo of {what} number {number}" for what in ("a cat", "an old town") for number in range(150)]
ATOL = 1e-5  # fp32 reduction order through all layers; the vectors are unit rows

TINY: dict[str, Any] = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 4, "layers": 3},
}


@pytest.fixture(scope="module")
def builtin_text() -> TextEncoder:
    config = json.loads(data_path("builtin", "open_clip_config.json").read_text())["model_cfg"]
    encoder = open_text_encoder(config, data_path("builtin", "open_clip_model.safetensors"))
    assert encoder is not None
    return encoder


@pytest.fixture
def tiny(tmp_path: Path) -> Callable[..., tuple[dict[str, Any], Path, torch.nn.Module]]:
    """Make a tiny CLIP: its configuration, its weights in a file, and the model in torch."""

    def make(dtype: torch.dtype = torch.float32, **options: Any) -> tuple[dict[str, Any], Path, torch.nn.Module]:
        config = {**deepcopy(TINY), **{key: options[key] for key in options if key != "text_cfg"}}
        config["text_cfg"].update(options.get("text_cfg", {}))
        built = deepcopy(config)
        kind = open_clip.CustomTextCLIP if built.pop("custom_text", False) else open_clip.CLIP
        model = randomised(kind(**built)).to(dtype)
        path = tmp_path / "open_clip_model.safetensors"
        save_file(model.state_dict(), path)
        return config, path, model.float()

    return make


def randomised(model: torch.nn.Module) -> torch.nn.Module:
    """Move all weights off their first values: biases of 0 and norms of 1 would hide that they are not used."""
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    return model.eval()


def by_torch(tower: Callable[[torch.Tensor], torch.Tensor], texts: list[str], context_length: int = 77):
    tokens = open_clip.SimpleTokenizer(context_length=context_length)(texts)
    with torch.inference_mode():
        return torch.nn.functional.normalize(tower(tokens), dim=-1).numpy()


def assert_same_rows(ours: np.ndarray, theirs: np.ndarray) -> None:
    assert ours.dtype == np.float32
    assert (ours * theirs).sum(axis=1).min() >= 0.99999
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=ATOL)


@pytest.mark.parametrize("texts", [TEXTS, LABELS], ids=["texts", "labels"])
def test_builtin_vectors_are_the_whole_models(builtin_text, texts):
    whole = load_encoder("builtin", device="cpu", precision="float32")
    assert_same_rows(builtin_text.encode_texts(texts), whole.encode_texts(texts))


def test_builtin_sizes_and_counts_are_the_whole_models(builtin_text):
    whole = load_encoder("builtin", device="cpu")
    assert (builtin_text.dim, builtin_text.context_length) == (whole.dim, whole.context_length)
    assert builtin_text.count_tokens(TEXTS) == whole.count_tokens(TEXTS)


def test_rows_are_unit_rows(builtin_text):
    norms = np.linalg.norm(builtin_text.encode_texts(TEXTS), axis=1)
    np.testing.assert_allclose(norms, 1, atol=1e-6)  # rounding of 256 squares


def test_a_text_has_the_same_vector_alone_and_among_others(builtin_text):
    together = builtin_text.encode_texts(LABELS)
    alone = np.concatenate([builtin_text.encode_texts([label]) for label in LABELS[::37]])
    np.testing.assert_allclose(alone, together[::37], rtol=0, atol=1e-6)  # BLAS sums other sizes in other orders


def test_no_texts_give_no_rows(builtin_text):
    assert builtin_text.encode_texts([]).shape == (0, 256)
    assert builtin_text.count_tokens([]) == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("custom_text", [False, True], ids=["clip", "custom_text"])
@pytest.mark.parametrize("quick_gelu", [False, True], ids=["gelu", "quick_gelu"])
def test_vectors_are_torchs(tiny, quick_gelu, custom_text, dtype):
    config, weights, model = tiny(dtype, quick_gelu=quick_gelu, custom_text=custom_text)
    encoder = open_text_encoder(config, weights)
    assert encoder is not None
    assert_same_rows(encoder.encode_texts(TEXTS), by_torch(model.encode_text, TEXTS))


def test_the_activation_matters_in_that_comparison(tiny):
    config, weights, _ = tiny()
    plain, quick = (open_text_encoder({**config, "quick_gelu": quick}, weights) for quick in (False, True))
    assert np.abs(plain.encode_texts(TEXTS) - quick.encode_texts(TEXTS)).max() > 100 * ATOL


@pytest.mark.parametrize(
    "text_cfg",
    [
        {"context_length": 16},
        {"layers": 1},
        {"mlp_ratio": 2.5},
        {"heads": 1},
        {"vocab_size": 49500},
        {"pool_type": "argmax", "proj_type": "linear", "no_causal_mask": False, "embed_cls": False},
        {"no_causal_mask": True},
        {"no_causal_mask": True, "pool_type": "last"},
        {"pool_type": "last"},
        {"pool_type": "first"},
        {"pool_type": "eos", "eos_id": END},
        {"pool_type": "eos", "eos_id": 1929},  # "dog"
        {"pool_type": "eos", "eos_id": 0},  # the padding
        {"proj_bias": True},
        {"proj_type": "none", "width": 32},
        {"act_kwargs": {"approximate": "tanh"}},
        {"act_kwargs": {"approximate": "none"}},
        {"norm_kwargs": {"eps": 1e-2}},
    ],
    ids=str,
)
def test_other_sizes_give_torchs_vectors(tiny, text_cfg):
    config, weights, model = tiny(text_cfg=text_cfg)
    encoder = open_text_encoder(config, weights)
    length = config["text_cfg"]["context_length"]
    assert encoder.context_length == length
    assert_same_rows(encoder.encode_texts(TEXTS), by_torch(model.encode_text, TEXTS, length))


def built(config: dict[str, Any]) -> torch.nn.Module:
    """The model of a configuration, with first weights drawn."""
    config = deepcopy(config)
    kind = open_clip.CustomTextCLIP if config.pop("custom_text", False) else open_clip.CLIP
    return (open_clip.CoCa if "multimodal_cfg" in config else kind)(**config)


class Hashing:
    """Tokens by the words' letters, for towers whose own tokenizer is not on this machine."""

    def __init__(self, context_length: int, *, pad: int, end: int) -> None:
        self.context_length, self.pad, self.end = context_length, pad, end
        self.vocabulary = 500

    def __call__(self, text: str) -> list[int]:
        ids = [3 + zlib.crc32(word.encode()) % 497 for word in text.split()]
        return [*ids[: self.context_length - 1], self.end]

    def count(self, text: str) -> int:
        return len(text.split()) + 1

    def padded(self, texts: list[str]) -> torch.Tensor:
        rows = [self(text) for text in texts]
        return torch.tensor([row + [self.pad] * (self.context_length - len(row)) for row in rows])


def shrunk(architecture: str) -> dict[str, Any]:
    """An architecture's configuration, as small as it can be made with its text half still of its form."""
    config = open_clip.get_model_config(architecture)
    for key in ("model_cfg", "name"):
        config.pop(key, None)
    text, coca = config["text_cfg"], "multimodal_cfg" in config
    text |= {"width": 32, "heads": 2, "layers": 3}
    if text.get("hf_tokenizer_name"):
        text["vocab_size"] = 500
    if "multimodal_cfg" in config:
        config["multimodal_cfg"] |= {"width": 32, "heads": 2, "layers": 1, "vocab_size": 100}
    pooled = {"attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True} if coca else {}
    config["vision_cfg"] = {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16, **pooled}
    return config | {"embed_dim": 32}


def form(config: dict[str, Any]) -> str:
    """What sets a text half apart from others, sizes and the tokenizer's name aside."""
    text = {key: value for key, value in config["text_cfg"].items() if key not in SIZES}
    top = {key: config.get(key) for key in ("quick_gelu", "custom_text")} | {"coca": "multimodal_cfg" in config}
    return json.dumps([text, top, bool(config["text_cfg"].get("hf_tokenizer_name"))], sort_keys=True)


SIZES = {"width", "heads", "layers", "vocab_size", "context_length", "hf_tokenizer_name"}
FORMS = {form(open_clip.get_model_config(name)): name for name in reversed(open_clip.list_models())}
HUGGING_FACES = {
    name for name in open_clip.list_models() if "hf_model_name" in open_clip.get_model_config(name)["text_cfg"]
}


@pytest.mark.parametrize("architecture", sorted(set(FORMS.values()) - HUGGING_FACES))
def test_every_form_of_open_clips_text_transformer_gives_torchs_vectors(architecture, tmp_path):
    config = shrunk(architecture)
    model = randomised(built(config))
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    text = config["text_cfg"]
    hashing = Hashing(text["context_length"], pad=1, end=text.get("eos_id", 2))
    encoder = open_text_encoder(config, tmp_path / "model.safetensors", tokenizer=hashing)
    assert encoder is not None
    own = open_clip.SimpleTokenizer(context_length=text["context_length"])
    tokens = hashing.padded(TEXTS) if text.get("hf_tokenizer_name") else own(TEXTS)
    with torch.inference_mode():
        theirs = torch.nn.functional.normalize(model.encode_text(tokens), dim=-1).numpy()
    assert_same_rows(encoder.encode_texts(TEXTS), theirs)


def test_of_open_clips_architectures_only_those_with_a_foreign_text_half_are_left_to_torch():
    unknown = {name for name in open_clip.list_models() if clip.shape_of(open_clip.get_model_config(name)) is None}
    assert unknown == HUGGING_FACES


def test_a_tokenizer_with_more_tokens_than_the_tower_is_left_to_torch(tmp_path):
    config = shrunk("ViT-B-16-SigLIP")
    save_file(built(config).state_dict(), tmp_path / "model.safetensors")
    hashing = Hashing(64, pad=1, end=1)
    hashing.vocabulary = 501
    assert open_text_encoder(config, tmp_path / "model.safetensors", tokenizer=hashing) is None
    assert open_text_encoder(config, tmp_path / "model.safetensors") is None


@pytest.mark.slow
def test_a_tower_of_real_size_gives_torchs_vectors(tmp_path):
    tower = randomised(open_clip.transformer.TextTransformer(width=512, heads=8, layers=12, output_dim=512))
    state = {f"text.{name}": tensor for name, tensor in tower.state_dict().items()}
    save_file(state, tmp_path / "base.safetensors")
    text = {"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12}
    config = {"embed_dim": 512, "vision_cfg": {}, "text_cfg": text, "custom_text": True}
    encoder = open_text_encoder(config, tmp_path / "base.safetensors")
    assert_same_rows(encoder.encode_texts(TEXTS), by_torch(tower, TEXTS))


def test_fp32_weights_stay_in_the_file(tiny):
    config, weights, _ = tiny()
    tower = open_text_encoder(config, weights)._tower
    arrays = [tower.embedding, tower.positions, tower.projection.weight, tower.blocks[0].mlp_in.weight]
    assert not any(array.flags.owndata or array.flags.writeable for array in arrays)


UNUSUAL = [
    {"hf_model_name": "xlm-roberta-base"},
    {"hf_tokenizer_name": "bert-base-uncased"},
    {"tokenizer_kwargs": {"clean": "canonicalize"}},
    {"pool_type": "none"},
    {"pool_type": None},
    {"embed_cls": True},
    {"output_tokens": True},
    {"ls_init_value": 1e-4},
    {"proj_bias": True},
    {"proj_type": "none"},
    {"proj_type": "mlp"},
    {"act_kwargs": {"approximate": "sigmoid"}},
    {"act_kwargs": {"inplace": True}},
    {"norm_kwargs": {"eps": 1e-6, "bias": False}},
    {"norm_kwargs": {"elementwise_affine": False}},
    {"norm_kwargs": {"eps": "1e-6"}},
    {"norm_kwargs": 7},
    {"eos_id": "2"},
    {"block_type": "custom"},
    {"qk_norm": True},
    {"scale_fc": True},
    {"vocab_size": 32000},
    {"heads": 5},
    {"layers": 2},
    {"layers": 4},
    {"layers": "3"},
    {"width": 32},
    {"context_length": 64},
    {"context_length": 0},
    {"mlp_ratio": math.inf},
    {"mlp_ratio": "4"},
    {"a_key_of_a_later_version": True},
]


@pytest.mark.parametrize("text_cfg", UNUSUAL, ids=str)
def test_an_unusual_or_unfitting_text_tower_is_left_to_torch(tiny, text_cfg):
    config, weights, _ = tiny()
    config["text_cfg"].update(text_cfg)
    assert open_text_encoder(config, weights) is None


def test_options_of_the_activation_that_the_quick_one_lacks_are_left_to_torch(tiny):
    config, weights, _ = tiny(text_cfg={"act_kwargs": {"approximate": "tanh"}})
    assert open_text_encoder(config, weights) is not None
    assert open_text_encoder({**config, "quick_gelu": True}, weights) is None


@pytest.mark.parametrize(
    "change", [{"multimodal_cfg": {}}, {"multimodal_cfg": None}, {"embed_dim": 16}, {"text_cfg": None}], ids=str
)
def test_an_unusual_or_unfitting_model_is_left_to_torch(tiny, change):
    config, weights, _ = tiny()
    assert open_text_encoder({**config, **change}, weights) is None


def test_weights_of_another_kind_or_absent_are_left_to_torch(tiny):
    config, weights, _ = tiny()
    assert open_text_encoder(config, weights.with_name("absent.safetensors")) is None
    assert open_text_encoder(config, weights.rename(weights.with_suffix(".bin"))) is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x02",
        b"\xff" * 16,
        b"\x02\0\0\0\0\0\0\0[]",
        b"\x02\0\0\0\0\0\0\0{}",
        b"\x02\0\0\0\0\0\0\0\xff\xff",
        b"\x00\x80\0\0\0\0\0\0" + b"[" * 2**15,
    ],
    ids=range(7),
)
def test_a_file_that_is_no_safetensors_is_left_to_torch(tmp_path, content):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    assert open_text_encoder(TINY, path) is None


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [64], "data_offsets": [0, 255]},
        {"dtype": "F32", "shape": [64], "data_offsets": [2**40, 2**40 + 256]},
        {"dtype": "F32", "shape": [-8, -8], "data_offsets": [0, 256]},
        {"dtype": "F32", "shape": [6.4, 10], "data_offsets": [0, 256]},
        {"dtype": "F32", "shape": 64, "data_offsets": [0, 256]},
        {"dtype": "F32", "shape": [64], "data_offsets": "ab"},
        {"dtype": ["F32"], "shape": [64], "data_offsets": [0, 256]},
        {"dtype": "F32"},
        7,
    ],
    ids=str,
)
def test_a_damaged_header_is_left_to_torch(tiny, entry):
    config, weights, _ = tiny()
    content = weights.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    header["ln_final.weight"] = entry
    changed = json.dumps(header).encode()
    weights.write_bytes(len(changed).to_bytes(8, "little") + changed + content[8 + size :])
    assert open_text_encoder(config, weights) is None


def test_gelu_is_the_exact_one():
    x = np.linspace(-12, 12, 20001).astype(np.float32)
    exact = np.array([value / 2 * math.erfc(-value / math.sqrt(2)) for value in x.tolist()])
    ours = arithmetic.gelu(x.copy())
    np.testing.assert_allclose(ours, exact, rtol=1.2e-7, atol=5e-7)  # the formula's 7.5e-8 times x, and rounding


def test_quick_gelu_of_large_numbers_is_quiet():
    x = np.array([-1e4, -200, 0, 200, 1e4], dtype=np.float32)
    np.testing.assert_array_equal(arithmetic.quick_gelu(x.copy()), np.maximum(x, 0))


def test_a_query_loads_neither_torch_nor_open_clip():
    script = """
import json, sys
from search.encoders.tokens import END
from search.encoders.text import open_text_encoder
from search.resources import data_path
config = json.loads(data_path("builtin", "open_clip_config.json").read_text())["model_cfg"]
encoder = open_text_encoder(config, data_path("builtin", "open_clip_model.safetensors"))
assert encoder.encode_texts(["a dog in the snow"]).shape == (1, 256)
plain = set(sys.modules)
encoder.encode_texts(["caf\\u00e9 &amp; \\U0001f389"])
print(json.dumps([sorted(plain), sorted(sys.modules)]))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    plain, mended = (set(names) for names in json.loads(done.stdout))
    heavy = {"torch", "open_clip", "transformers", "torchvision", "timm", "huggingface_hub", "safetensors", "PIL"}
    assert "numpy" in plain
    assert not plain & (heavy | {"ftfy", "regex", "html"})
    assert not mended & heavy
