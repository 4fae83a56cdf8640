"""What is trained: a new architecture or a model that can be loaded; which of its weights; the folder it becomes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import nn
from torch.nn.functional import normalize

from search.encoders import INT8, blueprints, parse_name, tuning
from search.encoders.hub import CONFIG, WEIGHTS, Fetcher, first_line
from search.encoders.preprocessing import Preprocessing
from search.errors import ModelError, StorageError, UsageError
from search.files import atomic_write
from search.train.checkpoints import write_tensors
from search.train.recipe import Recipe

if TYPE_CHECKING:
    from search.types import Pixels

SIGMOID_SCALE, SIGMOID_BIAS = math.log(10), -10.0  # SigLIP, arXiv:2303.15343, sec. 3.2
_BLOCKS = ("transformer.resblocks", "trunk.blocks", "transformer.encoder.layer", "transformer.encoder.block")
# Where projections are, and what else follows the last block, by the beginnings of names within a tower.
_PROJECTIONS = ("proj", "head.", "attnpool.c_proj", "text_projection", "trunk.head.")
_BEHIND = (*_PROJECTIONS, "ln_post", "ln_final", "attnpool", "attn_pool", "trunk.norm", "trunk.fc_norm")
_SCALES = ("logit_scale", "logit_bias")
_IMAGES = "visual."
_REMEMBERED = 100_000  # captions, of 600 bytes each
_UNUSED = ("text_decoder.",)  # CoCa's captioner, which a contrastive loss never reaches

Encode: TypeAlias = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True)
class Subject:
    """A model to train, with what belongs to it.

    origin: the name or architecture it began as.   fingerprint: of the weights it began with, "" for random ones.
    trained: names of the parameters that change.   tokens_of: a caption's (L,) tokens, remembered: to take text apart
    is a sixth of a small model's step, and captions come again.
    """

    model: Any
    tokenizer: Any
    config: Mapping[str, Any]
    preprocessing: Preprocessing
    origin: str
    fingerprint: str
    trained: frozenset[str]
    tokens_of: Callable[[str], torch.Tensor]

    def parameters(self) -> dict[str, nn.Parameter]:
        """Return the parameters that change, by name."""
        named: Iterator[tuple[str, nn.Parameter]] = self.model.named_parameters()
        return {name: parameter for name, parameter in named if name in self.trained}

    def scales(self) -> list[nn.Parameter]:
        """Return scale and bias of the logits."""
        return [parameter for name, parameter in self.parameters().items() if name in _SCALES]

    @property
    def trains_images(self) -> bool:
        return any(name.startswith(_IMAGES) for name in self.trained)

    @property
    def trains_texts(self) -> bool:
        return any(not name.startswith((_IMAGES, *_SCALES)) for name in self.trained)

    def training(self) -> None:
        """Set the model to train; what is locked stays as it is in use, with the running means it has."""
        self.model.train()
        for module in self.model.modules():
            parameters = list(module.parameters())
            if parameters and not any(parameter.requires_grad for parameter in parameters):
                module.eval()

    def tokens(self, captions: Sequence[str]) -> torch.Tensor:
        """Return (N, L) tokens; of a causal tower no longer than the longest caption needs."""
        if not captions:
            empty: torch.Tensor = self.tokenizer([])
            return empty
        tokens = torch.stack([self.tokens_of(caption) for caption in captions])
        if tuning.causal_text_tower(self.model) is None:
            return tokens
        return tokens[:, : int(tokens.argmax(dim=-1).max()) + 1]  # end-of-text has the highest number

    def encoders(self, device: torch.device, *, half: bool) -> tuple[Encode, Encode]:
        """Return what turns pixels (N, H, W, 3) uint8, and tokens, into float32 unit rows.

        half: arithmetic in bfloat16 where that is safe.
        """
        mean, std = (
            torch.tensor(values, device=device).reshape(3, 1, 1)
            for values in (self.preprocessing.mean, self.preprocessing.std)
        )
        encode_text = tuning.causal_text_tower(self.model) or self.model.encode_text

        def images(pixels: torch.Tensor) -> torch.Tensor:
            batch = (pixels.permute(0, 3, 1, 2).to(mean.dtype) / 255 - mean) / std  # (N, H, W, 3) -> (N, 3, H, W)
            with torch.autocast(device.type, torch.bfloat16, enabled=half):
                features = self.model.encode_image(batch)
            return normalize(features.to(mean.dtype), dim=-1)

        def texts(tokens: torch.Tensor) -> torch.Tensor:
            with torch.autocast(device.type, torch.bfloat16, enabled=half):
                features = encode_text(tokens)
            return normalize(features.to(mean.dtype), dim=-1)

        return images, texts

    def write(self, folder: Path, *, precision: str) -> None:
        """Write a folder that `dir:` loads.   Raises StorageError."""
        config = {"model_cfg": self.config, "preprocess_cfg": self.preprocessing.to_dict()}
        state: Mapping[str, torch.Tensor] = self.model.state_dict()
        if precision == "float16":  # vectors and scalars stay: they take no room, running variances could be large
            state = {name: one.half() if _is_matrix(one) else one for name, one in state.items()}
        try:
            if self.config["text_cfg"].get("hf_tokenizer_name"):
                self.tokenizer.tokenizer.save_pretrained(folder)
            atomic_write(folder / CONFIG, json.dumps(config, indent=2).encode())
        except OSError as error:
            raise StorageError(f"can't write {folder}: {error.strerror or error}") from None
        write_tensors(folder / WEIGHTS[0], state, {"format": "pt"})


def prepare(recipe: Recipe, *, offline: bool = False, on_download: Callable[[str], None] | None = None) -> Subject:
    """Open or draw the model that a recipe begins with, fit for its loss, and lock what it does not train.

    Random weights are drawn from torch's generator.   Raises ModelError, UsageError.
    """
    if recipe.model:
        return _fitted(recipe, *_loaded(recipe, offline=offline, on_download=on_download))
    config, preprocess = blueprints.describe(recipe.architecture)
    config = _resized(config, recipe.sizes)
    fetcher = Fetcher(recipe.architecture, offline=offline, on_download=on_download)
    model, tokenizer = blueprints.draw(config, name=recipe.architecture, fetcher=fetcher)
    preprocessing = Preprocessing.from_dict(preprocess, size=model.visual.image_size)
    return _fitted(recipe, model, tokenizer, config, preprocessing, "")


def _loaded(
    recipe: Recipe, *, offline: bool, on_download: Callable[[str], None] | None
) -> tuple[Any, Any, Mapping[str, Any], Preprocessing, str]:
    if recipe.model.endswith(INT8):
        raise ModelError(f"{recipe.model} can't be trained", hint=f"train {recipe.model.removesuffix(INT8)}")
    fetcher = Fetcher(recipe.model, offline=offline, on_download=on_download)
    loaded = blueprints.load(*parse_name(recipe.model), fetcher=fetcher)
    return loaded.model, loaded.tokenizer, loaded.config, loaded.preprocessing, loaded.fingerprint


def _fitted(
    recipe: Recipe,
    model: Any,
    tokenizer: Any,
    config: Mapping[str, Any],
    preprocessing: Preprocessing,
    fingerprint: str,
) -> Subject:
    config = dict(deepcopy(config))
    _require_runs(model, tokenizer, size=recipe.train_size, new=not fingerprint)
    _fit_loss(model, config, sigmoid=recipe.loss == "sigmoid", new=not fingerprint)
    trained = frozenset(chosen(model, recipe.tune, recipe.layers))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in trained)
    origin = recipe.model or recipe.architecture
    tokens_of = lru_cache(_REMEMBERED)(lambda caption: tokenizer([caption])[0])
    return Subject(model, tokenizer, config, preprocessing, origin, fingerprint, trained, tokens_of)


def _require_runs(model: Any, tokenizer: Any, *, size: int, new: bool) -> None:
    """Encode two photos and two texts, and raise UsageError where a tower can't.

    size: of the photos, in pixels a side; 0: the model's.   new: the weights are random; then a tower whose output
    is the same for both reads nothing of what it is given, and would learn nothing.
    """
    made = model.visual.image_size
    height, width = (size, size) if size else made if isinstance(made, tuple | list) else (made, made)
    ramp = torch.linspace(-1, 1, 3 * height * width).reshape(3, height, width)
    towers: tuple[tuple[str, Encode, Callable[[], torch.Tensor]], ...] = (
        (f"photos of {height} x {width} pixels", model.encode_image, lambda: torch.stack([ramp, ramp.flip(1, 2)])),
        ("texts", model.encode_text, lambda: tokenizer(["dog", "cat"])),
    )
    model.eval()  # draws no random numbers and counts no means
    for what, encode, given in towers:
        hint = f"it is made for {made}" if size else "look at the sizes of its architecture"
        try:
            with torch.no_grad():
                one, other = encode(given())
        except Exception as error:  # sizes are input; torch, open_clip and timm have no one error for bad ones
            raise UsageError(f"this model takes no {what}: {first_line(error)}", hint=hint) from None
        if new and torch.equal(one, other):
            raise UsageError(f"this model can't tell {what} apart", hint=hint)


def _resized(config: Mapping[str, Any], sizes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a model_cfg with other sizes, by dotted names: vision_cfg.layers."""
    resized = dict(deepcopy(config))
    for name, value in sizes.items():
        *outer, last = name.split(".")
        place: Any = resized
        for part in outer:
            place = place.get(part) if isinstance(place, dict) else None
        if not isinstance(place, dict):
            raise UsageError(
                f"the architecture has no {name!r}", hint="vision_cfg.layers, text_cfg.width, embed_dim"
            )
        place[last] = value
    return resized


def _fit_loss(model: Any, config: dict[str, Any], *, sigmoid: bool, new: bool) -> None:
    """Give the model a bias where the loss has one, and none where it has not: it would be read with the scale."""
    has_bias = getattr(model, "logit_bias", None) is not None
    if sigmoid and (new or not has_bias):
        model.logit_bias = nn.Parameter(torch.tensor(SIGMOID_BIAS))
        config["init_logit_bias"] = SIGMOID_BIAS
        with torch.no_grad():
            model.logit_scale.fill_(SIGMOID_SCALE)
    if not sigmoid and has_bias:
        model.logit_bias = None
        config.pop("init_logit_bias", None)


def chosen(model: Any, tune: str, layers: int) -> Iterator[str]:
    """Yield the names of the parameters that are trained.

    tune: "full"; "last": so many last layers of each tower and what follows them; "heads": projections alone; "text":
    all but the image tower, which stays locked (LiT, arXiv:2111.07991); "images": the image tower alone. Scale and bias
    always are.
    Raises UsageError where that leaves nothing, or there are fewer layers.
    """
    names = [name for name, _ in model.named_parameters() if not name.startswith(_UNUSED)]
    if tune == "full":
        picked = names
    elif tune == "text":
        picked = [name for name in names if not name.startswith(_IMAGES)]
    elif tune == "images":
        picked = [name for name in names if name.startswith(_IMAGES)]
    else:
        picked = [*_of_tower(model, "visual.", names, tune, layers), *_of_tower(model, "", names, tune, layers)]
    if not any(name not in _SCALES for name in picked):
        raise UsageError("this model has no projections to train by themselves", hint="tune the last layers")
    yield from {*picked, *(name for name in names if name in _SCALES)}


def _of_tower(model: Any, prefix: str, names: Sequence[str], tune: str, layers: int) -> Iterator[str]:
    """Yield those names of one tower that stand behind its blocks, and of these so many last."""
    if not prefix and hasattr(model, "text"):
        prefix = "text."
    own = [name for name in names if name.startswith(prefix) and (prefix or not name.startswith(_IMAGES))]
    behind = _PROJECTIONS if tune == "heads" else _BEHIND
    begins: tuple[str, ...] = tuple(prefix + one for one in behind)
    if tune == "last":
        begins += tuple(f"{one}." for one in _last(model, prefix, own, layers))
    yield from (name for name in own if name.startswith(begins))


def _last(model: Any, prefix: str, own: Sequence[str], layers: int) -> list[str]:
    """Return the names of a tower's last blocks; without a list of blocks, the parts that its trunk is made of."""
    for path in _BLOCKS:
        inside = f"{prefix}{path}."
        numbers = sorted({int(name.removeprefix(inside).split(".")[0]) for name in own if name.startswith(inside)})
        if numbers:
            return [f"{inside}{number}" for number in _ends(numbers, layers)]
    trunk = f"{prefix}trunk." if any(name.startswith(f"{prefix}trunk.") for name in own) else prefix
    behind = tuple(prefix + one for one in _BEHIND)
    parts = [f"{trunk}{name.removeprefix(trunk).split('.')[0]}" for name in own if not name.startswith(behind)]
    return _ends(list(dict.fromkeys(parts)), layers)


def _ends(found: list[Any], layers: int) -> list[Any]:
    if layers > len(found):
        raise UsageError(f"a tower has {len(found)} layers, not {layers}")
    return found[-layers:]


def pixels_of(batch: Pixels, device: torch.device) -> torch.Tensor:
    """Return pixels (N, H, W, 3) uint8 as a tensor on a device."""
    pixels = torch.from_numpy(batch)
    return pixels.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else pixels


def _is_matrix(tensor: torch.Tensor) -> bool:
    return tensor.is_floating_point() and tensor.ndim >= 2
