"""How a composed or long query is answered, held against scoring every photo by hand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from search import Library
from search.errors import DimensionError, QueryError, UsageError
from search.grammar import parse_query
from search.library import answering
from search.query import Kind, Query, Term, parse
from search.relevance import DEFAULT_CUT, calibrate
from search.types import Filter
from search.vectors import cosines, normalize

CLAUSES = (
    "A red car stands in the heavy rain beside a small wooden bridge.",
    "Two children in yellow coats run across the wet street towards it with a small brown dog.",
    "Behind them is an old brick house with a green door and many flowering plants on every window sill, and a cat.",
    "In the sky there is a rainbow above the hills and the town's church tower, far away, and a plane.",
)
LONG = " ".join(CLAUSES)  # more tokens than the 77 that the model reads


@pytest.fixture(scope="module")
def album(tmp_path_factory) -> Path:
    """A folder of thirty pictures, half of them in a folder of their own."""
    folder = tmp_path_factory.mktemp("answering") / "album"
    for number in range(30):
        noise = np.random.default_rng(number).integers(0, 256, (6, 8, 3), np.uint8)
        path = folder / f"half{number % 2}" / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise).resize((64, 48)).save(path)
    return folder


@pytest.fixture(scope="module")
def photos(album, builtin) -> Iterator[Library]:
    """A library of that folder, which no test changes."""
    with Library.open(album.parent / "library", model="builtin", offline=True) as library:
        library.model.loaded = builtin
        library.index([album])
        yield library


def vectors(library: Library) -> tuple[np.ndarray, np.ndarray]:
    ids, rows = library.catalog.embeddings(library.catalog.encoder(), library.catalog.all_ids().tolist())
    return ids, normalize(rows)


def by_hand(library: Library, clauses: np.ndarray, k: int, among: set[int] | None = None):
    """The k best by the lowest standing over clauses (Q, D), by scoring every photo."""
    ids, rows = vectors(library)
    scores = np.stack([cosines(rows, clause) for clause in clauses])
    bank = library.model.bank(library.catalog.encoder())
    known = [calibrate(clause, background=rows, bank=bank, photos=len(ids)) for clause in clauses]
    lowest = np.stack([c.standing(row) for c, row in zip(known, scores, strict=True)]).min(axis=0)
    order = [place for place in np.lexsort((ids, -lowest)) if among is None or int(ids[place]) in among]
    return ids[order][:k].tolist()


def found(answer) -> list[int]:
    return found_ids(answer.hits)


def found_ids(hits) -> list[int]:
    return [hit.photo.id for hit in hits]


def test_nothing_of_a_text_is_cut_off(photos, builtin):
    assert builtin.count_tokens([LONG])[0] > builtin.context_length
    answer = photos.answer(LONG, 5)
    assert (answer.clauses, answer.truncated_tokens) == (CLAUSES, 0)
    assert photos.answer(CLAUSES[1]).clauses == ()
    assert photos.answer(CLAUSES[1]).hits[0].clauses == ()


@pytest.mark.parametrize("k", [1, 5, 30])
def test_photos_come_by_the_clause_they_satisfy_least(photos, k):
    assert found(photos.answer(LONG, k)) == by_hand(photos, photos.text_vectors(CLAUSES), k)


def test_a_filter_holds_for_clauses_too(photos, album):
    folder = (album / "half1").resolve()
    among = {photos.photo(path).id for path in folder.iterdir()}
    answer = photos.answer(LONG, 7, filter=Filter(folder=str(folder)))
    assert found(answer) == by_hand(photos, photos.text_vectors(CLAUSES), 7, among)
    assert answer.candidates == 15
    assert photos.answer(LONG, 7, filter=Filter(camera="none")).hits == ()


def test_the_score_is_the_cosine_with_the_clauses_together(photos):
    ids, rows = vectors(photos)
    each = photos.text_vectors(CLAUSES)
    whole = normalize(each.sum(axis=0))
    for hit in photos.answer(LONG, 3).hits:
        [row] = rows[ids == hit.photo.id]
        assert hit.score == pytest.approx(float(row @ whole), abs=1e-6)
        assert [c.score for c in hit.clauses] == pytest.approx((each @ row).tolist(), abs=1e-6)
        assert hit.relevance == min(clause.relevance for clause in hit.clauses)
        assert [clause.holds for clause in hit.clauses] == [
            clause.relevance >= DEFAULT_CUT for clause in hit.clauses
        ]


def test_without_a_cut_given_a_photo_is_shown_where_some_clause_holds(photos, monkeypatch):
    every = photos.answer(LONG, 30, min_relevance=0).hits
    highest = {hit.photo.id: max(clause.relevance for clause in hit.clauses) for hit in every}
    seen = sorted(set(highest.values()))
    cut = seen[len(seen) // 2]  # among these pictures nothing is likely
    monkeypatch.setattr(answering, "DEFAULT_CUT", cut)
    monkeypatch.setattr(answering.choosing, "DEFAULT_CUT", cut)
    usual = photos.answer(LONG, 30, min_relevance=None)
    assert found(usual) == [id_ for id_ in found_ids(every) if highest[id_] >= cut]
    assert 0 < usual.below == 30 - len(usual.hits) < 30
    assert min(hit.relevance for hit in usual.hits) < cut
    assert {clause.holds for hit in usual.hits for clause in hit.clauses} == {True, False}
    least = sorted(hit.relevance for hit in every)[-2]
    assert found(photos.answer(LONG, 30, min_relevance=least)) == found_ids(
        h for h in every if h.relevance >= least
    )


def test_other_terms_are_in_the_sum_of_every_clause(photos):
    ids, rows = vectors(photos)
    [example] = rows[ids == 3]
    away, *each = photos.text_vectors(["people", *CLAUSES])
    clauses = normalize(np.stack([2 * clause - away + 0.5 * example for clause in each]))
    answer = photos.answer(parse([f"2:{LONG}"], avoid=["people"], like=["0.5:3"]), 6)
    assert found(answer) == by_hand(photos, clauses, 6, set(ids.tolist()) - {3})
    assert [clause.text for clause in answer.hits[0].clauses] == list(CLAUSES)


def test_a_long_text_to_push_away_is_no_clause_to_hold(photos):
    answer = photos.answer(parse(["a wall"], avoid=[LONG]), 3)
    wall, *each = photos.text_vectors(["a wall", *CLAUSES])
    ids, rows = vectors(photos)
    scores = rows @ normalize(wall - normalize(np.sum(each, axis=0)))
    assert found(answer) == ids[np.argsort(-scores)][:3].tolist()
    assert answer.clauses == ()


def test_a_word_that_is_longer_than_the_model_reads_is_an_error(photos):
    with pytest.raises(QueryError, match="a single word of the query is longer than the model reads"):
        photos.search("qx0z9" * 30)


def test_a_model_of_long_context_reads_a_long_text_whole(long_model, tmp_path, make_photo):
    for number in range(4):
        make_photo(tmp_path / "pictures" / f"{number}.png", number)
    with Library.open(tmp_path / "other", model=long_model, offline=True) as library:
        library.index([tmp_path / "pictures"])
        answer = library.answer(LONG, 3)
        assert answer.clauses == ()
        ids, rows = vectors(library)
        scores = rows @ library.text_vectors([LONG])[0]
        assert found(answer) == ids[np.argsort(-scores)][:3].tolist()


def test_a_vector_that_is_handed_over_is_a_term_like_any_other(photos):
    ids, rows = vectors(photos)
    first, second = ids[:2].tolist()
    by_id = photos.answer(
        Query((Term(Kind.PHOTO, str(first)), Term(Kind.PHOTO, str(second), -0.5))), examples=True
    )
    terms = (Term(Kind.VECTOR, "one"), Term(Kind.PHOTO, str(second), -0.5))
    by_vector = photos.answer(Query(terms), examples=True, vectors={"one": 3 * rows[0].astype(np.float64)})
    assert [hit.photo.id for hit in by_vector.hits] == [hit.photo.id for hit in by_id.hits]
    assert by_vector.hits[0].score == pytest.approx(by_id.hits[0].score, abs=1e-6)
    assert by_vector.query == f"like:one - 0.5:like:{second}"


def test_a_vector_that_can_not_be_meant_is_refused(photos):
    asked, dim = Query((Term(Kind.VECTOR, "one"),)), vectors(photos)[1].shape[1]
    for wrong, error in (
        ({}, UsageError),
        ({"one": np.zeros(dim)}, UsageError),
        ({"one": np.full(dim, np.nan)}, UsageError),
        ({"one": np.ones(dim + 1)}, DimensionError),
        ({"one": np.ones((1, dim))}, DimensionError),
    ):
        with pytest.raises(error):
            photos.answer(asked, vectors=wrong)


def test_pictures_become_the_vectors_that_indexing_gave_them(photos, album):
    from search.photos.decode import load

    photo = photos.photo(album / "half0" / "00.png")
    pixels = photos.preprocessing()(load(photo.path).image)
    [vector] = photos.image_vectors(pixels[None])
    ids, rows = vectors(photos)
    assert vector @ rows[ids.tolist().index(photo.id)] == pytest.approx(1, abs=1e-3)  # kept as float16


def test_examples_of_the_library_are_left_out_by_id_and_by_file(photos, album):
    path = album / "half1" / "05.png"
    id_ = photos.photo(path).id
    by_id, by_file = (photos.answer(parse([], like=[ref]), 30) for ref in (str(id_), str(path)))
    assert found(by_id) == found(by_file)
    assert len(by_id.hits) == 29
    assert id_ not in found(by_id)
    assert by_id.candidates == 29
    [itself] = photos.search(f"like:{id_}", 1, examples=True)
    assert (itself.photo.id, itself.score) == (id_, pytest.approx(1, abs=1e-6))
    away = photos.answer(parse(["a wall"], unlike=[str(id_), "3"]), 30)
    assert set(found(away)) == set(range(1, 31)) - {id_, 3}


def test_a_file_that_was_changed_since_is_looked_at_again(library, tmp_path, make_photo):
    paths = [make_photo(tmp_path / "pictures" / f"{number}.png", number) for number in range(4)]
    library.index([tmp_path / "pictures"])
    paths[0].write_bytes(paths[2].read_bytes())
    [hit] = library.search(parse([], like=[str(paths[0])]), 1)
    assert (hit.photo.path, hit.score) == (str(paths[2]), pytest.approx(1, abs=1e-3))
    paths[0].unlink()
    by_id = library.search(f"like:{library.photo(paths[0]).id}", 3)
    assert library.search(parse([], like=[str(paths[0])]), 3) == by_id


def test_examples_that_are_not_here_are_errors(library, tmp_path, make_photo):
    paths = [make_photo(tmp_path / "pictures" / f"{number}.png", number) for number in range(3)]
    library.index([tmp_path / "pictures"])
    gone = library.photo(paths[0]).id
    paths[0].unlink()
    library.index([tmp_path / "pictures"])
    with pytest.raises(UsageError, match="photo 99 is not in the library"):
        library.search("like:99")
    with pytest.raises(UsageError, match=f"photo {gone} is gone"):
        library.search(Query((Term(Kind.PHOTO, str(gone)),)))


def test_a_string_is_a_whole_query(photos):
    asked = "a wall + 2:beach - like:3"
    assert found(photos.answer(asked)) == found(photos.answer(parse_query(asked)))
    assert photos.answer(asked).query == asked


def test_templates_are_averaged_over_every_text(photos):
    ids, rows = vectors(photos)
    prompts = photos.text_vectors(["a photo of a wall", "a wall, seen", "a photo of people", "people, seen"])
    wall, people = (normalize(prompts[start : start + 2].mean(axis=0)) for start in (0, 2))
    scores = dict(zip(ids.tolist(), rows @ normalize(wall - people), strict=True))
    answer = photos.answer(parse(["a wall"], avoid=["people"]), 5, templates=["a photo of {}", "{}, seen"])
    assert found(answer) == sorted(scores, key=lambda id_: -scores[id_])[:5]
    assert answer.hits[0].score == pytest.approx(max(scores.values()), abs=1e-6)
    with pytest.raises(UsageError, match=r"'a photo' has no \{\}"):
        photos.answer(parse(["a wall"]), 5, templates=["a photo"])


def test_clauses_leave_room_for_the_template(photos, builtin):
    text = ", ".join(["a very long list of things"] * 12)
    template = "many many words in front of {}"
    answer = photos.answer(text + ", and one", templates=[template])
    assert len(answer.clauses) > 1
    prompts = [template.replace("{}", clause) for clause in answer.clauses]
    assert max(builtin.count_tokens(prompts)) <= builtin.context_length


# other languages


@pytest.fixture
def told(photos, monkeypatch) -> list[str]:
    """What the library says beside its answers, if it has said nothing yet."""
    messages: list[str] = []
    monkeypatch.setattr(photos, "_notify", messages.append)
    monkeypatch.setattr(photos, "_told", set())
    return messages


@pytest.mark.parametrize("text", ["собака на пляже", "海辺の犬", "كلب على الشاطئ", "σκύλος on a παραλία"])
def test_another_script_gets_one_hint_by_a_model_of_english(photos, told, text):
    assert photos.search(text)
    assert photos.search(f"{text} + a dog")
    [hint] = told
    assert hint.startswith("builtin reads English")
    assert "search index --reencode --model" in hint


@pytest.mark.parametrize("text", ["ein Hündchen am Strand", "a café in Zürich 🎉 42", "a dog in 東京", "like:3"])
def test_latin_script_gets_none(photos, told, text):
    photos.search(text)
    assert told == []


@pytest.mark.parametrize("text", ["a red wall", "noise", "blue and green squares"])
@pytest.mark.parametrize("diverse", [False, True])
def test_as_many_as_are_wanted_reach_the_cut_where_there_are_so_many(photos, text, diverse):
    every = photos.answer(text, 30).hits
    for cut in np.quantile([hit.relevance for hit in every], [0.3, 0.6, 0.9]).tolist():
        reaching = [hit.photo.id for hit in every if hit.relevance >= cut]
        for k in (1, 3, 10):
            found = [hit.photo.id for hit in photos.answer(text, k, min_relevance=cut, diverse=diverse).hits]
            assert len(found) == min(k, len(reaching))
            assert diverse or found == reaching[:k]
