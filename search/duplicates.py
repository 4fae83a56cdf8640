"""Duplicates, from a shortlist to groups: which photos are worth comparing, who is kept, and why.

Pure over arrays and photos; who compares pixels and vectors is handed in. A group has one photo that is kept, and
every other one was itself found to be a duplicate of that one: a chain of neighbours leads to whom to ask, never to
who belongs. Of equal neighbours, burst by burst, nothing drifts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from search.errors import UsageError
from search.types import HASH_BYTES, Skip
from search.vectors.pairs import near_bits

if TYPE_CHECKING:
    import numpy.typing as npt

    from search.types import Ids, Photo, Vectors

    Hashes = npt.NDArray[np.uint8]
    """(N, 8, 8): of each photo, for each way to lay it, 64 bits."""

MOMENT_S = 10.0
"""Seconds between two shots of one moment."""
NEAREST, NEAR = 16, 0.85
"""Photos that each is compared with, the nearest by their vectors, and the cosine they must reach."""

_HASHED_NEAREST = 8  # and by their hashes, for each way to lay it
_SPEAKING = (4, 60)  # bits set, of 64, in a hash that says something: a blank page has none
_ALIKE_BITS = (22, *[14] * 7)  # of 64 may differ where vectors are near: upright cropped by a tenth, else turned
_IN_A_ROW = 4  # photos of one very hash are compared with so many next ones
_SHOTS_IN_A_ROW = 8  # and shots of one camera


class DuplicateKind(StrEnum):
    """How photos are duplicates, strongest first."""

    EXACT = "exact"  # the same bytes
    SAME_PICTURE = "same-picture"  # coded, scaled, turned or cropped anew
    SAME_MOMENT = "same-moment"  # another shot of a burst or bracket
    SIMILAR = "similar"  # alike to the model, nothing more


@dataclass(frozen=True, slots=True)
class Duplicate:
    """A photo beside the one that is kept.

    score: cosine with the kept one, None where one of them has no vector.   reason: what was done to it, how far
    away it was taken.   lost: why the other one is kept, "1600x1200 against 4000x3000".
    """

    photo: Photo
    score: float | None
    reason: str
    lost: str


@dataclass(frozen=True, slots=True)
class DuplicateGroup:
    """Photos that are duplicates of the one that is kept, each of them by itself."""

    kind: DuplicateKind
    reason: str
    keep: Photo
    others: tuple[Duplicate, ...]


@dataclass(frozen=True, slots=True)
class DuplicateReport:
    """Groups, strongest kind first, and what one must know to trust them.

    photos: looked through.   threshold: the cosine from which photos are similar.   unknown: photos without a hash,
    which only their vectors could tell.   skipped: files that could not be read to be compared.
    """

    groups: tuple[DuplicateGroup, ...]
    photos: int
    threshold: float
    unknown: int = 0
    skipped: tuple[Skip, ...] = ()
    seconds: float = 0.0
    interrupted: bool = False


@dataclass(frozen=True, slots=True)
class Moved:
    """A file that is somewhere else now."""

    path: str
    to: str


@dataclass(frozen=True, slots=True)
class MoveReport:
    """What `set_aside` did.

    undo: the list of what was moved, a JSON document a line, `from` and `to`, written before the move; what `failed`
    has another line that says so.
    """

    moved: tuple[Moved, ...]
    skipped: tuple[Skip, ...]
    undo: str
    interrupted: bool = False


STRENGTH = tuple(DuplicateKind)
"""The kinds, strongest first."""


@dataclass(frozen=True, slots=True)
class DuplicateOptions:
    """What to look for.

    kinds: those to report; a pair is of its strongest kind whether that is reported or not.   threshold: cosine from
    which photos are similar; None: what unrelated photos of the library practically never reach.   within_s: seconds
    between shots of one moment.
    """

    kinds: tuple[DuplicateKind, ...] = STRENGTH
    threshold: float | None = None
    within_s: float = MOMENT_S

    def __post_init__(self) -> None:
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise UsageError(f"a threshold of {self.threshold} is no cosine to look for", hint="0 to 1")
        if not 0 <= self.within_s < float("inf"):
            raise UsageError(f"{self.within_s} seconds are no moment")

    def reaches(self, kind: DuplicateKind) -> bool:
        """Whether this kind must be looked for: it is reported itself, or a weaker one is."""
        return any(STRENGTH.index(wanted) >= STRENGTH.index(kind) for wanted in self.kinds)


# ---- how near is near


class Levels(NamedTuple):
    """Cosines that unrelated photos of a library seldom reach, one pair in a thousand, and practically never."""

    alike: float
    similar: float


_USUAL = Levels(0.85, 0.95)  # where a library is too small to tell
_MOST_ALIKE = 0.9  # what shots of one moment may be asked for
_RELATED = 0.93  # from which photos of the sample are taken for relatives, of which one is enough
_LEAST_SAMPLE = 200
_SHARES = (1e-2, 1e-3)  # of pairs: few enough to be near, too many to be duplicates
_STRANGERS = 0.01  # unrelated photos within reach of each one


def levels(sample: Vectors, photos: int) -> Levels:
    """Return what unrelated photos of a library reach, told from some of them.   sample: (M, D), taken evenly.

    Around a photo the others lie as points in a space of some dimensions do: how many are nearer than 1 - cosine
    grows by a power of it (the intrinsic dimension; Levina and Bickel, NIPS 2004). Two quantiles of the sample's pairs
    give the power, and the power where a library of so many photos holds 0.01 strangers to each.
    """
    if len(sample) < _LEAST_SAMPLE:
        return _USUAL
    scores = sample @ sample.T
    strangers = np.tril(scores, -1).max(axis=1) < _RELATED
    if strangers.sum() >= _LEAST_SAMPLE:
        scores = scores[np.ix_(strangers, strangers)]
    cosines = scores[np.triu_indices(len(scores), 1)]
    wide, near = (float(1 - np.quantile(cosines, 1 - share)) for share in _SHARES)
    near = max(near, 1e-4)
    steps = np.log10(_SHARES[1] * photos / _STRANGERS)  # tenfold ones from the nearer quantile down
    reach = near * (near / max(wide, near)) ** max(0.0, steps)
    alike = min(1 - near, _MOST_ALIKE)
    return Levels(alike, float(np.clip(1 - reach, alike, 0.995)))


# ---- the shortlist


class Shortlist(NamedTuple):
    """Pairs of photos worth comparing: (P,) ids each."""

    first: Ids
    second: Ids


def unpack(hashes: Sequence[bytes]) -> Hashes:
    """Return hashes as bits to compare."""
    return np.frombuffer(b"".join(hashes), np.uint8).reshape(-1, 8, HASH_BYTES // 8)


def differences(one: Hashes, other: Hashes) -> npt.NDArray[np.int64]:
    """Return how many of 64 bits differ for each way to lay the first: (N, 8)."""
    counts: npt.NDArray[np.int64] = np.bitwise_count(one ^ other[:, :1]).sum(axis=2, dtype=np.int64)
    return counts


def turns(one: Hashes, other: Hashes) -> tuple[int, ...]:
    """Return the ways to lay the first, (8, 8), in which it may be the second: two at most, the likeliest first."""
    bits = differences(one[None], other[None])[0]
    order = np.argsort(bits, kind="stable")[:2]
    return tuple(int(turn) for turn in order if bits[turn] <= _ALIKE_BITS[turn])


def by_hash(ids: Ids, hashes: Hashes) -> Shortlist:
    """Return photos whose hashes are the same but for a few bits, whichever way one is laid."""
    upright = np.ascontiguousarray(hashes[:, 0]).view("<u8").ravel()
    order = np.argsort(upright, kind="stable")
    codes, starts, counts = np.unique(upright[order], return_index=True, return_counts=True)
    pairs = [_in_a_row(ids[order], counts, starts, _IN_A_ROW)]
    speaking = _speaks(codes)
    codes, heads = codes[speaking], order[starts[speaking]]
    for turn in range(8):
        queries = np.ascontiguousarray(hashes[heads, turn])
        query, code, _ = near_bits(codes[:, None].view(np.uint8), queries, _HASHED_NEAREST)
        apart = heads[query] != heads[code]
        pairs.append((ids[heads[query[apart]]], ids[heads[code[apart]]]))
    return _once(pairs)


def _speaks(codes: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
    set_ = np.bitwise_count(codes)
    speaking: npt.NDArray[np.bool_] = (set_ >= _SPEAKING[0]) & (set_ <= _SPEAKING[1])
    return speaking


def _in_a_row(ids: Ids, counts: Ids, starts: Ids, reach: int) -> tuple[Ids, Ids]:
    """Pair each photo of a run of equals with the next few of it."""
    ends = np.repeat(starts + counts, counts)
    firsts, seconds = [], []
    for step in range(1, reach + 1):
        at = np.flatnonzero(np.arange(len(ids)) + step < ends)
        firsts.append(ids[at])
        seconds.append(ids[at + step])
    return np.concatenate(firsts), np.concatenate(seconds)


def by_vector(first: Ids, second: Ids, ids: Ids, hashes: Hashes) -> Shortlist:
    """Return those of pairs near by their vectors that may be the same picture by their hashes too.

    ids: ascending, of the photos that have hashes.
    """
    known = np.isin(first, ids) & np.isin(second, ids)
    first, second = first[known], second[known]
    alike = np.zeros(len(first), bool)
    for start in range(0, len(first), 2**16):
        part = slice(start, start + 2**16)
        one, other = (hashes[np.searchsorted(ids, side[part])] for side in (first, second))
        alike[part] = (differences(one, other) <= _ALIKE_BITS).any(axis=1)
    return Shortlist(first[alike], second[alike])


def by_time(ids: Ids, cameras: Ids, seconds: npt.NDArray[np.float64], within_s: float) -> Shortlist:
    """Return shots of one camera within so many seconds; each with the next few of them at most."""
    order = np.lexsort((ids, seconds, cameras))
    ids, cameras, seconds = ids[order], cameras[order], seconds[order]
    pairs = []
    for step in range(1, min(_SHOTS_IN_A_ROW, len(ids) - 1) + 1):
        together = (cameras[step:] == cameras[:-step]) & (seconds[step:] - seconds[:-step] <= within_s)
        pairs.append((ids[:-step][together], ids[step:][together]))
    return _once(pairs)


def either(*lists: Shortlist) -> Shortlist:
    """Return the pairs of several shortlists, each once."""
    return _once(list(lists))


def among(pairs: Shortlist, ids: Ids) -> Shortlist:
    """Return the pairs of which both are among some photos."""
    kept = np.isin(pairs.first, ids) & np.isin(pairs.second, ids)
    return Shortlist(pairs.first[kept], pairs.second[kept])


def _once(pairs: Sequence[tuple[Ids, Ids]]) -> Shortlist:
    if not pairs:
        return Shortlist(np.empty(0, np.int64), np.empty(0, np.int64))
    sides = np.stack([np.concatenate(column) for column in zip(*pairs, strict=True)], axis=1)
    both = np.unique(np.sort(sides, axis=1), axis=0).astype(np.int64)
    return Shortlist(both[:, 0], both[:, 1])


# ---- groups


class Links:
    """Who is on a shortlist with whom."""

    def __init__(self, pairs: Shortlist) -> None:
        one, other = np.concatenate([pairs.first, pairs.second]), np.concatenate([pairs.second, pairs.first])
        order = np.argsort(one, kind="stable")
        self.ids, self._starts = np.unique(one[order], return_index=True)
        self._others = other[order]

    def of(self, id_: int) -> list[int]:
        """Return those on a shortlist with one of `ids`."""
        at = int(np.searchsorted(self.ids, id_))
        end = self._starts[at + 1] if at + 1 < len(self._starts) else None
        return [int(other) for other in self._others[self._starts[at] : end]]


@dataclass(frozen=True, slots=True)
class Group:
    """Ids of the photo that is kept and of its duplicates, each with how it is one."""

    keep: int
    others: tuple[tuple[int, str], ...]


def groups(
    links: Links,
    order: Sequence[int],
    hold: Callable[[int, list[int]], Mapping[int, str]],
) -> Iterator[Group]:
    """Yield groups: of each the best photo left, and those its neighbours lead to that are its duplicates themselves.

    order: ids, best first.   hold: told who would be kept and some others, says which of them are its duplicates, and
    how. No photo is in two groups.
    """
    taken: set[int] = set()
    for keep in order:
        if keep in taken:
            continue
        found: dict[int, str] = {}
        asked, front = {keep}, [keep]
        while front:
            near = {other for id_ in front for other in links.of(id_)} - asked - taken
            asked |= near
            held = hold(keep, sorted(near)) if near else {}
            found.update(held)
            front = list(held)
        if found:
            taken.update(found, (keep,))
            yield Group(keep, tuple(sorted(found.items())))


# ---- who is kept

_LOSSLESS = {"PNG", "TIFF", "BMP", "DIB", "PPM", "TGA"}
_CODED = {"JPEG", "MPO", "WEBP", "GIF", "JPEG2000", "AVIF", "HEIF", "ICO"}
_SHARPER = 1.05  # by which sharpness must differ to count


def _form(photo: Photo) -> int:
    """2 for a camera's raw data, 1 for a picture kept without loss, 0 for a coded one."""
    name = photo.info.format.upper()
    return 1 if name in _LOSSLESS else 0 if name in _CODED or not name else 2


def _told(photo: Photo) -> list[str]:
    """What is known of a photo that a copy may have lost."""
    info = photo.info
    known = {
        "its date": info.taken_at is not None and info.taken_at_source != "file",
        "its place": info.latitude is not None,
        "a rating": info.rating is not None,
        "labels": bool(photo.labels),
        "its camera": info.camera is not None,
    }
    return [name for name, there in known.items() if there]


def _is_original(photo: Photo) -> bool:
    """Whether it says itself which camera took it, and when: what is made of a photo seldom does."""
    info = photo.info
    return info.camera is not None and info.taken_at is not None and info.taken_at_source != "file"


def only_in(photo: Photo, other: Photo) -> list[str]:
    """Return what the user would miss of a photo if only the other one were left."""
    mine, its = photo.info, other.info
    more = {
        "a rating": mine.rating is not None and its.rating is None,
        "labels": bool(set(photo.labels) - set(other.labels)),
        "keywords": bool(set(mine.keywords) - set(its.keywords)),
        "more pixels": mine.width * mine.height > its.width * its.height,
    }
    return [name for name, there in more.items() if there]


def worth(photo: Photo, sharpness: float | None = None) -> tuple[float | int | str, ...]:
    """Return what photos are sorted by to have the one to keep first.

    sharpness: of shots. Of one picture it tells nothing: sharpening and hard coding raise it.
    """
    info = photo.info
    steps = round(float(np.log(max(sharpness or 0.0, 0.01)) / np.log(_SHARPER)))
    return (
        not _is_original(photo),
        -info.width * info.height,
        -_form(photo),
        -len(_told(photo)),
        -steps,
        -photo.size_bytes,
        photo.mtime_ns,
        photo.path,
    )


def why_kept(kept: Photo, other: Photo, sharpness: Mapping[int, float]) -> str:
    """Say in words what speaks for the photo that is kept."""
    mine, its = kept.info, other.info
    if _is_original(kept) and not _is_original(other):
        return "lacks its camera and date"
    if mine.width * mine.height != its.width * its.height:
        return f"{its.width}x{its.height} against {mine.width}x{mine.height}"
    if _form(kept) != _form(other):
        return f"{its.format.upper()} against {mine.format.upper()}"
    if len(_told(kept)) > len(_told(other)):
        return f"lacks {' and '.join(what for what in _told(kept) if what not in _told(other))}"
    ours, theirs = (worth(photo, sharpness.get(photo.id))[4] for photo in (kept, other))
    if ours != theirs:
        return "less sharp"
    if kept.size_bytes != other.size_bytes:
        return f"{other.size_bytes:,} bytes against {kept.size_bytes:,}"
    return "newer" if kept.mtime_ns != other.mtime_ns else "later by its name"
