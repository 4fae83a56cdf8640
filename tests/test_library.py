from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from search import Filter, LabelOptions, Library
from search.errors import EncoderMismatch, LibraryBusy, LibraryError, LibraryNotFound, UsageError
from search.query import parse


def names(hits) -> list[str]:
    return [Path(hit.photo.path).stem for hit in hits]


@pytest.fixture
def pictures(library, photographs):
    """A library of real photographs."""
    library.index(list(photographs.values()))
    return library


def test_a_text_finds_its_photograph_first(pictures):
    assert names(pictures.search("a cat", k=1)) == ["chelsea"]
    assert names(pictures.search("a rocket", k=1)) == ["rocket"]
    assert names(pictures.search("a temple", k=1)) == ["china"]
    assert names(pictures.search("a brick wall", k=1)) == ["brick"]


def test_scores_are_cosines_with_the_query(pictures, builtin, photographs):
    [hit] = pictures.search("a rocket", k=1)
    from search.photos.decode import load

    image = builtin.preprocess(load(str(photographs["rocket"])).image)
    cosine = builtin.encode_images(image[None])[0] @ builtin.encode_texts(["a rocket"])[0]
    assert hit.score == pytest.approx(float(cosine), abs=1e-3)  # the catalog keeps float16


def test_stored_vectors_are_open_clips_own(library, photographs):
    import open_clip
    import torch

    from search.resources import data_path

    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{data_path('builtin')}")
    folder = photographs["cat"].parent
    plain = [
        folder / "coffee.png",
        folder / "retina.jpg",
        folder / "brick.png",
    ]  # most others bear colour profiles
    library.index(plain)
    for path in plain:
        with Image.open(path) as image, torch.inference_mode():
            assert "icc_profile" not in image.info
            theirs = model.eval().encode_image(transform(image.convert("RGB"))[None], normalize=True)[0].numpy()
        _, ours = library.catalog.embeddings(library.catalog.encoder(), [library.photo(path).id])
        assert ours[0] @ theirs / np.linalg.norm(ours[0]) >= 0.999  # bfloat16 in the model, float16 in the catalog


def test_an_image_finds_itself_and_its_like_finds_others(pictures, photographs, tmp_path):
    cat, stranger = photographs["cat"], tmp_path / "stranger.png"
    stranger.write_bytes(cat.read_bytes())
    [hit] = pictures.search(parse([], like=[str(stranger)]), k=1)
    assert (hit.photo.path, hit.score) == (str(cat.resolve()), pytest.approx(1, abs=1e-3))
    assert "chelsea" not in names(pictures.similar(cat, 10).hits)
    assert len(pictures.similar(pictures.photo(cat).id, 10).hits) == 3


def test_neither_likeness_nor_a_folder_around_all_roots_lists_the_library(library, album, monkeypatch):
    library.index([album])
    [photo] = library.catalog.get([5])
    expected = [hit.photo.id for hit in library.search("a wall", k=12)]

    def refuse(*_):
        raise AssertionError("every photo was listed")

    monkeypatch.setattr("search.catalog.reading._present", refuse)
    like = library.similar(photo.path, 20)
    assert sorted(hit.photo.id for hit in like.hits) == [id_ for id_ in range(1, 13) if id_ != 5]
    assert (len(library.similar(5, 3).hits), like.candidates) == (3, 11)
    for folder in (album, album.parent):
        here = library.search("a wall", k=12, filter=Filter(folder=str(folder)))
        assert [hit.photo.id for hit in here] == expected
    with pytest.raises(AssertionError, match="listed"):
        library.search("a wall", filter=Filter(folder=str(album / "day0")))


def test_what_is_left_out_counts_only_where_it_would_have_been_searched(library, album):
    library.index([album])
    inside, outside = (
        library.catalog.ids_at([str(path)])[0]
        for path in (album / "day0" / "photo00.png", album / "day1" / "photo01.png")
    )
    day = Filter(folder=str(album / "day0"))
    assert library.similar(inside, filter=day).candidates == 3
    assert library.similar(outside, filter=day).candidates == 4
    assert [len(library.similar(id_, k=4, filter=day).hits) for id_ in (inside, outside)] == [3, 4]


def test_a_term_that_pushes_away_lowers_its_photo(pictures):
    plain = {hit.photo.path: hit.score for hit in pictures.search("a photo", k=9)}
    pushed = {hit.photo.path: hit.score for hit in pictures.search(parse(["a photo"], avoid=["a cat"]), k=9)}
    cat = next(path for path in plain if path.endswith("chelsea.png"))
    assert pushed[cat] < plain[cat]
    assert names(pictures.search(parse(["a photo"], avoid=["a cat"]), k=9))[-1] == "chelsea"


def test_a_new_session_answers_as_the_old_one(pictures, open_library):
    with open_library() as again:
        before, after = pictures.answer("a cat"), again.answer("a cat")
    assert names(before.hits) == names(after.hits)
    assert [h.score for h in before.hits] == [h.score for h in after.hits]


def test_photos_of_another_session_are_found_at_once(library, open_library, album, tmp_path, make_photo):
    library.index([album])
    assert len(library.search("anything", k=50)) == 12
    with open_library() as other:
        make_photo(album / "late.png", seed=900)
        (album / "day0" / "photo00.png").unlink()
        other.index([album])
    found = names(library.search("anything", k=50))
    assert "late" in found
    assert "photo00" not in found
    assert len(found) == 12


def test_removed_photos_are_forgotten_by_every_session(library, open_library, album):
    library.index([album])
    library.search("anything")
    with open_library() as other:
        assert other.remove([album / "day1"]) == 4
    assert len(library.search("anything", k=50)) == 8
    assert (album / "day1" / "photo01.png").is_file()
    with pytest.raises(UsageError):
        library.photo(album / "day1" / "photo01.png")
    assert library.index([album]).added == 4


def test_removing_the_root_leaves_an_empty_library(library, album):
    library.index([album])
    assert library.remove([album]) == 12
    assert library.status().roots == ()
    assert library.search("anything") == []


def test_removing_what_was_never_indexed_is_an_error(library, album, tmp_path):
    library.index([album])
    with pytest.raises(UsageError, match="no indexed folder"):
        library.remove([tmp_path / "other"])


def dated(path: Path, when: str, camera: str, latitude: float | None = None) -> None:
    image = Image.fromarray(np.random.default_rng(len(path.name)).integers(0, 255, (32, 32, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0110] = camera
    exif.get_ifd(0x8769)[0x9003] = when
    if latitude is not None:
        gps = exif.get_ifd(0x8825)
        gps.update({1: "N", 2: (latitude, 0.0, 0.0), 3: "E", 4: (11.0, 0.0, 0.0)})
    path.parent.mkdir(exist_ok=True)
    image.save(path, exif=exif)


@pytest.fixture
def travels(library, tmp_path):
    folder = tmp_path / "travels"
    dated(folder / "a.jpg", "2022:12:31 23:59:59", "Canon EOS", 48.0)
    dated(folder / "bb.jpg", "2023:01:01 00:00:00", "Pixel 7", 48.1)
    dated(folder / "sub_x" / "ccc.jpg", "2023:06:01 12:00:00", "Pixel 100%", 60.0)
    library.index([folder])
    return library


def found(library, **conditions) -> set[str]:
    answer = library.answer("anything", 50, filter=Filter(**conditions))
    assert answer.candidates == len(answer.hits)
    return set(names(answer.hits))


def test_dates_are_compared_from_and_up_to(travels):
    new_year = datetime(2023, 1, 1)  # noqa: DTZ001 (wall-clock)
    assert found(travels, after=new_year) == {"bb", "ccc"}
    assert found(travels, before=new_year) == {"a"}


def test_a_camera_is_found_by_part_of_its_name_taken_literally(travels):
    assert found(travels, camera="pixel") == {"bb", "ccc"}
    assert found(travels, camera="100%") == {"ccc"}
    assert found(travels, camera="%") == {"ccc"}
    assert found(travels, camera="_") == set()


def test_a_folder_means_what_is_below_it(travels, tmp_path):
    folder = tmp_path / "travels"
    assert found(travels, folder=str(folder)) == {"a", "bb", "ccc"}
    assert found(travels, folder=str(folder / "sub_x")) == {"ccc"}
    assert found(travels, folder=str(folder / "sub")) == set()
    assert found(travels, folder=str(tmp_path)) == {"a", "bb", "ccc"}
    assert found(travels, folder="/nowhere") == set()


def test_near_is_a_distance_on_the_globe(travels):
    # One degree of latitude is 111.2 km.
    assert found(travels, near=(48.0, 11.0, 11.0)) == {"a"}
    assert found(travels, near=(48.0, 11.0, 11.2)) == {"a", "bb"}
    assert found(travels, near=(48.0, 11.0, 1400.0)) == {"a", "bb", "ccc"}


def test_conditions_are_joined_by_and(travels):
    assert found(travels, camera="pixel", near=(48.0, 11.0, 50.0)) == {"bb"}


def test_labels_filter(travels, tmp_path):
    travels.label(["night"], paths=[tmp_path / "travels" / "a.jpg"], apply=True)
    assert found(travels, labels=("night",)) == {"a"}
    assert found(travels, labels=("day",)) == set()


def test_filter_matching_nothing_returns_no_hits(travels):
    answer = travels.answer("anything", filter=Filter(camera="Leica"))
    assert (answer.hits, answer.candidates) == ((), 0)


def test_min_relevance_cuts_off(pictures):
    every = pictures.answer("a rocket", 4).hits
    kept = pictures.answer("a rocket", 4, min_relevance=every[0].relevance).hits
    assert kept == tuple(hit for hit in every if hit.relevance >= every[0].relevance)
    assert len(kept) < len(every)


def test_labels_of_library_photos_come_from_their_stored_vectors(pictures, counting, photographs):
    counting.images = 0
    labelling = pictures.label(["cat", "rocket"], paths=list(photographs.values()))
    assert counting.images == 0
    best = {Path(photo.path).stem: photo.labels[0].label for photo in labelling.photos}
    assert (best["chelsea"], best["rocket"]) == ("cat", "rocket")
    for photo in labelling.photos:
        assert sum(label.probability for label in photo.labels) == pytest.approx(1)


def test_photos_in_no_library_are_labelled(library, photographs, counting):
    labelling = library.label(["a rocket", "a cat"], paths=[photographs["rocket"]])
    assert labelling.photos[0].labels[0].label == "a rocket"
    assert labelling.photos[0].id is None
    assert counting.images == 1


def test_a_file_edited_since_is_labelled_as_it_is_now(pictures, tmp_path, photographs, counting, make_photo):
    own = make_photo(tmp_path / "own" / "x.png", seed=3)
    pictures.index([own])
    make_photo(own, seed=4, size=(40, 40))
    counting.images = 0
    pictures.label(["x", "y"], paths=[own])
    assert counting.images == 1


def test_applied_labels_are_the_photos_own(pictures, photographs):
    pictures.label(["cat", "rocket"], options=LabelOptions(k=1), apply=True)
    assert pictures.photo(photographs["cat"]).labels == ("cat",)
    pictures.label(["cat", "rocket"], options=LabelOptions(k=1), apply=True)
    assert pictures.photo(photographs["cat"]).labels == ("cat",)


def test_applying_again_withdraws_what_the_same_labels_gave_before(pictures, photographs):
    cat = photographs["cat"]
    pictures.label(["cat", "rocket"], apply=True)
    pictures.label(["red", "blue"], apply=True, options=LabelOptions(k=2))
    assert pictures.photo(cat).labels == ("blue", "cat", "red")
    pictures.label(["cat", "rocket", "animal"], apply=True, options=LabelOptions(multi=True, threshold=1.0))
    assert pictures.photo(cat).labels == ("blue", "red")


def test_none_of_these_is_never_written(pictures, photographs):
    options = LabelOptions(none_of_these=True, k=9)
    labelling = pictures.label(["zebra"], apply=True, options=options)
    assert {label.label for label in labelling.photos[0].labels} == {"zebra", "none of these"}
    assert pictures.photo(photographs["cat"]).labels == ("zebra",)
    assert labelling.applied == 4


def test_prompts_beyond_the_models_limit_are_reported(pictures):
    assert pictures.label(["cat"]).truncated_tokens == 0
    assert pictures.label(["cat " * 100], options=LabelOptions()).truncated_tokens > 20


def test_labels_of_strangers_cannot_be_applied(library, photographs):
    with pytest.raises(UsageError, match="index them first"):
        library.label(["a"], paths=[photographs["cat"]], apply=True)


def test_a_photo_that_cannot_be_read_is_skipped_by_labelling(library, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n")
    labelling = library.label(["a"], paths=[broken])
    assert labelling.photos == ()
    assert [skip.path for skip in labelling.skipped] == [str(broken)]


def test_a_library_that_is_not_there_is_an_error(library):
    with pytest.raises(LibraryNotFound, match="search index"):
        library.search("a cat")


def test_an_empty_library_says_so(library, tmp_path):
    (tmp_path / "nothing").mkdir()
    library.catalog.create()
    with pytest.raises(LibraryError, match="no photos yet"):
        library.search("a cat")


def test_only_one_process_writes(library, open_library, album):
    library.index([album])
    with open_library() as other, library.catalog.writing():
        with pytest.raises(LibraryBusy, match=f"process {os.getpid()}"):
            other.index([album])
        assert len(other.search("anything", k=50)) == 12  # reading goes on
    with open_library() as again:
        assert again.index([album]).unchanged == 12


def test_photos_under_a_followed_link_are_known_by_the_name_they_were_found_by(library, tmp_path, make_photo):
    from search import IndexOptions
    from search.photos.scan import ScanOptions

    make_photo(tmp_path / "real" / "a.png", seed=1)
    (tmp_path / "album").mkdir()
    (tmp_path / "album" / "link").symlink_to(tmp_path / "real")
    library.index([tmp_path / "album"], options=IndexOptions(scan=ScanOptions(follow_symlinks=True)))
    [hit] = library.search("anything")
    assert library.photo(hit.photo.path).id == hit.photo.id
    assert library.remove([hit.photo.path]) == 1


def test_a_photo_that_is_gone_says_so(library, album):
    library.index([album])
    path = album / "day0" / "photo00.png"
    photo = library.photo(path)
    path.unlink()
    library.index([album])
    assert library.photo(photo.id).gone_at is not None
    with pytest.raises(UsageError, match="gone"):
        library.similar(photo.id)


@pytest.mark.parametrize("id_", [99999, 0, -1, 10**30])
def test_an_unknown_id_is_an_error(pictures, id_):
    with pytest.raises(UsageError, match=f"photo {id_} is not in the library"):
        pictures.similar(id_)
    with pytest.raises(UsageError):
        pictures.photo(id_)


def test_vectors_that_another_model_outdated_are_dropped_by_open_sessions(
    pictures, tmp_path, tiny_model, make_photo, location
):
    own = make_photo(tmp_path / "own" / "x.png", seed=3)
    pictures.index([own])
    assert len(pictures.search("anything")) == 5
    make_photo(own, seed=4, size=(40, 40))
    with Library.open(location, model=tiny_model) as other:
        assert other.index([own], reencode=True).not_encoded == 4
    assert len(pictures.search("anything")) == 4


def test_a_broken_photo_does_not_put_a_new_model_off_for_ever(library, album, location, tiny_model):
    library.index([album])
    (album / "day0" / "photo00.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with Library.open(location, model=tiny_model) as other:
        report = other.index([album], reencode=True)
        assert (report.encoded, report.not_encoded) == (11, 0)
    assert library.catalog.encoder().name == tiny_model


def test_answers_from_many_threads_agree(pictures):
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda text: names(pictures.search(text, k=4)), ["a cat", "a rocket"] * 10))
    assert answers == [names(pictures.search(text, k=4)) for text in ["a cat", "a rocket"]] * 10


def test_status_counts(pictures, tmp_path):
    status = pictures.status()
    assert status.photos == 4
    assert {e.name: (e.dim, e.photos) for e in status.encoders} == {"builtin": (256, 4)}
    assert status.index["vectors"] == 4
    assert all(root.online for root in status.roots)


def test_another_model_is_refused_until_the_library_is_reencoded(pictures, tmp_path, tiny_model, location):
    with Library.open(location, model=tiny_model) as other:
        with pytest.raises(EncoderMismatch, match="--reencode"):
            other.search("a cat")
        with pytest.raises(EncoderMismatch, match="indexed with builtin"):
            other.index([tmp_path])
    assert names(pictures.search("a cat", k=1)) == ["chelsea"]


def test_reencoding_lives_beside_and_takes_over_when_complete(pictures, location, tiny_model, photographs):
    with Library.open(location, model=tiny_model) as other:
        report = other.index([photographs["cat"]], reencode=True)
        assert report.encoded == 1
        with Library.open(location) as auto:
            assert auto.catalog.encoder().name == "builtin"
        other.index(list(photographs.values()), reencode=True)
        assert len(other.search("a cat")) == 4
    with Library.open(location) as auto:
        assert auto.answer("a cat").encoder == tiny_model
    assert {e.name for e in pictures.status().encoders} == {"builtin", tiny_model}


def test_weights_that_changed_behind_a_name_are_noticed(album, location, tiny_model, tiny_model_again):
    with Library.open(location, model=tiny_model) as library:
        library.index([album])
    tiny_model_again()
    with Library.open(location, model=tiny_model) as library:
        with pytest.raises(EncoderMismatch, match="weights behind"):
            library.search("a cat")
        assert library.index([album], reencode=True).encoded == 12
        assert len(library.search("a cat", k=50)) == 12


def test_labels_by_the_text_half_alone_are_the_whole_models(library, album, location):
    library.index([album])
    expected = library.label(["a red wall", "a green field"])
    with Library.open(location, offline=True) as other:
        found = other.label(["a red wall", "a green field"])
        partly = other.label(["a red wall", "a green field"], paths=[album / "day0"])
        assert other.model.loaded is None
    assert (found.encoder, found.labels, found.truncated_tokens) == ("builtin", expected.labels, 0)
    for photo, other_photo in zip(expected.photos, found.photos, strict=True):
        assert (photo.path, photo.id) == (other_photo.path, other_photo.id)
        for label, other_label in zip(photo.labels, other_photo.labels, strict=True):
            assert label.label == other_label.label
            assert label.probability == pytest.approx(other_label.probability, abs=1e-3)  # 100 times fp32 rounding
    assert partly.photos == tuple(photo for photo in found.photos if "day0" in photo.path)


def test_a_stranger_is_labelled_by_the_whole_model(library, album, make_photo, tmp_path, location):
    library.index([album])
    stranger = make_photo(tmp_path / "elsewhere" / "x.png", 99)
    with Library.open(location, offline=True) as other:
        found = other.label(["a red wall", "a green field"], paths=[album / "day0" / "photo00.png", stranger])
        assert other.model.loaded is not None
    assert [photo.id is None for photo in found.photos] == [False, True]
