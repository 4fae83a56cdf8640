"""Tar files of pictures, as img2dataset and webdataset write them, unpacked into folders that can be indexed.

A sample is the members whose names are alike up to the first dot: `000000012.jpg`, `.txt`, `.json`. Each tar file
becomes a folder of its name: whole or not there, so that a run that is cut short goes on with the next tar file.
"""

from __future__ import annotations

import json
import os
import tarfile
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from search.errors import StorageError, UsageError
from search.files import new_folder, replace_beside, stat_of, sweep
from search.photos.suffixes import PHOTO_SUFFIXES
from search.types import Progress, Skip, Stage

_BESIDE = (".txt", ".json", ".cls")  # captions and what is known of a picture, kept beside it
_MOST_BYTES = 1 << 30  # of one member
_LONGEST = 200  # bytes of a name, which is longer while the file is written
MARK = "shard.json"
"""What tells which tar file a folder was made of."""


@dataclass(frozen=True, slots=True)
class UnpackReport:
    """What was unpacked: tar files that are folders now, those that were before, pictures in all of them."""

    shards: int
    unchanged: int
    photos: int
    skipped: tuple[Skip, ...] = ()
    interrupted: bool = False


def shards_of(sources: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """Return the tar files that are named, and those in the folders named, sorted.

    Raises UsageError where there is none, or where two have one name.
    """
    found: list[Path] = []
    for source in sources:
        path = Path(source).expanduser().absolute()
        found += sorted(path.glob("*.tar")) if path.is_dir() else [path]
    if not found or not all(path.is_file() for path in found):
        missing = next((path for path in found if not path.is_file()), None)
        raise UsageError(f"there is no tar file {missing or 'in ' + os.fspath(sources[0])}")
    names = Counter(path.stem for path in found)
    if twice := next((name for name, count in names.items() if count > 1), None):
        raise UsageError(f"two tar files are called {twice}; their pictures would go to one folder")
    return sorted(found)


def unpack(
    sources: Sequence[str | os.PathLike[str]],
    to: Path,
    *,
    progress: Callable[[Progress], None] = lambda _: None,
    stop: threading.Event | None = None,
) -> UnpackReport:
    """Unpack tar files into folders below `to`; those that are there as they are now are left alone.

    A damaged tar file is skipped whole. Raises UsageError for a folder in the way that is none of these; StorageError.
    """
    shards = shards_of(sources)
    to.mkdir(parents=True, exist_ok=True)
    sweep(to)
    done = unchanged = photos = 0
    skipped: list[Skip] = []
    for number, shard in enumerate(shards):
        if stop and stop.is_set():
            break
        progress(Progress(Stage.UNPACK, number, len(shards)))
        folder = to / shard.stem
        if (kept := _kept(folder, shard)) is not None:
            unchanged, photos = unchanged + 1, photos + kept
            continue
        try:
            photos += _unpack(shard, folder, skipped)
            done += 1
        except (tarfile.TarError, EOFError) as error:
            skipped.append(Skip(str(shard), "damaged", str(error)))
        except OSError as error:
            raise StorageError(f"can't unpack {shard} to {folder}: {error.strerror or error}") from error
    progress(Progress(Stage.UNPACK, done + unchanged, len(shards)))
    return UnpackReport(done, unchanged, photos, tuple(skipped), bool(stop and stop.is_set()))


def _kept(folder: Path, shard: Path) -> int | None:
    """Return how many pictures a folder made of a tar file has; None where it is to be made, or anew."""
    if not os.path.lexists(folder):
        return None
    try:
        said = json.loads((folder / MARK).read_bytes())
        photos = int(said["photos"])
    except (OSError, ValueError, KeyError, TypeError):
        raise UsageError(f"{folder} is there and was not made of a tar file; it stays") from None
    return photos if said.get("of") == _of(shard) else None


def _of(shard: Path) -> dict[str, str | int]:
    return {"name": shard.name, **stat_of(shard)}


def _unpack(shard: Path, folder: Path, skipped: list[Skip]) -> int:
    photos, taken, left = 0, set[str](), list[Skip]()
    with tarfile.open(shard, "r:") as tar, new_folder(folder) as temporary:
        for member in tar:
            name = os.path.basename(member.name)
            if not member.isfile() or not _is_wanted(name):
                continue
            if why := _why_not(name, member.size, taken):
                left.append(Skip(f"{shard}/{member.name}", *why))
                continue
            taken.add(name)
            content = tar.extractfile(member)
            data = content.read() if content else b""
            if len(data) != member.size:
                raise tarfile.ReadError("unexpected end of data")
            replace_beside(temporary / name, data, like=None)
            photos += name.lower().endswith(tuple(PHOTO_SUFFIXES))
        about = {"of": _of(shard), "photos": photos}
        replace_beside(temporary / MARK, json.dumps(about).encode(), like=None)
    skipped += left
    return photos


def _why_not(name: str, size: int, taken: set[str]) -> tuple[str, str] | None:
    """Return why a member that is wanted is left out."""
    if name in taken:
        return "twice", "a name is there twice"
    if len(os.fsencode(name)) > _LONGEST:
        return "name", "its name is too long"
    return ("too_large", f"{size} bytes") if size > _MOST_BYTES else None


def _is_wanted(name: str) -> bool:
    """Whether a member is a picture or says something of one; names that hide or lead elsewhere are not."""
    return (
        not name.startswith(".")
        and "\\" not in name
        and name != MARK
        and name.lower().endswith((*PHOTO_SUFFIXES, *_BESIDE))
    )
