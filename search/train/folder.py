"""The folder that a run fills: whose it is, who may write into it, and how a finished model comes into it.

Until a new model is whole, what the folder held stays: a run that fails or is killed costs nothing that was there.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from search import failpoints
from search.catalog.lock import LOCK_NAME, read_holder, writer_lock
from search.encoders.hub import CONFIG, WEIGHTS
from search.errors import LibraryBusy, LibraryError, StorageError, TrainingBusy, UsageError
from search.files import discard, is_temporary, move_inside, new_folder, sweep
from search.train import checkpoints

RECORD, REPEAT = "training.json", "training.toml"
"""What is written beside the weights: what was done and seen, and the recipe to do it again."""

REPEAT_SHA256 = "training_toml_sha256"
"""The record's word for what the recipe's file was when it was written."""

_FINISHED = ".finished"  # a whole model, of which not all is in its place yet
_MODEL = (WEIGHTS[0], CONFIG, REPEAT)


@contextmanager
def alone(out: Path, *, anew: bool) -> Iterator[None]:
    """Prepare the folder, and keep other runs out of it; one that was made and stays empty is removed.

    anew: what it holds of another run may be replaced.   Raises TrainingBusy, UsageError, StorageError.
    """
    made = not out.exists()
    with ExitStack() as stack:
        try:
            _check(out, anew=anew)  # before anything is written into it
            stack.enter_context(writer_lock(out))
            stack.callback(_tidy, out, made=made)
            sweep(out)
            _put_in_place(out)
            _check(out, anew=anew)
        except LibraryBusy:
            holder = read_holder(out) or "another process"
            raise TrainingBusy(f"{out} is being trained into by {holder}", hint="wait for it or stop it") from None
        except LibraryError as error:  # a file system without locks
            raise StorageError(error.message, hint="train into a folder on a local disk") from None
        except OSError as error:
            raise StorageError(f"can't write {out}: {error.strerror or error}") from None
        yield


@contextmanager
def finished(out: Path) -> Iterator[Path]:
    """Give an empty folder for a model and its record, all of which then takes the place of what `out` holds.

    A kill leaves the old model or the new one; in the moment between, one that does not load and that `alone`
    completes. A recipe's file that no run wrote stays.   Raises StorageError.
    """
    try:
        with new_folder(out / _FINISHED) as stage:
            yield stage
        discard(out / checkpoints.FILE)
        _put_in_place(out)
    except OSError as error:
        raise StorageError(f"can't write {out}: {error.strerror or error}") from None


def _check(out: Path, *, anew: bool) -> None:
    """Make the folder, or see that what it holds is a run of ours.   Raises UsageError, OSError."""
    out.mkdir(parents=True, exist_ok=True)
    held = {path.name for path in out.iterdir() if not is_temporary(path)} - {LOCK_NAME}
    if _FINISHED in held:
        return
    if held and not held & {RECORD, checkpoints.FILE}:
        raise UsageError(f"{out} is not empty and holds no training run", hint="give a new folder")
    if RECORD in held and checkpoints.FILE not in held and not anew:
        raise UsageError(f"{out} holds a finished run", hint="--force trains anew, another --out keeps it")
    ours = set(_MODEL) if RECORD in held else set()
    for name in sorted(held & set(_MODEL)):
        if name not in ours or (name == REPEAT and not _is_ours(out)):
            raise UsageError(f"{out / name} was written by no run, or changed since", hint="move it elsewhere")


def _is_ours(out: Path) -> bool:
    """Whether the recipe's file is the one that the run of the record wrote."""
    try:
        written = json.loads((out / RECORD).read_bytes())[REPEAT_SHA256]
        return bool(written == hashlib.sha256((out / REPEAT).read_bytes()).hexdigest())
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _put_in_place(out: Path) -> None:
    """Move a finished model to where it belongs, or what is left to move of one.   Raises OSError."""
    stage = out / _FINISHED
    if not stage.is_dir():
        return
    if (stage / REPEAT).exists() and (out / REPEAT).exists() and not _is_ours(out):
        discard(stage / REPEAT)
    if (stage / CONFIG).exists():
        discard(out / CONFIG)  # new weights never load with the old description
    failpoints.reach("train.placing")
    rest = {path.name for path in stage.iterdir()} - {*_MODEL, RECORD}
    move_inside(stage, out, [*sorted(rest), *_MODEL, RECORD])


def _tidy(out: Path, *, made: bool) -> None:
    if not (out / checkpoints.FILE).exists():  # nobody goes on here
        discard(out / LOCK_NAME)
        if made:
            with contextlib.suppress(OSError):  # not empty: a model is in it
                out.rmdir()
