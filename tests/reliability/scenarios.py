"""Operations in the midst of which a process dies: what is there before, and what must be there in the end.

Every scenario has its photos ready; only the library is put back before each trial, so that a trial is cheap.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import struct
import zlib
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

import numpy as np
from reliability.nursery import Nursery, Outcome
from sqlalchemy import update

from reliability import album
from search.catalog.schema import photos
from search.catalog.seals import seal
from search.catalog.storage import Storage

PHOTOS = 60
BATCH = 8


@dataclass(frozen=True)
class Scenario:
    """One operation on one prepared library.

    safe: photos that must be there and answer however the operation ends.   after: those of its end.
    to_encode: images the whole operation may give the model.
    """

    name: str
    operation: str
    folder: Path
    sources: list[str]
    safe: dict[str, str]
    after: dict[str, str]
    to_encode: int
    damage: tuple[str, ...] = ()  # kinds of problems that are there until it is complete
    publish_every: int = 0
    failpoints: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def library(self) -> Path:
        return self.folder / "library"

    def restore(self) -> None:
        """Put the library back as it was."""
        shutil.rmtree(self.library, ignore_errors=True)
        if (self.folder / "before").exists():
            shutil.copytree(self.folder / "before", self.library)

    def run(self, nursery: Nursery, **how: object) -> Outcome:
        where = {"library": str(self.library), "sources": self.sources, "batch_size": BATCH}
        return nursery.run("change", operation=self.operation, publish_every=self.publish_every, **where, **how)


def first(folder: Path, nursery: Nursery) -> Scenario:
    """Index photos for the first time."""
    album.make(folder / "photos", range(PHOTOS))
    after = album.contents(folder / "photos")
    return Scenario("first", "index", folder, [str(folder / "photos")], {}, after, PHOTOS)


def publishing(folder: Path, nursery: Nursery) -> Scenario:
    """Index photos for the first time and publish generations meanwhile."""
    return replace(first(folder, nursery), name="publishing", publish_every=2 * BATCH)


def again(folder: Path, nursery: Nursery) -> Scenario:
    """Index a folder again, in which photos were moved, deleted, edited, copied and added."""
    album_folder = folder / "photos"
    _index(folder, nursery, range(PHOTOS))
    files = sorted(album_folder.rglob("*.png"))
    for path in files[:10]:
        path.rename(path.with_name(f"moved-{path.name}"))
    for path in files[10:15]:
        path.unlink()
    for number, path in enumerate(files[15:20]):
        album.put(path, 1000 + number)
    for path in files[20:25]:
        shutil.copy(path, path.with_name(f"copy-{path.name}"))
    album.make(album_folder, range(2000, 2020))
    untouched = {str(path): album.content(path) for path in files[20:]}
    whole = album.contents(album_folder)
    return Scenario("again", "index", folder, [str(album_folder)], untouched, whole, 5 + 20)


def remove(folder: Path, nursery: Nursery) -> Scenario:
    """Forget one folder of three."""
    _index(folder, nursery, range(PHOTOS))
    kept = {path: content for path, content in album.contents(folder / "photos").items() if "day0" not in path}
    return Scenario("remove", "remove", folder, [str(folder / "photos" / "day0")], kept, kept, 0)


def repair(folder: Path, nursery: Nursery) -> Scenario:
    """Repair three damaged vectors from the generation."""
    _index(folder, nursery, range(PHOTOS))
    whole = album.contents(folder / "photos")
    hurt = damage(folder / "before", 3)
    safe = {path: content for path, content in whole.items() if os.path.basename(path) not in hurt}
    kinds = ("vector_damaged",)
    return Scenario("repair", "repair", folder, [str(folder / "photos")], safe, whole, 0, damage=kinds)


def repair_alone(folder: Path, nursery: Nursery) -> Scenario:
    """Repair three damaged vectors where no generation is left, and encode their photos again."""
    scenario = repair(folder, nursery)
    shutil.rmtree(folder / "before" / "gen")
    kinds = ("vector_damaged", "vector_missing", "generation_damaged")
    return replace(scenario, name="repair alone", to_encode=3, damage=kinds)


def upgrade(folder: Path, nursery: Nursery) -> Scenario:
    """Upgrade a catalog of an old schema."""
    (folder / "before").mkdir(parents=True)
    seen = old_catalog(folder / "before", "0002", copies=40)
    return Scenario("upgrade", "upgrade", folder, [], {}, seen, 0)


def rebuild(folder: Path, nursery: Nursery) -> Scenario:
    """Publish a generation anew."""
    _index(folder, nursery, range(PHOTOS))
    whole = album.contents(folder / "photos")
    return Scenario("rebuild", "rebuild", folder, [], whole, whole, 0)


def restore(folder: Path, nursery: Nursery) -> Scenario:
    """Make a catalog anew that can't be read."""
    scenario = rebuild(folder, nursery)
    with (folder / "before" / "catalog.db").open("r+b") as file:
        file.write(b"no catalog" * 20)
    return replace(scenario, name="restore", damage=("catalog_damaged", "catalog_missing"))


def compact(folder: Path, nursery: Nursery) -> Scenario:
    """Index again, when photos have been gone for so long that they are forgotten."""
    _index(folder, nursery, range(PHOTOS))
    for path in sorted((folder / "photos").rglob("*.png"))[:10]:
        path.unlink()
    where = {"library": str(folder / "before"), "sources": [str(folder / "photos")]}
    assert nursery.run("change", operation="index", **where).result["gone"] == 10
    with Storage(str(folder / "before")).writing() as connection, connection.begin():
        gone = update(photos).where(photos.c.gone_at.is_not(None))
        connection.execute(gone.values(gone_at=datetime(2020, 1, 1)))  # noqa: DTZ001  # as the catalog keeps it
        seal(connection)
    whole = album.contents(folder / "photos")
    return Scenario("compact", "index", folder, [str(folder / "photos")], whole, whole, 0)


MAKERS: list[Callable[[Path, Nursery], Scenario]] = [
    *(first, publishing, again, remove, repair, repair_alone, upgrade, compact, rebuild, restore)
]


def _index(folder: Path, nursery: Nursery, seeds: range) -> None:
    """Index photos and keep the library as the state to go back to."""
    album.make(folder / "photos", seeds)
    where = {"library": str(folder / "before"), "sources": [str(folder / "photos")]}
    assert nursery.run("change", operation="index", **where).result["photos"] == len(seeds)


def damage(library: Path, count: int) -> set[str]:
    """Change a byte of some vectors; return the names of their photos."""
    with closing(sqlite3.connect(library / "catalog.db")) as connection, connection:
        query = "SELECT photo_id, vector, path FROM embeddings JOIN photos ON photos.id = photo_id LIMIT ?"
        rows = connection.execute(query, (count,)).fetchall()
        for photo_id, vector, _ in rows:
            broken = bytes([vector[0] ^ 1]) + vector[1:]
            connection.execute("UPDATE embeddings SET vector = ? WHERE photo_id = ?", (broken, photo_id))
    return {os.path.basename(os.fsdecode(path)) for _, _, path in rows}


def old_catalog(folder: Path, revision: str, *, copies: int) -> dict[str, str]:
    """Restore the kept catalog of a schema with its one photo many times; return path → content."""
    from search.resources import data_path

    with closing(sqlite3.connect(folder / "catalog.db")) as connection, connection:
        connection.executescript(data_path("catalogs", f"{revision}.sql").read_text(encoding="utf-8"))
        connection.execute("DELETE FROM embeddings")
        for id_ in range(1, copies + 1):
            if id_ > 1:
                _copy_row(connection, "photos", "id", id_, path=b"copy%d.jpg" % id_, content_hash=b"%032d" % id_)
            turn = np.array([np.cos(id_ / 9), np.sin(id_ / 9), 0, 0], "<f2").tobytes()
            crc = zlib.crc32(struct.pack("<qq", id_, 1) + turn)
            connection.execute("INSERT INTO embeddings VALUES (1, ?, ?, ?)", (id_, turn, crc))
        query = "SELECT roots.path, photos.path, content_hash FROM photos JOIN roots ON roots.id = root_id"
        rows = connection.execute(query).fetchall()
    return {os.path.join(os.fsdecode(root), os.fsdecode(path)): content.hex() for root, path, content in rows}


def _copy_row(connection: sqlite3.Connection, table: str, key: str, id_: int, **changes: object) -> None:
    cursor = connection.execute(f"SELECT * FROM {table} WHERE {key} = 1")
    names = [column[0] for column in cursor.description]
    row = dict(zip(names, cursor.fetchone(), strict=True)) | {key: id_} | changes
    places = ", ".join("?" * len(row))
    connection.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({places})", list(row.values()))
