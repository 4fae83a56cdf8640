"""Query strings → Query; Query → one unit vector."""

from __future__ import annotations

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
_WEIGHTED = re.compile(r"(?P<weight>\d+(?:\.\d+)?):(?P<value>.+)", re.DOTALL)


class Kind(StrEnum):
    """What a term of a query is."""

    TEXT = "text"
    IMAGE = "image"  # the path of a file
    PHOTO = "photo"  # the id of a photo in the library


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
        return " ".join(f"{_sign(term.weight)}{term.value}" for term in self.terms)

    def of(self, kind: Kind) -> list[Term]:
        """Return the terms of one kind."""
        return [term for term in self.terms if term.kind is kind]


def parse(texts: Sequence[str], *, like: Sequence[str] = (), unlike: Sequence[str] = ()) -> Query:
    """Return the query of several terms, each with an optional weight in front (`2:red car`).

    like: image files.   unlike: texts to push away.   Raises QueryError where nothing is asked.
    """
    terms = [_term(Kind.TEXT, text) for text in texts]
    terms += [_term(Kind.IMAGE, image) for image in like]
    terms += [_term(Kind.TEXT, text, sign=-1) for text in unlike]
    if not any(term.weight > 0 for term in terms):
        raise QueryError("the query asks for nothing", hint="give a text, or an image with --like")
    return Query(tuple(terms))


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


def _term(kind: Kind, text: str, sign: int = 1) -> Term:
    weighted = _WEIGHTED.fullmatch(text)
    value = (weighted["value"] if weighted else text).strip()
    weight = float(weighted["weight"]) if weighted else 1.0
    if not value:
        raise QueryError("a term of the query is empty")
    if not 0 < weight < float("inf"):
        raise QueryError(f"the weight of {value[:40]!r} is {weight:g}", hint="leave the term out or weigh it less")
    return Term(kind, value, sign * weight)


def _sign(weight: float) -> str:
    sign = "-" if weight < 0 else ""
    return sign if abs(weight) == 1 else f"{sign}{abs(weight):g}:"
