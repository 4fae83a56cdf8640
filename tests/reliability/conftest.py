"""Where the fault corpus is, if anywhere."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def faults() -> Path:
    """The folder that SEARCH_FAULTS names: files that broke image decoders, with FILES.tsv beside them."""
    folder = os.environ.get("SEARCH_FAULTS")
    if not folder:
        pytest.skip("set SEARCH_FAULTS to a folder of damaged and odd image files, with FILES.tsv")
    assert Path(folder, "FILES.tsv").is_file(), f"there is no FILES.tsv in {folder}"
    return Path(folder)
