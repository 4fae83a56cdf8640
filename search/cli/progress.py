"""Progress on stderr: count, rate and time left; and the signals that end a run in good order."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from search.cli.options import Settings
    from search.types import Progress


@contextmanager
def progress_bar(settings: Settings) -> Iterator[Callable[[Progress], None]]:
    """Yield a callback that draws one bar a stage, where someone is looking."""
    if settings.quiet or not (settings.verbose or sys.stderr.isatty()):
        yield lambda _: None
        return
    from tqdm import tqdm

    bars: dict[str, tqdm] = {}

    def show(progress: Progress) -> None:
        if progress.stage not in bars:
            for finished in bars.values():
                finished.close()
            bars[progress.stage] = tqdm(
                desc=str(progress.stage), total=progress.total, unit="photo", file=sys.stderr, dynamic_ncols=True
            )
        bar = bars[progress.stage]
        bar.total = progress.total
        bar.update(progress.done - bar.n)

    try:
        yield show
    finally:
        for bar in bars.values():
            bar.close()


@contextmanager
def stopping(settings: Settings) -> Iterator[tuple[threading.Event, list[int]]]:
    """Yield an event that the first SIGINT or SIGTERM sets, and the signals received; a second one ends at once."""
    stop = threading.Event()
    received: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        settings.talk("stopping when what is begun is done; once more to stop at once")

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop, received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def dispensable() -> Iterator[None]:
    """Run what nobody needs: SIGTERM raises KeyboardInterrupt there, as SIGINT does."""
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
