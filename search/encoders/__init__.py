"""Pixels and words → unit vectors.

    load_encoder(name)      opens a model; the only door to torch
    resolve_auto()          the recommended model, or the built-in one with a warning
    Encoder                 what the rest of the package knows of a model

A model's name says where it comes from:

    builtin                 the small model that ships with this package
    ARCH/PRETRAINED         open_clip's architecture and tag, or a weights file in place of the tag
    hf-hub:ORG/NAME         a repository on the Hugging Face hub, in open_clip's layout
    dir:PATH                a folder in open_clip's layout
    clip:FILE.pt            OpenAI's layout: a TorchScript archive or a state dict
    longclip:FILE.pt        Long-CLIP's layout

and +int8 behind it, that its image half runs in int8, as `search models export --int8` made it: a model of its own.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from search.errors import ModelError, ModelUnavailable

if TYPE_CHECKING:
    from PIL import Image

    from search.encoders.preprocessing import Preprocessing
    from search.types import Pixels, Vectors

__all__ = [
    "FORMS",
    "INSTEAD",
    "INT8",
    "RECOMMENDED",
    "Encoder",
    "canonical_name",
    "load_encoder",
    "parse_name",
    "resolve_auto",
]

RECOMMENDED = "ViT-B-32-256/datacomp_s34b_b86k"
FORMS = ("builtin", "ARCH/PRETRAINED", "hf-hub:ORG/NAME", "dir:PATH", "clip:FILE.pt", "longclip:FILE.pt")
INSTEAD = (
    f"the recommended model {RECOMMENDED} is not on this machine and can't be fetched now, so the small built-in model "
    f"answers; for much better results connect once and run `search models download {RECOMMENDED}`"
)
"""What is said where the built-in model answers because the recommended one can't be had."""
INT8 = "+int8"  # behind a model's name
_FILE_SOURCES = ("dir", "clip", "longclip")


class TextTower(Protocol):
    """The half of an encoder that a text query needs."""

    @property
    def context_length(self) -> int:
        """Tokens a text may have, start and end included; the rest is cut off."""

    @property
    def english_only(self) -> bool:
        """Whether it cuts texts with CLIP's own tokenizer, which was made for English."""

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """Return (N, dim) float32 unit rows, one for each text, in order."""

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return how many tokens each text needs, start and end included.

        More than `context_length` means that the encoder cuts the text.
        """


class Encoder(TextTower, Protocol):
    """Turns image batches and texts into float32 unit rows of width `dim`, and says who it is.

    Between threads an image is (H, W, 3) uint8: a quarter of the bytes of (3, H, W) float32, and mean and
    standard deviation are applied once for a whole batch, on the device.
    """

    @property
    def name(self) -> str:
        """The name it was asked for by, made canonical: paths absolute, tags as open_clip writes them."""

    @property
    def fingerprint(self) -> str:
        """Hex SHA-256 of the weights, the architecture and the preprocessing.

        Equal means equal vectors, up to the rounding of the runtime and its precision: cosine at least 0.999.
        """

    @property
    def dim(self) -> int:
        """Width of the vectors."""

    @property
    def logit_scale(self) -> float:
        """Inverse temperature, exponentiated: logits = logit_scale · cosine + (logit_bias or 0)."""

    @property
    def logit_bias(self) -> float | None:
        """What sigmoid-trained models (SigLIP) add to the logits; None for softmax-trained ones."""

    @property
    def preprocessing(self) -> Preprocessing:
        """How an image becomes pixels of the input size, and the mean and deviation to apply."""

    @property
    def batch_size(self) -> int:
        """How many images it encodes at a time with the least work for each."""

    def preprocess(self, image: Image.Image) -> Pixels:
        """Return an RGB image as (H, W, 3) uint8 of the model's input size."""

    def encode_images(self, images: Pixels) -> Vectors:
        """Return (N, dim) float32 unit rows for images (N, H, W, 3) uint8; N = 0 gives (0, dim)."""


def load_encoder(
    name: str,
    *,
    device: str | None = None,
    offline: bool = False,
    on_download: Callable[[str], None] | None = None,
    trust_checkpoint: str | None = None,
    cache: Path | None = None,
    runtime: str | None = None,
    precision: str | None = None,
    photos: int = 0,
    on_export: Callable[[str], None] | None = None,
) -> Encoder:
    """Open a model by name; see the module's docstring for the forms a name has.

    device: as torch names it; None picks CUDA, then Apple's MPS, then the CPU.   offline: open no socket.
    on_download: called with the name just before something is fetched.
    trust_checkpoint: the hex SHA-256 that the weights file must have.   cache: a folder for what is converted to
    safetensors; None means the user's own.   runtime: "torch" or "openvino"; None takes what was measured to be
    faster.   photos: how many it is going to encode; before many, where OpenVINO is installed and a model of some
    size was never exported, it is exported, once.
    precision: "float32", "bfloat16" or "float16"; None takes the processor's fastest. It changes vectors by its
    rounding only (cosine at least 0.999), and never the fingerprint.   on_export: called with the name just before
    a model is exported.
    Raises ModelError for a name that means nothing, ModelUnavailable where the model would have to be fetched
    and can't be, CheckpointError where its weights can't be trusted to be what was meant or
    what the architecture expects.
    """
    parse_name(name)
    from search.encoders import runtimes
    from search.encoders.hub import Fetcher

    fetcher = Fetcher(
        name, offline=offline, on_download=on_download, trust_checkpoint=trust_checkpoint, cache=cache
    )
    return runtimes.open_encoder(
        name,
        fetcher=fetcher,
        device=device,
        runtime=runtime,
        precision=precision,
        photos=photos,
        on_export=on_export,
    )


def resolve_auto(
    *,
    offline: bool = False,
    on_download: Callable[[str], None] | None = None,
    device: str | None = None,
    trust_checkpoint: str | None = None,
) -> tuple[Encoder, str | None]:
    """Open the recommended model if it is here or can be fetched, else the built-in one and say so.

    Returns the encoder, and one sentence of warning or None.
    trust_checkpoint: as in `load_encoder`, for whichever model answers.
    Raises CheckpointError if the recommended model is here but damaged: that is for the user to know.
    """
    try:
        encoder = load_encoder(
            RECOMMENDED,
            device=device,
            offline=offline,
            on_download=on_download,
            trust_checkpoint=trust_checkpoint,
        )
        return encoder, None
    except ModelUnavailable:
        return load_encoder("builtin", device=device, trust_checkpoint=trust_checkpoint), INSTEAD


def parse_name(name: str) -> tuple[str, str]:
    """Split a model's name into its source and what it identifies there.

    Returns ("builtin", ""), ("open_clip", "ARCH/PRETRAINED"), ("hf-hub", "ORG/NAME"), or one of "dir",
    "clip", "longclip" with an absolute path; +int8 changes nothing about where a model is.
    Raises ModelError, naming the forms and the nearest name.
    """
    name = name.removesuffix(INT8)
    if name == "builtin":
        return "builtin", ""
    prefix, _, rest = name.partition(":")
    if prefix in _FILE_SOURCES and rest:
        return prefix, str(Path(rest).expanduser().absolute())
    if prefix == "hf-hub" and rest.count("/") == 1 and all(rest.split("/")):
        return prefix, rest
    arch, _, pretrained = name.partition("/")
    if arch and pretrained and ":" not in arch:
        return "open_clip", name
    raise unknown_name(name)


def canonical_name(name: str) -> str:
    """Return the name that an encoder opened by `name` has: paths absolute, tags as open_clip writes them.

    Raises ModelError for a name of no known form.
    """
    if name.endswith(INT8):
        return canonical_name(name.removesuffix(INT8)) + INT8
    source, identifier = parse_name(name)
    if source == "builtin":
        return name
    if source != "open_clip":
        return f"{source}:{identifier}"
    arch, _, pretrained = identifier.partition("/")
    file = Path(pretrained).expanduser().absolute()
    return f"{arch}/{file if file.is_file() else pretrained.lower().replace('-', '_')}"


def unknown_name(name: str, known: Sequence[str] = ()) -> ModelError:
    """Return the error for a name that means nothing; known: further names it may have been meant as."""
    from search.encoders.hub import known_models

    names = [*known, *(model.name for model in known_models())]
    near = [other for other in names if other.startswith(name)][:3] or difflib.get_close_matches(name, names)
    nearest = f"did you mean {' or '.join(near)}? " if near else ""
    hint = f"{nearest}a name is {', '.join(FORMS[:-1])} or {FORMS[-1]}; `search models list` shows what there is"
    return ModelError(f"{name!r} is no model's name", hint=hint)
