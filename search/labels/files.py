"""Labelling image files that no library needs to hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from search.types import LabelledPhoto, Progress, Skip, Stage

if TYPE_CHECKING:
    from concurrent.futures import Future

    from search.decoding.pool import Decoded
    from search.encoders import Encoder
    from search.labels.classifier import Classifier
    from search.photos.sources import Sources

_BATCH = 32


def label_photos(
    paths: Sequence[str],
    classifier: Classifier,
    *,
    encoder: Encoder,
    sources: Sources | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> tuple[list[LabelledPhoto], list[Skip]]:
    """Label image files zero-shot, whether or not they are in a library; return those that can't be read too.

    sources: reads those that are no files in folders.
    """
    from search.decoding.pool import ahead, lend

    def submit(path: str) -> Future[Decoded | Skip]:
        return decoders.submit(path, encoder.preprocessing, content=sources.content(path) if sources else None)

    labelled: list[LabelledPhoto] = []
    skipped: list[Skip] = []
    done = 0
    with lend() as decoders:
        loaded = ahead(submit, paths, 2 * _BATCH)
        while batch := list(islice(loaded, _BATCH)):
            skipped += [found for _, found in batch if isinstance(found, Skip)]
            good = {path: found.pixels for path, found in batch if not isinstance(found, Skip)}
            if good:
                told = classifier.classify(encoder.encode_images(np.stack(list(good.values()))))
                labelled += [
                    LabelledPhoto(path, best, parents=above)
                    for path, (best, above) in zip(good, told, strict=True)
                ]
            done += len(batch)
            if progress:
                progress(Progress(Stage.LABEL, done, len(paths)))
    return labelled, skipped
