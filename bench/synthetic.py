"""Libraries of any size without a photo: rows and unit vectors, written and published as an index run would.

python bench/synthetic.py FOLDER [--photos 100000] [--dim 512]
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from search import Library
from search.catalog import Catalog
from search.catalog.scan import ScannedFile, Verdict
from search.catalog.writer import EncoderIdentity, Record
from search.photos.scan import scan
from search.types import FileStat, PhotoInfo
from stopwatch import CACHE, REPOSITORY

if TYPE_CHECKING:
    from search.types import Vectors

ROOT = "/synthetic/photos"
_BATCH = 4096
_KEPT_FOR = ("search/catalog", "search/vectors", "search/generations", "search/live.py", "migrations/versions")


@dataclass(frozen=True, slots=True)
class Identity:
    """What a catalog keeps of an encoder."""

    name: str = "synthetic/none"
    fingerprint: str = "0" * 64
    dim: int = 512
    context_length: int = 77
    logit_scale: float = 100.0
    logit_bias: float | None = None

    @classmethod
    def of(cls, encoder: EncoderIdentity) -> Identity:
        """Keep who an open model is without keeping it open."""
        return cls(**{field.name: getattr(encoder, field.name) for field in fields(cls)})


def make_library(
    folder: Path,
    count: int,
    *,
    encoder: EncoderIdentity | None = None,
    root: str = ROOT,
    files: Sequence[FileStat] | None = None,
    infos: Callable[[int], PhotoInfo] = lambda _: PhotoInfo("jpeg", 4000, 3000),
    seed: int = 0,
) -> None:
    """Write and publish a library of this many photos in a folder that does not exist yet.

    encoder: whose vectors they are said to be, for texts to be answered an open model; `dim` is taken from it.
    files: the photos as a walk finds them below `root`; made up if None.   infos: what is known of a photo, by number.
    """
    encoder = encoder or Identity()
    catalog = Catalog(str(folder))
    catalog.create()
    stats = files if files is not None else _Invented(root, count)
    with catalog.writing() as writer:
        encoder_id = writer.register(encoder)
        scope = writer.add_source(root, is_folder=True)
        for start, vectors in vector_batches(count, encoder.dim, seed=seed):
            some = [stats[number] for number in range(start, start + len(vectors))]
            records = [
                _record(scope.root_id, root, start + i, stat, infos(start + i)) for i, stat in enumerate(some)
            ]
            writer.add(records, vectors, encoder_id)
    catalog.close()
    with Library.open(folder, offline=True) as library:
        library.rebuild()


def cached_library(name: str, count: int, *, encoder: EncoderIdentity | None = None) -> Path:
    """Return a library of this many photos that is made once for a layout of libraries and an encoder."""
    folder = CACHE / f"library-{name}-{layout(encoder or Identity())}"
    if not folder.exists():
        for old in CACHE.glob(f"library-{name}-*"):
            shutil.rmtree(old)
        draft = folder.with_suffix(".draft")
        make_library(draft, count, encoder=encoder)
        draft.rename(folder)
    return folder


def layout(encoder: EncoderIdentity) -> str:
    """Return what changes whenever a library kept from before may no longer be what would be written now."""
    digest = hashlib.sha256(encoder.fingerprint.encode())
    for place in map(REPOSITORY.joinpath, _KEPT_FOR):
        for path in sorted(place.rglob("*.py")) if place.is_dir() else [place] * place.exists():
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def vector_batches(count: int, dim: int, *, seed: int = 0) -> Iterator[tuple[int, Vectors]]:
    """Yield the number of the first row and (N, dim) float32 unit rows; the same for the same seed."""
    random = np.random.default_rng(seed)
    for start in range(0, count, _BATCH):
        rows = random.standard_normal((min(_BATCH, count - start), dim), np.float32)
        yield start, rows / np.linalg.norm(rows, axis=1, keepdims=True)


def list_files(root: Path) -> list[FileStat]:
    """Return the photos below a folder as the walk finds them."""
    return list(scan(str(root)))


class _Invented:
    """Files that are nowhere, a thousand to a folder."""

    def __init__(self, root: str, count: int) -> None:
        self._root, self._count = root, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> FileStat:
        path = f"{self._root}/{number // 1000:04}/{number:07}.jpg"
        return FileStat(path, 1_000_000 + number % 50_000, 10**18 + number, 10**18 + number)


def _record(root_id: int, root: str, number: int, stat: FileStat, info: PhotoInfo) -> Record:
    place = stat.path.removeprefix(f"{root}/").encode("utf-8", "surrogateescape")
    file = ScannedFile(root_id, place, stat, Verdict.NEW, None)
    return Record(file, hashlib.sha256(b"%d" % number).digest(), info)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--photos", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=512)
    arguments = parser.parse_args()
    started = perf_counter()
    make_library(arguments.folder, arguments.photos, encoder=Identity(dim=arguments.dim))
    print(f"{arguments.photos} photos in {perf_counter() - started:.1f} s")


if __name__ == "__main__":
    main()
