from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from search.errors import StorageError
from search.evaluate.datasets import Dataset
from search.evaluate.pictures import Pictures
from search.types import SkipReason


@pytest.fixture
def photos(album) -> list[str]:
    return [str(path) for path in sorted(album.rglob("*.png"))]


def test_a_second_run_encodes_nothing(open_pictures, photos, counting, builtin):
    with open_pictures() as pictures:
        first = pictures.image_vectors(photos)
    assert counting.images == 12
    images = np.stack([builtin.preprocess(Image.open(path).convert("RGB")) for path in photos])
    cosines = (first.vectors * builtin.encode_images(images)).sum(axis=1)
    assert cosines == pytest.approx(np.ones(12), abs=1e-3)  # kept in float16
    with open_pictures() as pictures:
        again = pictures.image_vectors(photos[::-1])
    assert counting.images == 12
    assert first.rows.tolist() == again.rows.tolist() == list(range(12))
    assert np.array_equal(first.vectors, again.vectors[::-1])
    assert np.linalg.norm(first.vectors, axis=1) == pytest.approx(np.ones(12), abs=1e-6)


def test_only_what_is_new_or_changed_is_encoded(open_pictures, photos, counting, make_photo):
    with open_pictures() as pictures:
        before = pictures.image_vectors(photos)
        make_photo(Path(photos[4]), 99, size=(80, 60))
        after = pictures.image_vectors(photos)
    assert counting.images == 13
    changed = ~np.isclose(before.vectors, after.vectors).all(axis=1)
    assert np.flatnonzero(changed).tolist() == [4]


def test_what_cannot_be_read_is_told_with_its_reason(open_pictures, photos, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    paths = [photos[0], str(tmp_path / "none.jpg"), photos[1], str(tmp_path / "broken.jpg")]
    for _ in range(2):  # the second time it is known
        with open_pictures() as pictures:
            found = pictures.image_vectors(paths)
        assert found.rows.tolist() == [0, 2]
        assert {Path(skip.path).name: skip.reason for skip in found.skipped} == {
            "none.jpg": SkipReason.UNREADABLE,
            "broken.jpg": SkipReason.DECODE_ERROR,
        }


def test_no_photo_at_all_gives_vectors_of_the_models_width(open_pictures, tmp_path):
    with open_pictures() as pictures:
        found = pictures.image_vectors([str(tmp_path / "none.jpg")])
    assert found.vectors.shape == (0, 256)


def test_links_below_the_root_are_found_again(open_pictures, album, tmp_path, counting):
    farm = tmp_path / "farm"
    for day in ("day0", "day1"):
        (farm / day).mkdir(parents=True)
        for photo in (album / day).iterdir():
            (farm / day / photo.name).symlink_to(photo)
    dataset = Dataset.of(farm)
    for _ in range(2):
        with open_pictures() as pictures:
            assert len(pictures.image_vectors(dataset.paths, root=dataset.root).rows) == 8
    assert counting.images == 8


def test_nothing_is_kept_where_there_is_no_place(open_pictures, photos, tmp_path):
    with open_pictures(place=None) as pictures:
        pictures.image_vectors(photos[:2])
        assert pictures.folder.exists()
    assert not pictures.folder.exists()
    assert not (tmp_path / "kept").exists()


def test_a_place_that_is_no_folder_is_told(open_pictures, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="can't keep vectors in"):
        open_pictures(place=tmp_path / "file" / "kept")


def test_each_model_has_a_place_of_its_own(open_pictures, tiny_model):
    with open_pictures() as one, open_pictures(model=tiny_model) as other:
        assert one.folder != other.folder
        assert one.folder.parent == other.folder.parent


def test_replaced_weights_begin_anew(open_pictures, photos, tiny_model, tiny_model_again):
    with open_pictures(model=tiny_model) as pictures:
        before = pictures.image_vectors(photos[:3]).vectors
        assert pictures.text().encode_texts(["a"]).shape == (1, 32)
    tiny_model_again()
    with open_pictures(model=tiny_model) as pictures:
        after = pictures.image_vectors(photos[:3]).vectors
    assert not np.isclose(before, after).any(axis=1).all()
    assert [path.name for path in (pictures.folder.parent).iterdir()] == [pictures.folder.name]


@pytest.mark.parametrize("damage", [b"no database" * 1000, b""])
def test_damaged_vectors_are_made_anew(open_pictures, photos, counting, damage):
    with open_pictures() as pictures:
        before = pictures.image_vectors(photos[:2]).vectors
        catalog = pictures.folder / "catalog.db"
    catalog.write_bytes(damage)
    with open_pictures() as pictures:
        after = pictures.image_vectors(photos[:2]).vectors
    assert counting.images == 4
    assert np.array_equal(before, after)


def test_offline_the_builtin_model_stands_in_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("search.encoders.hub.cached_file", lambda repo, filename: None)
    told: list[str] = []
    with Pictures(place=tmp_path / "kept", offline=True, notify=told.append) as pictures:
        assert pictures.model == "builtin"
    assert len(told) == 1
    assert "can't be fetched now" in told[0]


SECOND_RUN = """
import sys
from pathlib import Path
from search.evaluate.pictures import Pictures
with Pictures("builtin", place=Path(sys.argv[1]), offline=True) as pictures:
    assert pictures.image_vectors(sys.argv[2:]).vectors.shape == (12, 256)
    assert pictures.text().encode_texts(["a cat"]).shape == (1, 256)
    assert pictures.text().count_tokens(["a cat"] * 1500) == [4] * 1500  # as of many captions
print(sorted({"torch", "open_clip", "PIL", "sqlalchemy", "matplotlib"} & sys.modules.keys()))
"""


def test_a_second_run_loads_neither_torch_nor_what_reads_photos(open_pictures, photos, tmp_path):
    with open_pictures() as pictures:
        pictures.image_vectors(photos)
    command = [sys.executable, "-c", SECOND_RUN, str(tmp_path / "kept"), *photos]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
