"""What parent and child say to each other: frames of JSON, each behind its length.

A child that a hostile file took over can say what it likes and gains nothing: no frame can name code, and every value
is checked for its type and range before it is used.
"""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, BinaryIO, NoReturn

from search.photos.keywords import MAX_KEYWORDS, printable
from search.types import HASH_BYTES, FileStat, Likeness, PhotoInfo, SkipReason, TakenAtSource

_LENGTH = struct.Struct(">I")
_MAX_FRAME = 2**18
_MAX_TEXT = 2**12
_MAX_SIDE = 2**31
_INFO = frozenset(field.name for field in fields(PhotoInfo))


class Garbled(Exception):
    """The other side does not keep to the protocol, or is gone in the middle of a word."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What decoding may cost before it is stopped.

    cpu_s, wall_s: seconds a file may take; large pictures are given more, see `extra_seconds`.
    memory_bytes: resident size of a child.   files: a child is replaced after so many.
    """

    cpu_s: float = 10
    wall_s: float = 60
    memory_bytes: int = 1_500_000_000
    files: int = 2000


def extra_seconds(pixels: int, size_bytes: int) -> tuple[int, int]:
    """Return the CPU and wall-clock seconds a large picture may take beyond the limit; a slow drive reads 2 MB/s."""
    return pixels // 20_000_000 + size_bytes // 200_000_000, pixels // 20_000_000 + size_bytes // 2_000_000


def send(stream: BinaryIO, message: dict[str, Any], data: bytes | memoryview = b"") -> None:
    """Write one frame and what follows it, at once."""
    text = json.dumps(message).encode()
    stream.write(_LENGTH.pack(len(text)) + text)
    stream.write(data)
    stream.flush()


def receive(stream: BinaryIO) -> dict[str, Any] | None:
    """Read one frame; None at the end. Raises Garbled."""
    head = stream.read(_LENGTH.size)
    if not head:
        return None
    if len(head) < _LENGTH.size or (length := _LENGTH.unpack(head)[0]) > _MAX_FRAME:
        raise Garbled
    text = stream.read(length)
    if len(text) < length:
        raise Garbled
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        raise Garbled from None
    said: dict[str, Any] = _take(message, dict)
    return said


def receive_content(stream: BinaryIO, size: int) -> bytes:
    """Read the bytes that follow a frame.   Raises Garbled where they end before."""
    content = stream.read(size)
    if len(content) < size:
        raise Garbled
    return content


# ---- the words


def describe(info: PhotoInfo, content_hash: bytes, stat: FileStat) -> dict[str, Any]:
    """Return what a child says of a photo it decoded."""
    return describe_info(info, stat) | {"hash": content_hash.hex()}


def describe_info(info: PhotoInfo, stat: FileStat) -> dict[str, Any]:
    """Return what a child says of a photo that it only looked into."""
    said = {name: getattr(info, name) for name in _INFO}
    said["taken_at"] = info.taken_at.isoformat() if info.taken_at else None
    return {"info": said, "stat": [stat.size_bytes, stat.mtime_ns, stat.ctime_ns]}


def understand(said: dict[str, Any], path: str) -> tuple[PhotoInfo, bytes, FileStat]:
    """Return what `describe` was given, for the file at this path. Raises Garbled."""
    info, stat = understand_info(said, path)
    try:
        return info, bytes.fromhex(_take(said.get("hash"), str, length=64)), stat
    except ValueError:
        raise Garbled from None


def understand_info(said: dict[str, Any], path: str) -> tuple[PhotoInfo, FileStat]:
    """Return what `describe_info` was given, for the file at this path. Raises Garbled."""
    size_bytes, mtime_ns, ctime_ns = _take(said.get("stat"), list, length=3)
    stat = FileStat(
        path,
        _whole(size_bytes, 0, 2**63),
        _whole(mtime_ns, -(2**63), 2**63),
        None if ctime_ns is None else _whole(ctime_ns, -(2**63), 2**63),
    )
    return _info(_take(said.get("info"), dict)), stat


def describe_likeness(likeness: Likeness) -> dict[str, Any]:
    """Return what a child says of a picture at a glance."""
    said = {"method": likeness.method, "hash": likeness.hash.hex(), "sharpness": likeness.sharpness}
    return {"likeness": said}


def understand_likeness(said: dict[str, Any]) -> Likeness:
    """Return what `describe_likeness` was given. Raises Garbled."""
    likeness = _take(said.get("likeness"), dict)
    sharpness = likeness.get("sharpness")
    if type(sharpness) is not float or not 0 <= sharpness < math.inf:
        raise Garbled
    try:
        hash_ = bytes.fromhex(_take(likeness.get("hash"), str, length=2 * HASH_BYTES))
    except ValueError:
        raise Garbled from None
    return Likeness(_whole(likeness.get("method"), 0, 2**31), hash_, sharpness)


def refusal(said: dict[str, Any]) -> tuple[SkipReason, str]:
    """Return a child's reason and detail for a file it can't use. Raises Garbled."""
    try:
        return SkipReason(_take(said.get("reason"), str)), _text(said.get("detail"))
    except ValueError:
        raise Garbled from None


def seconds(value: Any) -> int:
    """Return the further wall-clock seconds a child asks for, an hour at most. Raises Garbled."""
    return min(_whole(value, 0, 2**63), 3600)


def _info(said: dict[str, Any]) -> PhotoInfo:
    if said.keys() != _INFO:
        raise Garbled
    try:
        source = None if said["taken_at_source"] is None else TakenAtSource(_text(said["taken_at_source"]))
        taken_at = None if said["taken_at"] is None else datetime.fromisoformat(_text(said["taken_at"]))
    except ValueError:
        raise Garbled from None
    return PhotoInfo(
        format=_text(said["format"]),
        width=_whole(said["width"], 1, _MAX_SIDE),
        height=_whole(said["height"], 1, _MAX_SIDE),
        orientation=_whole(said["orientation"], 1, 9),
        taken_at=taken_at,
        taken_at_source=source,
        camera=None if said["camera"] is None else _text(said["camera"]),
        lens=None if said["lens"] is None else _text(said["lens"]),
        latitude=None if said["latitude"] is None else _degrees(said["latitude"], 90),
        longitude=None if said["longitude"] is None else _degrees(said["longitude"], 180),
        rating=None if said["rating"] is None else _whole(said["rating"], -1, 6),
        keywords=_keywords(_take(said["keywords"], list)),
    )


def _keywords(said: list[Any]) -> tuple[str, ...]:
    """Return keywords that the catalog can keep: each once, none with what can't be seen."""
    words = tuple(map(_text, said))
    if len(set(words)) < len(words) or len(words) > MAX_KEYWORDS:
        raise Garbled
    if not all(word and printable(word) == word for word in words):
        raise Garbled
    return words


def _take(value: Any, type_: type[Any], *, length: int | None = None) -> Any:
    if type(value) is not type_ or (length is not None and len(value) != length):
        raise Garbled
    return value


def _text(value: Any) -> str:
    text: str = _take(value, str)
    return text if len(text) <= _MAX_TEXT else _garbled()


def _whole(value: Any, low: int, end: int) -> int:
    number: int = _take(value, int)
    return number if low <= number < end else _garbled()


def _degrees(value: Any, most: int) -> float:
    if type(value) not in (int, float) or not math.isfinite(value) or abs(value) > most:
        raise Garbled
    return float(value)


def _garbled() -> NoReturn:
    raise Garbled
