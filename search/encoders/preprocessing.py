"""An RGB image → the pixels a model takes, with Pillow alone.

Pixel for pixel what open_clip's inference transform gives before it turns to tensors, so that weights meet
the images they were trained for. Mean and deviation travel along; the encoder applies them to whole batches.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

import numpy as np
from PIL import Image

from search.errors import DimensionError, ModelError

if TYPE_CHECKING:
    from search.types import Pixels

T = TypeVar("T")

Interpolation = Literal["bicubic", "bilinear"]
ResizeMode = Literal["shortest", "longest", "squash"]
Size = tuple[int, int]
Box = tuple[float, float, float, float]

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)
_RESAMPLING = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
_MODES = ("shortest", "longest", "squash")
_STRIP = 2**25  # pixels (128 MB); a longer strip is never scaled whole, only the middle the crop keeps

# A picture may be halved before it is scaled to a model's input while both sides keep this, and twice the input: then
# no vector's cosine with that of the whole picture was below 0.9999 (bench/scaling.py).
_MIN_SIDE = 448


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

    @property
    def min_side(self) -> int:
        """Pixels that both sides of a picture must keep if it is scaled down before this."""
        return max(2 * max(self.size), _MIN_SIDE)

    def __call__(self, image: Image.Image, *, whole: Size | None = None, frame: Box | None = None) -> Pixels:
        """Return the image as (H, W, 3) uint8.

        image: RGB, upright.   whole: (height, width) of the picture that the image was scaled down from, which tell
        what is kept of it: a row more or less moves everything in the small result.   frame: where that picture lies
        in the image, (left, top, right, bottom) in its pixels and fractions of them.
        """
        scaled = self._scaled_size(*(whole or (image.height, image.width)))
        fill = self.fill_color if self.resize_mode == "longest" else 0
        frame = frame or (0, 0, image.width, image.height)
        fitted = _centre(_resize(image, frame, scaled, self._resampling(), self.size), self.size, fill)
        return np.asarray(fitted if fitted.mode == "RGB" else fitted.convert("RGB"))

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
        given = {key: value for key, value in config.items() if value}  # open_clip's defaults stand for 0 too
        if size is not None:
            given["size"] = size
        _take(given, "mode", "RGB", _mode)
        return cls(
            size=_take(given, "size", 224, _pair),
            mean=_take(given, "mean", OPENAI_MEAN, _triple),
            std=_take(given, "std", OPENAI_STD, _deviation),
            interpolation=_take(given, "interpolation", "bicubic", _interpolation),
            resize_mode=_take(given, "resize_mode", "shortest", _resize_mode),
            fill_color=_take(given, "fill_color", 0, _level),
        )


def require_batch(images: Pixels, preprocessing: Preprocessing, name: str) -> None:
    """Raise DimensionError unless images are (N, H, W, 3) uint8 of the size that the model `name` takes."""
    height, width = preprocessing.size
    if images.ndim != 4 or images.shape[1:] != (height, width, 3) or images.dtype != np.uint8:
        raise DimensionError(
            f"{name} takes (N, {height}, {width}, 3) uint8, not {images.shape} {images.dtype}",
            hint="`preprocess` makes them",
        )


def _resize(
    image: Image.Image, frame: Box, scaled: Size, resampling: Image.Resampling, target: Size
) -> Image.Image:
    """Scale what the frame holds; of what a crop to `target` will not keep, as little as the result permits.

    Pillow scales rows first, but not in tall pictures: those are scaled whole, as the order shows in the rounding. It
    keeps boxes in float32, which puts one pixel in thousands a grey level off.
    """
    if scaled == (image.height, image.width):
        return image
    (top, height), (left, width) = _middle(scaled[0], target[0]), _middle(scaled[1], target[1])
    y, x = (frame[3] - frame[1]) / scaled[0], (frame[2] - frame[0]) / scaled[1]
    across = (frame[0] + left * x, min(frame[0] + (left + width) * x, image.width))
    down = (frame[1] + top * y, min(frame[1] + (top + height) * y, image.height))
    if scaled[0] * scaled[1] > _STRIP:
        return image.resize((width, height), resampling, box=(across[0], down[0], across[1], down[1]))
    if (height, width) == scaled or image.height > 2 * image.width:
        return image.resize((scaled[1], scaled[0]), resampling, box=frame)
    image, above = _rows(image, down, 2 * max(y, 1))
    rows = image.resize((width, image.height), resampling, box=(across[0], 0, across[1], image.height))
    return rows.resize((width, height), resampling, box=(0, down[0] - above, width, down[1] - above))


def _rows(image: Image.Image, span: tuple[float, float], support: float) -> tuple[Image.Image, int]:
    """Return the rows that scaling a span of the image looks at, and how many are above them."""
    first, end = max(0, math.floor(span[0] - support) - 1), min(image.height, math.ceil(span[1] + support) + 1)
    if (first, end) == (0, image.height):
        return image, 0
    return image.crop((0, first, image.width, end)), first


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


# values of a configuration, each made ours or a ValueError


def _take(config: Mapping[str, Any], key: str, default: Any, convert: Callable[[Any], T]) -> T:
    value = config.get(key, default)
    try:
        return convert(value)
    except (ValueError, OverflowError):
        raise ModelError(f"the model's preprocessing is not one of open_clip's: {key} {value!r}") from None


def _mode(value: Any) -> None:
    _require(value == "RGB")


def _interpolation(value: Any) -> Interpolation:
    _require(value in ("bicubic", "bilinear", "random"))
    return "bilinear" if value == "bilinear" else "bicubic"  # open_clip draws one only while training


def _resize_mode(value: Any) -> ResizeMode:
    _require(value in _MODES)
    return cast(ResizeMode, value)


def _level(value: Any) -> int:
    _require(isinstance(value, int) and 0 <= value <= 255)
    return int(value)


def _pair(size: Any) -> Size:
    sides = [size, size] if isinstance(size, int) else size
    _require(isinstance(sides, list | tuple) and all(isinstance(side, int) and side > 0 for side in sides))
    height, width = sides
    return height, width


def _triple(values: Any) -> tuple[float, float, float]:
    numbers = [values] * 3 if isinstance(values, int | float) else values
    _require(isinstance(numbers, list | tuple))
    _require(all(isinstance(number, int | float) and math.isfinite(number) for number in numbers))
    red, green, blue = numbers
    return float(red), float(green), float(blue)


def _deviation(values: Any) -> tuple[float, float, float]:
    std = _triple(values)
    _require(min(std) > 0)
    return std


def _require(true: bool) -> None:
    if not true:
        raise ValueError
