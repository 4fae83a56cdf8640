"""Photos and captions, of a table or of tars → batches of pixels and words, the same wherever a run begins.

What a photo gives depends on (seed, epoch, its row) alone: order, caption and crop are drawn from generators made of
these numbers, never from one that runs along. So a run goes on at any step, with any number of threads.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from search.encoders.preprocessing import Preprocessing, Size
from search.errors import PhotoError, UsageError
from search.evaluate.datasets import Captions
from search.evaluate.tables import CAPTION, IMAGE, found, located
from search.extras import how_to_add
from search.photos.decode import LoadedPhoto, load, load_bytes
from search.train import shards
from search.train.recipe import Recipe
from search.types import FileStat, Skip, SkipReason

if TYPE_CHECKING:
    import numpy.typing as npt

    from search.types import Pixels

_AHEAD = 2  # batches that are decoded before they are wanted
_PICKS = 10  # crops that are drawn before the middle is taken
_ORDER, _SPLIT = 1, 2  # what a generator is for, beside the seed


@dataclass(frozen=True, slots=True)
class Pairs:
    """Photos and what is said of each.

    paths: (N,).   captions: (N,), one or more each.   shorts: (N,) the same in short, as many; or () where none are.
    members: where those lie that are no files of their own, by path.   skipped: what the source has that is no pair.
    """

    paths: tuple[str, ...]
    captions: tuple[tuple[str, ...], ...]
    shorts: tuple[tuple[str, ...], ...] = ()
    members: Mapping[str, shards.Member] = field(default_factory=dict)
    skipped: tuple[Skip, ...] = ()

    @classmethod
    def of(cls, source: str, *, likely: Sequence[str] = CAPTION) -> Pairs:
        """Read a table of image and caption, as many lines a photo as it has captions: .tsv, .csv or .parquet.

        Paths are relative to it. Or webdataset's tars: one, name-{000..012}.tar, or a folder of them.
        likely: what the column of captions is called, the likeliest first.   Raises UsageError.
        """
        if shards.are_meant(source):
            found = shards.read(source)
            names, captions = tuple(found.captions), tuple(found.captions.values())
            return cls(names, captions, members=found.members, skipped=found.skipped)
        if Path(source).suffix.lower() == ".parquet":
            return cls._of_parquet(source, likely)
        table = Captions.of(source, likely=likely)
        said: dict[str, list[str]] = {path: [] for path in table.paths}
        for owner, caption in zip(table.owners.tolist(), table.captions, strict=True):
            said[table.paths[owner]].append(caption)
        return cls(tuple(said), tuple(map(tuple, said.values())), skipped=table.skipped)

    @classmethod
    def _of_parquet(cls, source: str, likely: Sequence[str]) -> Pairs:
        columns = parquet_columns(source)
        names = [found(source, columns, wanted) for wanted in (IMAGE, likely)]
        said: dict[str, list[str]] = {}
        skipped = []
        for number, path, (captions,) in parquet_rows(source, names):
            if captions:
                said.setdefault(path, []).extend(captions)
            else:
                skipped.append(Skip(path, SkipReason.EMPTY, f"no caption in row {number}"))
        if not said:
            raise UsageError(f"{source} holds no captions")
        return cls(tuple(said), tuple(map(tuple, said.values())), skipped=tuple(skipped))

    def take(self, rows: Sequence[int]) -> Pairs:
        """Return only some of its photos, in this order."""
        return replace(
            self,
            paths=tuple(self.paths[row] for row in rows),
            captions=tuple(self.captions[row] for row in rows),
            shorts=tuple(self.shorts[row] for row in rows) if self.shorts else (),
        )

    def present(self) -> tuple[Pairs, tuple[Skip, ...]]:
        """Return it without the files that are not there, and those with what was skipped before."""
        there = [path in self.members or os.path.isfile(path) for path in self.paths]
        missing = [path for path, found in zip(self.paths, there, strict=True) if not found]
        skips = tuple(Skip(path, SkipReason.UNREADABLE, "there is no such file") for path in missing)
        return self.take([row for row, found in enumerate(there) if found]), (*self.skipped, *skips)

    def split(self, share: float, most: int, seed: int) -> tuple[Pairs, Pairs]:
        """Return photos to train with and a part of them to measure on, drawn by the seed."""
        count = min(most, round(share * len(self.paths)))
        order = np.random.default_rng([seed, _SPLIT]).permutation(len(self.paths)).tolist()
        return self.take(sorted(order[count:])), self.take(sorted(order[:count]))

    def fingerprint(self) -> str:
        """Return the hex SHA-256 of names, sizes in bytes and captions: what tells that data are the same."""
        digest = hashlib.sha256()
        root = os.path.commonpath(self.paths) if len(self.paths) > 1 else ""
        for number, (path, captions) in enumerate(zip(self.paths, self.captions, strict=True)):
            size = self.members[path].size_bytes if path in self.members else os.path.getsize(path)
            row = [os.path.relpath(path, root) if root else path, size, captions]
            row += [self.shorts[number]] if self.shorts else []
            digest.update(json.dumps(row).encode() + b"\n")
        return digest.hexdigest()

    def load(self, path: str, *, min_side: int) -> LoadedPhoto:
        """Decode one of its photos.   Raises PhotoError."""
        member = self.members.get(path)
        if member is None:
            return load(path, min_side=min_side)
        content = member.read()
        return load_bytes(content, FileStat(path, len(content), 0), min_side=min_side)


def parquet_columns(source: str) -> list[str]:
    """Return the names of a parquet table's columns.   Raises UsageError."""
    with _pyarrow(source) as parquet:
        return list(parquet.read_schema(source).names)


def parquet_rows(source: str, names: Sequence[str]) -> Iterator[tuple[int, str, list[list[str]]]]:
    """Yield number, path, made absolute, and texts of each row of a parquet table, none or several in a cell.

    names: of the columns, that of photos first.   Raises UsageError where a path is none, or a text neither one nor
    a list of them.
    """
    with _pyarrow(source) as parquet:
        kinds = parquet.read_schema(source)
        for place, name in enumerate(names):
            _check(source, name, kinds.field(name).type, may_list=place > 0)
        table = parquet.read_table(source, columns=list(names))
        rows = list(zip(*(table[name].to_pylist() for name in names), strict=True))
    folder = os.path.dirname(os.path.realpath(source))
    for number, (path, *cells) in enumerate(rows, 1):
        if not path or not path.strip():
            raise UsageError(f"row {number} of {source} names no photo")
        yield number, located(path.strip(), folder, f"row {number} of {source}"), [_texts(cell) for cell in cells]


def _texts(cell: str | Sequence[str | None] | None) -> list[str]:
    every = [cell] if isinstance(cell, str) else cell or []
    return [one.strip() for one in every if one and one.strip()]


def _check(source: str, name: str, kind: Any, *, may_list: bool) -> None:
    """Raise UsageError for a column that is no text."""
    from pyarrow import types

    lists = (types.is_list, types.is_large_list, types.is_fixed_size_list)
    inner = (
        kind.value_type if types.is_dictionary(kind) or (may_list and any(is_(kind) for is_ in lists)) else kind
    )
    texts = (types.is_string, types.is_large_string, types.is_string_view, types.is_null)
    if any(is_(inner) for is_ in texts):
        return
    if may_list:
        raise UsageError(f"`{name}` of {source} is {kind}, neither a text nor a list of them")
    raise UsageError(
        f"`{name}` of {source} is {kind}, no path of a file",
        hint="write pictures that lie in the table as files, or as tars of key.jpg and key.txt",
    )


@contextmanager
def _pyarrow(source: str) -> Iterator[Any]:
    try:
        from pyarrow import parquet
    except ImportError:
        raise UsageError(
            f"reading {source} needs pyarrow", hint=f"{how_to_add('parquet')}, or save it as CSV"
        ) from None
    try:
        yield parquet
    except (OSError, ValueError, KeyError, NotImplementedError) as error:  # pyarrow's own are among these
        raise UsageError(f"can't read {source}: {error}") from None


@dataclass(frozen=True, slots=True)
class Batch:
    """pixels: (N, H, W, 3) uint8.   captions, shorts: (N,), those drawn.   among: (N,), all captions of each photo.

    skipped: photos of this batch that could not be read.
    """

    pixels: Pixels
    captions: tuple[str, ...]
    shorts: tuple[str, ...]
    among: tuple[tuple[str, ...], ...]
    skipped: tuple[Skip, ...]


class Feeder:
    """Makes a run's batches, a few ahead, in threads; a context manager.

    rank, ranks: this process takes each `ranks`-th pair of a batch.
    """

    def __init__(
        self, pairs: Pairs, recipe: Recipe, preprocessing: Preprocessing, *, rank: int = 0, ranks: int = 1
    ) -> None:
        self._pairs, self._recipe, self._preprocessing = pairs, recipe, preprocessing
        self._rank, self._ranks = rank, ranks
        self._size = (recipe.train_size, recipe.train_size) if recipe.train_size else preprocessing.size
        self._side = math.ceil(2 * max(self._size) / math.sqrt(recipe.crop_low))
        self._room = _Room(recipe.memory_mb * 2**20)
        self._pool = ThreadPoolExecutor(recipe.workers or os.cpu_count() or 1)
        self._epoch, self._order = -1, np.empty(0, np.int64)
        self.batch_size = min(recipe.batch_size, len(pairs.paths))
        self.steps_per_epoch = len(pairs.paths) // self.batch_size

    def __enter__(self) -> Feeder:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return self._recipe.steps or max(1, round(self._recipe.epochs * self.steps_per_epoch))

    def batches(self, first: int) -> Iterator[Batch]:
        """Yield the batches of the run from a step on; photos that can't be read make theirs smaller."""
        begun: deque[list[Future[Sample | Skip]]] = deque()
        for step in range(first, self.steps):
            begun.append([self._pool.submit(self._sample, epoch, row) for epoch, row in self._rows(step)])
            if len(begun) > _AHEAD:
                yield _collected(begun.popleft(), self._size)
        while begun:
            yield _collected(begun.popleft(), self._size)

    def middles(self, pairs: Pairs) -> tuple[Pixels, list[int], tuple[Skip, ...]]:
        """Return photos as the finished model will see them (N, H, W, 3), which those are, and those left out."""
        seen = list(self._pool.map(lambda path: self._middle(pairs, path), pairs.paths))
        rows = [row for row, one in enumerate(seen) if not isinstance(one, Skip)]
        pixels = _stacked([one for one in seen if not isinstance(one, Skip)], self._preprocessing.size)
        return pixels, rows, tuple(one for one in seen if isinstance(one, Skip))

    def _rows(self, step: int) -> list[tuple[int, int]]:
        """The epoch and the rows of a step's pairs that are this process's."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            random = np.random.default_rng([self._recipe.seed, _ORDER, epoch])
            self._epoch, self._order = epoch, random.permutation(len(self._pairs.paths))
        chosen = self._order[place * self.batch_size : (place + 1) * self.batch_size]
        return [(epoch, row) for row in chosen[self._rank :: self._ranks].tolist()]

    def _sample(self, epoch: int, row: int) -> Sample | Skip:
        path, captions = self._pairs.paths[row], self._pairs.captions[row]
        random = np.random.default_rng([self._recipe.seed, 0, epoch, row])
        which = int(random.integers(len(captions)))
        try:
            image, frame = self._room.get(path) or self._room.put(path, *self._decoded(path))
        except PhotoError as error:
            return Skip(path, error.reason, error.message)
        box = crop(random, frame, low=self._recipe.crop_low, ratio=self._recipe.crop_ratio)
        height, width = self._size
        pixels = np.asarray(image.resize((width, height), Image.Resampling.BICUBIC, box=box))
        if random.random() < self._recipe.flip:
            pixels = pixels[:, ::-1]
        if random.random() < self._recipe.grey:
            pixels = greyed(pixels)
        short = self._pairs.shorts[row][which] if self._pairs.shorts else ""
        return Sample(pixels, captions[which], short, captions)

    def _decoded(self, path: str) -> tuple[Image.Image, _Box]:
        """A picture scaled down as far as crops permit, and where in it the picture lies, no further than its edge."""
        photo = self._pairs.load(path, min_side=self._side)
        left, top, right, bottom = photo.frame
        return photo.image, (left, top, min(right, photo.image.width), min(bottom, photo.image.height))

    def _middle(self, pairs: Pairs, path: str) -> Pixels | Skip:
        try:
            photo = pairs.load(path, min_side=self._preprocessing.min_side)
        except PhotoError as error:
            return Skip(path, error.reason, error.message)
        return self._preprocessing(photo.image, whole=photo.whole, frame=photo.frame)


@dataclass(frozen=True, slots=True)
class Sample:
    """pixels: (H, W, 3) uint8.   caption, short: those drawn.   captions: all of the photo."""

    pixels: Pixels
    caption: str
    short: str
    captions: tuple[str, ...]


_Box = tuple[float, float, float, float]


def crop(random: np.random.Generator, frame: _Box, *, low: float, ratio: float) -> _Box:
    """Draw the part of a picture that is looked at: (left, top, right, bottom).

    frame: the picture, in pixels of the image it is in.   low: the least part of its area.   ratio: the most that
    width to height is changed, evenly in its logarithm. What does not fit after ten draws is the largest middle.
    """
    left, top, right, bottom = frame
    width, height = right - left, bottom - top
    for _ in range(_PICKS):
        area = random.uniform(low, 1) * width * height
        shape = math.exp(random.uniform(-math.log(ratio), math.log(ratio)))
        across, down = math.sqrt(area * shape), math.sqrt(area / shape)
        if across <= width and down <= height:
            x, y = left + random.uniform(0, width - across), top + random.uniform(0, height - down)
            return x, y, x + across, y + down
    across, down = min(width, height * ratio), min(height, width * ratio)
    x, y = left + (width - across) / 2, top + (height - down) / 2
    return x, y, x + across, y + down


def greyed(pixels: Pixels) -> Pixels:
    """Return a picture (H, W, 3) in its luma (ITU-R 601)."""
    return np.asarray(Image.fromarray(pixels).convert("L").convert("RGB"))


class _Room:
    """Decoded pictures, the first that come, until so many bytes are full. What it gives is what it was given."""

    def __init__(self, size_bytes: int) -> None:
        self._left = size_bytes
        self._kept: dict[str, tuple[Image.Image, _Box]] = {}
        self._lock = Lock()

    def get(self, path: str) -> tuple[Image.Image, _Box] | None:
        return self._kept.get(path)

    def put(self, path: str, image: Image.Image, frame: _Box) -> tuple[Image.Image, _Box]:
        needed = 4 * image.width * image.height  # Pillow keeps RGB in four bytes
        with self._lock:
            if needed <= self._left and path not in self._kept:
                self._left -= needed
                self._kept[path] = (image, frame)
        return image, frame


def _collected(futures: Sequence[Future[Sample | Skip]], size: Size) -> Batch:
    made = [future.result() for future in futures]
    samples = [one for one in made if isinstance(one, Sample)]
    return Batch(
        _stacked([one.pixels for one in samples], size),
        tuple(one.caption for one in samples),
        tuple(one.short for one in samples),
        tuple(one.captions for one in samples),
        tuple(one for one in made if isinstance(one, Skip)),
    )


def _stacked(pixels: Sequence[Pixels], size: Size) -> Pixels:
    found: npt.NDArray[np.uint8] = np.empty((len(pixels), *size, 3), np.uint8)
    for row, one in enumerate(pixels):
        found[row] = one
    return found
