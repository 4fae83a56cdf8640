from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from search.evaluate.pictures import Pictures
from search.library.model import LibraryModel


@pytest.fixture
def open_pictures(tmp_path: Path, counting, monkeypatch) -> Callable[..., Pictures]:
    """Open the built-in model with the vectors that are kept of it, the model loaded once for all tests."""
    load = LibraryModel.load
    monkeypatch.setattr(
        LibraryModel,
        "load",
        lambda self, name, **more: counting if name == "builtin" else load(self, name, **more),
    )
    return lambda model="builtin", place=tmp_path / "kept", **more: Pictures(
        model, place=place, offline=True, **more
    )
