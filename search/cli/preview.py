"""Thumbnails in a terminal: by kitty's graphics protocol, iTerm2's inline images, sixel, or with half blocks.

sw.kovidgoyal.net/kitty/graphics-protocol · iterm2.com/documentation-images.html · DEC STD 070, Sixel Graphics
Room is made first, then each picture is drawn from where the cursor is put and the cursor put back: so nothing depends
on where a terminal leaves it, about which they differ.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from search.cli.columns import padded, shortened
from search.cli.output import emit_bytes, printable
from search.cli.terminal import Protocol, Screen, look
from search.errors import PhotoError

if TYPE_CHECKING:
    from search.cli.options import Settings
    from search.photos.thumbnails import Raster
    from search.types import Answer, Hit

_WIDTH, _HEIGHT = 20, 8  # of a picture, in letters
_GAP = 2
_CHUNK = 4096  # bytes of a picture in one of kitty's commands
_COLOURS = 255  # a sixel terminal has at least 256
_RUN = re.compile(rb"(.)\1{3,}", re.DOTALL)


def emit_previews(settings: Settings, answers: Sequence[Answer], protocol: str | None = None) -> None:
    """Draw the hits in rows, each above its rank and name."""
    screen = look(protocol)
    if screen.note:
        settings.talk(screen.note)
    for answer in answers:
        emit_bytes(previews(answer.hits, screen))


def previews(hits: Iterable[Hit], screen: Screen) -> Iterator[bytes]:
    """Yield what draws hits on a screen, row by row; a photo that can't be read now leaves its place empty."""
    height = max(2, min(_HEIGHT, screen.lines - 3))
    width = min(_WIDTH, screen.columns)
    across = max(1, (screen.columns + _GAP) // (width + _GAP))
    draw = _DRAWING[screen.protocol]
    numbered = enumerate(hits, start=1)
    while row := list(islice(numbered, across)):
        yield b"\n" * height + b"\x1b[%dA" % height
        for place, (_, hit) in enumerate(row):
            yield b"\x1b[%dG\x1b7" % (1 + place * (width + _GAP))
            try:
                yield from draw(hit.photo.path, (width, height), screen)
            except PhotoError:
                yield b"(not readable now)"[:width]
            yield b"\x1b8"
        captions = (padded(_caption(rank, hit, width), width) for rank, hit in row)
        yield b"\x1b[%dB\r" % height + (" " * _GAP).join(captions).rstrip().encode() + b"\n\n"


def _caption(rank: int, hit: Hit, columns: int) -> str:
    number = f"{rank}  "
    return number + shortened(printable(os.path.basename(hit.photo.path)), columns - len(number))


def _kitty(path: str, box: tuple[int, int], screen: Screen) -> Iterator[bytes]:
    """a=T: send and show; f=100: a PNG; C=1: leave the cursor; q=2: say nothing; m=1: more follows."""
    from search.photos.thumbnails import fitted

    data = base64.b64encode(fitted(path, _pixels(box, screen), form="PNG"))
    for start in range(0, len(data), _CHUNK):
        keys = b"a=T,f=100,C=1,q=2," if start == 0 else b""
        more = start + _CHUNK < len(data)
        yield b"\x1b_G%bm=%d;%b\x1b\\" % (keys, more, data[start : start + _CHUNK])


def _iterm2(path: str, box: tuple[int, int], screen: Screen) -> Iterator[bytes]:
    """Twice the pixels: where a letter has more than the terminal says, they are shown."""
    from search.photos.thumbnails import fitted

    width, height = _pixels(box, screen)
    picture = fitted(path, (2 * width, 2 * height), form="JPEG")
    keys = b"inline=1;preserveAspectRatio=1;size=%d;width=%d;height=%d" % (len(picture), *box)
    yield b"\x1b]1337;File=%b:%b\x07" % (keys, base64.b64encode(picture))


def _sixel(path: str, box: tuple[int, int], screen: Screen) -> Iterator[bytes]:
    from search.photos.thumbnails import raster

    yield sixels(raster(path, box=_pixels(box, screen), colours=_COLOURS))


def sixels(picture: Raster) -> bytes:
    """Return a picture with a palette as a sixel sequence: bands of six rows, a letter for six pixels of a colour."""
    parts = [b'\x1bP0;1;0q"1;1;%d;%d' % (picture.width, picture.height)]
    for number in sorted(set(picture.pixels)):
        red, green, blue = (round(part * 100 / 255) for part in picture.palette[3 * number : 3 * number + 3])
        parts.append(b"#%d;2;%d;%d;%d" % (number, red, green, blue))
    for top in range(0, picture.height, 6):
        lines = (b"#%d%b" % (number, _runs(bits)) for number, bits in _band(picture, top).items())
        parts.append(b"$".join(lines) + b"-")
    return b"".join([*parts, b"\x1b\\"])


def _band(picture: Raster, top: int) -> dict[int, bytearray]:
    """For every colour of six rows, for every column, which of the six pixels have it: the topmost is bit 0."""
    found: dict[int, bytearray] = {}
    width = picture.width
    for y in range(top, min(top + 6, picture.height)):
        bit = 1 << (y - top)
        for x, number in enumerate(picture.pixels[y * width : (y + 1) * width]):
            if number not in found:
                found[number] = bytearray(width)
            found[number][x] |= bit
    return found


def _runs(bits: bytearray) -> bytes:
    """Columns as letters, what repeats as a count; columns at the end with nothing in them are not sent."""
    letters = bytes(63 + column for column in bits.rstrip(b"\0"))
    return _RUN.sub(lambda run: b"!%d%b" % (len(run[0]), run[1]), letters)


def _blocks(path: str, box: tuple[int, int], screen: Screen) -> Iterator[bytes]:
    """Two pixels a letter, the upper in its colour and the lower behind it."""
    from search.photos.thumbnails import raster

    columns, lines = box
    picture = raster(path, box=(columns, 2 * lines))
    row = 3 * picture.width
    for line in range(0, picture.height, 2):
        upper = picture.pixels[line * row : (line + 1) * row]
        lower = picture.pixels[(line + 1) * row : (line + 2) * row]
        if line:
            yield b"\x1b8\x1b[%dB" % (line // 2)
        yield b"".join(_block(upper[x : x + 3], lower[x : x + 3]) for x in range(0, row, 3)) + b"\x1b[0m"


def _block(upper: bytes, lower: bytes) -> bytes:
    behind = b";48;2;%d;%d;%d" % tuple(lower) if lower else b""
    return b"\x1b[38;2;%d;%d;%d%bm" % (*upper, behind) + "▀".encode()


def _pixels(box: tuple[int, int], screen: Screen) -> tuple[int, int]:
    return box[0] * screen.letter[0], box[1] * screen.letter[1]


_DRAWING: dict[Protocol, Callable[[str, tuple[int, int], Screen], Iterator[bytes]]] = {
    Protocol.KITTY: _kitty,
    Protocol.ITERM2: _iterm2,
    Protocol.SIXEL: _sixel,
    Protocol.BLOCKS: _blocks,
}
