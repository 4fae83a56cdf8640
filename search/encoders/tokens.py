"""CLIP's words → token ids, in plain Python.

The ids that open_clip.SimpleTokenizer gives with its default cleaning ("lower"), without importing open_clip
and with it torch: only the list of merges is read out of the installed package. Byte-pair encoding as in
Sennrich et al., arXiv:1508.07909, over bytes as in GPT-2; a word's last symbol carries "</w>".

Reading that list takes most of the time of a first text, so it is kept, once read, as a table that is mapped into
memory and searched by bisection: pairs of ids in order, and the id each pair becomes.
"""

from __future__ import annotations

import contextlib
import mmap
import re
import sys
import zlib
from array import array
from bisect import bisect_left
from functools import cache, cached_property, lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

START, END = 49406, 49407
VOCABULARY = 49408

_MERGES_FILE = "bpe_simple_vocab_16e6.txt.gz"
_FIRST_MERGED = 2 * 256  # ids below are the bytes', alone and at a word's end
_MERGES = VOCABULARY - 2 - _FIRST_MERGED  # the file holds more; the vocabulary ends here
_MERGES_BYTES = 2**20  # twice what they take, unpacked
_WORD_END = "</w>"
_SPECIAL = {"<start_of_text>": START, "<end_of_text>": END}  # spelt out in a text, they are these tokens

_TABLE = "clip-merges.table"
_TABLE_CRC32 = 0x9C0098F7  # of the table: CLIP's vocabulary is what it is, and another file is no table of it

# Nothing in such a text is for ftfy to mend: no byte beyond ASCII, no control character, no entity.
_CLEAN = re.compile(r"[\t\n\r -%'-~]*")
_PUNCTUATION = dict.fromkeys(map(ord, "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"))
_PATTERN = r"<start_of_text>|<end_of_text>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_ASCII_WORDS = re.compile(_PATTERN.replace(r"\p{L}", "a-z").replace(r"\p{N}", "0-9"))


class ClipTokenizer:
    """Cuts texts into CLIP's tokens.

    context_length: tokens a text may have, start and end included.   folder: where the table of merges is kept;
    None, or a folder that can't be written, costs a tenth of a second at the first text.
    """

    vocabulary = VOCABULARY
    pad = 0

    def __init__(self, context_length: int, *, folder: Path | None = None) -> None:
        self.context_length = context_length
        self._folder = folder
        self._word_ids = lru_cache(maxsize=2**14)(self._find_word_ids)

    def encode(self, text: str) -> list[int]:
        """Return the ids of all tokens of a text, without start and end.

        Raises ModelError if open_clip is not installed: the list of merges is part of it.
        """
        return [token for word in _words(lowered(text)) for token in self._word_ids(word)]

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

    @cached_property
    def _merges(self) -> Merges:
        return load_merges(self._folder)

    def _find_word_ids(self, word: str) -> tuple[int, ...]:
        """Join a word's symbols, always the pair that was learnt first, until no pair is in the list."""
        if word in _SPECIAL:
            return (_SPECIAL[word],)
        merges = self._merges
        symbols = [_BYTE_IDS[byte] for byte in word.encode()]
        symbols[-1] += 256
        while len(symbols) > 1:
            merged = min(map(merges.find, symbols, symbols[1:]))
            if merged == VOCABULARY:
                break
            symbols = list(_join(symbols, merged, merges.find))
        return tuple(symbols)


class Merges:
    """What each pair of symbols becomes, all by id; a lower id was learnt earlier.

    table: (N,) pairs, left · 2¹⁶ + right, ascending, four bytes each, then (N,) ids, two bytes each.
    """

    def __init__(self, table: bytes | mmap.mmap) -> None:
        view = memoryview(table)
        self.pairs: Sequence[int] = view[: 4 * _MERGES].cast("I")
        self.ids: Sequence[int] = view[4 * _MERGES :].cast("H")
        self.find = lru_cache(maxsize=2**16)(self._find)  # a long word asks for the same pairs again and again

    def _find(self, left: int, right: int) -> int:
        """Return the id of what the pair becomes; VOCABULARY, which is above all ids, if it is in no list."""
        pair = left << 16 | right
        place = bisect_left(self.pairs, pair)
        return self.ids[place] if place < _MERGES and self.pairs[place] == pair else VOCABULARY


def _join(symbols: list[int], merged: int, find: Callable[[int, int], int]) -> Iterator[int]:
    """Replace each pair that gives the token `merged`, from the left."""
    place = 0
    while place < len(symbols):
        if place + 1 < len(symbols) and find(symbols[place], symbols[place + 1]) == merged:
            yield merged
            place += 2
        else:
            yield symbols[place]
            place += 1


def lowered(text: str) -> str:
    """Mend mojibake and HTML entities, make whitespace single spaces, and lower the case."""
    return spaced(text).lower()


def spaced(text: str) -> str:
    """Mend mojibake and HTML entities, and make whitespace single spaces."""
    return " ".join(_mended(text).split())


def canonicalized(text: str) -> str:
    """Do what `lowered` does, and drop ASCII's punctuation; an underscore separates words."""
    return " ".join(_mended(text).replace("_", " ").translate(_PUNCTUATION).lower().split())


def _mended(text: str) -> str:
    if _CLEAN.fullmatch(text):
        return text
    import html

    import ftfy

    return html.unescape(html.unescape(ftfy.fix_text(text)))


def _words(text: str) -> list[str]:
    """Split a cleaned text; beyond ASCII by the third-party regex, which knows letters and numbers."""
    return _ASCII_WORDS.findall(text) if text.isascii() else _any_words(text)


def _any_words(text: str) -> list[str]:
    import regex  # type: ignore[import-untyped]

    words: list[str] = regex.compile(_PATTERN, regex.IGNORECASE).findall(text)
    return words


def is_english_only(config: Mapping[str, Any]) -> bool:
    """Say whether a model, by open_clip's model_cfg, has CLIP's tokenizer, whose merges were learnt from English."""
    return not config["text_cfg"].get("hf_tokenizer_name")


# the table of merges


def load_merges(folder: Path | None) -> Merges:
    """Map the table that `folder` keeps; without a sound one make it, and keep it there if that can be.

    Raises ModelError if it must be made and open_clip is not installed.
    """
    if folder is None or sys.byteorder == "big":
        return _made_merges()
    with contextlib.suppress(OSError, ValueError):
        return Merges(_mapped(folder / _TABLE))
    merges = _made_merges()
    _keep(folder)
    return merges


def _keep(folder: Path) -> None:
    from search import files

    table = _table()
    if zlib.crc32(table) == _TABLE_CRC32:
        with contextlib.suppress(OSError):
            folder.mkdir(exist_ok=True)
            files.atomic_write(folder / _TABLE, table)


@cache
def _made_merges() -> Merges:
    return Merges(_table())


def _mapped(path: Path) -> mmap.mmap:
    """Raise OSError or ValueError if there is no table of this vocabulary."""
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if zlib.crc32(mapped) != _TABLE_CRC32:
        raise ValueError("the table is damaged")
    return mapped


@cache
def _table() -> bytes:
    symbols = _symbols()
    pairs = {}
    for merged, line in enumerate(_merge_lines(), _FIRST_MERGED):
        left, right = line.split(" ")
        pairs[symbols[left] << 16 | symbols[right]] = merged
        symbols[left + right] = merged
    ordered = sorted(pairs)
    return array("I", ordered).tobytes() + array("H", map(pairs.__getitem__, ordered)).tobytes()


def _merge_lines() -> list[str]:
    """Return "left right" of each merge, in the order they were learnt.

    The file is read only as far as the vocabulary goes: that takes a third of the time.
    """
    import gzip

    with gzip.open(_merges_file()) as file:
        start = file.read(_MERGES_BYTES).decode("utf-8", errors="ignore")  # its end may be half a character
    return start.split("\n", 1 + _MERGES)[1 : 1 + _MERGES]  # the first names the version


def _merges_file() -> Path:
    found = find_spec("open_clip")  # looks for the package without importing it
    if found is None or found.origin is None:
        raise ModelError(
            "CLIP's tokenizer needs open_clip, which is not installed", hint="pip install open_clip_torch"
        )
    return Path(found.origin).with_name(_MERGES_FILE)


def _alphabet() -> dict[str, int]:
    """Map GPT-2's character for each byte to the byte, in the order of their ids: printable bytes as themselves."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = sorted(set(range(256)) - set(printable))
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


_BYTE_IDS = {byte: token for token, byte in enumerate(_alphabet().values())}


def _symbols() -> dict[str, int]:
    """Map the symbols that merging begins with to their ids."""
    alone = {character: token for token, character in enumerate(_alphabet())}
    return alone | {character + _WORD_END: token + 256 for character, token in alone.items()}
