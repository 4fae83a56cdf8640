"""An open model → the faster runtime, once: export it, hold both against each other, record the winner."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from search import files
from search.encoders import blueprints, exports, openclip, tuning
from search.encoders.exports import Record
from search.encoders.hub import first_line
from search.errors import StorageError

if TYPE_CHECKING:
    from search.encoders import Encoder
    from search.encoders.foreign_tokens import ForeignTokenizer
    from search.encoders.openvino import ImageTower
    from search.encoders.preprocessing import Preprocessing
    from search.types import Pixels, Vectors

    Encode = Callable[[Pixels], Vectors]

AGREEMENT = 0.999  # the least cosine between the runtimes' vectors of an image
TEXT_AGREEMENT = 0.9999  # and of a text
_FASTER = 1.05  # how much faster the other runtime must be to be used
_BATCH = 16
_TEXTS = ("a dog", "a photo of two red cars in the snow", "", "日本語の写真 Émile’s café", "so many words " * 60)
_LEAST_S = 1.5  # spent on holding the runtimes against each other
_ROUNDS = 3
_LARGE = 5_000_000  # parameters of an image tower; those below are quick as they are


def pays(loaded: blueprints.Loaded) -> bool:
    """Say whether to export a model unasked, once there are photos enough: not the built-in one or toys."""
    size: int = sum(parameter.numel() for parameter in loaded.model.visual.parameters())
    return loaded.name != "builtin" and size >= _LARGE


def export(loaded: blueprints.Loaded, cache: Path) -> tuple[openclip.OpenClipEncoder, Record]:
    """Export a loaded model, which then belongs to the encoder returned, and record what came of it.

    A model that the runtime can't take, or computes otherwise, is recorded as torch's.
    Raises StorageError if the cache can't be written to.
    """
    with storage(cache) as place:
        graph, reason = graph_of(loaded)
        encoder = openclip.encoder_of(loaded)
        record = _held(encoder, graph, reason, exports.stated(loaded.files, loaded.stated), card_of(encoder))
        if graph is not None and record.agreement is not None and record.agreement >= AGREEMENT:
            from search.encoders import openvino

            record = replace(record, exported=openvino.write(graph, place, exports.key(loaded.name)))
        exports.save(loaded.name, record, place)
    return encoder, record


def export_text(loaded: blueprints.Loaded, tokenizer: ForeignTokenizer, folder: Path) -> tuple[Path, ...]:
    """Export the text half of a loaded model and return its files, once they were seen to give the same vectors.

    None are returned for a tower that the runtime can't take, or computes otherwise.   Raises OSError.
    """
    from search.encoders import openvino

    graph = _text_graph(loaded)
    if graph is None:
        return ()
    names = tuple(folder / name for name in openvino.write(graph, folder, loaded.fingerprint, halved=False))
    tower = openvino.open_text_tower(names, tokenizer.pad)
    with contextlib.suppress(RuntimeError):  # a tower whose lengths were traced as constants takes no others
        if tower is not None and _text_agreement(loaded, tower, tokenizer) >= TEXT_AGREEMENT:
            return names
    for path in names:
        files.discard(path)
    return ()


def _text_graph(loaded: blueprints.Loaded) -> Any | None:
    from search.encoders import openvino

    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            return openvino.convert_text(_TextHalf(loaded.model).eval(), loaded.tokenizer(list(_TEXTS[:2])))
    except Exception:  # tracing and conversion have no one error for a tower they can't take
        return None


def _text_agreement(
    loaded: blueprints.Loaded, tower: Callable[[Sequence[list[int]]], Vectors], tokenizer: ForeignTokenizer
) -> float:
    """Return the least cosine of texts alone and among others of other lengths."""
    with torch.inference_mode():
        theirs = loaded.model.encode_text(loaded.tokenizer(list(_TEXTS)), normalize=True).numpy()
    ids = [tokenizer(text) for text in _TEXTS]
    found = [tower(ids), np.concatenate([tower([row]) for row in ids])]
    return min(
        float(((rows / np.linalg.norm(rows, axis=1, keepdims=True)) * theirs).sum(axis=1).min()) for rows in found
    )


class _TextHalf(torch.nn.Module):
    """What a model does with ids: (N, L) -> (N, dim)."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.model.encode_text(tokens)  # type: ignore[no-any-return]


def card_of(encoder: Encoder) -> dict[str, Any]:
    """Return what an encoder says of itself, ready for JSON."""
    whole: Any = encoder
    return {
        "name": encoder.name,
        "fingerprint": encoder.fingerprint,
        "dim": encoder.dim,
        "context_length": encoder.context_length,
        "logit_scale": encoder.logit_scale,
        "logit_bias": encoder.logit_bias,
        "parameters": whole.parameters,
        "preprocessing": encoder.preprocessing.to_dict(),
        "config": whole.config,
        "weights": str(whole.weights),
        "tensors": None if whole.tensors is None else str(whole.tensors),
    }


def sample(preprocessing: Preprocessing, count: int) -> Pixels:
    """Return (N, H, W, 3) uint8 that look somewhat like photographs: noise whose strength falls with its frequency."""
    height, width = preprocessing.size
    random = np.random.default_rng(0)
    images = np.full((count, height, width, 3), 128.0, np.float32)
    for step, strength in ((64, 60), (32, 40), (16, 25), (8, 15), (4, 10), (1, 5)):
        grid = random.normal(0, strength, (count, -(-height // step), -(-width // step), 3)).astype(np.float32)
        images += grid.repeat(step, axis=1).repeat(step, axis=2)[:, :height, :width]
    return images.clip(0, 255).astype(np.uint8)


def graph_of(loaded: blueprints.Loaded) -> tuple[Any | None, str]:
    """Return a loaded model's image half as a graph; else None, and why.   Raises ModelError without the runtime."""
    openvino = exports.require_runtime()
    height, width = loaded.preprocessing.size
    try:
        with tuning.plain_attention(), warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            tower = tuning.image_tower(deepcopy(loaded.model.visual)).to("cpu", torch.float32)
            return openvino.convert(tower, torch.zeros(2, 3, height, width), loaded.preprocessing), ""
    except Exception as error:  # tracing and conversion have no one error for a tower they can't take
        return None, f"it can't be exported: {first_line(error)}"


def _held(
    encoder: openclip.OpenClipEncoder,
    graph: Any,
    reason: str,
    stated: dict[str, Mapping[str, int]],
    card: dict[str, Any],
) -> Record:
    """Hold the runtimes against each other, in turns on the same batch."""
    if graph is None:
        return Record(card, stated, {}, "torch", reason, made_by=exports.made_by())
    from search.encoders import openvino

    tower = openvino.ImageTower(graph)
    images = sample(encoder.preprocessing, _BATCH)
    agreement = _agreement(encoder, tower, images)
    faster = speeds({"torch": encoder.encode_images, "openvino": tower}, images, least_s=_LEAST_S)
    runtime = "torch"
    if not agreement >= AGREEMENT:
        reason = f"their vectors agree to {agreement:.5f} only"
    elif faster["openvino"] >= _FASTER * faster["torch"]:
        runtime, reason = "openvino", "it is faster on this machine"
    else:
        reason = "the other runtime is no faster on this machine"
    return Record(card, stated, {}, runtime, reason, faster, agreement, exports.made_by())


def _agreement(encoder: Encoder, tower: ImageTower, images: Pixels) -> float:
    rows = tower(images)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return float((encoder.encode_images(images) * rows).sum(axis=1).min())


def speeds(
    towers: Mapping[str, Encode], images: Pixels, *, rounds: int = _ROUNDS, least_s: float = 0
) -> dict[str, float]:
    """Return images per second of each, run in turns on the same batch, so often and for so many seconds at least."""
    seconds: dict[str, list[float]] = {name: [] for name in towers}
    started, done = perf_counter(), 0
    while done < rounds or perf_counter() - started < least_s:
        done += 1
        for name, encode in towers.items():
            before = perf_counter()
            encode(images)
            seconds[name].append(perf_counter() - before)
    return {name: round(len(images) / median(times), 2) for name, times in seconds.items()}


@contextlib.contextmanager
def storage(cache: Path) -> Iterator[Path]:
    """Yield the folder of exports, made ready to be written to; what fails inside is a StorageError."""
    place = exports.folder(cache)
    if place is None:
        raise StorageError(f"{cache} can't be written to", hint="it is where exported models are kept")
    try:
        yield place
    except OSError as error:
        raise StorageError(
            f"{cache} can't be written to: {error}", hint="exported models are kept there"
        ) from None
