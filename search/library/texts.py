"""The texts of one query: what is too long for the model goes in as clauses, and all into templates if any."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from search.errors import UsageError
from search.query import Kind, Query
from search.vectors import normalize

if TYPE_CHECKING:
    from search.encoders import TextTower
    from search.types import Vectors

_PLAIN = ("{}",)


class Texts:
    """What a model makes of texts, none of them cut off.

    templates: each holds `{}` where a text goes; the mean of a text's prompts counts.
    Raises UsageError for a template without.
    """

    def __init__(self, tower: TextTower, templates: Sequence[str]) -> None:
        self._tower = tower
        self._templates = tuple(templates) or _PLAIN
        self._clauses: dict[str, tuple[str, ...]] = {}
        if wrong := [template for template in self._templates if "{}" not in template]:
            raise UsageError(f"the template {wrong[0]!r} has no {{}} where the text goes")

    def clauses(self, text: str) -> tuple[str, ...]:
        """Return the clauses of a text, itself alone if the model reads it whole.   Raises QueryError."""
        if text not in self._clauses:
            self._clauses[text] = self._split(text)
        return self._clauses[text]

    def _split(self, text: str) -> tuple[str, ...]:
        if self._count([text])[0] <= self._tower.context_length:
            return (text,)
        from search.clauses import split

        return split(text, self._count, self._tower.context_length)

    def vectors(self, texts: Sequence[str]) -> Vectors:
        """Return (N, D) unit rows, one for each text; of a long one the sum of its clauses', renormalised."""
        clauses = list(dict.fromkeys(clause for text in texts for clause in self.clauses(text)))
        row = dict(zip(clauses, self._fitting(clauses), strict=True))
        sums = [np.sum([row[clause] for clause in self.clauses(text)], axis=0) for text in texts]
        return normalize(np.stack(sums))

    def _fitting(self, texts: list[str]) -> Vectors:
        rows = self._tower.encode_texts([prompt for text in texts for prompt in self._prompts(text)])
        if len(self._templates) == 1:
            return rows
        return normalize(rows.reshape(len(texts), len(self._templates), -1).mean(axis=1))  # (N, T, D) -> (N, D)

    def _count(self, texts: Sequence[str]) -> list[int]:
        """Return how many tokens the longest prompt of each text needs."""
        counts = self._tower.count_tokens([prompt for text in texts for prompt in self._prompts(text)])
        each = len(self._templates)
        return [max(counts[start : start + each]) for start in range(0, len(counts), each)]

    def _prompts(self, text: str) -> list[str]:
        return [template.replace("{}", text) for template in self._templates]


def by_clause(query: Query, texts: Texts) -> dict[str, Query]:
    """Return the query for each clause of the long texts to look for: that clause in the place of its text.

    Empty where no such text is too long for the model.
    """
    queries: dict[str, Query] = {}
    for place, term in enumerate(query.terms):
        clauses = texts.clauses(term.value) if term.kind is Kind.TEXT and term.weight > 0 else ()
        for clause in clauses if len(clauses) > 1 else ():
            terms = (*query.terms[:place], replace(term, value=clause), *query.terms[place + 1 :])
            queries.setdefault(clause, Query(terms))
    return queries


def remembering(vectors_of: Callable[[list[str]], Vectors]) -> Callable[[list[str]], Vectors]:
    """Wrap what turns values into rows so that none is turned twice."""
    known: dict[str, Vectors] = {}

    def remembered(values: list[str]) -> Vectors:
        missing = [value for value in dict.fromkeys(values) if value not in known]
        if missing:
            known.update(zip(missing, vectors_of(missing), strict=True))
        return np.stack([known[value] for value in values])

    return remembered


def is_in_another_script(texts: Iterable[str]) -> bool:
    """Say whether most letters of some texts are not Latin ones."""
    letters = [char for text in texts if not text.isascii() for char in text if char.isalpha()]
    if not letters:
        return False
    import unicodedata

    latin = sum("LATIN" in unicodedata.name(char, "") for char in letters)
    return len(letters) > 2 * latin
