"""What is in a tar file: its pictures by name, with where their bytes lie. Nothing is unpacked.

A tar file comes from strangers: a name that leads elsewhere, a link or a header without end makes a reason, not harm.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from search.photos.suffixes import PHOTO_SUFFIXES
from search.types import SkipReason

if TYPE_CHECKING:
    import tarfile

MOST_BYTES = 1 << 28
"""Of one picture in a tar file, or on object storage: it is held in memory."""

_HEADER_BYTES = 1 << 20  # of a header; those that long names make have a few kilobytes
_BLOCK = 512
_LATEST_S = 2**33  # year 2242
_NONSENSE = (ValueError, RecursionError, OverflowError, struct.error)  # raised by tarfile besides its own errors


@dataclass(frozen=True, slots=True)
class Member:
    """A picture of a tar file.   offset: of its first byte.   why: reason and detail, where it is left out."""

    name: str
    size_bytes: int
    mtime_ns: int
    offset: int
    why: tuple[str, str] | None = None


def listed(file: BinaryIO, size_bytes: int) -> tuple[dict[str, Member], str]:
    """Return the pictures of a tar file by their names, and what is wrong with it, "" if all is well.

    Of two of one name the later counts, as it does for tar. What lies before the damage in a file that was cut off is
    there.   Raises OSError, also where it is no tar file.
    """
    import tarfile  # which most runs need not

    found: dict[str, Member] = {}
    with _opened(file) as tar:
        trouble = ""
        while not trouble:
            start = tar.offset
            try:
                member = tar.next()
            except (tarfile.TarError, *_NONSENSE) as error:
                trouble = f"damaged after {start} bytes: {error}"
                break
            if member is None:
                break
            tar.members = []  # type: ignore[attr-defined]  # else it keeps all of them
            if member.size < 0 or tar.offset < member.offset_data:  # it would come to the same headers for ever
                trouble = f"damaged after {start} bytes: a size below 0"
            elif member.isfile() and member.offset_data + member.size > size_bytes:
                trouble = f"cut off in the midst of {member.name}"
            elif kept := _member(member):
                found[kept.name] = kept
        return found, trouble or _ending(file, tar.offset)


def _opened(file: BinaryIO) -> tarfile.TarFile:
    import tarfile

    try:
        return tarfile.open(fileobj=_Headers(file), mode="r:")
    except tarfile.TarError as error:
        raise OSError(f"no tar file that can be read: {error}") from error
    except _NONSENSE as error:
        raise OSError(f"no tar file that can be read: damaged at its beginning: {error}") from error


class _Headers(io.RawIOBase):
    """A file whose reader gets no more at once than a header may have."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file = file

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _HEADER_BYTES:
            raise ValueError(f"a header of {size} bytes")
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


def _member(member: tarfile.TarInfo) -> Member | None:
    """Return what is known of a member; None if it is no picture by its name."""
    plain = member.name.removeprefix("./")
    if member.isdir() or plain[plain.rfind(".") :].lower() not in PHOTO_SUFFIXES:
        return None
    name = _harmless(plain)
    mtime_ns = int(min(max(0.0, float(member.mtime)), _LATEST_S) * 1e9)  # in this order what is no number is 0
    return Member(name, member.size, mtime_ns, member.offset_data, _why_not(member, plain, name))


def _why_not(member: tarfile.TarInfo, plain: str, name: str) -> tuple[str, str] | None:
    if member.issym() or member.islnk():
        return SkipReason.UNSUPPORTED_FORMAT, "a link, which is not followed in a tar file"
    if not member.isfile() or member.issparse():
        return SkipReason.UNSUPPORTED_FORMAT, "no plain file of the tar file"
    if name != plain:
        return SkipReason.UNSUPPORTED_FORMAT, "its name in the tar file leads elsewhere"
    if member.size > MOST_BYTES:
        return SkipReason.TOO_LARGE, f"{member.size} bytes; the limit in a tar file is {MOST_BYTES}"
    return None


def _harmless(name: str) -> str:
    """Return a name that leads to no other folder; most are so already."""
    parts = name.split("/")
    if "\0" not in name and not any(part in ("", ".", "..") for part in parts):
        return name
    return "/".join({"": "%2F", ".": "%2E", "..": "%2E%2E"}.get(part, part.replace("\0", "%00")) for part in parts)


def _ending(file: BinaryIO, offset: int) -> str:
    """Return what is wrong with the end of a tar file; tarfile takes any header it can't read for one."""
    file.seek(offset)
    block = file.read(_BLOCK)
    return "" if len(block) == _BLOCK and not any(block) else f"cut off or damaged after {offset} bytes"
