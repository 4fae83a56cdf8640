"""open_clip models as encoders: the torch room."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import normalize

from search.encoders import blueprints, tuning
from search.encoders.blueprints import open_clip
from search.encoders.hub import Fetcher, first_line
from search.encoders.preprocessing import Preprocessing, require_batch
from search.errors import ModelError

if TYPE_CHECKING:
    from PIL import Image

    from search.types import Pixels, Vectors

_TEXT_BATCH = 256  # texts that pass through a model at a time
_BATCH_SIZES = {"cpu": 32, "cuda": 256, "mps": 64}
_MOST = 256  # images that pass through a model at a time, whoever asks for more


class OpenClipEncoder:
    """An `Encoder` around a loaded open_clip model (a torch module) and its tokenizer.

    dim: width of the model's vectors.   weights: the file they come from, config: open_clip's model_cfg; None for a
    model made in memory.   tensors: a safetensors file with the model's tensors, if there is one.   stated: size and
    time of what it was loaded from, by path.   precision: of weights and arithmetic, as `tuning.choose_precision`
    takes it; vectors are float32 whatever it is.
    """

    runtime = "torch"

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        name: str,
        fingerprint: str,
        dim: int,
        preprocessing: Preprocessing,
        device: str = "cpu",
        precision: str | None = None,
        weights: Path | None = None,
        tensors: Path | None = None,
        stated: Mapping[str, Mapping[str, int]] | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        self.name = name
        self.fingerprint = fingerprint
        self.dim = dim
        self.preprocessing = preprocessing
        self.weights = weights
        self.tensors = tensors
        self.stated = stated or {}
        self.config = config
        self._device = torch.device(device)
        self._dtype = tuning.choose_precision(self._device, precision)
        self.precision = str(self._dtype).removeprefix("torch.")
        self.batch_size = _BATCH_SIZES.get(self._device.type, 32)
        self.context_length = int(tokenizer.context_length)
        self.english_only = isinstance(tokenizer, open_clip.SimpleTokenizer)
        self.parameters = sum(parameter.numel() for parameter in model.parameters())
        self.logit_scale: float = model.logit_scale.float().exp().item()  # while it is exact
        bias = getattr(model, "logit_bias", None)
        self.logit_bias: float | None = None if bias is None else bias.item()
        self._model = tuning.tuned(model, device=self._device, precision=self._dtype)
        self._causal_text = tuning.causal_text_tower(self._model)
        self._tokenizer = tokenizer
        mean, std = (self._per_channel(values) for values in (preprocessing.mean, preprocessing.std))
        self._scale, self._shift = 1 / (255 * std), -mean / std

    def preprocess(self, image: Image.Image) -> Pixels:
        """Return an RGB image as (H, W, 3) uint8 of the model's input size."""
        return self.preprocessing(image)

    def encode_images(self, images: Pixels) -> Vectors:
        """Return (N, dim) float32 unit rows for images (N, H, W, 3) uint8; N = 0 gives (0, dim).

        Raises DimensionError if the images are not of the model's input size.
        """
        require_batch(images, self.preprocessing, self.name)
        rows = np.empty((len(images), self.dim), dtype=np.float32)
        with torch.inference_mode():
            for start in range(0, len(images), _MOST):
                rows[start : start + _MOST] = self._rows(self._image_features(images[start : start + _MOST]))
        return rows

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """Return (N, dim) float32 unit rows, one for each text, in order; N = 0 gives (0, dim)."""
        rows = np.empty((len(texts), self.dim), dtype=np.float32)
        if not texts:
            return rows
        tokens = self._tokenizer(list(texts))  # (N, context_length)
        with torch.inference_mode():
            for places, batch in self._text_batches(tokens):
                encode = self._causal_text or self._model.encode_text
                rows[places] = self._rows(encode(batch.to(self._device)))
        return rows

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return how many tokens each text needs, start and end included, were there room for all."""
        return [self._count(text) for text in texts]

    @property
    def tokenizer(self) -> Any:
        """What open_clip cuts texts with."""
        return self._tokenizer

    def _text_batches(self, tokens: torch.Tensor) -> list[tuple[npt.NDArray[np.intp], torch.Tensor]]:
        """Return places and tokens of batches.

        Of a causal tower, texts of like length together and cut behind the last end: 80,000 short prompts take 11
        tokens each that way instead of 77.
        """
        if self._causal_text is None:
            lengths = np.full(len(tokens), tokens.shape[1])
        else:
            lengths = tokens.argmax(dim=-1).numpy() + 1  # end-of-text has the highest number
        order = np.argsort(lengths, kind="stable")
        groups = [order[start : start + _TEXT_BATCH] for start in range(0, len(order), _TEXT_BATCH)]
        return [(places, tokens[torch.from_numpy(places)][:, : lengths[places].max()]) for places in groups]

    def _rows(self, features: torch.Tensor) -> Vectors:
        rows: Vectors = normalize(features.float(), dim=-1).cpu().numpy()
        return rows

    def _image_features(self, images: Pixels) -> torch.Tensor:
        pixels = torch.from_numpy(np.require(images, requirements=["C", "W"]))
        if self._device.type == "cuda":
            pixels = pixels.pin_memory()
        pixels = pixels.to(self._device, non_blocking=True)
        batch = pixels.permute(0, 3, 1, 2).to(torch.float32)  # -> (N, 3, H, W), channels last in memory
        batch = batch.mul_(self._scale).add_(self._shift).to(self._dtype)
        features: torch.Tensor = self._model.encode_image(batch)
        return features

    def _count(self, text: str) -> int:
        if isinstance(self._tokenizer, open_clip.SimpleTokenizer):
            return len(self._tokenizer.encode(text)) + 2  # start and end
        clips = getattr(self._tokenizer, "tokenizer_mode", "") == "clips"  # adds start, end and class itself
        tokens = self._tokenizer.tokenizer(
            self._tokenizer.clean_fn(text), add_special_tokens=not clips, truncation=False, verbose=False
        )
        return len(tokens.input_ids) + (3 if clips else 0)

    def _per_channel(self, values: Sequence[float]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float32, device=self._device).reshape(3, 1, 1)


def load(
    source: str, identifier: str, *, fetcher: Fetcher, device: str | None = None, precision: str | None = None
) -> OpenClipEncoder:
    """Open a model of one of the sources that `search.encoders.parse_name` tells apart.

    Raises as `search.encoders.load_encoder`.
    """
    device = usable_device(device)
    tuning.choose_precision(torch.device(device), precision)  # a wrong name is told before anything is fetched
    return encoder_of(blueprints.load(source, identifier, fetcher=fetcher), device=device, precision=precision)


def encoder_of(loaded: blueprints.Loaded, *, device: str = "cpu", precision: str | None = None) -> OpenClipEncoder:
    """Make an encoder of a loaded model, which then belongs to it."""
    return OpenClipEncoder(
        loaded.model,
        loaded.tokenizer,
        name=loaded.name,
        fingerprint=loaded.fingerprint,
        dim=loaded.config["embed_dim"],
        preprocessing=loaded.preprocessing,
        device=device,
        precision=precision,
        weights=loaded.weights,
        tensors=loaded.tensors,
        stated=loaded.stated,
        config=loaded.config,
    )


def usable_device(device: str | None) -> str:
    """Return the device to use; None picks the best there is.   Raises ModelError."""
    if device is None:
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:  # torch asserts that it was compiled with CUDA
        raise ModelError(f"device {device!r} can't be used: {first_line(error)}") from None
    return device
