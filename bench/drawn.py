"""Pictures that are no photographs, with what may be said of them: plain colours, patterns, noise and pages of text."""

from __future__ import annotations

import string
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

SIDE = 128
COLOURS = {
    "red": (205, 25, 25),
    "orange": (245, 140, 20),
    "yellow": (250, 225, 40),
    "green": (35, 150, 50),
    "blue": (25, 60, 200),
    "purple": (125, 40, 150),
    "pink": (245, 150, 185),
    "brown": (110, 70, 35),
    "white": (248, 248, 248),
    "grey": (128, 128, 128),
    "black": (8, 8, 8),
}
_JITTER = 14
_EACH = 40

Drawn = tuple[Image.Image, Sequence[str]]


def drawings(seed: int = 0) -> Iterator[Drawn]:
    """Yield pictures of SIDE pixels with their phrases, the same for a seed."""
    random = np.random.default_rng(seed)
    for _ in range(_EACH):
        for name, colour in COLOURS.items():
            plain = Image.new("RGB", (SIDE, SIDE), near(random, colour))
            yield plain, [form.format(name) for form in _OF_A_COLOUR]
        for draw, said in _PATTERNS:
            yield draw(random), said
        yield from (page(random) for _ in range(3))


def near(random: np.random.Generator, colour: Sequence[int]) -> tuple[int, int, int]:
    red, green, blue = np.clip(np.add(colour, random.integers(-_JITTER, _JITTER + 1, 3)), 0, 255).tolist()
    return red, green, blue


def two_colours(random: np.random.Generator) -> np.ndarray:
    """Return (2, 3) uint8, two different colours."""
    names = random.choice(list(COLOURS), 2, replace=False)
    return np.array([near(random, COLOURS[name]) for name in names], np.uint8)


def _patterned(random: np.random.Generator, of_first: np.ndarray) -> Image.Image:
    """Colour a mask (SIDE, SIDE) in two colours."""
    return Image.fromarray(two_colours(random)[of_first.astype(int)])


def stripes(random: np.random.Generator) -> Image.Image:
    down, across = np.indices((SIDE, SIDE))
    angle, width = random.uniform(0, np.pi), random.uniform(4, 24)
    return _patterned(random, (across * np.cos(angle) + down * np.sin(angle)) // width % 2 == 0)


def squares(random: np.random.Generator) -> Image.Image:
    down, across = np.indices((SIDE, SIDE)) // int(random.integers(6, 32))
    return _patterned(random, (across + down) % 2 == 0)


def dots(random: np.random.Generator) -> Image.Image:
    step = int(random.integers(12, 40))
    down, across = np.indices((SIDE, SIDE)) % step - step / 2
    return _patterned(random, np.hypot(down, across) < step * random.uniform(0.2, 0.4))


def gradient(random: np.random.Generator) -> Image.Image:
    down, across = np.indices((SIDE, SIDE)) / SIDE
    angle = random.uniform(0, 2 * np.pi)
    share = np.clip(0.5 + (across - 0.5) * np.cos(angle) + (down - 0.5) * np.sin(angle), 0, 1)[..., None]
    first, second = two_colours(random).astype(float)
    return Image.fromarray((first * share + second * (1 - share)).astype(np.uint8))


def noise(random: np.random.Generator) -> Image.Image:
    layers = 3 if random.random() < 0.5 else 1
    side = SIDE // int(random.integers(1, 5))
    pixels = np.broadcast_to(random.integers(0, 256, (side, side, layers), np.uint8), (side, side, 3))
    return Image.fromarray(np.ascontiguousarray(pixels)).resize((SIDE, SIDE), Image.Resampling.NEAREST)


def page(random: np.random.Generator) -> Drawn:
    """Draw lines of letters, dark on light and sometimes the other way."""
    dark, light = int(random.integers(0, 70)), int(random.integers(185, 256))
    ink, paper = (light, dark) if random.random() < 0.2 else (dark, light)
    image = Image.new("L", (SIDE, SIDE), paper)
    drawing, height = ImageDraw.Draw(image), int(random.integers(6, 22))
    letters = list(string.ascii_lowercase + "     .,")
    for top in range(int(random.integers(0, height)), SIDE, round(height * 1.4)):
        line = "".join(random.choice(letters, 60))
        drawing.text((int(random.integers(2, 12)), top), line, fill=ink, font=ImageFont.load_default(height))
    tilted = image.rotate(random.uniform(-4, 4), fillcolor=paper, resample=Image.Resampling.BICUBIC)
    return tilted.convert("RGB"), _OF_A_PAGE


_OF_A_COLOUR = ("{}", "a plain {} picture.", "solid {}", "a {} background", "the colour {}")
_OF_A_PAGE = ("text", "a page of text", "printed text", "a photo of a page of a book.", "a scanned document")
_PATTERNS = (
    (stripes, ("stripes", "a striped pattern", "diagonal stripes")),
    (squares, ("a checkerboard", "a checkered pattern", "squares")),
    (dots, ("dots", "a dotted pattern", "polka dots")),
    (gradient, ("a colour gradient", "a smooth gradient", "a blurred background")),
    (noise, ("noise", "random noise", "television static")),
)
