from __future__ import annotations

import itertools

import numpy as np
import pytest
from PIL import Image

from search.encoders.blueprints import open_clip
from search.encoders.preprocessing import Preprocessing
from search.errors import ModelError

MODES = ("shortest", "longest", "squash")
TARGETS = ((32, 32), (33, 33), (24, 40), (41, 23))
SOURCES = ((100, 60), (60, 101), (32, 32), (33, 31), (24, 40), (5, 7), (1, 1), (400, 30), (29, 333), (40, 24))


def picture(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(width * 1000 + height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def open_clip_pixels(image: Image.Image, preprocessing: Preprocessing) -> np.ndarray:
    config = open_clip.transform.PreprocessCfg(**preprocessing.to_dict())
    steps = open_clip.transform.image_transform_v2(config, is_train=False).transforms[
        :-2
    ]  # less ToTensor and Normalize
    for step in steps:
        image = step(image)
    return np.asarray(image)


@pytest.mark.parametrize(
    ("mode", "interpolation", "target"), list(itertools.product(MODES, ("bicubic", "bilinear"), TARGETS))
)
def test_pixels_are_open_clips(mode: str, interpolation: str, target: tuple[int, int]) -> None:
    preprocessing = Preprocessing(target, interpolation=interpolation, resize_mode=mode, fill_color=7)
    for width, height in SOURCES:
        image = picture(width, height)
        pixels = preprocessing(image)
        assert pixels.shape == (*target, 3)
        assert pixels.dtype == np.uint8
        expected = open_clip_pixels(image, preprocessing).astype(int)
        # atol=1: Pillow's boxes are float32, which matters where a sum is all but half a grey level
        np.testing.assert_allclose(pixels, expected, atol=1, err_msg=f"{width}x{height}")
        assert (pixels != expected).mean() < 0.05
        if mode != "shortest":  # nothing is cropped
            np.testing.assert_array_equal(pixels, expected)


def test_a_picture_scaled_down_before_keeps_the_whole_ones_geometry() -> None:
    preprocessing = Preprocessing((96, 96))
    smooth = picture(46, 35).resize((1836, 1377), Image.Resampling.BICUBIC)
    whole, half = preprocessing(smooth).astype(int), smooth.reduce(2)
    told = preprocessing(half, whole=(1377, 1836), frame=(0, 0, 918, 688.5)).astype(int)
    untold = preprocessing(half).astype(int)  # 127 columns, of which 96 are kept, instead of 128
    assert np.abs(told - whole).max() <= 1
    assert np.abs(untold - whole).max() > 5


@pytest.mark.parametrize(("size", "least"), [((96, 96), 448), ((224, 224), 448), ((256, 300), 600)])
def test_scaling_before_leaves_twice_the_input_and_448_pixels(size: tuple[int, int], least: int) -> None:
    assert Preprocessing(size).min_side == least


@pytest.mark.parametrize("transpose", [False, True])
def test_of_an_endless_strip_only_the_middle_is_scaled(transpose: bool) -> None:
    preprocessing = Preprocessing((64, 64))
    image = Image.fromarray(np.linspace(0, 255, 10_000).astype(np.uint8)[None]).convert("RGB")
    if transpose:
        image = image.transpose(Image.Transpose.TRANSPOSE)
    expected = open_clip_pixels(image, preprocessing).astype(int)  # 64 x 640,000 pixels on the way
    # atol=1: Pillow's boxes are float32
    np.testing.assert_allclose(preprocessing(image).astype(int), expected, atol=1)


def test_a_hair_thin_image_fits_where_open_clip_fails() -> None:
    pixels = Preprocessing((32, 32), resize_mode="longest", fill_color=9)(Image.new("RGB", (1000, 1), (200, 0, 0)))
    assert (pixels[:, :, 1] == 0).any(axis=1).sum() == 1
    assert (pixels == 9).all(axis=(1, 2)).sum() == 31


def test_it_comes_back_from_its_dict() -> None:
    preprocessing = Preprocessing((24, 40), (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "bilinear", "longest", 3)
    assert Preprocessing.from_dict(preprocessing.to_dict()) == preprocessing


def test_absent_keys_take_open_clips_defaults() -> None:
    preprocessing = Preprocessing.from_dict({"mean": 0.5, "interpolation": "random", "size": [8, 8]}, size=96)
    assert preprocessing == Preprocessing((96, 96), mean=(0.5, 0.5, 0.5))


@pytest.mark.parametrize(
    ("config", "fault"),
    [
        ({"resize_mode": "fit"}, "resize_mode 'fit'"),
        ({"resize_mode": ["squash"]}, r"resize_mode \['squash'\]"),
        ({"mode": "L"}, "mode 'L'"),
        ({"interpolation": "nearest"}, "interpolation 'nearest'"),
        ({"interpolation": ["bicubic"]}, r"interpolation \['bicubic'\]"),
        ({"mean": [1, 2]}, r"mean \[1, 2\]"),
        ({"mean": "123"}, "mean '123'"),
        ({"mean": {"1": 1, "2": 2, "3": 3}}, "mean {"),
        ({"mean": [0.5, float("nan"), 0.5]}, r"mean \[0\.5, nan, 0\.5\]"),
        ({"mean": [10**400, 0, 0]}, "mean"),
        ({"std": [0.5, 0, 0.5]}, r"std \[0\.5, 0, 0\.5\]"),
        ({"std": -1}, "std -1"),
        ({"size": 0.5}, "size 0.5"),
        ({"size": "96"}, "size '96'"),
        ({"size": [96]}, r"size \[96\]"),
        ({"size": ["9", "6"]}, r"size \['9', '6'\]"),
        ({"size": [96, -1]}, r"size \[96, -1\]"),
        ({"fill_color": "7"}, "fill_color '7'"),
        ({"fill_color": 256}, "fill_color 256"),
    ],
)
def test_what_open_clip_does_not_know_is_refused_by_name(config: dict[str, object], fault: str) -> None:
    with pytest.raises(ModelError, match=f"preprocessing.*{fault}"):
        Preprocessing.from_dict(config)
