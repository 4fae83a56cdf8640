"""What a generation says of itself: which files it has, how long they are and what is in them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

import numpy as np

from search.vectors import CODES, EXACT, LISTS
from search.vectors.coarse import LEAST, Layout
from search.vectors.lists import ListLayout

FORMAT = 3
"""1 had no codes, and no word about what kind of index was wanted; 2 had no lists."""
AUTO = "auto"
"""The kind of index is chosen by size."""
WISHES = (AUTO, EXACT, CODES, LISTS)
EXACT_UP_TO = 50_000
"""Vectors up to which scoring every row takes a few milliseconds, so that codes gain nothing."""
CODES_UP_TO = 2_000_000
"""Vectors up to which all codes are read: that finds a little more, and takes some ten milliseconds."""
MANIFEST, ROWS, GONE = "MANIFEST.json", "rows.db", "gone.i64"
HALF, ID = np.dtype("<f2"), np.dtype("<i8")


class Unsound(Exception):
    """A generation is not what it should be; the text says in what."""


@dataclass(frozen=True, slots=True)
class File:
    """A file as the manifest has it."""

    name: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class EncoderFiles:
    """An encoder that has vectors in a generation, and how many.

    kind: of the index over them.   learned_from: how many there were when its code was learned, 0 without one.
    lists, probe: how many lists its codes are in and how many of them a query reads, 0 where they are in none.
    """

    id: int
    name: str
    fingerprint: str
    dim: int
    count: int
    kind: str = EXACT
    learned_from: int = 0
    lists: int = 0
    probe: int = 0

    @property
    def ids(self) -> str:
        return f"ids-{self.id}.i64"

    @property
    def vectors(self) -> str:
        return f"vectors-{self.id}.f16"

    @property
    def codes(self) -> str:
        return f"codes-{self.id}.{self.kind}"

    @property
    def codes_bytes(self) -> int:
        """How long the file of its codes is, 0 without one."""
        return 0 if self.kind == EXACT else self.layout.size_bytes

    @property
    def layout(self) -> Layout | ListLayout:
        """Where things are in its codes."""
        if self.kind == LISTS:
            return ListLayout(self.count, self.dim, self.lists)
        return Layout(self.count, self.dim)

    @property
    def size_bytes(self) -> int:
        """What a search may touch."""
        return self.count * (self.dim * HALF.itemsize + ID.itemsize) + self.codes_bytes

    @property
    def sizes(self) -> dict[str, int]:
        """The files it has, and how long each is."""
        own = {self.ids: self.count * ID.itemsize, self.vectors: self.count * self.dim * HALF.itemsize}
        return own | ({self.codes: self.codes_bytes} if self.codes_bytes else {})


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a generation says of itself.

    seq: the commit it reflects.   previous: the generation that the catalog named before, None if none.
    lacks: tells which rows and vectors of the catalog were damaged, 0 for none.   keeps: the generations that stay
    because they have them.   wish: which kind of index was asked for.
    """

    number: int
    catalog: str
    seq: int
    created_at: str
    encoders: tuple[EncoderFiles, ...]
    files: tuple[File, ...]
    previous: int | None = None
    lacks: int = 0
    keeps: tuple[int, ...] = ()
    format: int = FORMAT
    wish: str = AUTO

    def to_bytes(self) -> bytes:
        """Return the content of its file; `check` is the SHA-256 of the rest, for when no catalog vouches for it."""
        fields = asdict(self)
        if self.format == 1:
            del fields["wish"]
        later = {1: ("kind", "learned_from", "lists", "probe"), 2: ("lists", "probe")}
        for row in fields["encoders"]:
            for name in later.get(self.format, ()):
                del row[name]
        check = hashlib.sha256(json.dumps(fields).encode()).hexdigest()
        return json.dumps({**fields, "check": check}, indent=1).encode()

    @classmethod
    def parse(cls, content: bytes) -> Manifest:
        """Read a manifest, trusting nothing in it. Raises Unsound."""
        try:
            found = json.loads(content)
            if type(found["format"]) is not int or not 1 <= found["format"] <= FORMAT:
                raise Unsound(f"has format {found['format']!r}, this version knows {FORMAT}")
            found["encoders"] = tuple(EncoderFiles(**row) for row in found["encoders"])
            found["files"] = tuple(File(**row) for row in found["files"])
            del found["check"]  # part of what is compared below
            found["keeps"] = tuple(found.get("keeps", ()))
            manifest = cls(**found)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise Unsound("has a manifest that can't be understood") from error
        manifest._check()
        if manifest.to_bytes() != content:
            raise Unsound("has a manifest that is not what was written")
        return manifest

    def encoder(self, fingerprint: str) -> EncoderFiles | None:
        """Return what the generation holds by a model, None if nothing."""
        return next((row for row in self.encoders if row.fingerprint == fingerprint), None)

    def _check(self) -> None:
        """Raise Unsound unless types, names and sizes are those of a generation."""
        numbers = [self.number, self.seq, self.previous or 0, self.lacks, *self.keeps]
        numbers += [file.size_bytes for file in self.files]
        numbers += [n for row in self.encoders for n in (row.id, row.dim, row.count, row.learned_from)]
        numbers += [n for row in self.encoders for n in (row.lists, row.probe)]
        texts = [
            self.catalog,
            self.created_at,
            *(text for file in self.files for text in (file.name, file.sha256)),
        ]
        if not all(type(n) is int and 0 <= n < 2**62 for n in numbers) or not all(type(t) is str for t in texts):
            raise Unsound("has a manifest that can't be understood")
        if self.wish not in WISHES or any(row.kind not in (EXACT, CODES, LISTS) for row in self.encoders):
            raise Unsound("wants an index that this version does not know")
        if not all((0 < row.probe <= row.lists) == (row.kind == LISTS) for row in self.encoders):
            raise Unsound("has lists that can't be")
        sizes = {file.name: file.size_bytes for file in self.files}
        wanted = {name: size for row in self.encoders for name, size in row.sizes.items()}
        fixed = {ROWS: sizes.get(ROWS), GONE: sizes.get(GONE)}
        if None in fixed.values() or sizes != wanted | fixed or sizes[GONE] % ID.itemsize:
            raise Unsound("has a manifest that does not fit its files")


def kind_for(wish: str, count: int) -> str:
    """Return the kind of index that so many vectors get.   wish: one of WISHES."""
    if count < LEAST or wish == EXACT or (wish == AUTO and count <= EXACT_UP_TO):
        return EXACT
    return CODES if wish == CODES or (wish == AUTO and count <= CODES_UP_TO) else LISTS
