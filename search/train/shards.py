"""Webdataset's tars: samples whose members share a key, found once and then read in place.

A sample is a picture (`key.jpg`) with what is said of it (`key.txt`, `key.caption`, or `caption` in `key.json`), as
img2dataset writes them; a key ends at the first full stop of a name.
"""

from __future__ import annotations

import glob
import json
import os
import re
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import BinaryIO

from search.errors import PhotoError, UsageError
from search.types import Skip, SkipReason

_PICTURES = ("jpg", "jpeg", "png", "webp")
_TEXTS = ("txt", "caption")  # one caption each; what comes first counts
_JSON, _IN_JSON = "json", ("caption", "text")
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_MOST_TEXT = 2**20  # bytes of a member that is to be a text
_MOST_SHARDS = 1_000_000
_BLOCK = 512  # bytes


@dataclass(frozen=True, slots=True)
class Member:
    """Where a file lies within a tar."""

    shard: str
    offset: int
    size_bytes: int

    def read(self) -> bytes:
        """Return its content.   Raises PhotoError where the tar is not what it was."""
        try:
            with open(self.shard, "rb") as file:
                file.seek(self.offset)
                content = file.read(self.size_bytes)
        except OSError as error:
            raise PhotoError(SkipReason.UNREADABLE, error.strerror or str(error)) from error
        if len(content) < self.size_bytes:
            raise PhotoError(SkipReason.UNREADABLE, f"{self.shard} ends before it")
        return content


@dataclass(frozen=True, slots=True)
class Contents:
    """What tars hold.   captions: by the name of a picture, its tar's path and its own; members: likewise."""

    captions: Mapping[str, tuple[str, ...]]
    members: Mapping[str, Member]
    skipped: tuple[Skip, ...]


def are_meant(source: str) -> bool:
    """Say whether a source is tars: one, a range of them such as train-{000..012}.tar, or a folder of them."""
    return source.lower().endswith((".tar", *_COMPRESSED)) or os.path.isdir(source)


def read(source: str) -> Contents:
    """Find the samples of tars, in the order of the tars' names and of what is in them.

    What is no whole sample is skipped, and what comes after damage in a tar.   Raises UsageError without any sample.
    """
    captions: dict[str, tuple[str, ...]] = {}
    members: dict[str, Member] = {}
    skipped: list[Skip] = []
    for shard in _shards(source):
        for name, found in _samples(shard, skipped).items():
            captions[name], members[name] = found
    if not captions:
        why = f": {skipped[0].path}: {skipped[0].detail}" if skipped else ""
        raise UsageError(f"{source} holds no photo with a caption{why}", hint="a sample is key.jpg and key.txt")
    return Contents(captions, members, tuple(skipped))


def _shards(source: str) -> list[str]:
    if source.lower().endswith(_COMPRESSED):
        raise UsageError(f"{source} is compressed and can't be read in place", hint="decompress it")
    if os.path.isdir(source):
        found = sorted(glob.glob(os.path.join(glob.escape(source), "*.tar")))
        if not found:
            raise UsageError(f"{source} is a folder without tars", hint="give a table, a tar or a folder of tars")
        return [os.path.realpath(shard) for shard in found]
    return [os.path.realpath(shard) for shard in _expanded(source)]


def _expanded(source: str) -> list[str]:
    """Write out {000..012}, with as many digits as stand there."""
    between = _RANGE.split(source)[::3]
    bounds = _RANGE.findall(source)
    count = 1
    for first, last in bounds:
        count *= max(0, int(last) - int(first) + 1)
    if not 0 < count <= _MOST_SHARDS:
        raise UsageError(f"{source} stands for {count} tars")
    numbers = [
        [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)] for first, last in bounds
    ]
    return [
        "".join((between[0], *map("".join, zip(chosen, between[1:], strict=True)))) for chosen in product(*numbers)
    ]


def _samples(shard: str, skipped: list[Skip]) -> dict[str, tuple[tuple[str, ...], Member]]:
    """Return the samples of one tar, by name; note what is left out."""
    keys: dict[str, dict[str, tuple[str, Member]]] = {}  # by key and suffix: a member's name and place
    try:
        with open(shard, "rb") as file:
            for name, member in _files(shard, file, skipped):
                key, suffix = _split(name)
                keys.setdefault(key, {})[suffix] = (name, member)
            found = {}
            for key, parts in keys.items():
                picture = next((parts[suffix] for suffix in _PICTURES if suffix in parts), None)
                said = _said(file, {suffix: member for suffix, (_, member) in parts.items()})
                if picture and said:
                    found[f"{shard}/{picture[0]}"] = (said, picture[1])
                elif picture or said:
                    reason = SkipReason.EMPTY if picture else SkipReason.UNSUPPORTED_FORMAT
                    skipped.append(Skip(f"{shard}/{key}", reason, "no caption" if picture else "no picture"))
            return found
    except OSError as error:
        skipped.append(Skip(shard, SkipReason.UNREADABLE, error.strerror or str(error)))
        return {}


def _files(shard: str, file: BinaryIO, skipped: list[Skip]) -> Iterator[tuple[str, Member]]:
    """Yield the name and the place of each whole file in a tar, up to its end or to where it is damaged."""
    size = os.fstat(file.fileno()).st_size
    damage = ""
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            last = -1
            while (info := tar.next()) is not None:
                if info.size < 0 or info.offset_data <= last:  # it would go back, and on for ever
                    raise ValueError("a size that no file has")
                last = info.offset_data
                if info.isreg() and not info.issparse() and info.offset_data + info.size <= size:
                    yield info.name.removeprefix("./"), Member(shard, info.offset_data, info.size)
            end = tar.offset
        file.seek(end)
        if len(block := file.read(_BLOCK)) < _BLOCK or any(block):
            damage = f"damaged or cut off at byte {end}"
    except Exception as error:  # tarfile lets whatever its arithmetic on damaged headers raises through
        damage = f"damaged or cut off: {error or type(error).__name__}"
    if damage:
        skipped.append(Skip(shard, SkipReason.UNREADABLE, f"{damage}; what may come after is left out"))


def _split(name: str) -> tuple[str, str]:
    folder, separator, base = name.rpartition("/")
    key, _, suffix = base.partition(".")
    return f"{folder}{separator}{key}", suffix.lower()


def _said(file: BinaryIO, parts: Mapping[str, Member]) -> tuple[str, ...]:
    """Return the captions of a sample."""
    for suffix in _TEXTS:
        if suffix in parts and (text := _text(file, parts[suffix]).strip()):
            return (text,)
    if _JSON not in parts:
        return ()
    try:
        document = json.loads(_text(file, parts[_JSON]))
    except (ValueError, RecursionError):
        return ()
    values = [document.get(name) for name in _IN_JSON] if isinstance(document, dict) else []
    said = next((value for value in values if value), ())
    every = [said] if isinstance(said, str) else said if isinstance(said, list) else []
    return tuple(text.strip() for text in every if isinstance(text, str) and text.strip())


def _text(file: BinaryIO, member: Member) -> str:
    if member.size_bytes > _MOST_TEXT:
        return ""
    file.seek(member.offset)
    return file.read(member.size_bytes).decode("utf-8-sig", "replace")
