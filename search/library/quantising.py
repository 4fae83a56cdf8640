"""A model exported in int8 with a library's photos to calibrate it on, and to hold it against what it is made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from search.encoders import quantising
from search.encoders.hub import Fetcher
from search.labels import load_labels
from search.types import Skip

if TYPE_CHECKING:
    from search.encoders.preprocessing import Preprocessing
    from search.encoders.quantising import Outcome
    from search.library.seams import Seams
    from search.photos.sources import Sources
    from search.types import Pixels

_AHEAD = 16  # photos whose decoding is asked for before their turn


def quantise(seams: Seams, name: str, *, force: bool) -> Outcome:
    """See Library.quantise."""

    def read(preprocessing: Preprocessing) -> Pixels:
        ids = seams.catalog.all_ids()
        count = min(len(ids), quantising.CALIBRATED + quantising.COMPARED)
        chosen = np.random.default_rng(0).choice(ids, count, replace=False)
        paths = [photo.path for photo in seams.catalog.get(chosen.tolist())]
        return _pixels(paths, preprocessing, seams.sources())

    texts = [f"a photo of {label.name}" for label in load_labels("everyday")]
    model = seams.model
    fetcher = Fetcher(
        name, offline=model.offline, on_download=model.downloading, trust_checkpoint=model.trust_checkpoint
    )
    return quantising.export(name, read, texts, fetcher=fetcher, force=force)


def _pixels(paths: Sequence[str], preprocessing: Preprocessing, sources: Sources) -> Pixels:
    """Return the photos that can be read as (N, H, W, 3) uint8."""
    from search.decoding.pool import ahead, lend

    with lend() as decoders:
        loaded = ahead(
            lambda path: decoders.submit(path, preprocessing, content=sources.content(path)), paths, _AHEAD
        )
        found = [decoded.pixels for _, decoded in loaded if not isinstance(decoded, Skip)]
    return np.stack(found) if found else np.empty((0, *preprocessing.size, 3), np.uint8)
