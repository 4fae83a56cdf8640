"""The shortlist, the groups and who is kept: pure logic on arrays and photos."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from search.duplicates import (
    DuplicateKind,
    DuplicateOptions,
    Group,
    Links,
    Shortlist,
    by_hash,
    by_time,
    by_vector,
    groups,
    levels,
    only_in,
    turns,
    why_kept,
    worth,
)
from search.errors import UsageError
from search.types import Photo, PhotoInfo, TakenAtSource
from search.vectors import normalize


def some_hashes(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 8, 8), np.uint8)


def pairs(found: Shortlist) -> set[tuple[int, int]]:
    return set(zip(found.first.tolist(), found.second.tolist(), strict=True))


@pytest.mark.parametrize("turn", range(8))
def test_hashes_a_few_bits_apart_are_on_the_shortlist_whichever_way_one_is_laid(turn):
    hashes = some_hashes(3000)
    hashes[1234, 0] = hashes[77, turn]
    hashes[1234, 0, [0, 1, 3, 4, 6]] ^= np.uint8(4)  # 5 bits
    assert (77, 1234) in pairs(by_hash(np.arange(3000), hashes))


def test_strangers_are_not_on_the_shortlist():
    assert len(by_hash(np.arange(3000), some_hashes(3000)).first) < 30


def test_many_photos_of_one_hash_make_few_pairs():
    hashes = np.tile(some_hashes(1), (2000, 1, 1))
    found = by_hash(np.arange(2000), hashes)
    assert len(found.first) < 5 * 2000
    assert len(linked(found, 0)) == 2000


def linked(found: Shortlist, start: int) -> set[int]:
    links, seen, front = Links(found), {start}, {start}
    while front:
        front = {other for id_ in front for other in links.of(id_)} - seen
        seen |= front
    return seen


def test_blank_pages_are_strangers_to_all_but_their_equals():
    hashes = some_hashes(100)
    hashes[50:, :] = 0
    hashes[50:, 0, 0] = np.arange(50) % 2  # nearly nothing to see
    assert all(one >= 50 for one, _ in pairs(by_hash(np.arange(100), hashes)))


def test_near_vectors_need_hashes_that_are_not_far():
    hashes = some_hashes(4)
    hashes[1, 0] = hashes[0, 0] ^ np.array([15, 15, 15, 15, 15, 0, 0, 0], np.uint8)  # 20 bits: a crop
    hashes[2, 0] = hashes[0, 3] ^ np.array([15, 15, 15, 15, 15, 0, 0, 0], np.uint8)  # too much for a turned one
    ids = np.arange(4)
    found = by_vector(np.array([0, 0, 0]), np.array([1, 2, 9]), ids, hashes)
    assert pairs(found) == {(0, 1)}


def test_pairs_near_by_their_vectors_are_all_looked_at_however_many():
    hashes = np.tile(some_hashes(1), (2, 1, 1))
    count = 2**16 + 2
    found = by_vector(np.zeros(count, np.int64), np.ones(count, np.int64), np.arange(2), hashes)
    assert len(found.first) == len(found.second) == count


def test_the_likeliest_turns_come_first():
    hashes = some_hashes(2)
    hashes[1, 0] = hashes[0, 6]
    assert turns(hashes[0], hashes[1])[0] == 6
    assert turns(hashes[0], some_hashes(1, seed=5)[0]) == ()


def test_shots_of_one_camera_close_in_time_are_on_the_shortlist():
    ids, cameras = np.array([1, 2, 3, 4]), np.array([0, 0, 1, 0])
    found = by_time(ids, cameras, np.array([0.0, 10.0, 5.0, 20.5]), 10)
    assert pairs(found) == {(1, 2)}
    empty = np.empty(0, np.int64)
    assert not len(by_time(empty, empty, np.empty(0), 10).first)


def test_a_long_burst_makes_few_pairs():
    count = 5000
    found = by_time(np.arange(count), np.zeros(count, np.int64), np.zeros(count), 10)
    assert len(found.first) < 8 * count


# ---- groups


def grouped(edges: list[tuple[int, int]], order: list[int], same: set[frozenset[int]]) -> list[Group]:
    links = Links(Shortlist(*(np.array(side) for side in zip(*edges, strict=True))))
    return list(groups(links, order, lambda keep, ids: {i: "so" for i in ids if frozenset((keep, i)) in same}))


def every(*ids: int) -> set[frozenset[int]]:
    return {frozenset((one, other)) for one in ids for other in ids if one != other}


def test_a_chain_leads_to_all_that_are_duplicates_of_the_kept_one():
    found = grouped([(1, 2), (2, 3), (3, 4)], [3, 1, 2, 4], every(1, 2, 3, 4))
    assert [(group.keep, [id_ for id_, _ in group.others]) for group in found] == [(3, [1, 2, 4])]


def test_a_chain_brings_nobody_in_who_is_no_duplicate_of_the_kept_one():
    steps = {frozenset((number, number + 1)) for number in range(1, 5)}
    found = grouped([(1, 2), (2, 3), (3, 4), (4, 5)], [1, 2, 3, 4, 5], steps)
    assert [(group.keep, [id_ for id_, _ in group.others]) for group in found] == [(1, [2]), (3, [4])]


def test_no_photo_is_in_two_groups_and_the_best_is_kept():
    found = grouped([(1, 2), (2, 3), (1, 3), (3, 4)], [2, 4, 1, 3], every(1, 2, 3) | every(3, 4))
    assert [(group.keep, [id_ for id_, _ in group.others]) for group in found] == [(2, [1, 3])]


def test_a_shortlist_without_duplicates_gives_no_groups():
    assert grouped([(1, 2)], [1, 2], set()) == []


# ---- who is kept

TAKEN = datetime(2020, 1, 1, tzinfo=UTC)
INFO = PhotoInfo("jpeg", 4000, 3000, taken_at=TAKEN, taken_at_source=TakenAtSource.EXIF)
PHOTO = Photo(1, "/a", "/a/b.jpg", 1000, 5, "00", INFO)


def other(**changes) -> Photo:
    fields = {name: changes.pop(name) for name in list(changes) if hasattr(INFO, name)}
    return replace(PHOTO, id=2, info=replace(INFO, **fields), **changes)


WORSE = [
    (other(width=1600, height=1200, rating=5, size_bytes=9999), "1600x1200 against 4000x3000"),
    (other(taken_at_source=TakenAtSource.FILE, size_bytes=9999), "lacks its date"),
    (other(size_bytes=999), "999 bytes against 1,000"),
    (other(mtime_ns=6), "newer"),
    (other(path="/a/c.jpg"), "later by its name"),
]


@pytest.mark.parametrize(("worse", "why"), WORSE)
def test_the_better_photo_is_kept_and_the_reason_is_said(worse, why):
    assert worth(PHOTO, 50.0) < worth(worse, 50.0)
    assert why_kept(PHOTO, worse, {1: 50.0, 2: 50.0}) == why


def test_formats_and_sharpness_count():
    raw, png, jpeg = other(format="nef"), other(format="PNG"), other(rating=5)
    assert worth(raw, 1.0) < worth(png, 1.0) < worth(jpeg, 1.0)
    assert why_kept(png, jpeg, {}) == "JPEG against PNG"
    assert worth(other(), 100.0) < worth(PHOTO, 50.0)
    assert why_kept(replace(PHOTO, id=3), other(), {3: 100.0, 2: 50.0}) == "less sharp"
    assert worth(other(rating=0), 1.0) < worth(other(), 99.0)


def test_a_difference_in_sharpness_too_small_to_see_does_not_count():
    assert worth(other(size_bytes=2000), 100.0) < worth(PHOTO, 100.5)


# ---- levels


def test_the_more_photos_there_are_the_nearer_is_similar():
    sample = normalize(np.random.default_rng(0).standard_normal((1000, 12)))
    few, many = levels(sample, 1000), levels(sample, 1_000_000)
    assert few.alike == many.alike < few.similar < many.similar < 1


@pytest.mark.parametrize("photos", [2000, 20_000])
def test_strangers_practically_never_reach_the_level_of_similar_photos(photos):
    """The level is told from a sample of a thousand and holds for all; bound: ten times what it aims at."""
    vectors = normalize(np.random.default_rng(1).standard_normal((photos, 10)))
    level = levels(vectors[:1000], photos).similar
    reached = sum(int((vectors[i : i + 1000] @ vectors.T >= level).sum()) for i in range(0, photos, 1000)) - photos
    assert reached / photos <= 0.1


def test_relatives_in_the_sample_do_not_count():
    random = np.random.default_rng(2)
    vectors = normalize(random.standard_normal((300, 12)))
    shots = normalize(vectors + 0.02 * random.standard_normal(vectors.shape))
    assert levels(np.concatenate([vectors, shots]), 600).similar == pytest.approx(
        levels(vectors, 600).similar, abs=0.02
    )


def test_a_handful_of_photos_has_the_usual_levels():
    assert levels(normalize(np.eye(5, 8)), 5) == (0.85, 0.95)


def test_two_hundred_photos_are_enough_to_tell_levels_of_their_own():
    sample = normalize(np.random.default_rng(0).standard_normal((200, 12)))
    assert levels(sample[1:], 200) == (0.85, 0.95)
    assert levels(sample, 200) != (0.85, 0.95)


@pytest.mark.parametrize("wrong", [{"threshold": 1.5}, {"threshold": float("nan")}, {"within_s": -1}])
def test_options_that_mean_nothing_are_refused(wrong):
    with pytest.raises(UsageError):
        DuplicateOptions(**wrong)


def test_stronger_kinds_are_looked_for_where_a_weaker_one_is_wanted():
    wanted = DuplicateOptions((DuplicateKind.SAME_MOMENT,))
    assert wanted.reaches(DuplicateKind.SAME_PICTURE) and not wanted.reaches(DuplicateKind.SIMILAR)


def test_a_cameras_own_file_is_kept_before_what_was_made_of_it():
    own = replace(
        PHOTO,
        info=replace(PHOTO.info, camera="A", taken_at=datetime(2020, 1, 1, tzinfo=UTC), taken_at_source="exif"),
    )
    bare = replace(PHOTO.info, camera=None, taken_at=None, taken_at_source=None)
    for made in (replace(bare, format="PNG"), replace(bare, width=8000, height=6000), bare):
        other = replace(PHOTO, id=2, info=made, size_bytes=10**9)
        assert worth(own, 1.0) < worth(other, 99.0)
        assert why_kept(own, other, {1: 1.0, 2: 99.0}) == "lacks its camera and date"


def test_what_would_be_missed_of_a_photo_is_told():
    more = replace(PHOTO, info=replace(PHOTO.info, rating=5, keywords=("cat",), width=9000), labels=("cat",))
    assert only_in(more, PHOTO) == ["a rating", "labels", "keywords", "more pixels"]
    assert only_in(PHOTO, more) == []
