"""Query strings → Query; Query → one unit vector.

The grammar of a whole query in one string, as `parse_query` reads it and `str(query)` writes it:

    query   = ["+ " | "- "] term { (" + " | " - ") term }
    term    = [weight ":"] (text | "like:" photo)
    text    = quoted | anything up to the next sign
    photo   = an id | the path of a file, quoted or not; in quotes it is always a path
    quoted  = '"' anything, with every '"' in it doubled '"'

A sign is one only between spaces, so hyphens and a leading dash belong to the text.
"""

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
_WEIGHT = r"(?P<weight>\d+(?:\.\d+)?(?:e[+-]?\d+)?):"
_WEIGHTED = re.compile(_WEIGHT + r"(?P<value>.+)", re.DOTALL)
_IN_FRONT = re.compile(_WEIGHT + r"(?=.)", re.DOTALL)
_LIKE = "like:"
_SIGN = re.compile(r"(?<!\s)\s+(?P<sign>[+-])(?=\s|$)\s*")
_FIRST_SIGN = re.compile(r"\s*(?P<sign>[+-])(?=\s|$)\s*")
_QUOTED = re.compile(r'"(?P<inside>(?:[^"]|"")*)"')
_NOT_PLAIN = re.compile(rf'"|{_LIKE}|{_WEIGHT}|(?:.*\s)?[+-](?:\s|$)', re.DOTALL)


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
        signs = [
            "- " if self.terms[0].weight < 0 else "",
            *(" - " if t.weight < 0 else " + " for t in self.terms[1:]),
        ]
        return "".join(sign + _spelled(term) for sign, term in zip(signs, self.terms, strict=True))

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
    return _asking([*wanted, *_unwanted(avoid, unlike)])


def parse_query(text: str, *, avoid: Sequence[str] = (), unlike: Sequence[str] = ()) -> Query:
    """Return the query that one string spells: `red car + 2:"beach at night" - people + like:12`.

    avoid, unlike: more to push away, as in `parse`.
    Raises QueryError, which points at the column, counted from 1.
    """
    terms = []
    found = _FIRST_SIGN.match(text)
    while True:
        term, end = _scan(text, found)
        terms.append(term)
        if end == len(text):
            return _asking([*terms, *_unwanted(avoid, unlike)])
        found = _SIGN.match(text, end)


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


def _unwanted(texts: Sequence[str], photos: Sequence[str]) -> list[Term]:
    return [*(_term(Kind.TEXT, text, -1) for text in texts), *(_example(photo, -1) for photo in photos)]


def _asking(terms: list[Term]) -> Query:
    if not any(term.weight > 0 for term in terms):
        raise QueryError("the query asks for nothing", hint="give a text, or a photo with --like")
    return Query(tuple(terms))


def _term(kind: Kind, text: str, sign: int = 1) -> Term:
    weighted = _WEIGHTED.fullmatch(text)
    value = (weighted["value"] if weighted else text).strip()
    if not value:
        raise QueryError("a term of the query is empty")
    return Term(kind, value, sign * (_weight(weighted, value) if weighted else 1.0))


def _example(text: str, sign: int = 1) -> Term:
    term = _term(Kind.IMAGE, text, sign)
    is_id = _is_id(term.value) and not os.path.lexists(term.value)
    return Term(Kind.PHOTO, term.value, term.weight) if is_id else term


def _weight(found: re.Match[str], of: str, *, column: int | None = None) -> float:
    weight = float(found["weight"])
    if not 0 < weight < float("inf"):
        place = f" at column {column}" if column else ""
        hint = "leave the term out or weigh it less"
        raise QueryError(f"the weight of {of[:40]!r}{place} is {weight:g}", hint=hint, column=column)
    return weight


# the grammar


def _scan(text: str, sign: re.Match[str] | None) -> tuple[Term, int]:
    """Return the term behind a sign, which the first one may lack, and where it ends."""
    start = _after_spaces(text, sign.end() if sign else 0)
    if start == len(text) or _FIRST_SIGN.match(text, start):
        raise _missing(text, sign)
    weight, start = _scan_weight(text, start)
    like = text.startswith(_LIKE, start) and not text[start + len(_LIKE) :][:1].isspace()
    start += len(_LIKE) if like else 0
    value, end, quoted = _value(text, start)
    if not value.strip():
        raise QueryError(f"the term at column {start + 1} is empty", column=start + 1)
    kind = Kind.TEXT if not like else Kind.PHOTO if _is_id(value) and not quoted else Kind.IMAGE
    return Term(kind, value, -weight if sign and sign["sign"] == "-" else weight), end


def _scan_weight(text: str, start: int) -> tuple[float, int]:
    """Return the weight in front of a term, and where what it weighs begins."""
    found = _IN_FRONT.match(text, start)
    if found is None:
        return 1.0, start
    weight = _weight(found, text[found.end() :], column=start + 1)
    return weight, found.end() if _SIGN.match(text, found.end()) else _after_spaces(text, found.end())


def _value(text: str, start: int) -> tuple[str, int, bool]:
    """Return what a term says, where it ends with the spaces behind the last one, and whether it was quoted."""
    if not text.startswith('"', start):
        sign = _SIGN.search(text, start)
        end = sign.start() if sign else len(text)
        return text[start:end].strip(), end, False
    found = _QUOTED.match(text, start)
    if found is None:
        raise QueryError(f"the quote at column {start + 1} is not closed", column=start + 1)
    end = found.end()
    if text[end:].strip() and not _SIGN.match(text, end):
        place = _after_spaces(text, end)
        raise QueryError(
            f"+ or - between spaces is missing before column {place + 1}",
            hint="or put the whole text in quotes, with quotes in it doubled",
            column=place + 1,
        )
    return found["inside"].replace('""', '"'), end if text[end:].strip() else len(text), True


def _missing(text: str, sign: re.Match[str] | None) -> QueryError:
    if sign is None:
        return QueryError("the query is empty", column=1)
    column = sign.start("sign") + 1
    return QueryError(
        f"nothing to look for follows the {sign['sign']} at column {column}",
        hint="put text with such signs in quotes",
        column=column,
    )


def _after_spaces(text: str, place: int) -> int:
    return len(text) - len(text[place:].lstrip())


def _spelled(term: Term) -> str:
    """Write a term as `parse_query` reads it, without its sign."""
    weight = "" if abs(term.weight) == 1 else f"{repr(abs(term.weight)).removesuffix('.0')}:"
    if term.kind is Kind.PHOTO:
        return f"{weight}{_LIKE}{term.value}"
    like = _LIKE if term.kind is Kind.IMAGE else ""
    is_plain = term.value == term.value.strip() and not _NOT_PLAIN.match(term.value)
    if not is_plain or (like and _is_id(term.value)):
        return f'{weight}{like}"{term.value.replace(chr(34), chr(34) * 2)}"'
    return f"{weight}{like}{term.value}"


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdecimal()
