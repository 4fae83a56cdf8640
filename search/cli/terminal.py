"""What the terminal can draw: asked by its own means, for names alone promise little.

One write asks for all: kitty's graphics with a picture that is not shown, the terminal's name (XTVERSION), the size of
a letter in pixels, and last the primary device attributes, which every terminal answers, so that there is an end to
wait for. What answered nothing of the others can't do it.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from search.errors import UsageError

_ASK = b"\x1b_Gi=31,s=1,v=1,a=q,t=d,f=24;AAAA\x1b\\\x1b[>q\x1b[16t\x1b[c"
_CLEAN = b"\r\x1b[K"  # some show what they do not understand
_TIMEOUT_S = 1.0  # a terminal at the other side of the world answers within 0.4
_KITTY = re.compile(rb"\x1b_Gi=31;OK\x1b\\")
_NAME = re.compile(rb"\x1bP>\|([^\x1b]*)\x1b\\")
_CELL = re.compile(rb"\x1b\[6;(\d{1,4});(\d{1,4})t")
_ATTRIBUTES = re.compile(rb"\x1b\[\?([\d;]*)c")
_SIXEL = b"4"  # among the attributes
_INLINE = ("iTerm2", "WezTerm")  # they draw OSC 1337 better than what else they say they know
_LETTER = (8, 16)


class Protocol(StrEnum):
    """How pictures are drawn in a terminal."""

    KITTY = "kitty"
    ITERM2 = "iterm2"
    SIXEL = "sixel"
    BLOCKS = "blocks"  # half blocks in 24-bit colour: text


@dataclass(frozen=True, slots=True)
class Screen:
    """A terminal: what it draws, how many letters it has, and one letter's (width, height) in pixels.

    note: why it draws no better than it does, where there is something to tell.
    """

    protocol: Protocol
    columns: int
    lines: int
    letter: tuple[int, int] = _LETTER
    note: str = ""


def look(protocol: str | None = None, environment: Mapping[str, str] = os.environ) -> Screen:
    """Ask the terminal that stdin and stdout are; where stdin is none, tell by its name.

    protocol: what is wanted whatever it says; it is asked for the size of its letters all the same.
    Raises UsageError for one that has no means to move the cursor.
    """
    import shutil

    if environment.get("TERM") == "dumb":
        raise UsageError("this terminal (TERM=dumb) can't draw", hint="use --output sheet.html")
    answer = ask() if sys.stdin.isatty() and sys.stdout.isatty() else b""
    size = shutil.get_terminal_size()
    multiplexed = "TMUX" in environment or environment.get("TERM", "").startswith(("tmux", "screen"))
    found = Protocol(protocol) if protocol else _protocol(answer, environment, multiplexed=multiplexed)
    note = ""
    if multiplexed and found is Protocol.BLOCKS and not protocol:
        note = "tmux and screen keep pictures from the terminal; drawn with blocks"
    return Screen(found, size.columns, size.lines, _letter(answer), note)


def _protocol(answer: bytes, environment: Mapping[str, str], *, multiplexed: bool) -> Protocol:
    name = _NAME.search(answer)
    program = name[1].decode("ascii", "replace") if name else ""
    if not multiplexed:  # what stands in the environment is of the terminal around it
        program = program or environment.get("TERM_PROGRAM", "").removesuffix(".app").replace("iTerm", "iTerm2")
        if program.startswith(_INLINE):
            return Protocol.ITERM2
        if _KITTY.search(answer) or (not answer and _is_kitty(environment)):
            return Protocol.KITTY
    attributes = _ATTRIBUTES.search(answer)
    return Protocol.SIXEL if attributes and _SIXEL in attributes[1].split(b";") else Protocol.BLOCKS


def _is_kitty(environment: Mapping[str, str]) -> bool:
    return "KITTY_WINDOW_ID" in environment or environment.get("TERM") in ("xterm-kitty", "xterm-ghostty")


def _letter(answer: bytes) -> tuple[int, int]:
    """One letter's (width, height): as the terminal answered, else as the system knows it, else the usual."""
    if cell := _CELL.search(answer):
        width, height = int(cell[2]), int(cell[1])
    else:
        width, height = _system_letter()
    return (width, height) if 3 <= width <= 100 and 3 <= height <= 200 else _LETTER


def _system_letter() -> tuple[int, int]:
    try:
        import fcntl
        import struct
        import termios

        size = fcntl.ioctl(sys.stdout.fileno(), termios.TIOCGWINSZ, bytes(8))
        lines, columns, width, height = struct.unpack("HHHH", size)
        return width // columns, height // lines
    except (ImportError, OSError, ZeroDivisionError):
        return _LETTER


def ask(timeout_s: float = _TIMEOUT_S) -> bytes:
    """Return what the terminal answers, up to its device attributes; b"" where it can't be asked.

    While it is asked it neither shows what is typed nor waits for the end of a line.
    """
    try:
        import termios
        import tty
    except ImportError:  # Windows
        return b""
    keyboard = sys.stdin.fileno()
    try:
        before = termios.tcgetattr(keyboard)
        tty.setcbreak(keyboard, termios.TCSANOW)
    except termios.error:
        return b""
    try:
        sys.stdout.flush()
        os.write(sys.stdout.fileno(), _ASK)
        answer = _read(keyboard, until=time.monotonic() + timeout_s)
        os.write(sys.stdout.fileno(), _CLEAN)
        return answer
    except OSError:  # a job in the background may not
        return b""
    finally:
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)


def _read(keyboard: int, *, until: float) -> bytes:
    import select

    answer = b""
    while not _ATTRIBUTES.search(answer) and (left := until - time.monotonic()) > 0:
        if not select.select([keyboard], [], [], left)[0]:
            break
        part = os.read(keyboard, 1024)
        if not part:
            break
        answer += part
    return answer
