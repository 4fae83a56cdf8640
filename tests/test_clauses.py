"""Long texts in clauses, each a statement that fits."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.clauses import split
from search.errors import QueryError


def words(texts: Sequence[str]) -> list[int]:
    """A tokenizer that takes a word for a token."""
    return [len(text.split()) for text in texts]


CASES = [
    ("a dog on a beach", 5, ["a dog on a beach"]),
    ("A dog runs. A cat sits! Where is it?", 4, ["A dog runs.", "A cat sits!", "Where is it?"]),
    ("Dr. Smith and Mr. J. Doe talk. A cat sits.", 8, ["Dr. Smith and Mr. J. Doe talk.", "A cat sits."]),
    ('He says "stop." A cat sits.', 4, ['He says "stop."', "A cat sits."]),
    ("a red car at night; two men talking", 5, ["a red car at night", "two men talking"]),
    ("One fits. a red car at night; two men talking", 5, ["One fits.", "a red car at night", "two men talking"]),
    ("a man in a hat, two dogs that run", 5, ["a man in a hat", "two dogs that run"]),
    ("a man in a hat, and two dogs that run", 5, ["a man in a hat", "two dogs that run"]),
    ("a long, dark, winding road in the hills", 7, ["a long, dark", "winding road in the hills"]),
    ("two dogs that run, a man in a hat, snow", 6, ["two dogs that run", "a man in a hat, snow"]),
    ("a man in a hat and two dogs that run", 5, ["a man in a hat", "two dogs that run"]),
    ("1,000 people, 2,000 dogs that bark", 4, ["1,000 people", "2,000 dogs that bark"]),
    ("one two three four five six seven", 4, ["one two three four", "five six seven"]),
    ("one two three four five", 2, ["one two", "three", "four five"]),
    ("A dog runs. A dog runs. A cat sits.", 4, ["A dog runs.", "A cat sits."]),
    ("a dog runs\n\na cat sits", 4, ["a dog runs", "a cat sits"]),
]


@pytest.mark.parametrize("text, most, clauses", CASES)
def test_a_text_is_split_where_sense_says(text, most, clauses):
    assert list(split(text, words, most)) == clauses


def test_texts_without_spaces_are_split_at_their_own_marks():
    text = "犬が走っている。猫が座っている。赤い車、青い空"

    def characters(texts: Sequence[str]) -> list[int]:
        return list(map(len, texts))

    assert split(text, characters, 8) == ("犬が走っている。", "猫が座っている。", "赤い車、青い空")
    assert split(text, characters, 24) == (text,)
    with pytest.raises(QueryError, match="single word"):
        split("犬が走っている", characters, 5)


def test_a_word_longer_than_the_context_is_an_error():
    with pytest.raises(QueryError, match=r"single word .*: aaaa"):
        split("a dog " + "a" * 50, lambda texts: [len(text) for text in texts], 20)


PIECES = st.sampled_from(
    ["a", "dog", "and", "red", " ", ",", ", ", ". ", "; ", "!", "Mr.", "\n\n", "犬", "。", "、", " and "]
)


@given(st.lists(PIECES, max_size=40).map("".join), st.integers(2, 12))
def test_every_clause_fits_and_no_word_is_lost(text, most):
    clauses = split(text, words, most)
    assert all(count <= most for count in words(clauses))
    kept = {word.strip(",;、") for clause in clauses for word in clause.replace("、", " ").split()}
    for word in ("dog", "red", "犬"):
        assert (word in text) == any(word in part for part in kept)
