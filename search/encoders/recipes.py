"""A model's recipe, kept beside the library: enough to open its text half again without torch.

A recipe is a cache. It names the weights file with its size and time; where those no longer hold, or the model's text
half is of a kind that numpy can't run, there is no recipe to speak of and the whole model is opened.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from search.encoders import Encoder
    from search.encoders.text import TextEncoder


def save(encoder: Encoder, folder: Path) -> None:
    """Write the recipe of an open model, unless it is there; a folder that can't be written is no harm."""
    config: dict[str, Any] | None = getattr(encoder, "config", None)
    weights: Path | None = getattr(encoder, "weights", None)
    target = _place(folder, encoder.fingerprint)
    if config is None or weights is None or _is_current(target):
        return
    recipe = {"name": encoder.name, "config": config, "weights": str(weights), **_stat(weights)}
    temporary = target.with_suffix(f".{os.getpid()}.tmp")
    with contextlib.suppress(OSError):
        folder.mkdir(exist_ok=True)
        temporary.write_text(json.dumps(recipe), encoding="utf-8")
        temporary.replace(target)


def open_text(folder: Path, fingerprint: str) -> TextEncoder | None:
    """Open the text half of the model of this fingerprint; None where that takes the whole model."""
    from search.encoders.text import open_text_encoder

    recipe = _read(_place(folder, fingerprint))
    return open_text_encoder(recipe["config"], Path(recipe["weights"])) if recipe else None


def _place(folder: Path, fingerprint: str) -> Path:
    return folder / f"{fingerprint}.json"


def _is_current(path: Path) -> bool:
    return _read(path) is not None


def _read(path: Path) -> dict[str, Any] | None:
    """A recipe whose weights are still the file it was written for."""
    try:
        recipe: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        now = _stat(Path(recipe["weights"]))
        return recipe if now == {name: recipe[name] for name in now} else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _stat(path: Path) -> dict[str, int]:
    stat = path.stat()
    return {"size_bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns}
