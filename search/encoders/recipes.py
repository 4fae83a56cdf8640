"""A model's recipe, kept beside the library: enough to open its text half again without torch.

A recipe is a cache. It names the weights file, and what that was converted to, with size and time; where those no
longer hold, or the model's text half is of a kind that numpy can't run, there is no recipe to speak of and the whole
model is opened.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search import files

if TYPE_CHECKING:
    from search.encoders import Encoder
    from search.encoders.text import TextEncoder


def save(encoder: Encoder, folder: Path) -> None:
    """Write the recipe of an open model, unless it is there; a folder that can't be written is no harm."""
    config: dict[str, Any] | None = getattr(encoder, "config", None)
    weights: Path | None = getattr(encoder, "weights", None)
    tensors: Path | None = getattr(encoder, "tensors", None)
    target = _place(folder, encoder.fingerprint)
    if config is None or weights is None or _is_current(target):
        return
    with contextlib.suppress(OSError):
        stated = {str(path): _stat(path) for path in (weights, tensors or weights)}
        recipe = {"name": encoder.name, "config": config, "tensors": str(tensors or weights), "files": stated}
        folder.mkdir(exist_ok=True)
        files.sweep(folder)
        files.atomic_write(target, json.dumps(recipe).encode())


def open_text(folder: Path, fingerprint: str) -> TextEncoder | None:
    """Open the text half of the model of this fingerprint; None where that takes the whole model."""
    from search.encoders.text import open_text_encoder

    recipe = _read(_place(folder, fingerprint))
    return open_text_encoder(recipe["config"], Path(recipe["tensors"])) if recipe else None


def _place(folder: Path, fingerprint: str) -> Path:
    return folder / f"{fingerprint}.json"


def _is_current(path: Path) -> bool:
    return _read(path) is not None


def _read(path: Path) -> dict[str, Any] | None:
    """A recipe whose weights, and what they were converted to, are still the files it was written for."""
    try:
        recipe: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        current = all(_stat(Path(name)) == stat for name, stat in recipe["files"].items())
        return recipe if current and recipe["tensors"] in recipe["files"] else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _stat(path: Path) -> dict[str, int]:
    stat = path.stat()
    return {"size_bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns}
