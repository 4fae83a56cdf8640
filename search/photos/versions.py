"""Which decoders there are, and which reader of metadata, told without loading them."""

from __future__ import annotations

import importlib.metadata

import PIL


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "none"


DECODER = f"pillow {PIL.__version__} pi_heif {_version('pi-heif')} rawpy {_version('rawpy')}"
"""The decoders and their versions; a file that one version refused may be tried again by the next."""

READER = 1
"""Counts up with every change in what is read of a photo's metadata: the next run reads that of known photos again."""
