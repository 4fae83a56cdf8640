from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.errors import QueryError
from search.grammar import parse_query
from search.query import Kind, Query, Term, embed, parse

AXES = {"x": [1, 0, 0], "y": [0, 1, 0], "z": [0, 0, 1]}


def axes(names: list[str]) -> np.ndarray:
    return np.array([AXES[name] for name in names], np.float32)


def test_several_texts_are_terms_of_one_query():
    assert parse(["a dog", "2:beach"]).terms == (
        Term(Kind.TEXT, "a dog", 1.0),
        Term(Kind.TEXT, "beach", 2.0),
    )


def test_like_and_not_take_weights_too():
    query = parse([], like=["0.5:a.jpg"], avoid=["3:people"])
    assert query.terms == (Term(Kind.IMAGE, "a.jpg", 0.5), Term(Kind.TEXT, "people", -3.0))


@pytest.mark.parametrize("text", ["-dark", "http://example.org/a", "a 2:1 crop", "1st: place"])
def test_text_that_only_looks_like_syntax_stays_text(text):
    assert parse([text]).terms == (Term(Kind.TEXT, text, 1.0),)


def test_examples_are_ids_or_files_to_look_for_or_to_push_away():
    query = parse([], like=["12", "2:7"], unlike=["0.5:a.jpg", "9"])
    assert query.terms == (
        Term(Kind.PHOTO, "12"),
        Term(Kind.PHOTO, "7", 2.0),
        Term(Kind.IMAGE, "a.jpg", -0.5),
        Term(Kind.PHOTO, "9", -1.0),
    )


def test_a_number_is_a_file_where_there_is_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "12").touch()
    assert parse([], like=["12"]).terms == (Term(Kind.IMAGE, "12"),)
    assert parse_query("like:12").terms == (Term(Kind.PHOTO, "12"),)


def test_a_windows_path_is_not_a_weight():
    assert parse([], like=["C:/photos/a.jpg"]).terms[0].value == "C:/photos/a.jpg"


@pytest.mark.parametrize(
    "texts, avoid", [([], []), ([], ["people"]), (["  "], []), (["0:cat"], []), (["9" * 400 + ":cat"], [])]
)
def test_a_query_for_nothing_is_refused(texts, avoid):
    with pytest.raises(QueryError):
        parse(texts, avoid=avoid)


def test_terms_are_summed_by_weight_and_renormalised():
    vector = embed(parse(["3:x", "4:y"]), {Kind.TEXT: axes})
    np.testing.assert_allclose(vector, [[0.6, 0.8, 0]], atol=1e-7)


def test_terms_of_several_kinds_are_summed():
    query = Query((Term(Kind.TEXT, "x"), Term(Kind.PHOTO, "z", -1.0)))
    vector = embed(query, {Kind.TEXT: axes, Kind.PHOTO: axes})
    np.testing.assert_allclose(vector, [[2**-0.5, 0, -(2**-0.5)]], atol=1e-7)


def test_terms_that_cancel_out_are_refused():
    with pytest.raises(QueryError, match="cancel"):
        embed(Query((Term(Kind.TEXT, "x"), Term(Kind.TEXT, "x", -1.0))), {Kind.TEXT: axes})


def test_a_query_reads_as_it_was_asked():
    assert str(parse(["a dog", "2:beach"], avoid=["people"], like=["7"])) == "a dog + 2:beach + like:7 - people"
    assert str(parse(["a + b"])) == '"a + b"'


@given(st.lists(st.text(min_size=1).filter(str.strip), min_size=1))
def test_any_text_is_taken_or_refused_in_words(texts):
    try:
        query = parse(texts)
    except QueryError:
        return
    assert len(query.terms) == len(texts)
    assert all(term.value and term.weight > 0 for term in query.terms)


# the grammar

ROWS = re.findall(
    r"^\| `(.+)` \| (.+) \|$",
    (Path(__file__).parent.parent / "docs" / "reference" / "queries.md").read_text("utf-8"),
    re.MULTILINE,
)
MEANINGS = [(query, meaning) for query, meaning in ROWS if meaning.startswith(("text", "photo", "image"))]
ERRORS = [row for row in ROWS if row not in MEANINGS]


def meaning(query: Query) -> str:
    weights = ("" if term.weight == 1 else f" × {term.weight:g}" for term in query.terms)
    return ", ".join(f'{t.kind} "{t.value}"{weight}' for t, weight in zip(query.terms, weights, strict=True))


def test_the_documentation_has_rows():
    assert (len(MEANINGS), len(ERRORS)) == (18, 7)


@pytest.mark.parametrize("query, expected", MEANINGS)
def test_a_query_means_what_the_documentation_says(query, expected):
    assert meaning(parse_query(query)) == expected


@pytest.mark.parametrize("query, expected", ERRORS)
def test_an_error_is_where_the_documentation_says(query, expected):
    with pytest.raises(QueryError, match=rf"{expected}\b") as caught:
        parse_query(query)
    if expected.startswith("column"):
        assert caught.value.column == int(expected.removeprefix("column "))


def test_an_empty_string_is_no_query():
    for text in ("", "  ", "+", '""', 'like:" "'):
        with pytest.raises(QueryError):
            parse_query(text)


PARTS = st.sampled_from(
    ["a", "red car", " ", "+", "-", '"', "like:", "2:", "12", ":", "1e5:", "\n", "é", "\x1c", "/x.jpg"]
)
TEXT = st.one_of(st.text(min_size=1), st.lists(PARTS, min_size=1).map("".join)).filter(str.strip)
WEIGHT = st.floats(min_value=0, exclude_min=True, allow_nan=False, allow_infinity=False)
TERMS = st.one_of(
    st.builds(Term, st.sampled_from([Kind.TEXT, Kind.IMAGE]), TEXT, WEIGHT),
    st.builds(Term, st.just(Kind.PHOTO), st.integers(1, 2**63 - 1).map(str), WEIGHT),
)
SIGNED = st.builds(
    lambda term, sign: Term(term.kind, term.value, sign * term.weight), TERMS, st.sampled_from([1, -1])
)


@given(st.lists(SIGNED, min_size=1).filter(lambda terms: any(term.weight > 0 for term in terms)))
def test_a_query_reads_back_as_it_was_written(terms):
    query = Query(tuple(terms))
    assert parse_query(str(query)) == query


@given(st.one_of(st.text(), st.lists(PARTS).map("".join)))
def test_any_string_is_a_query_or_an_error_inside_it(text):
    try:
        query = parse_query(text)
    except QueryError as error:
        assert error.column is None or 1 <= error.column <= len(text) + 1
        return
    assert parse_query(str(query)) == query
