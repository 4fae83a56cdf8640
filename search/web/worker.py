"""The child that a server has do its long work, so that queries stay quick: reads an order, tells how far it is.

It opens the library for itself, with a model of its own that goes when it ends. A second line on standard input, or
its end, stops the work: indexing after the batch at hand, labelling at once, as it writes everything in the end. So a
child outlives its server by one batch at most.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any, BinaryIO

from search import documents
from search.errors import SearchError
from search.library import Library

if TYPE_CHECKING:
    from search.types import IndexReport, Labelling, Progress

_log = logging.getLogger("search.web")

MOST_SKIPPED = 100  # named in a report; the library remembers them all
_TELL_S = 0.1  # between two words about the same stage


def serve(order: dict[str, Any]) -> None:
    """Do what is ordered, and tell it on standard output, a JSON document a line: progress, done or failed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the server's to handle
    sys.argv[:] = ["search", "serve"]  # whom others find writing
    teller = _Teller(_own_output())
    stop = threading.Event()
    threading.Thread(target=_listen, args=(stop,), daemon=True).start()
    try:
        with Library.open(order["library"], notify=_log.warning, **order["opening"]) as library:
            report = _WORK[order["kind"]](library, order["asked"], teller, stop)
    except SearchError as error:
        teller.tell({"failed": {"error": type(error).__name__, "message": error.message, "hint": error.hint}})
    except KeyboardInterrupt:
        teller.tell({"done": {"interrupted": True}})
    else:
        teller.tell({"done": report})


def _own_output() -> BinaryIO:
    """Take standard output for ourselves; what a library prints goes where errors go."""
    own = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return own


def _listen(stop: threading.Event) -> None:
    """Wait for a word or the end; not by `sys.stdin`, whose lock a thread that waits would keep for ever."""
    os.read(0, 1)
    stop.set()


class _Teller:
    """Writes lines to the server; of a stage's progress not more than it can show."""

    def __init__(self, output: BinaryIO) -> None:
        self._output = output
        self._stage = ""
        self._told = 0.0

    def tell(self, said: dict[str, Any]) -> None:
        try:
            self._output.write(json.dumps(said).encode() + b"\n")
            self._output.flush()
        except OSError:  # the server is no more, which stops the work, too
            return

    def progress(self, at: Progress) -> None:
        now = monotonic()
        if at.stage == self._stage and now - self._told < _TELL_S and at.done != at.total:
            return
        self._stage, self._told = at.stage, now
        self.tell({"progress": {"stage": str(at.stage), "done": at.done, "total": at.total}})


def _index(library: Library, asked: dict[str, Any], teller: _Teller, stop: threading.Event) -> dict[str, Any]:
    report: IndexReport = library.index([asked["folder"]], progress=teller.progress, stop=stop)
    some = dataclasses.replace(report, skipped=report.skipped[:MOST_SKIPPED])
    document = documents.report_document(some, library.catalog.shown)
    return {**document, "skipped_total": len(report.skipped)}


def _label(library: Library, asked: dict[str, Any], teller: _Teller, stop: threading.Event) -> dict[str, Any]:
    from search.labels import LabelOptions, label_set

    options = LabelOptions(**asked["options"])
    chosen = label_set(asked["label_set"], names=asked["labels"])
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    threading.Thread(target=_interrupt, args=(stop,), daemon=True).start()
    labelling: Labelling = library.label(chosen, options=options, apply=True, progress=teller.progress)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    counts = Counter(one.label for photo in labelling.photos for one in options.to_apply(photo.labels))
    document = documents.labelling_document(dataclasses.replace(labelling, photos=()))
    ranked = sorted(counts.items(), key=lambda one: (-one[1], one[0]))
    return {**document, "counts": [{"label": label, "photos": count} for label, count in ranked]}


def _interrupt(stop: threading.Event) -> None:
    """Interrupt the work when it is to stop, as Ctrl-C does at the command line."""
    stop.wait()
    signal.raise_signal(signal.SIGTERM)


_Work = Callable[[Library, dict[str, Any], _Teller, threading.Event], dict[str, Any]]
_WORK: dict[str, _Work] = {"index": _index, "label": _label}
