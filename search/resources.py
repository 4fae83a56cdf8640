"""Where the files that ship beside the code are: data/ and migrations/.

In a wheel they sit inside the package; in a checkout, next to it.
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parent


def data_path(*parts: str) -> Path:
    """Return the path of a shipped data file or folder, `data_path("builtin")`."""
    return _shipped("data").joinpath(*parts)


def migrations_path() -> Path:
    """Return the folder that holds alembic's env.py and versions/."""
    return _shipped("migrations")


def _shipped(folder: str) -> Path:
    inside = _PACKAGE / folder
    return inside if inside.is_dir() else _PACKAGE.parent / folder
