from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.errors import QueryError
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
    query = parse([], like=["0.5:a.jpg"], unlike=["3:people"])
    assert query.terms == (Term(Kind.IMAGE, "a.jpg", 0.5), Term(Kind.TEXT, "people", -3.0))


@pytest.mark.parametrize("text", ["-dark", "http://example.org/a", "a 2:1 crop", "1st: place"])
def test_text_that_only_looks_like_syntax_stays_text(text):
    assert parse([text]).terms == (Term(Kind.TEXT, text, 1.0),)


def test_a_windows_path_is_not_a_weight():
    assert parse([], like=["C:/photos/a.jpg"]).terms[0].value == "C:/photos/a.jpg"


@pytest.mark.parametrize(
    "texts, unlike", [([], []), ([], ["people"]), (["  "], []), (["0:cat"], []), (["9" * 400 + ":cat"], [])]
)
def test_a_query_for_nothing_is_refused(texts, unlike):
    with pytest.raises(QueryError):
        parse(texts, unlike=unlike)


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
    assert str(parse(["a dog", "2:beach"], unlike=["people"])) == "a dog 2:beach -people"


@given(st.lists(st.text(min_size=1).filter(str.strip), min_size=1))
def test_any_text_is_taken_or_refused_in_words(texts):
    try:
        query = parse(texts)
    except QueryError:
        return
    assert len(query.terms) == len(texts)
    assert all(term.value and term.weight > 0 for term in query.terms)
