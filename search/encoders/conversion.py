"""Weights in formats that can hold programs → safetensors, once, in a process of their own; kept in a cache.

The cache is a folder of `SOURCE.CONTENT.safetensors`: the SHA-256 of the file that was converted and that of the
result, so neither a changed source nor a damaged copy is ever taken for it. Nothing in it is missed when deleted.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from search import files
from search.errors import CheckpointError
from search.resources import user_cache

_HINT = "it is damaged, not a checkpoint, or holds more than tensors; fetch or save it again"
_MAX_WORDS = 2000  # characters of a message that the process may have
_TIMEOUT_S = 3600  # what hangs without computing; the process bounds its own processor time
_PACKAGES = str(Path(__file__).parents[2])
_PROGRAM = """
import json, sys
job = json.load(sys.stdin)
sys.path[:] = job["path"]
from search.encoders.isolation import leave_network
leave_network()
from search.encoders.foreign import convert
convert(job)
"""


def default_cache() -> Path:
    """Return the folder for converted weights: the platform's user cache directory, `search/checkpoints`."""
    return user_cache("checkpoints")


def cached(digest: str, cache: Path) -> Path | None:
    """Return what a file of this SHA-256 was converted to, if that is in the cache; not looked into."""
    return next(cache.glob(f"{digest}.*.safetensors"), None) if is_ours(cache) else None


@contextmanager
def converted(source: Path, *, digest: str, cache: Path) -> Iterator[Path]:
    """Lend the safetensors file that holds the tensors of `source`, whose SHA-256 is `digest`.

    A cache that can't be written costs another conversion next time and is no error.
    Raises CheckpointError if the file is no checkpoint, or breaks what reads it.
    """
    found = cached(digest, cache)
    if found and files.sha256(found) == _content(found):
        yield found
        return
    if found:
        files.discard(found)
    if made := _convert_into(cache, source, digest):
        yield made
        return
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        made = _convert_into(Path(folder), source, digest)
        if made is None:
            raise CheckpointError(
                f"{source} can't be converted to safetensors",
                hint=f"make room in {cache} or {tempfile.gettempdir()}",
            )
        yield made


def _content(path: Path) -> str:
    return path.name.split(".")[1]


def is_ours(folder: Path) -> bool:
    """Whoever else may write to a folder may choose what is read from it."""
    try:
        stat = folder.stat()
    except OSError:
        return False
    return sys.platform == "win32" or (stat.st_uid == os.geteuid() and not stat.st_mode & 0o022)


def _convert_into(folder: Path, source: Path, digest: str) -> Path | None:
    """Return the converted file in `folder`, or None if that can't be written or is not for us alone."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not is_ours(folder):
            return None
        files.sweep(folder)
        return _publish(source, digest, files.temporary_name(folder / digest))
    except OSError:
        return None


def _publish(source: Path, digest: str, temporary: Path) -> Path | None:
    try:
        if not _run(source, temporary):
            return None
        if files.sha256(source) != digest:
            raise CheckpointError(f"{source} changed while it was read", hint="try again")
        target = temporary.with_name(f"{digest}.{files.sha256(temporary)}.safetensors")
        files.publish(temporary, target)
        return target
    finally:
        files.discard(temporary)


def _run(source: Path, target: Path) -> bool:
    """Convert in another process; return False if the target can't be written.   Raises CheckpointError."""
    path = [_PACKAGES, *filter(None, sys.path)]  # the empty entry is the folder one happens to stand in
    job = json.dumps({"source": str(source), "target": str(target), "path": path})
    try:
        done = subprocess.run(  # noqa: S603 our own interpreter and program; the file's name is data on stdin
            [sys.executable, "-I", "-c", _PROGRAM],
            input=job.encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        raise _unreadable(source, "that takes too long") from None
    answer = _answer(done)
    if "fault" in answer:
        raise CheckpointError(answer["fault"], hint=answer.get("hint", ""))
    if "reason" in answer:
        raise _unreadable(source, answer["reason"])
    return "unwritten" not in answer


def _answer(done: subprocess.CompletedProcess[bytes]) -> Mapping[str, str]:
    """What the process says is as much input as the file it read."""
    if done.returncode:
        return {"reason": _ending(done.returncode)}
    try:
        answer: Any = json.loads(done.stdout)
        return {str(key): str(value)[:_MAX_WORDS] for key, value in answer.items()}
    except (ValueError, AttributeError, RecursionError):
        return {"reason": "what reads it gave no answer"}


def _ending(code: int) -> str:
    if code == -getattr(signal, "SIGXCPU", 0):
        return "that takes too long"
    if code < 0:
        return f"what reads it was ended by {signal.strsignal(-code) or 'a signal'}"
    return f"what reads it ended with {code}"


def _unreadable(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(f"{path} can't be read as weights ({reason})", hint=_HINT)
