"""How photos' names end. What a file really is, its content decides."""

from __future__ import annotations

RAW_SUFFIXES = frozenset((".cr2", ".cr3", ".nef", ".arw", ".dng", ".raf", ".orf", ".rw2", ".pef"))
"""Endings of the RAW files that are read, lower-case; most look like TIFFs, so their names decide."""

PHOTO_SUFFIXES = RAW_SUFFIXES | frozenset(
    "." + name
    for name in (
        *("jpg", "jpeg", "jpe", "jfif", "mpo", "png", "webp", "gif", "bmp", "dib", "tif", "tiff"),
        *("jp2", "j2k", "j2c", "jpf", "jpx", "pnm", "ppm", "pgm", "pbm", "pfm", "tga"),
        *("avif", "heic", "heif", "hif"),
    )
)
"""Endings of photo files, lower-case, with their dot."""

VIDEO_SUFFIXES = frozenset(
    "." + name
    for name in (
        *("mp4", "mov", "m4v", "avi", "mkv", "webm", "mts", "m2ts", "mpg", "mpeg", "3gp", "wmv", "flv", "ogv"),
        *("insv", "lrv"),
    )
)
"""Endings of videos, which are passed over and told of; as above."""
