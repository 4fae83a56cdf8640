from __future__ import annotations

import sys

import numpy as np
import pytest
from PIL import Image

from search.encoders.preprocessing import Preprocessing
from search.errors import UsageError
from search.train import long_captions
from search.train.samples import Feeder, Pairs, crop

SMALL = Preprocessing(size=(8, 8))


@pytest.fixture
def noisy(tmp_path, make_photo):
    """Five pictures with two captions each, a file that is no picture, and one that is not there."""
    lines = ["image,caption"]
    for number in range(5):
        make_photo(tmp_path / f"{number}.png", number)
        lines += [f"{number}.png,a {number}", f"{number}.png,b {number}"]
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut off")
    lines += ["broken.jpg,never seen", "missing.jpg,nor this"]
    (tmp_path / "captions.csv").write_text("\n".join(lines))
    return str(tmp_path / "captions.csv")


def fed(source, recipe, first=0, **given):
    pairs, _ = Pairs.of(source).present()
    with Feeder(pairs, recipe(**{"batch_size": 3, "epochs": 2.0, "steps": 0, **given}), SMALL) as feeder:
        return list(feeder.batches(first))


def test_batches_depend_on_the_seed_and_the_step_alone(noisy, recipe):
    whole = fed(noisy, recipe)
    assert len(whole) == 4
    for others in (fed(noisy, recipe, workers=3, memory_mb=1), fed(noisy, recipe, first=1)):
        for batch, other in zip(whole[-len(others) :], others, strict=True):
            np.testing.assert_array_equal(batch.pixels, other.pixels)
            assert batch.captions == other.captions
    assert [batch.captions for batch in fed(noisy, recipe, seed=1)] != [batch.captions for batch in whole]


def test_an_epoch_sees_each_photo_once_and_another_its_other_crop(noisy, recipe):
    first, second = (fed(noisy, recipe, epochs=4.0)[place : place + 2] for place in (0, 2))
    seen = [sorted(caption[-1] for batch in epoch for caption in batch.captions) for epoch in (first, second)]
    assert seen == [list("01234")] * 2
    pixels = [
        {caption[-1]: one for batch in epoch for caption, one in zip(batch.captions, batch.pixels, strict=True)}
        for epoch in (first, second)
    ]
    assert any((pixels[0][name] != pixels[1][name]).any() for name in pixels[0])


def test_both_captions_of_a_photo_are_drawn_in_time(noisy, recipe):
    said = {caption for batch in fed(noisy, recipe, epochs=12.0) for caption in batch.captions}
    assert said == {f"{letter} {number}" for letter in "ab" for number in range(5)}


def test_what_cannot_be_read_is_left_out_with_its_reason(noisy, recipe):
    _, missing = Pairs.of(noisy).present()
    assert [(skip.path[-11:], skip.reason) for skip in missing] == [("missing.jpg", "unreadable")]
    batches = fed(noisy, recipe)
    skips = [skip for batch in batches for skip in batch.skipped]
    assert {(skip.path[-10:], skip.reason) for skip in skips} == {("broken.jpg", "decode_error")}
    assert sum(len(batch.captions) for batch in batches) == 10 == sum(len(batch.pixels) for batch in batches)


def test_a_mirrored_crop_is_the_crop_mirrored(noisy, recipe):
    for plain, mirrored in zip(fed(noisy, recipe), fed(noisy, recipe, flip=1.0), strict=True):
        np.testing.assert_array_equal(plain.pixels[:, :, ::-1], mirrored.pixels)


def test_a_grey_crop_is_the_crop_without_its_colours(noisy, recipe):
    for plain, grey in zip(fed(noisy, recipe), fed(noisy, recipe, grey=1.0), strict=True):
        luma = plain.pixels @ np.array([0.299, 0.587, 0.114])
        assert np.ptp(plain.pixels, axis=-1).any()
        np.testing.assert_allclose(grey.pixels, np.repeat(luma[..., None], 3, axis=-1), atol=1)


def test_some_photos_lose_their_colours(noisy, recipe):
    seen = [one for batch in fed(noisy, recipe, grey=0.5, epochs=6.0) for one in batch.pixels]
    grey = sum(not np.ptp(one, axis=-1).any() for one in seen)
    assert 0 < grey < len(seen)


def test_photos_are_trained_with_at_another_size_than_they_are_measured_at(noisy, recipe):
    pairs, _ = Pairs.of(noisy).present()
    with Feeder(pairs, recipe(train_size=24), SMALL) as feeder:
        assert next(iter(feeder.batches(0))).pixels.shape[1:] == (24, 24, 3)
        assert feeder.middles(pairs)[0].shape[1:] == (8, 8, 3)


def test_processes_share_a_batch_between_them(noisy, recipe):
    whole = fed(noisy, recipe)
    pairs, _ = Pairs.of(noisy).present()
    shares = []
    for rank in range(2):
        options = recipe(batch_size=3, epochs=2.0, steps=0)
        with Feeder(pairs, options, SMALL, rank=rank, ranks=2) as feeder:
            shares.append(list(feeder.batches(0)))
    for batch, left, right in zip(whole, *shares, strict=True):
        assert sorted(left.captions + right.captions) == sorted(batch.captions)


def test_crops_keep_the_least_area_and_stay_inside():
    random = np.random.default_rng(0)
    for _ in range(200):
        left, top, right, bottom = crop(random, (1.0, 2.0, 41.0, 62.0), low=0.5, ratio=4 / 3)
        assert 1 <= left < right <= 41
        assert 2 <= top < bottom <= 62
        assert (right - left) * (bottom - top) >= 0.5 * 40 * 60 - 1e-6
        assert (right - left) / (bottom - top) <= 4 / 3 + 1e-9


def test_a_crop_of_a_picture_too_long_for_any_is_its_middle():
    box = crop(np.random.default_rng(0), (0.0, 0.0, 1000.0, 10.0), low=0.9, ratio=4 / 3)
    assert box == pytest.approx((500 - 20 / 3, 0, 500 + 20 / 3, 10))


def test_a_crop_of_everything_is_the_picture_scaled(tmp_path, recipe, make_photo):
    make_photo(tmp_path / "a.png", 1, size=(12, 12))
    make_photo(tmp_path / "b.png", 2, size=(12, 12))
    (tmp_path / "c.tsv").write_text("a.png\ta\nb.png\tb")
    (batch,) = fed(str(tmp_path / "c.tsv"), recipe, batch_size=2, epochs=1.0, crop_low=1.0, crop_ratio=1.0)
    for pixels, name in zip(batch.pixels, batch.captions, strict=True):
        with Image.open(tmp_path / f"{name}.png") as image:
            expected = np.asarray(image.resize((8, 8), Image.Resampling.BICUBIC))
        np.testing.assert_array_equal(pixels, expected)


def test_the_held_out_part_is_the_same_each_time_and_apart(noisy):
    pairs = Pairs.of(noisy)
    kept, held = pairs.split(0.3, 10, seed=1)
    assert (len(kept.paths), len(held.paths)) == (5, 2)
    assert {*kept.paths, *held.paths} == {*pairs.paths}
    assert pairs.split(0.3, 10, seed=1) == (kept, held)
    assert len(pairs.split(0.9, 1, seed=1)[1].paths) == 1


def test_the_fingerprint_knows_names_sizes_and_captions(noisy, tmp_path):
    pairs, _ = Pairs.of(noisy).present()
    before = pairs.fingerprint()
    assert pairs.take(range(len(pairs.paths))).fingerprint() == before
    assert pairs.take([0, 1]).fingerprint() != before
    (tmp_path / "broken.jpg").write_bytes(b"longer than it was, by a little")
    assert pairs.fingerprint() != before


def test_a_parquet_table_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError, match=r"needs pyarrow; .*pip install 'search\[parquet\]'"):
        Pairs.of(str(tmp_path / "c.parquet"))


def test_a_parquet_table_reads_as_the_same_as_lines(tmp_path, noisy):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    lines = [line.split(",") for line in (tmp_path / "captions.csv").read_text().splitlines()[1:]]
    columns = {"id": [0] * len(lines), "Image": [one[0] for one in lines], "text": [one[1] for one in lines]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "c.parquet")
    assert Pairs.of(str(tmp_path / "c.parquet")) == Pairs.of(noisy)


def test_captions_of_parquet_may_be_lists_and_empty_ones_are_told(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns = {"caption": [["one", None, " two "], [], ["three"]], "file": ["a.jpg", "b.jpg", "a.jpg"]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "c.parquet")
    pairs = Pairs.of(str(tmp_path / "c.parquet"))
    assert (pairs.paths, pairs.captions) == ((str(tmp_path / "a.jpg"),), (("one", "two", "three"),))
    _, skipped = pairs.present()
    assert [(skip.path[-5:], skip.reason, skip.detail) for skip in skipped[:1]] == [
        ("b.jpg", "empty", "no caption in row 2")
    ]


@pytest.mark.parametrize("read", [Pairs.of, long_captions.read])
@pytest.mark.parametrize(
    ("image", "caption", "message"),
    [
        (
            {"bytes": b"...", "path": "a.jpg"},
            "x",
            "no path of a file; write pictures that lie in the table as files",
        ),
        (b"a.jpg", "x", "is binary, no path of a file"),
        ("a\0.jpg", "x", "NUL"),
        (None, "x", "row 1 of .* names no photo"),
        ("a.jpg", 3, "neither a text nor a list"),
        ("a.jpg", [[3]], "neither a text nor a list"),
    ],
)
def test_a_parquet_table_of_other_things_is_refused(tmp_path, read, image, caption, message):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = pyarrow.table({"image": [image], "caption": [caption], "short": ["y"]})
    parquet.write_table(table, tmp_path / "c.parquet")
    with pytest.raises(UsageError, match=message):
        read(str(tmp_path / "c.parquet"))
