"""Pictures in the terminal, seen from the terminal's side: what it is asked, and what it is sent to draw."""

from __future__ import annotations

import base64
import io
import os
import pty
import re
import select
import struct
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from search import Library
from search.cli.preview import previews, sixels
from search.cli.terminal import Protocol, Screen, look
from search.errors import UsageError
from search.photos.thumbnails import Raster, raster
from search.types import Hit, Photo, PhotoInfo

CELL = b"\x1b[6;20;10t"  # letters of 10 x 20 pixels
KITTY = b"\x1b_Gi=31;OK\x1b\\"
NAMES = ("TERM_PROGRAM", "KITTY_WINDOW_ID", "TMUX", "COLUMNS", "LINES")
SPAWN = {name: value for name, value in os.environ.items() if name not in NAMES}


@pytest.fixture(scope="module")
def flags(tmp_path_factory) -> Path:
    """A library of one picture: left half red, right half blue."""
    folder = tmp_path_factory.mktemp("flags")
    flag = Image.new("RGB", (600, 300), (250, 0, 0))
    flag.paste((0, 0, 250), (300, 0, 600, 300))
    flag.save(folder / "flag.png")
    with Library.open(folder / "library", model="builtin", offline=True) as library:
        library.index([folder / "flag.png"])
    return folder / "library"


class Terminal:
    """The side of a pseudo-terminal where the screen is; it answers what it is asked with `answer`."""

    def __init__(self, answer: bytes) -> None:
        import fcntl
        import termios

        self._answer = answer
        self.screen, self.line = pty.openpty()
        fcntl.ioctl(self.line, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))

    def close(self) -> None:
        os.close(self.screen)

    def run(self, place: Path, *arguments: str, **environment: str) -> tuple[int, bytes, str]:
        """Run `find` in it: the exit code, what was drawn, and stderr, which goes elsewhere."""
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "search",
                "-L",
                str(place),
                "find",
                "a flag",
                "--min-relevance",
                "0",
                *arguments,
            ],
            stdin=self.line,
            stdout=self.line,
            stderr=subprocess.PIPE,
            env={**SPAWN, "TERM": "xterm-256color", **environment},
        )
        os.close(self.line)
        drawn = self._watch()
        err = process.communicate(timeout=60)[1].decode()
        return process.returncode, drawn, err

    def _watch(self) -> bytes:
        drawn, until = b"", time.monotonic() + 60
        while time.monotonic() < until:
            if not select.select([self.screen], [], [], 0.1)[0]:
                continue
            try:
                part = os.read(self.screen, 65536)
            except OSError:  # the other side was closed
                return drawn
            if b"\x1b[c" in drawn + part and b"\x1b[c" not in drawn:
                os.write(self.screen, self._answer)
            drawn += part
        raise AssertionError("it never ended")


def sent(place: Path, answer: bytes, *arguments: str, **environment: str) -> tuple[bytes, str]:
    with closing(Terminal(answer)) as terminal:
        code, drawn, err = terminal.run(place, "--preview", *arguments, **environment)
    assert code == 0, err
    return drawn.partition(b"\x1b[c")[2], err


_SIXEL = re.compile(rb"(#(\d+)(?:;2;([\d;]+))?)|(?:!(\d+))?([?-~])|([$-])")


def unsixel(data: bytes) -> np.ndarray:
    """Read a sixel sequence as terminals do: (H, W, 3), black where nothing was drawn."""
    attributes, body = re.fullmatch(rb'\x1bP0;1;0q"1;1;([\d;]+)(.*)\x1b\\', data, re.DOTALL).groups()
    width, height = map(int, attributes.split(b";"))
    picture = np.zeros((height + 6, width, 3), np.uint8)
    colours: dict[int, tuple[int, ...]] = {}
    x = y = number = 0
    for define, n, rgb, count, letter, move in _SIXEL.findall(body):
        if define:
            number = int(n)
            if rgb:
                colours[number] = tuple(round(int(part) * 255 / 100) for part in rgb.split(b";"))
        elif letter:
            for _ in range(int(count or 1)):
                for bit in range(6):
                    if letter[0] - 63 >> bit & 1:
                        picture[y + bit, x] = colours[number]
                x += 1
        else:
            x, y = 0, y + 6 * (move == b"-")
    return picture[:height]


def is_flag(picture: Image.Image) -> bool:
    pixels = np.asarray(picture.convert("RGB"), int)
    middle = pixels.shape[1] // 2
    left, right = pixels[:, : middle - 2], pixels[:, middle + 2 :]
    return bool(np.abs(left - (250, 0, 0)).max() < 16 and np.abs(right - (0, 0, 250)).max() < 16)


def test_a_terminal_that_answers_kittys_question_is_sent_a_png(flags):
    drawn, _ = sent(flags, KITTY + CELL + b"\x1b[?62;c")
    parts = re.findall(rb"\x1b_G([^;]*);([^\x1b]*)\x1b\\", drawn)
    assert parts[0][0].startswith(b"a=T,f=100,C=1,q=2")
    assert [keys[-3:] for keys, _ in parts] == [b"m=1"] * (len(parts) - 1) + [b"m=0"]
    picture = Image.open(io.BytesIO(base64.b64decode(b"".join(data for _, data in parts))))
    assert (picture.format, picture.size) == ("PNG", (200, 100))  # 20 letters of 10 pixels
    assert is_flag(picture)
    assert "flag.png" in drawn.decode()


def test_iterm2_is_known_by_the_name_it_answers(flags):
    drawn, _ = sent(flags, b"\x1bP>|iTerm2 3.5.10\x1b\\" + CELL + b"\x1b[?62;4c")
    keys, data = re.search(rb"\x1b\]1337;File=([^:]*):([^\x07]*)\x07", drawn).groups()
    image = base64.b64decode(data)
    assert dict(key.split(b"=") for key in keys.split(b";")) == {
        b"inline": b"1",
        b"preserveAspectRatio": b"1",
        b"size": b"%d" % len(image),
        b"width": b"20",
        b"height": b"8",
    }
    assert is_flag(Image.open(io.BytesIO(image)))


def test_a_terminal_with_sixel_among_its_attributes_is_sent_sixels(flags):
    drawn, _ = sent(flags, CELL + b"\x1b[?62;4;22c")
    picture = unsixel(re.search(rb"\x1bP0;1;0q.*?\x1b\\", drawn, re.DOTALL)[0])
    assert picture.shape == (100, 200, 3)
    assert is_flag(Image.fromarray(picture))


def test_any_other_terminal_is_sent_half_blocks(flags):
    drawn, _ = sent(flags, b"\x1b[?1;2c")
    cells = re.findall(rb"\x1b\[38;2;(\d+);(\d+);(\d+);48;2;(\d+);(\d+);(\d+)m\xe2\x96\x80", drawn)
    pixels = np.array(cells, int).reshape(5, 20, 2, 3)  # 20 x 10 pixels
    assert is_flag(Image.fromarray(pixels.transpose(0, 2, 1, 3).reshape(10, 20, 3).astype(np.uint8)))


def test_within_tmux_what_the_terminal_around_it_can_do_counts_for_nothing(flags):
    drawn, err = sent(flags, b"\x1b[?1;2c", TMUX="/tmp/tmux,1,0", KITTY_WINDOW_ID="1", TERM_PROGRAM="iTerm.app")
    assert b"\x1b_G" not in drawn
    assert b"1337" not in drawn
    assert err == "tmux and screen keep pictures from the terminal; drawn with blocks\n"


def painted(data: str, columns: int = 80) -> list[str]:
    """The screen after what was sent, as terminals of few abilities show it: one character a cell."""
    screen = [[" "] * columns for _ in range(60)]
    saved = x = y = 0
    for code, count, char in re.findall(r"\x1b(?:\[([\d;]*[A-Za-z])|([78]))|(.)", data, re.DOTALL):
        number = int(code[:-1]) if code[:-1].isdecimal() else 1
        match code[-1:] or count or char:
            case "A":
                y -= number
            case "B":
                y += number
            case "G" if code:
                x = number - 1
            case "7" if count:
                saved = (x, y)
            case "8" if count:
                x, y = saved
            case "m" if code:
                pass
            case "\n":
                x, y = 0, y + 1
            case "\r":
                x = 0
            case _:
                screen[y][x] = char
                x += 1
    return ["".join(row).rstrip() for row in screen]


def test_pictures_stand_in_rows_above_their_names(tmp_path):
    hits = []
    for number in range(5):
        path = tmp_path / f"{number} with a long name.png"
        Image.new("RGB", (500, 400), "red").save(path)
        photo = Photo(number, "/", str(path), 1, 1, "", PhotoInfo("png", 500, 400))
        hits.append(Hit(0.5, 0.5, photo))
    screen = painted(b"".join(previews(hits, Screen(Protocol.BLOCKS, 80, 24))).decode())
    picture = "▀" * 20
    three = [f"{picture}  {picture}  {picture}"] * 8
    two = [f"{picture}  {picture}"] * 8
    names = [f"{number + 1}  {number} wit…ng name.png" for number in range(5)]
    assert screen[:9] == [*three, "  ".join(names[:3])]
    assert screen[10:19] == [*two, "  ".join(names[3:])]
    assert not any(screen[19:])


def test_a_protocol_can_be_asked_for(flags):
    drawn, err = sent(flags, b"\x1b[?1;2c", "--preview-as", "kitty")
    assert b"\x1b_Ga=T" in drawn
    assert err == ""


def test_a_photo_that_is_gone_leaves_its_place_empty(tmp_path):
    photo = Photo(1, "/", str(tmp_path / "gone.png"), 1, 1, "", PhotoInfo("png", 5, 4))
    screen = painted(b"".join(previews([Hit(0.5, 0.5, photo)], Screen(Protocol.BLOCKS, 80, 24))).decode())
    assert (screen[0], screen[8]) == ("(not readable now)", "1  gone.png")


@pytest.mark.parametrize("more", [[], ["--json"], ["--format", "csv"], ["--print0"]])
def test_pictures_go_to_a_terminal_and_nowhere_else(run, more):
    done = run("find", "a flag", "--min-relevance", "0", "--preview", *more)
    assert (done.code, done.stdout) == (2, "")
    assert "--output sheet.html" in done.stderr


@pytest.mark.parametrize(
    "names, protocol",
    [
        ({"TERM": "xterm-kitty"}, "kitty"),
        ({"KITTY_WINDOW_ID": "3"}, "kitty"),
        ({"TERM_PROGRAM": "iTerm.app"}, "iterm2"),
        ({"TERM_PROGRAM": "WezTerm"}, "iterm2"),
        ({"TERM": "tmux-256color", "KITTY_WINDOW_ID": "3"}, "blocks"),
        ({"TERM": "xterm"}, "blocks"),
    ],
)
def test_a_terminal_that_cannot_be_asked_is_told_by_its_name(names, protocol):
    assert look(environment=names).protocol is Protocol(protocol)


def test_sixels_show_the_very_pixels(tmp_path):
    noise = np.random.default_rng(1).integers(0, 8, (17, 23), np.uint8)  # rows that are no whole number of bands
    palette = bytes(round(part * 255 / 100) for number in range(8) for part in (number, 100 - number, 5 * number))
    pixels = np.frombuffer(palette, np.uint8).reshape(8, 3)[noise]
    assert np.array_equal(unsixel(sixels(Raster(23, 17, noise.tobytes(), palette))), pixels)


def test_a_raster_fits_its_box_and_its_palette(tmp_path, make_photo):
    photo = str(make_photo(tmp_path / "photo.png", 1, size=(90, 60)))
    whole = raster(photo, box=(30, 30))
    assert (whole.width, whole.height, len(whole.pixels), whole.palette) == (30, 20, 30 * 20 * 3, b"")
    few = raster(photo, box=(30, 30), colours=5)
    assert len(few.pixels) == 30 * 20
    assert max(few.pixels) < 5
    assert len(few.palette) >= 3 * len(set(few.pixels))


def test_a_terminal_that_cannot_draw_is_refused():
    with pytest.raises(UsageError, match="TERM=dumb"):
        look(environment={"TERM": "dumb"})
