"""CLIP's words → token ids, in plain Python.

The ids that open_clip.SimpleTokenizer gives with its default cleaning ("lower"), without importing open_clip
and with it torch: only the list of merges is read out of the installed package. Byte-pair encoding as in
Sennrich et al., arXiv:1508.07909, over bytes as in GPT-2; a word's last symbol carries "</w>".
"""

from __future__ import annotations

import gzip
import re
from functools import cache, lru_cache
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from search.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator

Symbol: TypeAlias = tuple[str, int]
"""A part of a word, in the alphabet of the list of merges, and its token id."""

START, END = 49406, 49407
VOCABULARY = 49408

_MERGES_FILE = "bpe_simple_vocab_16e6.txt.gz"
_MERGES = VOCABULARY - 2 - 2 * 256  # the file holds more; the vocabulary ends here
_MERGES_BYTES = 2**20  # twice what they take, unpacked
_WORD_END = "</w>"
_SPECIAL = {"<start_of_text>": START, "<end_of_text>": END}  # spelt out in a text, they are these tokens

# Nothing in such a text is for ftfy to mend: no byte beyond ASCII, no control character, no entity.
_CLEAN = re.compile(r"[\t\n\r -%'-~]*")
_PATTERN = r"<start_of_text>|<end_of_text>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_ASCII_WORDS = re.compile(_PATTERN.replace(r"\p{L}", "a-z").replace(r"\p{N}", "0-9"))


class ClipTokenizer:
    """Cuts texts into CLIP's tokens.

    context_length: tokens a text may have, start and end included.
    """

    def __init__(self, context_length: int) -> None:
        self.context_length = context_length

    def encode(self, text: str) -> list[int]:
        """Return the ids of all tokens of a text, without start and end.

        Raises ModelError if open_clip is not installed: the list of merges is part of it.
        """
        return [token for word in _words(_cleaned(text)) for token in _word_ids(word)]

    def count(self, text: str) -> int:
        """Return how many tokens a text needs, start and end included, were there room for all."""
        return len(self.encode(text)) + 2

    def __call__(self, text: str) -> list[int]:
        """Return the ids from start to end, at most `context_length`: of a longer text the rest is cut off.

        open_clip pads these with zeros to the full length.
        """
        tokens = [START, *self.encode(text), END]
        if len(tokens) > self.context_length:
            tokens = [*tokens[: self.context_length - 1], END]
        return tokens


def _cleaned(text: str) -> str:
    """Mend mojibake and HTML entities, make whitespace single spaces, and lower the case."""
    if not _CLEAN.fullmatch(text):
        import html

        import ftfy

        text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return " ".join(text.split()).lower()


def _words(text: str) -> list[str]:
    """Split a cleaned text; beyond ASCII by the third-party regex, which knows letters and numbers."""
    return _ASCII_WORDS.findall(text) if text.isascii() else _any_words(text)


def _any_words(text: str) -> list[str]:
    import regex  # type: ignore[import-untyped]

    words: list[str] = regex.compile(_PATTERN, regex.IGNORECASE).findall(text)
    return words


@lru_cache(maxsize=2**14)
def _word_ids(word: str) -> tuple[int, ...]:
    """Join a word's symbols, always the pair that was learnt first, until no pair is in the list."""
    if word in _SPECIAL:
        return (_SPECIAL[word],)
    merges, base = _merges(), _base()
    symbols = [base[byte] for byte in word.encode()]
    symbols[-1] = (symbols[-1][0] + _WORD_END, symbols[-1][1] + 256)
    while len(symbols) > 1:
        pairs = (f"{left} {right}" for (left, _), (right, _) in pairwise(symbols))
        merged = min((merges[pair] for pair in pairs if pair in merges), default=None)
        if merged is None:
            break
        symbols = list(_join(symbols, merged, merges))
    return tuple(token for _, token in symbols)


def _join(symbols: list[Symbol], merged: int, merges: dict[str, int]) -> Iterator[Symbol]:
    """Replace each pair that gives the token `merged`, from the left."""
    place = 0
    while place < len(symbols):
        left = symbols[place][0]
        right = symbols[place + 1][0] if place + 1 < len(symbols) else ""
        if right and merges.get(f"{left} {right}") == merged:
            yield left + right, merged
            place += 2
        else:
            yield symbols[place]
            place += 1


@cache
def _merges() -> dict[str, int]:
    """Map "left right" to the id of what they make; a lower id was learnt earlier.

    The file is read only as far as the vocabulary goes: that takes a third of the time.
    """
    with gzip.open(_merges_file()) as file:
        start = file.read(_MERGES_BYTES).decode("utf-8", errors="ignore")  # its end may be half a character
    lines = start.split("\n", 1 + _MERGES)[1 : 1 + _MERGES]  # the first names the version
    return dict(zip(lines, range(2 * 256, 2 * 256 + _MERGES), strict=True))


def _merges_file() -> Path:
    found = find_spec("open_clip")  # looks for the package without importing it
    if found is None or found.origin is None:
        raise ModelError(
            "CLIP's tokenizer needs open_clip, which is not installed", hint="pip install open_clip_torch"
        )
    return Path(found.origin).with_name(_MERGES_FILE)


@cache
def _base() -> dict[int, Symbol]:
    """Map each byte to its symbol and id, in GPT-2's order: printable bytes first, as themselves."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = sorted(set(range(256)) - set(printable))
    characters = printable + [256 + number for number in range(len(others))]
    return {
        byte: (chr(char), token)
        for token, (byte, char) in enumerate(zip(printable + others, characters, strict=True))
    }
