"""An open model → its image half in int8, calibrated on photos and held against what it was made of on others."""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import util
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from search.encoders import INT8, blueprints, canonical_name, exporting, exports, openclip, parse_name
from search.encoders.exports import Record
from search.encoders.hub import first_line
from search.errors import ModelError, UsageError
from search.extras import how_to_add

if TYPE_CHECKING:
    from search.encoders.hub import Fetcher
    from search.encoders.preprocessing import Preprocessing
    from search.types import Pixels, Vectors

LEAST_OVERLAP = 0.9  # of the ten nearest photos, to photos and to words, for an export to be kept unasked
CALIBRATED, COMPARED = 256, 500  # photos at most
LEAST_COMPARED = 200  # fewer say too little about the ten nearest; as many again are calibrated on
_NEAREST = 10
_BATCH = 16
_ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it.

    cosine_*: between both vectors of a photo.   *_overlap: how many of the ten nearest photos are the same, of 1.
    images_per_second: by precision.   kept: whether there is now a model of this name.
    """

    name: str
    fingerprint: str
    calibrated: int
    compared: int
    cosine_mean: float
    cosine_min: float
    image_overlap: float
    text_overlap: float
    images_per_second: dict[str, float]
    kept: bool
    files: tuple[str, ...]


def export(
    name: str,
    read: Callable[[Preprocessing], Pixels],
    texts: Sequence[str],
    *,
    fetcher: Fetcher,
    force: bool = False,
    folder: Path | None = None,
) -> Outcome:
    """Export a model in int8 and keep it if it finds the same photos, or force says so.

    read: photos as the model takes them, CALIBRATED + COMPARED at most.   texts: what is looked for among them.
    Raises ModelError where NNCF is not installed or can't take the model, or without force there is one already;
    UsageError for too few photos, StorageError.
    """
    if util.find_spec("nncf") is None:
        raise ModelError("nncf is not installed", hint=how_to_add("int8"))
    exports.require_runtime()
    cache = folder or exports.default_models()
    if not force:
        _require_new(canonical_name(name) + INT8, cache)
    loaded = blueprints.load(*parse_name(name), fetcher=fetcher)
    pixels = read(loaded.preprocessing)
    needed = 2 * LEAST_COMPARED
    if len(pixels) < needed:
        raise UsageError(
            f"int8 takes at least {needed} readable photos of yours, not {len(pixels)}", hint="index more first"
        )
    graph, reason = exporting.graph_of(loaded)
    if graph is None:
        raise ModelError(f"{loaded.name}: {reason}")
    encoder = openclip.encoder_of(loaded)
    calibration = min(CALIBRATED, len(pixels) // 2)
    quantised = _quantised(graph, pixels[:calibration])
    return _kept(
        exporting.card_of(encoder) | {"base": encoder.fingerprint},
        quantised,
        _compared(graph, quantised, pixels[calibration:], encoder.encode_texts(texts))
        | {"calibrated": calibration},
        stated=exports.stated(loaded.files, loaded.stated),
        force=force,
        cache=cache,
    )


def _require_new(name: str, cache: Path) -> None:
    record = exports.find(name, cache)
    if record is not None and exports.whole(record, cache):
        raise ModelError(
            f"there is {name} already, and vectors made by it would need --reencode with another",
            hint="--force replaces it",
        )


def _quantised(graph: Any, pixels: Pixels) -> Any:
    """Let NNCF choose the scales; what it prints meanwhile is kept from the terminal."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        import nncf

        nncf.set_log_level(logging.ERROR)
        data = nncf.Dataset([image[None] for image in pixels])
        kind = nncf.ModelType.TRANSFORMER
        try:
            return nncf.quantize(graph.clone(), data, subset_size=len(pixels), model_type=kind)
        except Exception as error:  # it has no one error for a graph it can't take
            raise ModelError(f"NNCF can't quantise it: {first_line(error)}") from None


def _compared(graph: Any, quantised: Any, pixels: Pixels, words: Vectors) -> dict[str, Any]:
    from search.encoders import openvino

    usual, small = openvino.ImageTower(graph), openvino.ImageTower(quantised)
    before, after = (_rows(tower, pixels) for tower in (usual, small))
    cosines = (before * after).sum(axis=1)
    return {
        "compared": len(pixels),
        "cosine_mean": round(float(cosines.mean()), 5),
        "cosine_min": round(float(cosines.min()), 5),
        "image_overlap": round(_overlap(before @ before.T, after @ after.T, own=True), 4),
        "text_overlap": round(_overlap(words @ before.T, words @ after.T), 4),
        "images_per_second": _speeds({usual.precision: usual, "int8": small}, pixels[:_BATCH]),
    }


def _rows(tower: Callable[[Pixels], Vectors], pixels: Pixels) -> Vectors:
    rows = np.concatenate([tower(pixels[start : start + _BATCH]) for start in range(0, len(pixels), _BATCH)])
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def _overlap(before: Vectors, after: Vectors, *, own: bool = False) -> float:
    """Return how many of the nearest of each row two tables (N, M) have in common, of 1; own: nobody is his own."""
    tables = [table.copy() for table in (before, after)]
    if own:
        for table in tables:
            np.fill_diagonal(table, -np.inf)
    nearest = [np.argsort(-table, axis=1, kind="stable")[:, :_NEAREST] for table in tables]
    common = [len(np.intersect1d(mine, theirs)) for mine, theirs in zip(*nearest, strict=True)]
    return float(np.mean(common)) / _NEAREST


def _speeds(towers: dict[str, Callable[[Pixels], Vectors]], images: Pixels) -> dict[str, float]:
    """Let them run in turns on the same batch."""
    seconds: dict[str, list[float]] = {name: [] for name in towers}
    for _ in range(_ROUNDS):
        for name, tower in towers.items():
            started = perf_counter()
            tower(images)
            seconds[name].append(perf_counter() - started)
    return {name: round(len(images) / median(times), 2) for name, times in seconds.items()}


def _kept(
    card: dict[str, Any],
    quantised: Any,
    facts: dict[str, Any],
    *,
    stated: dict[str, Mapping[str, int]],
    force: bool,
    cache: Path,
) -> Outcome:
    """Publish the export under a name and fingerprint of its own, if it is good enough."""
    from search.encoders import openvino

    name = card["name"] + INT8
    if not force and min(facts["image_overlap"], facts["text_overlap"]) < LEAST_OVERLAP:
        return Outcome(name, "", **facts, kept=False, files=())
    with exporting.storage(cache) as place:
        exported = openvino.write(quantised, place, exports.key(name))
        # the .xml is left out: it differs each time, the vectors do not
        weights = next(digest for file, digest in exported.items() if file.endswith(".bin"))
        fingerprint = hashlib.sha256((card["fingerprint"] + weights).encode()).hexdigest()
        record = Record(
            card | {"name": name, "fingerprint": fingerprint},
            stated,
            exported,
            "openvino",
            "it was asked for",
            facts["images_per_second"],
            facts["cosine_min"],
            exports.made_by(),
        )
        exports.save(name, record, place)
    return Outcome(name, fingerprint, **facts, kept=True, files=tuple(str(place / file) for file in exported))
