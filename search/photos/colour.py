"""Whatever samples a file holds → 8-bit sRGB, as a viewer on a white page would show it."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageCms, TiffImagePlugin

if TYPE_CHECKING:
    import numpy.typing as npt


def to_rgb(image: Image.Image, *, min_side: int | None = None) -> Image.Image:
    """Return what a viewer on a white page would show, as 8-bit sRGB.

    min_side: pixels; lets the picture be scaled down by a whole number while both sides keep this many.
    """
    profile = image.info.get("icc_profile")
    flat = _reduced(_over_white(_to_8_bit(image)), min_side)
    converted = _to_srgb(flat, profile) if profile else None
    if converted is not None:
        return converted
    return flat if flat.mode == "RGB" else flat.convert("RGB")


def _reduced(image: Image.Image, min_side: int | None) -> Image.Image:
    factor = min(image.size) // min_side if min_side else 1
    return image.reduce(factor) if factor > 1 and image.mode != "1" else image


def _to_8_bit(image: Image.Image) -> Image.Image:
    """Scale 16-bit, integer and float samples down; Pillow's own conversion clips them to white."""
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> (_bits(image) - 8)).astype(np.uint8))
    if image.mode == "I":
        return Image.fromarray(_integers_to_8_bit(np.asarray(image)))
    if image.mode == "F":
        return Image.fromarray(_floats_to_8_bit(np.asarray(image)))
    return image


def _bits(image: Image.Image) -> int:
    """Return the significant bits of a 16-bit image's samples: TIFF has 12-bit ones too."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return 16
    bits: int = image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (16,))[0]
    return min(max(bits, 8), 16)


def _integers_to_8_bit(values: npt.NDArray[np.int32]) -> npt.NDArray[np.uint8]:
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 0xFFFF:
        return _stretch(values.astype(np.float32))
    return (values if high <= 0xFF else values >> 8).astype(np.uint8)


def _floats_to_8_bit(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > 255:
        return _stretch(values)
    scale = 255 if high <= 1 else 1
    return (values * np.float32(scale) + np.float32(0.5)).astype(np.uint8)


def _stretch(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Map the smallest value to black and the largest to white; one value alone is black."""
    halves = values * np.float32(0.5)  # the full span of float32 would overflow it
    low, span = halves.min(), halves.max() - halves.min()
    if span == 0:
        return np.zeros(values.shape, np.uint8)
    stretched: npt.NDArray[np.float32] = (halves - low) / span * np.float32(255)
    return (stretched + np.float32(0.5)).astype(np.uint8)


def _over_white(image: Image.Image) -> Image.Image:
    """Return the image without palette and transparency.

    What a picture hides under full transparency must not be found by searching for it.
    """
    if not image.has_transparency_data:
        return image.convert("RGB") if image.mode == "P" else image
    rgba = image.convert("RGBA")
    page = Image.new("RGB", image.size, "white")
    page.paste(rgba, mask=rgba.getchannel("A"))
    return page.convert("L") if image.mode in ("LA", "La") else page  # a grey profile needs grey pixels


_PROFILE_MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK", "Lab": "LAB"}


def _to_srgb(image: Image.Image, profile: bytes) -> Image.Image | None:
    """Return the image in sRGB according to its ICC profile; None where that is of no use.

    Of no use: sRGB already, broken, or made for another kind of pixels. A grey image may bear an RGB profile.
    """
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "sRGB" in (source.profile.profile_description or ""):
            return None
        mode = _PROFILE_MODES[source.profile.xcolor_space.strip()]
        if mode == "RGB" and image.mode in ("1", "L", "YCbCr", "RGBX"):
            image = image.convert("RGB")
        if image.mode != mode:
            return None
        target = ImageCms.createProfile("sRGB")
        return ImageCms.profileToProfile(image, source, target, outputMode="RGB")
    except Exception:  # a profile that can't be read is ignored: the picture is still there
        return None
