"""What is the same picture, and what only looks like it."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter
from scenes import BICUBIC, coded, cropped, invoice, scaled, scene, stood

from search.duplicates import turns, unpack
from search.photos.likeness import FINE_PX, TURNS, VIEW_PX, View, agree, compare, likeness
from search.types import HASH_BYTES

WAYS = Image.Transpose


def view(image: Image.Image, side_px: int = VIEW_PX) -> View:
    return View(np.asarray(image.resize((side_px, side_px), BICUBIC)), min(image.size))


def held(one: Image.Image, other: Image.Image):
    """Compare as a library does: in the ways their hashes say."""
    first, second = unpack([likeness(one).hash]), unpack([likeness(other).hash])
    same = compare(view(one), view(other), turns(first[0], second[0]) or (0,))
    return same if same and agree(view(one, FINE_PX), view(other, FINE_PX), same) else None


SAME = {
    "jpeg 30": lambda image: coded(image, "JPEG", quality=30),
    "jpeg 95": lambda image: coded(image, "JPEG", quality=95),
    "webp": lambda image: coded(image, "WEBP", quality=60),
    "quarter": lambda image: coded(scaled(image, 0.25), "JPEG", quality=80),
    "twice": lambda image: scaled(image, 2),
    "cropped 2": lambda image: cropped(image, 0.02),
    "cropped 5": lambda image: coded(cropped(image, 0.05), "JPEG", quality=80),
    "cropped 10": lambda image: cropped(image, 0.10),
    **{way.name: lambda image, way=way: coded(image.transpose(way), "JPEG", quality=80) for way in WAYS},
}


@pytest.mark.parametrize("change", SAME)
def test_a_changed_copy_is_the_same_picture(change):
    found = [held(SAME[change](image), image) for image in map(scene, range(4))]
    assert sum(same is not None for same in found) >= 3, [same and same.difference for same in found]


OTHER = {
    "another scene": lambda image: scene(99),
    "standpoint": lambda image: stood(image, 0.03),
    "brighter": lambda image: ImageEnhance.Brightness(stood(image, 0)).enhance(1.3),
    "something moved": lambda image: moved(stood(image, 0)),
    "grey": lambda image: stood(image, 0).convert("L").convert("RGB"),
}


def moved(image: Image.Image) -> Image.Image:
    other = image.copy()
    other.paste(image.crop((80, 60, 150, 120)), (95, 65))
    return other


@pytest.mark.parametrize("change", OTHER)
def test_another_shot_is_another_picture(change):
    for seed in range(4):
        image = scene(seed)
        assert held(OTHER[change](image), stood(image, 0)) is None


@pytest.mark.parametrize("turn", range(8))
def test_the_turn_is_told(turn):
    image = scene(5)
    way = TURNS[turn]
    turned = image if way is None else image.transpose(way)
    found = compare(view(image), view(turned), tuple(range(8)))
    assert found is not None and found.turn == turn


def test_a_hash_is_of_a_fixed_length_and_has_every_turn():
    image = scene(6)
    own = likeness(image).hash
    assert len(own) == HASH_BYTES == 8 * len(TURNS)
    turned = unpack([likeness(image if way is None else image.transpose(way)).hash for way in TURNS])
    bits = np.bitwise_count(turned[:, 0] ^ unpack([own])[0]).sum(axis=1)
    assert max(bits) <= 2  # scaling rows before columns rounds otherwise


def test_how_it_was_changed_is_said_in_words():
    image = scene(7)
    assert compare(view(cropped(image, 0.1)), view(image)).in_words == "cropped to 81 %"
    assert compare(view(image.transpose(WAYS.ROTATE_180)), view(image), (2,)).in_words == "rotated by 180°"
    assert compare(view(image), view(image)).in_words == ""


def test_pictures_of_nothing_are_no_duplicates():
    black, dark = Image.new("RGB", (320, 240)), Image.new("RGB", (320, 240), (3, 3, 3))
    assert compare(view(black), view(dark)) is None


def test_a_blurred_shot_is_less_sharp():
    image = scene(8)
    assert likeness(image.filter(ImageFilter.GaussianBlur(2))).sharpness < likeness(image).sharpness / 2


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (3000, 2)])
def test_a_picture_of_any_shape_has_a_likeness(size):
    assert len(likeness(Image.new("RGB", size, (90, 10, 200))).hash) == HASH_BYTES


PAGES = {"black": {}, "grey": {"ink": 150}, "scanned": {"grain": 6}}


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("change", ["jpeg 30", "webp", "quarter", "cropped 5", "ROTATE_90", "ROTATE_180"])
def test_a_changed_copy_of_a_page_is_the_same_picture(page, change):
    image = invoice(20413, **PAGES[page])
    assert held(SAME[change](image), image) is not None


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("change", ["as it is", "jpeg 30", "half", "cropped 5", "ROTATE_90"])
def test_a_page_with_another_number_is_another_picture(page, change):
    first, second = invoice(20413, **PAGES[page]), invoice(20478, **PAGES[page])
    changes = {**SAME, "as it is": lambda image: image, "half": lambda image: scaled(image, 0.5)}
    assert compare(view(first), view(second)) is not None, "they are the same at first sight"
    assert held(changes[change](second), first) is None
