from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from search.catalog.moves import Known, Place, Waiting, resolve


def place(path: bytes, content: bytes, photo_id: int | None = None) -> Place:
    return Place(1, path, 10, 10, content, photo_id)


def test_a_photo_that_kept_its_content_is_touched():
    found = resolve([place(b"a", b"A", 1)], [Known(1, b"a", b"A", free=False)])
    assert [id_ for id_, _ in found.touched] == [1]
    assert not (found.moved or found.copied or found.parked)


def test_a_free_photo_moves_to_its_content():
    found = resolve([place(b"b", b"A")], [Known(1, b"a", b"A", free=True)])
    assert [(id_, p.path) for id_, p in found.moved] == [(1, b"b")]


def test_a_photo_in_place_is_copied_not_moved():
    found = resolve([place(b"b", b"A")], [Known(1, b"a", b"A", free=False)])
    assert [(id_, p.path) for id_, p in found.copied] == [(1, b"b")]
    assert not found.moved


def test_swapped_names_swap_places_and_park_nobody():
    places = [place(b"a", b"B", 1), place(b"b", b"A", 2)]
    found = resolve(places, [Known(1, b"a", b"A", free=True), Known(2, b"b", b"B", free=True)])
    assert sorted((id_, p.path) for id_, p in found.moved) == [(1, b"b"), (2, b"a")]
    assert found.parked == []


def test_a_displaced_photo_without_content_is_parked():
    found = resolve([place(b"b", b"A", 2)], [Known(1, b"a", b"A", free=True)])
    assert [(id_, p.path) for id_, p in found.moved] == [(1, b"b")]
    assert found.parked == [2]


def test_of_equal_contents_the_one_of_the_same_name_moves():
    known = [Known(1, b"x/one", b"A", free=True), Known(2, b"x/two", b"A", free=True)]
    found = resolve([place(b"y/two", b"A")], known)
    assert [id_ for id_, _ in found.moved] == [2]


contents = st.sampled_from([b"A", b"B", b"C", b"D"])


@given(st.lists(contents, max_size=6), st.permutations(range(6)), st.data())
def test_any_shuffle_of_files_keeps_every_content_with_its_photo(before, order, data):
    """Photos 0…n hold `before`; each is then found at another place, or not at all, or in several copies."""
    after = [before[i] for i in order if i < len(before)]
    after = after[: data.draw(st.integers(0, len(after)))] + data.draw(st.lists(contents, max_size=2))
    places = [place(b"%d" % i, content, i if i < len(before) else None) for i, content in enumerate(after)]
    in_place = {i for i, content in enumerate(after) if i < len(before) and before[i] == content}
    known = [Known(i, b"%d" % i, content, free=i not in in_place) for i, content in enumerate(before)]
    found = resolve(places, [row for row in known if row.content_hash in after])

    content_of = dict(enumerate(before))
    for id_, p in [*found.touched, *found.moved, *found.copied]:
        assert content_of[id_] == p.content_hash
    movers = [id_ for id_, _ in found.moved]
    assert len(movers) == len(set(movers))
    assert not {id_ for id_, _ in found.touched} & set(movers)
    served = {p.path for _, p in [*found.touched, *found.moved, *found.copied]}
    assert served == {p.path for p in places if p.content_hash in before}
    owners = {p.photo_id for _, p in found.moved if p.photo_id is not None}
    assert set(found.parked) == owners - set(movers)


def test_a_file_waits_while_the_photo_of_its_content_may_turn_out_to_have_left():
    waiting = Waiting()
    new, other, kept = place(b"new", b"A"), place(b"other", b"B"), place(b"kept", b"C", 3)
    known = [Known(1, b"old", b"A", free=False), Known(3, b"kept", b"C", free=False)]
    assert waiting.split([new, other, kept], known, [1]) == [other, kept]
    assert waiting.places == [new]
    assert waiting.held == {}
    late, replaced = place(b"late", b"A"), place(b"kept", b"D", 3)
    assert waiting.split([late, replaced], known, []) == []  # the first of a content is told first
    assert waiting.places == [new, late, replaced]
    assert waiting.held == {3: b"D"}
