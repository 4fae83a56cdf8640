"""A picture of a terminal: commands that are really run, what they print, drawn by Chromium.

Needs pyte, a terminal that draws nowhere: pip install pyte
"""

from __future__ import annotations

import errno
import fcntl
import html
import os
import pty
import struct
import subprocess
import termios
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyte

COLUMNS, LINES = 86, 60
CELL, LINE = 9, 19  # of a letter, in pixels of the page
_UPPER = "▀"  # a half block: the letter's colour above, the ground's below
_COLOURS = {"default": "#d8dee9", "green": "#a3be8c", "brown": "#ebcb8b", "blue": "#81a1c1", "red": "#bf616a"}
_GROUND = "#20242c"
_STYLE = f"""
body {{ margin: 0; background: {_GROUND}; font: 15px/{LINE}px "DejaVu Sans Mono", monospace }}
main {{ display: inline-block; padding: 18px 22px }}
div {{ height: {LINE}px; white-space: pre }}
span {{ display: inline-block; width: {CELL}px; height: {LINE}px; vertical-align: top }}
"""


class Terminal(pyte.Screen):
    """Can restore a saved cursor more than once, as terminals do and pyte's does not."""

    def restore_cursor(self) -> None:
        super().restore_cursor()
        self.save_cursor()


def session(commands: Sequence[str], *, folder: Path, environment: dict[str, str]) -> str:
    """Type commands into a terminal; return what it shows as a page."""
    screen = Terminal(COLUMNS, LINES)
    stream = pyte.ByteStream(screen)
    for command in commands:
        stream.feed(f"\x1b[32m$\x1b[0m {command}\r\n".encode())
        for part in _printed(command, folder=folder, environment=environment):
            stream.feed(part)
    rows = [_row(screen, number) for number in range(screen.cursor.y)]
    return f"<!doctype html><meta charset=utf-8><style>{_STYLE}</style><main>{''.join(rows)}</main>"


def _printed(command: str, *, folder: Path, environment: dict[str, str]) -> Iterator[bytes]:
    """Yield what a command writes to a terminal of this size."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    environment = {**environment, "TERM": "xterm-256color", "COLORTERM": "truecolor"}
    with subprocess.Popen(
        command, shell=True, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=its, stderr=its
    ):
        os.close(its)
        try:
            while part := os.read(ours, 65_536):
                yield part
        except OSError as error:  # how Linux says that nobody writes any more
            if error.errno != errno.EIO:
                raise
        finally:
            os.close(ours)


def _row(screen: pyte.Screen, number: int) -> str:
    cells = (screen.buffer[number][column] for column in range(COLUMNS))
    return f"<div>{''.join(map(_cell, cells))}</div>"


def _cell(cell: pyte.screens.Char) -> str:
    colour, ground = _colour(cell.fg, _COLOURS["default"]), _colour(cell.bg, _GROUND)
    if cell.data == _UPPER:
        return f'<span style="background:linear-gradient({colour} 50%,{ground} 50%)"></span>'
    weight = ";font-weight:bold" if cell.bold else ""
    return f'<span style="color:{colour};background:{ground}{weight}">{html.escape(cell.data)}</span>'


def _colour(name: str, default: str) -> str:
    return default if name == "default" else _COLOURS.get(name, f"#{name}")
