"""A whole query in one string, as `parse_query` reads it and `str(query)` writes it:

    query   = ["+ " | "- "] term { (" + " | " - ") term }
    term    = [weight ":"] (text | "like:" photo)
    text    = quoted | anything up to the next sign
    photo   = an id | the path of a file, quoted or not; in quotes it is always a path
    quoted  = '"' anything, with every '"' in it doubled '"'

A sign is one only between spaces, so hyphens and a leading dash belong to the text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from search.errors import QueryError
from search.query import WEIGHT, Kind, Query, Term, asking, is_id, unwanted, weight_of

_IN_FRONT = re.compile(WEIGHT + r"(?=.)", re.DOTALL)
_LIKE = "like:"
_SIGN = re.compile(r"(?<!\s)\s+(?P<sign>[+-])(?=\s|$)\s*")
_FIRST_SIGN = re.compile(r"\s*(?P<sign>[+-])(?=\s|$)\s*")
_QUOTED = re.compile(r'"(?P<inside>(?:[^"]|"")*)"')
_NOT_PLAIN = re.compile(rf'"|{_LIKE}|{WEIGHT}|(?:.*\s)?[+-](?:\s|$)', re.DOTALL)


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
            return asking([*terms, *unwanted(avoid, unlike)])
        found = _SIGN.match(text, end)


def spelled(query: Query) -> str:
    """Write a query as `parse_query` reads it; a vector stands there by its name, which no text can give back."""
    first, *others = (term.weight < 0 for term in query.terms)
    signs = ["- " if first else "", *(" - " if away else " + " for away in others)]
    return "".join(sign + _spelled(term) for sign, term in zip(signs, query.terms, strict=True))


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
    kind = Kind.TEXT if not like else Kind.PHOTO if is_id(value) and not quoted else Kind.IMAGE
    return Term(kind, value, -weight if sign and sign["sign"] == "-" else weight), end


def _scan_weight(text: str, start: int) -> tuple[float, int]:
    """Return the weight in front of a term, and where what it weighs begins."""
    found = _IN_FRONT.match(text, start)
    if found is None:
        return 1.0, start
    weight = weight_of(found, text[found.end() :], column=start + 1)
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
    if term.kind in (Kind.PHOTO, Kind.VECTOR):
        return f"{weight}{_LIKE}{term.value}"
    like = _LIKE if term.kind is Kind.IMAGE else ""
    is_plain = term.value == term.value.strip() and not _NOT_PLAIN.match(term.value)
    if not is_plain or (like and is_id(term.value)):
        return f'{weight}{like}"{term.value.replace(chr(34), chr(34) * 2)}"'
    return f"{weight}{like}{term.value}"
