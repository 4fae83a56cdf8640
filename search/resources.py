"""Where files are that belong to no library: those that ship beside the code, and the user's cache.

In a wheel data/ and migrations/ sit inside the package; in a checkout, next to it.
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


def user_cache(name: str) -> Path:
    """Return a folder of the platform's user cache directory, `search/NAME`."""
    from platformdirs import user_cache_path

    return user_cache_path("search", appauthor=False) / name


def default_location() -> str:
    """Return where a user's own library is: the platform's user data directory, `search/library`."""
    from platformdirs import user_data_path

    return str(user_data_path("search", appauthor=False) / "library")


def pictures_folder() -> str:
    """Return where the platform keeps a user's pictures."""
    from platformdirs import user_pictures_dir

    return user_pictures_dir()


def _shipped(folder: str) -> Path:
    inside = _PACKAGE / folder
    return inside if inside.is_dir() else _PACKAGE.parent / folder
