"""Whatever happens to a folder and in whichever order, an index run makes the library what the folder is."""

from __future__ import annotations

import math
import os
import random
import shutil
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from reliability.nursery import Nursery

from reliability import album
from search import failpoints
from search.encoders import load_encoder
from search.indexer import IndexOptions
from search.library import Library
from search.query import Kind, Query, Term

BATCH = 4
ANCHOR = "anchor.png"  # never deleted: a folder that is empty counts as away
PLACES = [f"{folder}{name}.png" for folder in ("", "a/", "b/", "b/c/") for name in "pqrs"]
SEEDS = st.integers(0, 10_000)


class Machine(RuleBasedStateMachine):
    """A folder of pictures, a library of it, and what the library must know: path → content."""

    nursery: Nursery
    model: str
    encoder: object
    steps: Counter[str]

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="stateful-"))
        self.photos, self.place = self.folder / "photos", self.folder / "library"
        self.known: dict[str, str] | None = {}  # what the library holds; None after a death
        self.library = self._opened()
        album.put(self.photos / ANCHOR, 0)
        self.index()

    def teardown(self) -> None:
        self.library.close()
        shutil.rmtree(self.folder)

    def _opened(self) -> Library:
        library = Library.open(self.place, model=self.model, offline=True)
        library.model.loaded = self.encoder
        return library

    def _count(self, name: str) -> None:
        self.steps[name] += 1

    def _files(self) -> list[Path]:
        return [path for path in sorted(self.photos.rglob("*.png")) if path.name != ANCHOR]

    def _pick(self, number: int) -> Path:
        files = self._files()
        return files[number % len(files)]

    # ---- what happens to the folder

    @rule(place=st.sampled_from(PLACES), seed=SEEDS)
    def add_or_overwrite(self, place: str, seed: int) -> None:
        album.put(self.photos / place, seed)
        self._count("add")

    @rule(number=SEEDS)
    @precondition(lambda self: self._files())
    def delete(self, number: int) -> None:
        self._pick(number).unlink()
        self._count("delete")

    @rule(number=SEEDS, place=st.sampled_from(PLACES))
    @precondition(lambda self: self._files())
    def move_or_rename(self, number: int, place: str) -> None:
        target = self.photos / place
        target.parent.mkdir(parents=True, exist_ok=True)
        self._pick(number).replace(target)
        self._count("move")

    @rule(number=SEEDS, place=st.sampled_from(PLACES))
    @precondition(lambda self: self._files())
    def copy(self, number: int, place: str) -> None:
        source, target = self._pick(number), self.photos / place
        target.parent.mkdir(parents=True, exist_ok=True)
        if source != target:
            shutil.copy2(source, target)
        self._count("copy")

    @rule(one=SEEDS, other=SEEDS)
    @precondition(lambda self: self._files())
    def swap(self, one: int, other: int) -> None:
        first, second, aside = self._pick(one), self._pick(other), self.photos / "aside"
        first.rename(aside)
        second.rename(first) if second != first else None
        aside.rename(second)
        self._count("swap")

    @rule(number=SEEDS, seed=SEEDS)
    @precondition(lambda self: self._files())
    def edit_keeping_its_time(self, number: int, seed: int) -> None:
        path = self._pick(number)
        before = path.stat()
        album.put(path, seed)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        self._count("edit")

    # ---- what happens to the library

    @rule()
    def index(self) -> None:
        report = self.library.index([self.photos], options=IndexOptions(batch_size=BATCH, workers=1))
        assert not report.skipped
        self._holds_the_folder()
        self._count("index")

    def _holds_the_folder(self) -> None:
        self.known = album.contents(self.photos)
        assert self._held() == self.known

    def _held(self) -> dict[str, str]:
        photos = self.library.catalog.get(self.library.catalog.all_ids().tolist())
        held = {photo.path: photo.content_hash for photo in photos}
        assert len(held) == len(photos), "a path is there twice"
        return held

    @rule()
    @precondition(lambda self: self.known)
    def empty_mount_and_back(self) -> None:
        away = self.folder / "away"
        self.photos.rename(away)
        self.photos.mkdir()
        report = self.library.index([self.photos], options=IndexOptions(batch_size=BATCH, workers=1))
        self.photos.rmdir()
        away.rename(self.photos)
        assert (report.gone, report.offline) == (0, len(self.known or {}))
        assert self._held() == self.known
        self._count("empty mount")

    @rule(number=SEEDS, seed=SEEDS)
    @precondition(lambda self: self.known is not None)
    def die_while_indexing(self, number: int, seed: int) -> None:
        rng = random.Random(seed)
        name = failpoints.NAMES[number % len(failpoints.NAMES)]
        point = {"die_at": name, "hit": rng.randint(1, 4)}
        how = (
            point if name.startswith(("index.", "commit.", "publish.")) else {"kill_after_s": rng.uniform(0, 0.1)}
        )
        where = {"library": str(self.place), "sources": [str(self.photos)], "batch_size": BATCH}
        died = self.nursery.run("change", operation="index", **where, **how)
        assert died.killed or died.code == 0, died.all("failed")
        folder, held = album.contents(self.photos), self._held()
        assert all(held.get(path) == folder[path] for path in died.acknowledged)
        self.known = None
        self._count("death" if died.killed else "run beside")

    @rule()
    def rebuild(self) -> None:
        self.library.rebuild()
        self.library.model.loaded = self.encoder
        self._count("rebuild")

    @rule()
    def reopen(self) -> None:
        self.library.close()
        self.library = self._opened()
        self._count("reopen")

    @rule(number=SEEDS)
    @precondition(lambda self: self.known is not None and len(self.known) > 1)
    def remove(self, number: int) -> None:
        assert self.known
        path = sorted(self.known)[number % len(self.known)]
        assert self.library.remove([path]) == 1
        del self.known[path]
        self._count("remove")

    @rule()
    @precondition(lambda self: self.known)
    def search(self) -> None:
        """Every photo is the best answer to its own picture, as far as that is still on disk."""
        assert self.known
        for path, content in self.known.items():
            if not os.path.exists(path) or album.content(Path(path)) != content:
                continue
            [hit] = self.library.search(Query((Term(Kind.IMAGE, path),)), 1, examples=True)
            assert hit.photo.content_hash == content
        self._count("search")

    @rule()
    def check(self) -> None:
        problems = self.library.check(full=True).problems
        assert not problems
        self._count("check")

    @invariant()
    def nothing_is_invented_or_lost(self) -> None:
        if self.known is not None:
            assert self._held() == self.known


def run(nursery: Nursery, model: str, *, examples: int, steps: int) -> Counter[str]:
    counted: Counter[str] = Counter()
    given = {"nursery": nursery, "model": model, "encoder": load_encoder(model, offline=True), "steps": counted}
    machine = type("MachineWithNursery", (Machine,), given)
    chosen = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        derandomize=True,
    )
    run_state_machine_as_test(machine, settings=chosen)
    print(f"\n{counted.total()} steps: {dict(counted.most_common())}")
    return counted


def test_a_library_is_what_its_folder_is(nursery, small_model):
    assert run(nursery, small_model, examples=6, steps=30).total() >= 150


@pytest.mark.slow
def test_a_library_is_what_its_folder_is_after_thousands_of_steps(nursery, small_model, part):
    assert run(nursery, small_model, examples=math.ceil(130 * part), steps=50).total() >= 5000 * part
