"""Long-CLIP's checkpoints against the paper's model, read line by line in plain functions over the state dict."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch.nn import functional

from search.encoders import Encoder, load_encoder, recipes
from search.encoders.openclip import open_clip
from search.errors import CheckpointError

State = dict[str, torch.Tensor]

CONTEXT = 248
KEPT = 20
ATOL = 1e-5  # fp32 reduction order through all layers; the vectors are unit rows
VOCABULARY = 49408
# Long-CLIP-B's towers are 768 and 512 wide with patches of 16, L's 1024 and 768 with patches of 14; here scaled down.
SHAPES: dict[str, dict[str, int]] = {
    "B": {
        "image_width": 128,
        "image_layers": 2,
        "patch": 16,
        "grid": 4,
        "text_width": 64,
        "text_layers": 2,
        "dim": 32,
    },
    "L": {
        "image_width": 192,
        "image_layers": 3,
        "patch": 14,
        "grid": 5,
        "text_width": 128,
        "text_layers": 2,
        "dim": 48,
    },
}


def random_state(
    *,
    image_width: int,
    image_layers: int,
    patch: int,
    grid: int,
    text_width: int,
    text_layers: int,
    dim: int,
    vocabulary: int = VOCABULARY,
) -> State:
    """Random weights under the names that Long-CLIP's files have."""
    draw = torch.Generator().manual_seed(7)

    def normal(*shape: int, scale: float = 1.0) -> torch.Tensor:
        return torch.randn(*shape, generator=draw) * scale

    def block(prefix: str, width: int) -> State:
        sizes = {"attn.in_proj_": (3 * width, width), "attn.out_proj.": (width, width)}
        sizes |= {"mlp.c_fc.": (4 * width, width), "mlp.c_proj.": (width, 4 * width)}
        made = {}
        for name, (outer, inner) in sizes.items():
            made[f"{prefix}.{name}weight"] = normal(outer, inner, scale=inner**-0.5)
            made[f"{prefix}.{name}bias"] = normal(outer, scale=0.1)
        for name in ("ln_1", "ln_2"):
            made |= norm(f"{prefix}.{name}", width)
        return made

    def norm(prefix: str, width: int) -> State:
        return {f"{prefix}.weight": 1 + normal(width, scale=0.1), f"{prefix}.bias": normal(width, scale=0.1)}

    state = {
        "positional_embedding": normal(CONTEXT, text_width),
        "positional_embedding_res": normal(CONTEXT, text_width),
        "text_projection": normal(text_width, dim, scale=text_width**-0.5),
        "logit_scale": torch.tensor(4.6),
        "token_embedding.weight": normal(vocabulary, text_width),
        **norm("ln_final", text_width),
        "visual.class_embedding": normal(image_width),
        "visual.positional_embedding": normal(grid**2 + 1, image_width),
        "visual.proj": normal(image_width, dim, scale=image_width**-0.5),
        "visual.conv1.weight": normal(image_width, 3, patch, patch, scale=(3 * patch**2) ** -0.5),
        **norm("visual.ln_pre", image_width),
        **norm("visual.ln_post", image_width),
    }
    for layer in range(text_layers):
        state |= block(f"transformer.resblocks.{layer}", text_width)
    for layer in range(image_layers):
        state |= block(f"visual.transformer.resblocks.{layer}", image_width)
    return state


# the paper's model; B texts or images, L tokens, W wide


def normed(state: State, name: str, x: torch.Tensor) -> torch.Tensor:
    return functional.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"])


def transformed(state: State, prefix: str, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """(B, L, W) through all layers, with heads of 64; mask: (L, L), what is added to the attention's logits."""
    for layer in range(sum(name.startswith(prefix) and name.endswith("ln_1.bias") for name in state)):
        at = f"{prefix}{layer}"
        y = normed(state, f"{at}.ln_1", x)
        y = y @ state[f"{at}.attn.in_proj_weight"].T + state[f"{at}.attn.in_proj_bias"]
        query, key, value = (part.unflatten(-1, (-1, 64)).transpose(1, 2) for part in y.chunk(3, dim=-1))
        logits = query @ key.transpose(-1, -2) / 8  # (B, H, L, L)
        y = (logits if mask is None else logits + mask).softmax(dim=-1) @ value
        y = y.transpose(1, 2).flatten(2)
        x = x + y @ state[f"{at}.attn.out_proj.weight"].T + state[f"{at}.attn.out_proj.bias"]
        y = normed(state, f"{at}.ln_2", x) @ state[f"{at}.mlp.c_fc.weight"].T + state[f"{at}.mlp.c_fc.bias"]
        y = y * torch.sigmoid(1.702 * y)
        x = x + y @ state[f"{at}.mlp.c_proj.weight"].T + state[f"{at}.mlp.c_proj.bias"]
    return x


def text_rows(state: State, tokens: torch.Tensor) -> np.ndarray:
    """(B, 248) tokens -> (B, D) unit rows."""
    first = (torch.arange(CONTEXT) < KEPT)[:, None].float()
    x = state["token_embedding.weight"][tokens]
    x = x + state["positional_embedding"] * first + state["positional_embedding_res"] * (1 - first)
    x = transformed(state, "transformer.resblocks.", x, torch.full((CONTEXT, CONTEXT), -torch.inf).triu(1))
    x = normed(state, "ln_final", x)[torch.arange(len(x)), tokens.argmax(dim=-1)] @ state["text_projection"]
    return (x / x.norm(dim=-1, keepdim=True)).numpy()


def image_rows(state: State, pixels: np.ndarray) -> np.ndarray:
    """(B, H, W, 3) uint8 -> (B, D) unit rows, with the mean and deviation that CLIP was trained with."""
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    x = (x - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    kernel = state["visual.conv1.weight"]
    x = functional.conv2d(x, kernel, stride=kernel.shape[-1]).flatten(2).transpose(1, 2)  # (B, grid², W)
    x = torch.cat([state["visual.class_embedding"].expand(len(x), 1, -1), x], dim=1)
    x = normed(state, "visual.ln_pre", x + state["visual.positional_embedding"])
    x = transformed(state, "visual.transformer.resblocks.", x)
    x = normed(state, "visual.ln_post", x[:, 0]) @ state["visual.proj"]
    return (x / x.norm(dim=-1, keepdim=True)).numpy()


# ours against it


@pytest.fixture(scope="module", params=SHAPES)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[State, Path]:
    state = random_state(**SHAPES[request.param])
    file = tmp_path_factory.mktemp("long") / f"longclip-{request.param}.safetensors"
    save_file(state, file)
    return state, file


@pytest.fixture
def encoder(checkpoint: tuple[State, Path]) -> Encoder:
    return load_encoder(f"longclip:{checkpoint[1]}", device="cpu", precision="float32")


def of_each_length() -> list[str]:
    """Texts of 2, 3, … 248 tokens, start and end included: there is none of one token alone."""
    words = ("a", "red", "dog", "and", "two", "white", "cats", "in", "snow", "near", "an", "old", "house")
    return [" ".join(words[number % len(words)] for number in range(count)) for count in range(CONTEXT - 1)]


def test_texts_of_every_length_have_the_papers_vectors(
    checkpoint: tuple[State, Path], encoder: Encoder, tmp_path: Path
) -> None:
    every = of_each_length()
    assert encoder.count_tokens(every) == list(range(2, CONTEXT + 1))
    texts = (
        every if len(checkpoint[0]["ln_final.bias"]) == 64 else [*every[:24], *every[24::3]]
    )  # L takes twice as long
    tokens = open_clip.SimpleTokenizer(context_length=CONTEXT)(texts)
    with torch.inference_mode():
        expected = np.concatenate([text_rows(checkpoint[0], part) for part in tokens.split(64)])
    assert encoder.context_length == CONTEXT
    np.testing.assert_allclose(encoder.encode_texts(texts), expected, rtol=0, atol=ATOL)

    recipes.save(encoder, tmp_path / "kept")
    half = recipes.open_text(tmp_path / "kept", encoder.fingerprint)
    assert half is not None, "no text half without torch"
    np.testing.assert_allclose(half.encode_texts(texts[::6]), expected[::6], rtol=0, atol=ATOL)


def test_a_longer_text_is_cut_behind_its_first_247_tokens(encoder: Encoder) -> None:
    words = "dog " * 246
    rows = encoder.encode_texts([words, words + "cat " * 50])
    np.testing.assert_array_equal(rows[0], rows[1])


def test_images_have_the_papers_vectors(
    checkpoint: tuple[State, Path], encoder: Encoder, pictures: list[Image.Image]
) -> None:
    pixels = np.stack([encoder.preprocess(picture) for picture in pictures])
    with torch.inference_mode():
        expected = image_rows(checkpoint[0], pixels)
    np.testing.assert_allclose(encoder.encode_images(pixels), expected, rtol=0, atol=ATOL)


def test_below_position_20_the_first_table_is_added_and_from_there_the_second(tmp_path: Path) -> None:
    state = random_state(**SHAPES["B"])
    unused, used = ({name: tensor.clone() for name, tensor in state.items()} for _ in range(2))
    unused["positional_embedding"][KEPT:] = 3
    unused["positional_embedding_res"][:KEPT] = 3
    used["positional_embedding_res"][KEPT] *= -1
    texts = ["dog " * 18, "dog " * 19]  # the last token of the second stands at position 20
    rows = {}
    for name, tensors in {"plain": state, "unused": unused, "used": used}.items():
        save_file(tensors, tmp_path / f"{name}.safetensors")
        loaded = load_encoder(f"longclip:{tmp_path / name}.safetensors", device="cpu", precision="float32")
        rows[name] = loaded.encode_texts(texts)
    np.testing.assert_array_equal(rows["unused"], rows["plain"])
    np.testing.assert_array_equal(rows["used"][0], rows["plain"][0])
    assert np.abs(rows["used"][1] - rows["plain"][1]).max() > 100 * ATOL


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no second table": (
        {"positional_embedding_res": None},
        "needs positional_embedding and positional_embedding_res",
    ),
    "no first table": ({"positional_embedding": None}, "needs positional_embedding and positional_embedding_res"),
    "a table of CLIP's length": ({"positional_embedding": torch.zeros(77, 64)}, "of one shape"),
    "flat tables": (
        dict.fromkeys(("positional_embedding", "positional_embedding_res"), torch.zeros(248)),
        "of one shape",
    ),
    "tables of another width": (
        dict.fromkeys(("positional_embedding", "positional_embedding_res"), torch.zeros(248, 32)),
        r"positional_embedding is \(248, 32\), not \(248, 64\)",
    ),
    "empty tables": (
        dict.fromkeys(("positional_embedding", "positional_embedding_res"), torch.zeros(0, 64)),
        r"positional_embedding is \(0, 64\)",
    ),
    "numbers without fractions": (
        dict.fromkeys(
            ("positional_embedding", "positional_embedding_res"), torch.zeros(248, 64, dtype=torch.int64)
        ),
        "positional_embedding is torch.int64",
    ),
    "no number": (
        {"positional_embedding_res": torch.full((248, 64), torch.nan)},
        "not finite in positional_embedding",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_checkpoint_of_other_shapes_is_refused(case: str, tmp_path: Path) -> None:
    change, message = BAD[case]
    state: State = {**random_state(**SHAPES["B"], vocabulary=3), **change}
    save_file({name: x.clone() for name, x in state.items() if x is not None}, tmp_path / "l.safetensors")
    with pytest.raises(CheckpointError, match=message):
        load_encoder(f"longclip:{tmp_path / 'l.safetensors'}", device="cpu")
