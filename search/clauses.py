"""A text that is longer than a model reads → clauses that fit, each a statement that can hold or not.

It is split at the ends of sentences; a sentence that is still too long at semicolons, then at commas, then at "and",
and at last into halves between words. Between commas and around "and" a few words alone are rarely a statement
("a long, dark, winding road"), so they stay with what is beside them as long as that fits.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

from search.errors import QueryError

Count: TypeAlias = Callable[[Sequence[str]], list[int]]
Fits: TypeAlias = Callable[[str], bool]
Way: TypeAlias = Callable[[str, Fits], list[str]]
Span: TypeAlias = tuple[int, int]

_SENTENCE = re.compile(r"(?<=[.!?…])\s+|(?<=[.!?…][\"'”’)])\s+|(?<=[。！？])\s*|\n\s*\n")
_ABBREVIATED = re.compile(
    r"(?:^|[\s(\"'])(?:[^\W\d]|mr|mrs|ms|dr|prof|st|vs|etc|e\.g|i\.e|ca|no)\.$", re.IGNORECASE
)
_SEMICOLON = re.compile(r"(?<!\s)\s*[;；]\s*(?:and\s+)?", re.IGNORECASE)
_COMMA = re.compile(r"(?<!\s)\s*(?:,\s|[，、])\s*(?:and\s+)?", re.IGNORECASE)
_AND = re.compile(r"(?<!\s)\s+and\s+", re.IGNORECASE)
# Chinese, Japanese and Korean have no spaces between words; a character counts as one.
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+")
_FEW_WORDS = 3  # less are no statement


def split(text: str, count: Count, most: int) -> tuple[str, ...]:
    """Return the clauses of a text, in order, each once; a text that fits is its only one.

    count: tokens that each of some texts needs.   most: tokens that a text may have.
    Raises QueryError for a single word of more.
    """

    def fits(part: str) -> bool:
        return count([part])[0] <= most

    return tuple(dict.fromkeys(_fitting(text.strip(), fits, (_sentences, _semicolons, _commas, _ands, _halves))))


def _fitting(text: str, fits: Fits, ways: Sequence[Way]) -> list[str]:
    if fits(text):
        return [text]
    for number, way in enumerate(ways):
        parts = way(text, fits)
        if len(parts) > 1:
            return [clause for part in parts for clause in _fitting(part, fits, ways[number:])]
    raise QueryError(
        f"a single word of the query is longer than the model reads: {text[:40]}…",
        hint="write it with spaces or commas, or leave it out",
    )


def _sentences(text: str, _: Fits) -> list[str]:
    ends = [
        end
        for end in _SENTENCE.finditer(text)
        if not _ABBREVIATED.search(text, max(0, end.start() - 8), end.start())
    ]
    return _texts(text, _between(text, ends))


def _semicolons(text: str, _: Fits) -> list[str]:
    return _texts(text, _between(text, _SEMICOLON.finditer(text)))


def _commas(text: str, fits: Fits) -> list[str]:
    return _texts(text, _together(text, _between(text, _COMMA.finditer(text)), fits))


def _ands(text: str, fits: Fits) -> list[str]:
    return _texts(text, _together(text, _between(text, _AND.finditer(text)), fits))


def _halves(text: str, _: Fits) -> list[str]:
    words = text.split()
    middle = (len(words) + 1) // 2
    return [half for half in (" ".join(words[:middle]), " ".join(words[middle:])) if half]


def _between(text: str, gaps: Iterable[re.Match[str]]) -> list[Span]:
    """Return what lies between the gaps, without what is empty."""
    places = [place for gap in gaps for place in gap.span()]
    edges = [0, *places, len(text)]
    return [(start, end) for start, end in zip(edges[::2], edges[1::2], strict=True) if text[start:end].strip()]


def _together(text: str, spans: list[Span], fits: Fits) -> list[Span]:
    """Lay a few words alone to what follows, at the end to what precedes, where both together fit."""
    kept: list[Span] = []
    for start, end in spans:
        last = kept[-1] if kept else (0, 0)
        is_last = end == spans[-1][1]
        lonely = _is_short(text[slice(*last)]) or (is_last and _is_short(text[start:end]))
        if kept and lonely and fits(text[last[0] : end]):
            kept[-1] = (last[0], end)
        else:
            kept.append((start, end))
    return kept


def _is_short(text: str) -> bool:
    return len(_WORD.findall(text)) < _FEW_WORDS


def _texts(text: str, spans: list[Span]) -> list[str]:
    return [text[start:end].strip() for start, end in spans]
