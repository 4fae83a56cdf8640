"""The bank of a model: what it makes of unrelated prompts and of nonsense, computed once and kept.

Beside the recipes lies one array per model, `FINGERPRINT.bank.npy`, for a library that can't be written to, or lies
on a server, in the user's cache; the built-in model's ships with the package. One that is damaged, or was made of other
prompts, is made anew.
"""

from __future__ import annotations

import contextlib
import io
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from search import files
from search.relevance import Bank
from search.resources import data_path, text_lines, user_cache

if TYPE_CHECKING:
    import numpy.typing as npt

    from search.encoders import TextTower
    from search.types import Vectors

_WORDS, _SENTENCES = data_path("bank", "words.txt"), data_path("bank", "sentences.txt")
_LONGER = 400  # prompts that are made of sentences.txt
_NONSENSE = 600
_BATCH = 600  # at least: so many a text half neither remembers nor opens the whole model for
_KEYS = ("qwertyuiop", "asdfghjkl", "zxcvbnm", "qweasdzxc", "uiojklbnm")
_LETTERS, _CONSONANTS, _VOWELS = "abcdefghijklmnopqrstuvwxyz", "bcdfghklmnprstvz", "aeiou"
_MARKS = "0123456789#@%&!?-_."


def make(tower: TextTower) -> Bank:
    """Compute the bank of a model: some thousands of short texts to embed."""
    words = text_lines(_WORDS)
    prompts = [*words, *_sentences(words)]
    vectors = _embed(tower, [*prompts, *_nonsense(words)])
    return Bank.fit(vectors[: len(prompts)], vectors[len(prompts) :])


def load(folder: Path | None, fingerprint: str) -> Bank | None:
    """Return a model's bank as it was kept in a folder or ships; None if there is none."""
    for place in (_shipped(fingerprint), folder / _name(fingerprint) if folder else None):
        with contextlib.suppress(OSError, ValueError, EOFError):
            if place is not None and (bank := _unpack(np.load(place))):
                return bank
    return None


def default_cache() -> Path:
    """Return where banks are for all of a user's libraries: the platform's user cache directory, `search/banks`."""
    return user_cache("banks")


def save(bank: Bank, folder: Path, fingerprint: str) -> None:
    """Keep a model's bank in a folder.   Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    write(bank, folder / _name(fingerprint))


def write(bank: Bank, path: Path) -> None:
    """Write a bank as one array (D + 3, D) float32: mean, axis, a row of origin and checksum, covariance."""
    rows = np.zeros((len(bank.mean) + 3, len(bank.mean)), np.float32)
    rows[0], rows[1], rows[3:] = bank.mean, bank.axis, bank.covariance
    rows[2, :2] = bank.origin, _version()
    data = io.BytesIO()
    np.save(data, rows)
    files.atomic_write(path, data.getvalue())


def _unpack(rows: npt.NDArray[np.float32]) -> Bank | None:
    if rows.ndim != 2 or rows.shape[0] != rows.shape[1] + 3 or rows[2, 1] != _version():
        return None
    if not np.isfinite(rows).all():
        return None
    wide = rows.astype(np.float64)
    return Bank(wide[0], wide[3:], wide[1], float(wide[2, 0]))


def _name(fingerprint: str) -> str:
    return f"{fingerprint}.bank.npy"


def _shipped(fingerprint: str) -> Path:
    return data_path("bank", _name(fingerprint))


def _version() -> float:
    """Return a number that is another when the prompts are, exact in float32."""
    digest = zlib.crc32(_WORDS.read_bytes() + _SENTENCES.read_bytes(), _LONGER + _NONSENSE)
    return float(digest % 2**24)


def _sentences(words: Sequence[str]) -> Iterator[str]:
    templates, count = text_lines(_SENTENCES), len(words)
    for number in range(_LONGER):  # strides that share no factor with usual counts: all words come, in other pairs
        pair = {"a": words[7 * number % count], "b": words[(11 * number + 3) % count]}
        yield templates[number % len(templates)].format(**pair)


def _nonsense(words: Sequence[str]) -> Iterator[str]:
    """Letters, keys, syllables and marks by chance, and words whose letters were shuffled: the same each time."""
    import random

    chance = random.Random(0)  # noqa: S311 nothing secret

    def one(of: Sequence[str]) -> str:
        return of[int(chance.random() * len(of))]  # the one method that gives the same in all versions

    def run(of: str, least: int, most: int) -> str:
        return "".join(one(of) for _ in range(least + int(chance.random() * (most - least + 1))))

    def syllables() -> str:
        return "".join(one(_CONSONANTS) + one(_VOWELS) for _ in range(2 + int(chance.random() * 5)))

    def shuffled() -> str:
        letters = (one(words) + one(words)[:4]).replace(" ", "")
        return "".join(sorted(letters, key=lambda _: chance.random()))

    def keys() -> str:
        return run(one(_KEYS), 4, 14)

    kinds = (lambda: run(_LETTERS, 3, 14), keys, shuffled, syllables, lambda: run(_MARKS, 3, 12))
    for number in range(_NONSENSE):
        parts = 2 + int(chance.random() * 2) if number % 6 == 5 else 1
        yield " ".join(kinds[(number + part) % (3 if parts > 1 else 5)]() for part in range(parts))


def _embed(tower: TextTower, texts: Sequence[str]) -> Vectors:
    order = sorted(range(len(texts)), key=lambda place: len(texts[place]))  # texts of one length need no padding
    rows: Vectors | None = None
    for places in np.array_split(np.array(order), max(1, len(order) // _BATCH)):
        part = tower.encode_texts([texts[place] for place in places])
        rows = np.empty((len(texts), part.shape[1]), np.float32) if rows is None else rows
        rows[places] = part
    assert rows is not None
    return rows
