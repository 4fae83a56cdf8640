"""Photos encoded anew beside stored vectors: whether those may be trusted, and which way up they were made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from search.adoption import CHECKED, MOST_TOLERATED, AdoptOptions, Listing, Source
from search.errors import UntrustedVectors
from search.types import Orientation, Passport, PhotoInfo, Skip, SpotCheck
from search.vectors import normalize

if TYPE_CHECKING:
    from search.decoding.pool import Decoders
    from search.encoders import Encoder
    from search.types import Pixels, Vectors

_TURNED = 16  # photos further to those that are compared both ways
_LOOKED_AT = 512  # photos whose orientation is read to find them
_AT_ONCE = 64
_ONE_IN, _FAR = 16, 0.9  # so many may deviate unasked, and none to below that
_TURNED_BY_DECODER = ("HEIF", "AVIF")  # every program gets these upright
# What lays an upright picture down as its file has it, by orientation: quarter turns to the left, then a mirror.
_UNDO = {2: (0, True), 3: (2, False), 4: (2, True), 5: (3, True), 6: (1, False), 7: (1, True), 8: (3, False)}
_OTHERWISE = "give the model that made them with --model, or take the photos alone with --reencode"


def examine(
    source: Source, listing: Listing, encoder: Encoder, decoders: Decoders, options: AdoptOptions
) -> Passport:
    """Encode some photos anew and hold them against the source's vectors; `require` judges what that gives.

    Raises UntrustedVectors for vectors of another width than the model's.
    """
    if source.dim != encoder.dim:
        raise UntrustedVectors(
            f"the vectors of {source.place} have {source.dim} numbers, those of {encoder.name} {encoder.dim}",
            hint=_OTHERWISE,
        )
    upright, turned = _choose(listing, decoders)
    spots = _compare(source, listing, upright, encoder, decoders)
    both = _compare(source, listing, turned, encoder, decoders)
    orientation = _orientation(both, options.agreement)
    counted = spots if spots or orientation is not Orientation.APPLIED else both
    return Passport(
        source=source.kind,
        place=source.place,
        model=encoder.name,
        fingerprint=encoder.fingerprint,
        preprocessing=encoder.preprocessing.to_dict(),
        agreement=options.agreement,
        orientation=orientation,
        turned=tuple(both),
        spots=tuple(counted),
    )


def require(passport: Passport, options: AdoptOptions) -> None:
    """Raise UntrustedVectors, which has the passport, where the vectors are not this model's."""
    if not passport.spots:
        raise UntrustedVectors(
            f"no photo of {passport.place} could be compared with its vector",
            hint="take the photos alone with --reencode",
            passport=passport,
        )
    deviating = len(passport.spots) - passport.agreeing
    if deviating <= _tolerated(passport, options):
        return
    worst = min(passport.spots, key=lambda spot: spot.cosine)
    few = f"; --tolerate {deviating} lets them pass" if deviating <= MOST_TOLERATED else ""
    raise UntrustedVectors(
        f"{deviating} of {len(passport.spots)} vectors compared are not what {passport.model} makes of the photos: "
        f"cosine {worst.cosine:.3f} at {worst.path}, {passport.median:.3f} in the middle; "
        f"{passport.agreement:g} is asked for",
        hint=_OTHERWISE + few,
        passport=passport,
    )


def _tolerated(passport: Passport, options: AdoptOptions) -> int:
    if options.tolerate is not None:
        return options.tolerate
    return len(passport.spots) // _ONE_IN if passport.lowest >= _FAR else 0


def is_turned(info: PhotoInfo) -> bool:
    """Whether a picture lies on its side, or is mirrored, for who does not apply its file's orientation."""
    return info.orientation != 1 and info.format not in _TURNED_BY_DECODER


def _choose(listing: Listing, decoders: Decoders) -> tuple[list[str], list[str]]:
    """Return photos to compare, drawn by chance: those upright as they are stored, and those to be turned."""
    paths = sorted(listing.rows)
    order = np.random.default_rng(0).permutation(len(paths))[:_LOOKED_AT]
    upright: list[str] = []
    turned: list[str] = []
    for start in range(0, len(order), _AT_ONCE):
        reading = [(paths[i], decoders.submit_reading(paths[i])) for i in order[start : start + _AT_ONCE]]
        for path, future in reading:
            if not isinstance(found := future.result(), Skip):
                (turned if is_turned(found.info) else upright).append(path)
        if len(upright) >= CHECKED and len(turned) >= _TURNED:
            break
    return upright[:CHECKED], turned[:_TURNED]


def _compare(
    source: Source, listing: Listing, paths: Sequence[str], encoder: Encoder, decoders: Decoders
) -> list[SpotCheck]:
    """Return how near stored vectors are to new ones, upright and as the pixels are stored."""
    decoded = [decoders.submit(path, encoder.preprocessing) for path in paths]
    results = [(path, future.result()) for path, future in zip(paths, decoded, strict=True)]
    found = [(path, one) for path, one in results if not isinstance(one, Skip)]
    if not found:
        return []
    stored = normalize(finite(source.vectors([listing.rows[path] for path, _ in found])))
    upright = encoder.encode_images(np.stack([one.pixels for _, one in found]))
    cosines = [float(cosine) for cosine in (stored * upright).sum(axis=1)]
    lying = cosines
    if any(is_turned(one.info) for _, one in found):
        pixels = np.stack([_as_stored(one.pixels, one.info) for _, one in found])
        lying = [float(cosine) for cosine in (stored * encoder.encode_images(pixels)).sum(axis=1)]
    return [SpotCheck(path, up, flat) for (path, _), up, flat in zip(found, cosines, lying, strict=True)]


def finite(vectors: Vectors) -> Vectors:
    """Return vectors with zeros for what is no number, which makes them no unit vectors."""
    return np.nan_to_num(vectors, nan=0, posinf=0, neginf=0) * np.isfinite(vectors).all(axis=1, keepdims=True)


def _as_stored(pixels: Pixels, info: PhotoInfo) -> Pixels:
    """Return an upright picture as its file has it; one that is not square can't be laid on its side."""
    if info.orientation not in _UNDO or (pixels.shape[0] != pixels.shape[1] and info.orientation >= 5):
        return pixels
    quarters, is_mirrored = _UNDO[info.orientation]
    laid: Pixels = np.rot90(pixels, quarters)
    return laid[:, ::-1] if is_mirrored else laid


def _orientation(spots: Sequence[SpotCheck], agreement: float) -> Orientation:
    """Tell what the source did with orientation; pictures that are alike both ways tell nothing."""
    votes = Counter(
        Orientation.APPLIED if spot.cosine >= agreement else Orientation.IGNORED
        for spot in spots
        if (spot.cosine >= agreement) != (spot.as_stored >= agreement)
    )
    neither = any(max(spot.cosine, spot.as_stored) < agreement for spot in spots)
    if len(votes) > 1 or neither:
        return Orientation.MIXED
    return next(iter(votes), Orientation.UNTOLD)
