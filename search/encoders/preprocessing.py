"""An RGB image → the pixels a model takes, with Pillow alone.

Pixel for pixel what open_clip's inference transform gives before it turns to tensors, so that weights meet
the images they were trained for. Mean and deviation travel along; the encoder applies them to whole batches.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
from PIL import Image

from search.errors import ModelError

if TYPE_CHECKING:
    from search.types import Pixels

Interpolation = Literal["bicubic", "bilinear"]
ResizeMode = Literal["shortest", "longest", "squash"]
Size = tuple[int, int]

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)
_RESAMPLING = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
_MODES = ("shortest", "longest", "squash")
_STRIP = 2**25  # pixels (128 MB); a longer strip is never scaled whole, only the middle the crop keeps


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How an image is brought to a model's input size, and the statistics the model was trained with.

    size: (height, width) in pixels.   mean, std: per channel, of values in [0, 1].
    resize_mode: "shortest" fills the target and crops the rest, "longest" fits into it and pads with
    `fill_color`, "squash" gives up the aspect ratio.
    """

    size: Size
    mean: tuple[float, float, float] = OPENAI_MEAN
    std: tuple[float, float, float] = OPENAI_STD
    interpolation: Interpolation = "bicubic"
    resize_mode: ResizeMode = "shortest"
    fill_color: int = 0

    def __call__(self, image: Image.Image) -> Pixels:
        """Return the image as (H, W, 3) uint8.   image: RGB, upright."""
        scaled = self._scaled_size(image.height, image.width)
        fill = self.fill_color if self.resize_mode == "longest" else 0
        fitted = _centre(_resize(image, scaled, self._resampling(), self.size), self.size, fill)
        return np.array(fitted.convert("RGB"), dtype=np.uint8)

    def _scaled_size(self, height: int, width: int) -> Size:
        """Return the (height, width) to scale to; rounding as torchvision and open_clip round."""
        target_h, target_w = self.size
        if self.resize_mode == "squash":
            return self.size
        if self.resize_mode == "shortest" and target_h == target_w:
            long = int(target_h * max(height, width) / min(height, width))
            return (long, target_h) if width <= height else (target_h, long)
        pick = max if self.resize_mode == "longest" else min
        ratio = pick(height / target_h, width / target_w)
        return max(1, round(height / ratio)), max(1, round(width / ratio))  # a hair-thin image keeps one pixel

    def _resampling(self) -> Image.Resampling:
        """Return Pillow's filter; open_clip fills a non-square target bicubically, whatever is asked for."""
        if self.resize_mode == "shortest" and self.size[0] != self.size[1]:
            return Image.Resampling.BICUBIC
        return _RESAMPLING[self.interpolation]

    def to_dict(self) -> dict[str, Any]:
        """Return it under open_clip's preprocess_cfg keys, ready for JSON."""
        return {
            "size": list(self.size),
            "mode": "RGB",
            "mean": list(self.mean),
            "std": list(self.std),
            "interpolation": self.interpolation,
            "resize_mode": self.resize_mode,
            "fill_color": self.fill_color,
        }

    @classmethod
    def from_dict(cls, config: Mapping[str, Any], *, size: int | Size | None = None) -> Preprocessing:
        """Read open_clip's preprocess_cfg; absent keys take open_clip's defaults.

        size: of the image tower, which overrules the configuration's as it does in open_clip.
        Raises ModelError for values that open_clip has no meaning for.
        """
        interpolation = config.get("interpolation") or "bicubic"
        if interpolation == "random":  # open_clip draws only while training
            interpolation = "bicubic"
        resize_mode = config.get("resize_mode") or "shortest"
        if interpolation not in _RESAMPLING or resize_mode not in _MODES or config.get("mode", "RGB") != "RGB":
            raise ModelError(f"the model's preprocessing is not one of open_clip's: {dict(config)}")
        try:
            return cls(
                size=_pair(size if size is not None else config.get("size") or 224),
                mean=_triple(config.get("mean") or OPENAI_MEAN),
                std=_triple(config.get("std") or OPENAI_STD),
                interpolation=cast(Interpolation, interpolation),
                resize_mode=cast(ResizeMode, resize_mode),
                fill_color=int(config.get("fill_color") or 0),
            )
        except (TypeError, ValueError) as error:
            raise ModelError(f"the model's preprocessing can't be read: {error}") from None


def _resize(image: Image.Image, scaled: Size, resampling: Image.Resampling, target: Size) -> Image.Image:
    """Scale the image; of a strip that would grow without bound, only its middle.

    Pillow keeps boxes in float32, so the middle alone may be a grey level off: it is for strips only.
    """
    if scaled == (image.height, image.width):
        return image
    if scaled[0] * scaled[1] <= _STRIP:
        return image.resize((scaled[1], scaled[0]), resampling)
    top, height = _middle(scaled[0], target[0])
    left, width = _middle(scaled[1], target[1])
    y, x = image.height / scaled[0], image.width / scaled[1]
    box = (left * x, top * y, (left + width) * x, (top + height) * y)
    return image.resize((width, height), resampling, box=box)


def _middle(length: int, target: int) -> tuple[int, int]:
    """Return start and length of what a crop to `target` keeps."""
    return (round((length - target) / 2.0), target) if length > target else (0, length)


def _centre(image: Image.Image, target: Size, fill: int) -> Image.Image:
    """Crop or pad to (height, width) around the middle; an odd pixel of padding goes right and below."""
    height, width = target
    if (image.height, image.width) == target:
        return image
    pad_h, pad_w = max(0, height - image.height), max(0, width - image.width)
    if pad_h or pad_w:
        padded = Image.new("RGB", (image.width + pad_w, image.height + pad_h), (fill, fill, fill))
        padded.paste(image, (pad_w // 2, pad_h // 2))
        image = padded
    top, left = round((image.height - height) / 2.0), round((image.width - width) / 2.0)
    return image.crop((left, top, left + width, top + height))


def _pair(size: Any) -> Size:
    height, width = (size, size) if isinstance(size, int) else size
    if int(height) < 1 or int(width) < 1:
        raise ValueError(f"size {size}")
    return int(height), int(width)


def _triple(values: Any) -> tuple[float, float, float]:
    red, green, blue = (values,) * 3 if isinstance(values, int | float) else values
    return float(red), float(green), float(blue)
