"""Bulk encoding in pieces that any machine can do: a shard is a list of files, and comes to one file of vectors.

    plan                files → shards, the same for the same files
    encode_all          shards → receipts, wherever an engine runs them
    encoding            one shard: files → photo rows and vectors, written whole or not at all
    store               where the results lie: a folder, or whatever fsspec reaches
    run                 results → library, each row once

An engine (search.engines) says only where a shard runs. Nothing but shards, jobs and receipts travels: files are read
where they are decoded, and what comes of them is written to the store, not sent back. What is in the store is done,
so whatever ends a run, the next one does the rest.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol

from search.errors import SearchError, UsageError
from search.plurals import count_of
from search.types import FileStat, Skip, SkipReason

SIZE = 512
"""Files a shard has by default: seconds of work, which is what a stop or a death costs, and half a megabyte."""

RETRIES = 2
_HOPELESS = 3  # shards that fail by an error before any succeeds, or one after the other: so will the others
_AT_ONCE = 64  # that may fail together on many machines, where others go on
_DEADLY = 8, 4  # deaths, and more for each shard that is done: beyond, it is not the photos that workers die of


@dataclass(frozen=True, slots=True)
class Job:
    """What to do with a shard, the same for all of a run.

    model, fingerprint: the encoder's name, and what it must turn out to be.   store: see search.shards.store.
    decoder: says by which rules files are skipped.   workers: processes that decode for one shard at a time.
    The rest is as in IndexOptions and Library.open.
    """

    model: str
    fingerprint: str
    store: str
    decoder: str
    workers: int | None = None
    batch_size: int | None = None
    max_megapixels: float = 200
    decoder_gigabytes: float = 1.5
    offline: bool = False
    trust_checkpoint: str | None = None


@dataclass(frozen=True, slots=True)
class Shard:
    """Files to encode together.   name: of files, their state and the rules they are read by."""

    name: str
    files: tuple[FileStat, ...]

    @classmethod
    def of(cls, files: Sequence[FileStat], job: Job) -> Shard:
        """Make a shard of files."""
        digest = hashlib.sha256(f"{job.fingerprint}\n{job.decoder}".encode())
        for file in files:
            digest.update(b"\0%b\0%r" % (os.fsencode(file.path), str(file[1:]).encode()))
        return cls(digest.hexdigest()[:20], tuple(files))

    def halves(self, job: Job) -> tuple[Shard, Shard]:
        """Return two shards of the files of one that has several."""
        middle = len(self.files) // 2
        return Shard.of(self.files[:middle], job), Shard.of(self.files[middle:], job)


@dataclass(frozen=True, slots=True)
class Receipt:
    """What came of a shard: how many vectors are in the store, and the files that have none."""

    shard: str
    rows: int
    skipped: tuple[Skip, ...] = ()


@dataclass(frozen=True, slots=True)
class Failure:
    """A shard that came to nothing.   died: what ran it died of it; else it said what is wrong."""

    shard: Shard
    reason: str
    died: bool


class Engine(Protocol):
    """Decides where shards run."""

    @property
    def in_process(self) -> bool:
        """Whether that is this process, so that a file that kills it ends the run."""

    def run(
        self,
        task: Callable[[Shard], Receipt],
        shards: Iterable[Shard],
        *,
        retries: int = RETRIES,
        stop: threading.Event | None = None,
    ) -> Iterator[Receipt | Failure]:
        """Yield the outcome of each shard, once, in any order; none is an exception, and a shard is taken when due.

        A task that fails or dies is tried again so many times. stop: once set, what has no outcome yet has none.
        """


def plan(files: Iterable[FileStat], job: Job, *, size: int = SIZE) -> Iterator[Shard]:
    """Yield shards of at most `size` files, in order; the same files make the same shards."""
    if size < 1:
        raise UsageError("a shard has one file at least")
    iterator = iter(files)
    while batch := list(islice(iterator, size)):
        yield Shard.of(batch, job)


def encode_all(
    shards: Iterable[Shard],
    engine: Engine,
    job: Job,
    *,
    task: Callable[[Shard], Receipt],
    stop: threading.Event | None = None,
) -> Iterator[Receipt]:
    """Yield the receipt of each shard as it is done; one that workers die of is split until it is a single file.

    That file is quarantined: in the store it is a skip, with the reason. `stop`: as an engine takes it.
    Raises SearchError where shards fail by their own account: after all others, or at once where none succeeds or none
    does any more; and where workers die of so many that it can't be the photos.
    """
    from search.shards.encoding import quarantine

    account = _Account(engine.in_process)
    waiting, retries = shards, RETRIES
    while True:
        for outcome in engine.run(task, waiting, retries=retries, stop=stop):
            account.note(outcome)
            if isinstance(outcome, Receipt):
                yield outcome
        deadly, account.deadly = account.deadly, []
        alone = [one for one in deadly if len(one.shard.files) == 1]
        parts = [part for one in deadly if len(one.shard.files) > 1 for part in one.shard.halves(job)]
        if retries:
            yield from (quarantine(one.shard, job, one.reason) for one in alone)
        else:
            parts += [one.shard for one in alone]
        if not parts or (stop and stop.is_set()):
            break
        # One death is enough to split further; of a single file it may have been bad luck.
        waiting, retries = parts, int(max(len(part.files) for part in parts) == 1)
    if account.first:
        raise _failed(account.first, account.failed)


@dataclass(slots=True)
class _Account:
    """What shards came to so far.

    first: the first to fail by an error; of the others only the photos are counted, `failed`.   deadly: those of the
    present pass that workers died of.
    """

    in_process: bool
    done: int = 0
    deaths: int = 0
    deadly: list[Failure] = field(default_factory=list)
    first: Failure | None = None
    failed: int = 0
    in_a_row: int = 0

    def note(self, outcome: Receipt | Failure) -> None:
        """Account for a shard.   Raises SearchError once there is no sense in any other."""
        if isinstance(outcome, Receipt):
            self.done, self.in_a_row = self.done + 1, 0
        elif outcome.died:
            self.deaths += 1
            self.deadly.append(outcome)
            if self.deaths > _DEADLY[0] + _DEADLY[1] * self.done:
                raise _failed(
                    self.first or outcome, self.failed or sum(len(one.shard.files) for one in self.deadly)
                )
        else:
            self.first, self.failed = self.first or outcome, self.failed + len(outcome.shard.files)
            self.in_a_row += 1
            if self.in_a_row >= (_AT_ONCE if self.done and not self.in_process else _HOPELESS):
                raise _failed(self.first, self.failed)


def _failed(first: Failure, photos: int) -> SearchError:
    return SearchError(
        f"{count_of(photos, 'photo')} could not be encoded: {first.reason}",
        hint="what is done is kept; once that is mended, the same command does the rest",
    )


def poisoned(file: FileStat, reason: str) -> Skip:
    """Return why a file is left out that what encodes it dies of."""
    detail = f"what encoded it ended each time it was at work on this file alone: {reason}"
    return Skip(file.path, SkipReason.QUARANTINED, detail)
