"""What to look for, as terms; terms → one unit vector."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from search.errors import QueryError
from search.vectors import normalize

if TYPE_CHECKING:
    from search.types import Vectors

# A number and a colon before anything: `2:red car`, `0.5:night`. Text that begins so by itself takes a weight
# of its own: `1:16:9 screenshot`.
WEIGHT = r"(?P<weight>\d+(?:\.\d+)?(?:e[+-]?\d+)?):"
_WEIGHTED = re.compile(WEIGHT + r"(?P<value>.+)", re.DOTALL)
_SIGNIFICANT = frozenset('"+-:')


class Kind(StrEnum):
    """What a term of a query is."""

    TEXT = "text"
    IMAGE = "image"  # the path of a file
    PHOTO = "photo"  # the id of a photo in the library
    VECTOR = "vector"  # the name of a vector that is handed over with the query


@dataclass(frozen=True, slots=True)
class Term:
    """One part of a query; a negative weight pushes away."""

    kind: Kind
    value: str
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Query:
    """What to look for: weighted texts and images, summed."""

    terms: tuple[Term, ...]

    def __str__(self) -> str:
        if _is_plain(self.terms):
            return self.terms[0].value
        from search.grammar import spelled

        return spelled(self)

    def of(self, kind: Kind) -> list[Term]:
        """Return the terms of one kind."""
        return [term for term in self.terms if term.kind is kind]


def parse(
    texts: Sequence[str], *, avoid: Sequence[str] = (), like: Sequence[str] = (), unlike: Sequence[str] = ()
) -> Query:
    """Return the query of several terms, each with an optional weight in front (`2:red car`).

    texts: to look for, avoid: to push away.   like, unlike: photos, likewise: paths of image files, or ids of photos
    of the library; a number is an id unless there is a file of that name.
    Raises QueryError where nothing is asked.
    """
    wanted = [*(_term(Kind.TEXT, text) for text in texts), *map(_example, like)]
    return asking([*wanted, *unwanted(avoid, unlike)])


def embed(query: Query, sources: dict[Kind, Callable[[list[str]], Vectors]]) -> Vectors:
    """Return the query's vector (1, D), unit: Σ weight · vector over its terms, renormalised.

    sources: turns the values of one kind of term into unit rows (N, D), in order.
    Raises QueryError if the terms cancel out.
    """
    import numpy as np

    total: Vectors | None = None
    for kind, vectors_of in sources.items():
        terms = query.of(kind)
        if terms:
            weights = np.array([term.weight for term in terms], np.float32)
            part = weights @ vectors_of([term.value for term in terms])  # (D,)
            total = part if total is None else total + part
    if total is None or np.linalg.norm(total) < 1e-6:
        raise QueryError("the terms of the query cancel out", hint="change a weight")
    return normalize(total[None])


def unwanted(texts: Sequence[str], photos: Sequence[str]) -> list[Term]:
    """Return the terms that push away, as `parse` takes them."""
    return [*(_term(Kind.TEXT, text, -1) for text in texts), *(_example(photo, -1) for photo in photos)]


def asking(terms: Sequence[Term]) -> Query:
    """Return the query of some terms.   Raises QueryError if none of them is to look for."""
    if not any(term.weight > 0 for term in terms):
        raise QueryError("the query asks for nothing", hint="give a text, or a photo with --like")
    return Query(tuple(terms))


def _term(kind: Kind, text: str, sign: int = 1) -> Term:
    weighted = _WEIGHTED.fullmatch(text)
    value = (weighted["value"] if weighted else text).strip()
    if not value:
        raise QueryError("a term of the query is empty")
    return Term(kind, value, sign * (weight_of(weighted, value) if weighted else 1.0))


def _example(text: str, sign: int = 1) -> Term:
    term = _term(Kind.IMAGE, text, sign)
    named = is_id(term.value) and not os.path.lexists(term.value)
    return Term(Kind.PHOTO, term.value, term.weight) if named else term


def weight_of(found: re.Match[str], of: str, *, column: int | None = None) -> float:
    """Return the weight that was found in front of something.   Raises QueryError if it is none."""
    weight = float(found["weight"])
    if not 0 < weight < float("inf"):
        place = f" at column {column}" if column else ""
        hint = "leave the term out or weigh it less"
        raise QueryError(f"the weight of {of[:40]!r}{place} is {weight:g}", hint=hint, column=column)
    return weight


def is_id(text: str) -> bool:
    """Say whether a text can be the id of a photo."""
    return text.isascii() and text.isdecimal()


def _is_plain(terms: Sequence[Term]) -> bool:
    """Say whether it is one text that needs no grammar to be written, nor what reads it to be imported."""
    [first, *others] = terms
    value = first.value
    plain = first.kind is Kind.TEXT and first.weight == 1 and not others
    return plain and value == value.strip() and _SIGNIFICANT.isdisjoint(value)
