"""Pictures with detail at every scale, made on the spot, and what may happen to them."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageDraw, ImageFont

BICUBIC = Image.Resampling.BICUBIC


def scene(seed: int, size: tuple[int, int] = (320, 240)) -> Image.Image:
    """A picture that depends on `seed` alone: colours laid over one another, coarse to fine."""
    random = np.random.default_rng(seed)
    total = np.zeros((size[1], size[0], 3), np.float32)
    for cells, weight in ((3, 1.0), (7, 0.7), (16, 0.5), (40, 0.35), (90, 0.2)):
        noise = random.integers(0, 256, (cells, cells, 3), np.uint8)
        total += weight * np.asarray(Image.fromarray(noise).resize(size, BICUBIC), np.float32)
    low, high = total.min(), total.max()
    return Image.fromarray(((total - low) / (high - low) * 255).astype(np.uint8))


def coded(image: Image.Image, format: str, **options: int) -> Image.Image:
    """A picture as it is after it was written and read."""
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return Image.open(buffer).convert("RGB")


def scaled(image: Image.Image, factor: float) -> Image.Image:
    return image.resize((round(image.width * factor), round(image.height * factor)), BICUBIC)


def cropped(image: Image.Image, part: float) -> Image.Image:
    """Less a part of its width and height, more of it at the right and the bottom."""
    width, height = image.size
    left, top = 0.3 * part * width, 0.4 * part * height
    return image.crop(
        (round(left), round(top), round(left + (1 - part) * width), round(top + (1 - part) * height))
    )


def stood(image: Image.Image, shift: float) -> Image.Image:
    """The middle of a picture from another standpoint: each shot shows what the other does not."""
    width, height = image.size
    left, top = (0.05 + shift) * width, (0.05 + shift) * height
    return image.crop((round(left), round(top), round(left + 0.9 * width), round(top + 0.9 * height)))


def burst_exif(second: int, camera: str = "Model") -> Image.Exif:
    """EXIF of a shot of a burst."""
    exif = Image.Exif()
    exif[0x010F], exif[0x0110] = "Maker", camera
    exif.get_ifd(0x8769)[0x9003] = f"2020:05:01 12:00:{second:02}"
    return exif


def invoice(number: int, *, ink: int = 0, grain: float = 0, size: tuple[int, int] = (827, 1170)) -> Image.Image:
    """A page of text at 100 dpi in which only a number and a total differ; with some grain as if scanned."""
    page = Image.new("RGB", size, "white")
    draw, letters = ImageDraw.Draw(page), ImageFont.load_default(17)
    words = ["delivery", "of", "goods", "as", "ordered,", "payable", "without", "deduction"]
    for line in range(24):
        text = " ".join(words[(line * 5 + step * 3) % len(words)] for step in range(6))
        draw.text((80, 200 + 35 * line), text, font=letters, fill=(ink,) * 3)
        draw.text((650, 200 + 35 * line), f"{37 * line + 11}.{line + 10}", font=letters, fill=(ink,) * 3)
    draw.text((80, 100), f"Invoice {number}", font=letters, fill=(ink,) * 3)
    draw.text((650, 1080), f"{number % 1000}.00", font=letters, fill=(ink,) * 3)
    noise = np.random.default_rng(number).normal(0, grain, (size[1], size[0], 1))
    return Image.fromarray(np.clip(np.asarray(page) + noise, 0, 255).astype(np.uint8))
