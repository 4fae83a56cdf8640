"""Pictures that are no photographs, with what may be said of them.

Plain colours, patterns, noise, pages of text, and what microscopes and telescopes might see: photographs of objects
teach a model nothing of those, and it takes each of them for some object.
"""

from __future__ import annotations

import string
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

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
_EACH = 60

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


def _blurred(pixels: np.ndarray, radius: float) -> np.ndarray:
    """Blur grey levels (SIDE, SIDE) and keep them in 0…255."""
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(radius))
    return np.asarray(image, np.float32)


def _ground(random: np.random.Generator, level: float, grain: float) -> np.ndarray:
    """Return (SIDE, SIDE) float32 around a grey level, uneven over about `grain` pixels."""
    uneven = _blurred(128 + 50 * random.standard_normal((SIDE, SIDE)), grain) - 128
    return level + uneven * (8 / max(float(uneven.std()), 1e-3))


def _toned(random: np.random.Generator, levels: np.ndarray) -> Image.Image:
    """Return grey levels as a picture, grey or in the tint of some dye."""
    tint = np.ones(3) if random.random() < 0.6 else random.uniform(0.5, 1, 3)
    return Image.fromarray((levels.clip(0, 255)[..., None] * tint).astype(np.uint8))


def _discs(random: np.random.Generator, count: int, radii: tuple[float, float]) -> Iterator[np.ndarray]:
    """Yield the distance (SIDE, SIDE) from the middle of a disc, in its radii."""
    down, across = np.indices((SIDE, SIDE))
    for _ in range(count):
        y, x = random.uniform(0, SIDE, 2)
        yield np.hypot(down - y, across - x) / random.uniform(*radii)


def cells(random: np.random.Generator) -> Image.Image:
    """Draw round bodies with an edge, lighter or darker than what they swim in."""
    levels = _ground(random, random.uniform(40, 220), 6)
    step = random.uniform(30, 110) * (1 if levels.mean() < 128 else -1)
    few = random.random() < 0.5
    for distance in _discs(random, int(random.integers(1, 4 if few else 30)), (14, 34) if few else (5, 12)):
        levels += step * (distance < 1) - 0.6 * step * ((distance >= 1) & (distance < 1.25))
    return _toned(random, _blurred(levels, random.uniform(0.5, 2.5)))


def tissue(random: np.random.Generator) -> Image.Image:
    """Draw a plane parted into regions, each with a nucleus, in two dyes."""
    middles = random.uniform(0, SIDE, (int(random.integers(15, 90)), 2))
    places = np.stack(np.indices((SIDE, SIDE)), axis=-1)[:, :, None]
    distances = np.sort(np.linalg.norm(places - middles, axis=-1), axis=-1)
    is_wall, is_nucleus = distances[..., 1] - distances[..., 0] < 2.5, distances[..., 0] < random.uniform(2, 5)
    pale, wall, nucleus = (
        random.uniform((205, 170, 185), 250),
        random.uniform(60, 190, 3),
        random.uniform(30, 150, 3),
    )
    picture = np.where(is_nucleus[..., None], nucleus, np.where(is_wall[..., None], wall, pale))
    noisy = picture + 9 * random.standard_normal(picture.shape)
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(1))


def vessels(random: np.random.Generator) -> Image.Image:
    """Draw lines that wind and branch, on an even ground."""
    image = Image.fromarray(_ground(random, random.uniform(90, 200), 12).clip(0, 255).astype(np.uint8))
    drawing, ink = ImageDraw.Draw(image), int(random.integers(20, 90))
    growing = [(*random.uniform(0, SIDE, 2), random.uniform(0, 2 * np.pi), random.uniform(2, 5)) for _ in range(3)]
    for x, y, angle, width in growing:
        for _ in range(30):
            angle += random.normal(0, 0.25)
            begin, x, y = (x, y), x + 4 * np.cos(angle), y + 4 * np.sin(angle)
            drawing.line((*begin, x, y), fill=ink, width=max(1, round(width)))
            if width > 1.2 and random.random() < 0.08:
                growing.append((x, y, angle + random.choice((-0.7, 0.7)), width * 0.7))
    return _toned(random, _blurred(np.asarray(image, np.float32), random.uniform(0.5, 2)))


def stars(random: np.random.Generator) -> Image.Image:
    """Draw points and smears of light on black."""
    levels = np.full((SIDE, SIDE), random.uniform(0, 25))
    for distance in _discs(random, int(random.integers(30, 250)), (0.4, 2.0)):
        levels += random.uniform(60, 255) * np.exp(-(distance**2))
    return _toned(random, levels)


def craters(random: np.random.Generator) -> Image.Image:
    """Draw grey ground with bowls, lit from one side."""
    levels, down = _ground(random, random.uniform(80, 170), random.uniform(2, 8)), np.indices((SIDE, SIDE))[0]
    for distance in _discs(random, int(random.integers(5, 40)), (2, 16)):
        inside = distance < 1
        shade = down - down[inside].mean() if inside.any() else down
        levels += inside * np.clip(6 * shade, -60, 60)
    return (
        Image.fromarray(_blurred(levels, 1).astype(np.uint8)).rotate(float(90 * random.integers(4))).convert("RGB")
    )


_OF_A_COLOUR = ("{}", "a plain {} picture.", "solid {}", "a {} background", "the colour {}")
_OF_A_PAGE = ("text", "a page of text", "printed text", "a photo of a page of a book.", "a scanned document")
_PATTERNS = (
    (stripes, ("stripes", "a striped pattern", "diagonal stripes")),
    (squares, ("a checkerboard", "a checkered pattern", "squares")),
    (dots, ("dots", "a dotted pattern", "polka dots")),
    (gradient, ("a colour gradient", "a smooth gradient", "a blurred background")),
    (noise, ("noise", "random noise", "television static")),
    (cells, ("a cell under a microscope", "cells", "a microscope picture", "round cells in a dish", "bacteria")),
    (
        tissue,
        ("tissue under a microscope", "stained tissue", "a histology slide", "a microscope picture of tissue"),
    ),
    (vessels, ("blood vessels", "veins", "a scan of blood vessels in the eye", "branching lines")),
    (stars, ("stars", "stars in the night sky", "galaxies seen by a telescope", "a picture of deep space")),
    (craters, ("craters", "the surface of the moon", "the moon", "the ground of a planet seen from above")),
)
