"""How a further part of this package is had: what to type depends on what installed it."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def how_to_add(extra: str) -> str:
    """Return the command that adds an extra, such as "web", to the installation that runs.

    A bare `pip` may be that of another Python, and would fetch a stranger's package of this name there.
    """
    import shlex

    wanted = f"'search[{extra}]'"
    home = Path(sys.prefix)
    if (home / "pipx_metadata.json").is_file():
        return f"pipx inject {shlex.quote(home.name)} {wanted}"
    python = shlex.quote(sys.executable)
    if (home / "uv-receipt.toml").is_file():  # such an environment has no pip
        return f"uv pip install --python {python} {wanted}"
    return f"pip install {wanted}" if _pip_is_ours() else f"{python} -m pip install {wanted}"


def _pip_is_ours() -> bool:
    import shutil

    found = shutil.which("pip")
    return found is not None and os.path.dirname(found) == os.path.dirname(sys.executable)
