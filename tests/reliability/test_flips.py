"""Bits that flip: `check --full` must find every one in the catalog that changes what SQLite reads, and every one
in a generation.
"""

from __future__ import annotations

import random
import sqlite3
from collections import Counter
from contextlib import closing
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import update

from search.catalog import Catalog
from search.catalog.rows import HeadRow, SidecarRow
from search.catalog.scan import ScannedFile, Verdict
from search.catalog.schema import photos
from search.catalog.seals import seal
from search.catalog.storage import CATALOG_NAME, Storage
from search.catalog.writer import Record
from search.errors import LibraryNotFound
from search.generations import Generations, Unsound
from search.types import FileStat, LabelledPhoto, LabelScore, PhotoInfo, Picture, RunKind, Skip

PHOTOS, DIM = 300, 512


class Model:
    name, fingerprint, dim, context_length, logit_scale, logit_bias = "a model", "f" * 64, DIM, 77, 100.0, None


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    """A catalog of 300 photos with labels, pictures and skipped files, all of it in its one file."""
    catalog = Catalog(str(tmp_path / "library"))
    catalog.create()
    vectors = np.random.default_rng(0).standard_normal((PHOTOS, DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    with catalog.writing() as writer:
        encoder_id = writer.register(Model())
        scope = writer.add_source(str(tmp_path / "photos"), is_folder=True)
        for start in range(0, PHOTOS, 100):
            records = [record(scope.root_id, number) for number in range(start, start + 100)]
            writer.add(records, vectors[start : start + 100], encoder_id)
        labelled = [LabelledPhoto("", (LabelScore(f"label {n % 7}", 0.5, 0.3),), n) for n in range(1, 100)]
        writer.put_labels(labelled, ["other"], source="zero-shot", encoder_id=encoder_id)
        with writer.run(RunKind.REVIEW, encoder_id=encoder_id, label_set="a set", details={"k": 1}) as run:
            run.judge([(n, f"label {n % 7}", n % 2 == 0) for n in range(1, 60)])
        writer.put_sidecars([SidecarRow(n, b"a.xmp", b"before", bytes(32), "[]") for n in range(1, 20)])
        head = HeadRow("label 1", bytes(64), 0.5, 0.5, None, 3, {}, datetime(2024, 1, 1))  # noqa: DTZ001
        writer.put_heads(encoder_id, [head])
        writer.put_pictures([Picture(n, bytes([n]) * 32, n / 7, n) for n in range(1, 100)], method=1)
        for number in range(20):
            writer.skip_unread(scope, Skip(str(tmp_path / "photos" / f"{number}.jpg"), "unreadable", "why not"))
    catalog.close()
    return catalog


def record(root_id: int, number: int) -> Record:
    place = f"a folder/photo {number}.jpg".encode()
    file = ScannedFile(root_id, place, FileStat("", 1000 + number, 10**18 + number), Verdict.NEW, None)
    info = PhotoInfo(
        "JPEG", 4000, 3000, camera="Kamera ä", latitude=1.5 + number, longitude=-number / 7, rating=number % 6
    )
    return Record(file, random.Random(number).randbytes(32), info)


def dump(path: Path) -> list[object]:
    """Everything SQLite reads, with its types, ordered; where it can't be read, the error."""
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            connection.text_factory = bytes
            tables = connection.execute(
                "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name"
            ).fetchall()
            names = [b"sqlite_schema", *(name for (name,) in tables)]
            return [
                (name, sorted(map(repr, connection.execute(f'SELECT * FROM "{name.decode()}" NOT INDEXED'))))
                for name in names
            ]
    except (sqlite3.DatabaseError, UnicodeDecodeError, AttributeError) as error:
        return [str(error)]


def measure(catalog: Catalog, flips: int, seed: int) -> tuple[Counter[str], list[str]]:
    """Flip that many single bits, one at a time; count those that change something and those that are found."""
    path = Path(catalog.location, CATALOG_NAME)
    whole, known = path.read_bytes(), dump(path)
    chance = random.Random(seed)
    counts: Counter[str] = Counter(flips=flips)
    missed = []
    for _ in range(flips):
        bit = chance.randrange(8 * len(whole))
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        catalog.close()
        found = bool(catalog.problems(full=True)[0])
        catalog.close()
        changed = dump(path) != known
        counts["changed"] += changed
        counts["found"] += found
        if changed and not found:
            missed.append(f"bit {bit % 8} of byte {bit // 8}")
        for name in ("-wal", "-shm"):
            Path(f"{path}{name}").unlink(missing_ok=True)
    path.write_bytes(whole)
    assert not catalog.problems(full=True)[0]
    return counts, missed


@pytest.fixture
def generation(catalog: Catalog) -> Path:
    """The folder of the catalog's generation, with a photo that is gone."""
    with Storage(catalog.location).writing() as connection, connection.begin():
        connection.execute(update(photos).where(photos.c.id == 1).values(gone_at=datetime(2020, 1, 1)))  # noqa: DTZ001
        seal(connection)
    with catalog.writing() as writer:
        number = Generations(Path(catalog.location)).publish(catalog, writer)
    return Path(catalog.location, "gen", f"{number:06}")


def unfound(catalog: Catalog, folder: Path, flips: int, seed: int) -> dict[str, list[str]]:
    """Flip bits of every file of a generation, one at a time; return what was not found or is still read, by file."""
    generations = Generations(Path(catalog.location))
    chance = random.Random(seed)
    missed = {}
    for path in sorted(folder.iterdir()):
        whole = path.read_bytes()
        wrong = []
        for bit in [chance.randrange(8 * len(whole)) for _ in range(flips)]:
            damaged = bytearray(whole)
            damaged[bit // 8] ^= 1 << bit % 8
            path.write_bytes(damaged)
            if not generations.problems(catalog, full=True) or reads(generations, catalog):
                wrong.append(f"bit {bit % 8} of byte {bit // 8}")
        path.write_bytes(whole)
        missed[path.name] = wrong
    assert not generations.problems(catalog, full=True)
    assert reads(generations, catalog)
    return missed


def reads(generations: Generations, catalog: Catalog) -> bool:
    """Whether a reader would start from the generation, or a catalog be made anew from it."""
    sound = generations.newest_sound()
    if sound is not None:
        sound.close()
    try:
        with generations.current(catalog):
            return True
    except Unsound:
        return sound is not None


@pytest.mark.parametrize("flips", [10, pytest.param(400, marks=pytest.mark.slow)])
def test_every_flip_in_a_generation_is_found_and_read_by_nobody(catalog, generation, flips):
    missed = unfound(catalog, generation, flips, seed=3)
    print(f"\n{flips} flips in each of {', '.join(missed)}: not found {sum(map(len, missed.values()))}")
    assert len(missed) == 5
    assert not any(missed.values()), missed


@pytest.mark.slow
def test_every_flip_that_changes_a_row_is_found(catalog):
    counts, missed = measure(catalog, 80, seed=1)
    assert counts["changed"] > 20
    assert not missed


@pytest.mark.slow
def test_every_flip_of_two_thousand_that_changes_a_row_is_found(catalog):
    counts, missed = measure(catalog, 2000, seed=2)
    print(f"\n{dict(counts)}, not found {len(missed)}")
    assert not missed


@pytest.mark.parametrize("part", [0.001, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 0.999])
def test_a_catalog_that_was_cut_short_is_found(catalog, part):
    path = Path(catalog.location, CATALOG_NAME)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(part * len(whole))])
    assert catalog.problems(full=True)[0]


def test_a_catalog_of_which_nothing_is_left_is_no_library(catalog):
    Path(catalog.location, CATALOG_NAME).write_bytes(b"")
    with pytest.raises(LibraryNotFound):
        catalog.problems(full=True)
