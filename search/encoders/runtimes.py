"""Which runtime runs a model: torch, or the one it was exported to where that was measured to be faster here.

A model that has been exported is opened from its record, without torch; only its text half may take torch, later.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search import files
from search.encoders import INT8, canonical_name, exports, parse_name
from search.encoders.exports import Record
from search.encoders.hub import Fetcher
from search.errors import ModelError, StorageError

if TYPE_CHECKING:
    from search.encoders import Encoder, TextTower

RUNTIMES = ("torch", "openvino")
_WORTH_EXPORTING = 2000  # photos: to encode them takes ten times as long as to export a model


def open_encoder(
    name: str,
    *,
    fetcher: Fetcher,
    device: str | None = None,
    runtime: str | None = None,
    precision: str | None = None,
    photos: int = 0,
    on_export: Callable[[str], None] | None = None,
    folder: Path | None = None,
) -> Encoder:
    """Open a model; `search.encoders.load_encoder` has the words.   folder: of exports, None means the user's."""
    cache = folder or exports.default_folder(name)
    if name.endswith(INT8):
        return _quantised(name, fetcher, device=device, runtime=runtime, precision=precision, cache=cache)
    if not _may_be_exported(device, runtime, precision):
        from search.encoders import openclip

        return openclip.load(*parse_name(name), fetcher=fetcher, device=device, precision=precision)
    record = recorded(name, cache, fetcher.trust_checkpoint)
    if record and record.exported and "openvino" in (runtime, record.runtime):
        encoder = _exported(record, cache, fetcher)
        if encoder is not None:
            return encoder
    wanted = runtime == "openvino" or is_worth_exporting(name, photos, cache)
    return _by_torch(
        name, record, fetcher, device=device, runtime=runtime, export=wanted, on_export=on_export, cache=cache
    )


def is_worth_exporting(name: str, photos: int, folder: Path | None = None) -> bool:
    """Say whether a model that torch runs should be exported before it encodes so many photos."""
    many = photos >= _WORTH_EXPORTING and name != "builtin" and exports.is_possible()
    return many and recorded(name, folder) is None and exports.runtime() is not None


def export(
    name: str, *, fetcher: Fetcher, on_export: Callable[[str], None] | None = None, folder: Path | None = None
) -> tuple[Record, Path]:
    """Export a model anew, whatever is known of it.   Returns the record and the folder of its files.

    Raises ModelError where the runtime is not installed, StorageError; else as `load_encoder`.
    """
    exports.require_runtime()
    from search.encoders import blueprints, exporting

    cache = folder or exports.default_folder(name)
    loaded = blueprints.load(*parse_name(name), fetcher=fetcher)
    if on_export:
        on_export(loaded.name)
    return exporting.export(loaded, cache)[1], cache


def recorded(name: str, folder: Path | None = None, trust_checkpoint: str | None = None) -> Record | None:
    """Return what is known of exporting the model of this name; None if nothing, or nothing that still holds."""
    cache = folder or exports.default_folder(name)
    record = exports.find(canonical_name(name), cache) if exports.is_possible() else None
    if record is None or not exports.whole(record, cache):
        return None
    if trust_checkpoint and files.sha256(Path(record.card["weights"])) != trust_checkpoint.lower():
        return None
    return record


def _quantised(
    name: str,
    fetcher: Fetcher,
    *,
    device: str | None,
    runtime: str | None,
    precision: str | None,
    cache: Path,
) -> Encoder:
    """Open what `quantising.export` made; nothing else has its vectors.   Raises ModelError."""
    _may_be_exported(None, runtime or "openvino", None)
    if device not in (None, "cpu") or runtime == "torch" or precision is not None:
        raise ModelError(f"{name} runs by openvino on the CPU, and in int8")
    record = recorded(name, cache, fetcher.trust_checkpoint)
    encoder = _exported(record, cache, fetcher) if record else None
    if encoder is None:
        raise ModelError(
            f"{canonical_name(name)} was not made on this machine, or of other weights than are here now",
            hint=f"search models export {canonical_name(name).removesuffix(INT8)} --int8",
        )
    return encoder


def _may_be_exported(device: str | None, runtime: str | None, precision: str | None) -> bool:
    """Say whether the exported form may be used at all.   Raises ModelError for what contradicts itself."""
    if runtime not in (None, *RUNTIMES):
        raise ModelError(f"there is no runtime {runtime!r}", hint=f"there are {', '.join(RUNTIMES)}")
    if runtime == "openvino":
        exports.require_runtime()
        if device not in (None, "cpu") or precision is not None:
            raise ModelError("openvino runs on the CPU, in the precision that suits it")
    return runtime != "torch" and device in (None, "cpu") and precision is None and exports.is_possible()


def _by_torch(
    name: str,
    record: Record | None,
    fetcher: Fetcher,
    *,
    device: str | None,
    runtime: str | None,
    export: bool,
    on_export: Callable[[str], None] | None,
    cache: Path,
) -> Encoder:
    """Load a model, and export it where that is wanted, was not done and pays or was asked for."""
    from search.encoders import blueprints, exporting, openclip

    used = openclip.usable_device(device)
    loaded = blueprints.load(*parse_name(name), fetcher=fetcher)
    if used != "cpu" or record is not None or not (export and (runtime == "openvino" or exporting.pays(loaded))):
        return _checked(openclip.encoder_of(loaded, device=used), runtime, record)
    if on_export:
        on_export(loaded.name)
    try:
        encoder, made = exporting.export(loaded, cache)
    except StorageError:
        if runtime == "openvino":
            raise
        return openclip.load(*parse_name(name), fetcher=fetcher, device=used)
    wanted = bool(made.exported) and "openvino" in (runtime, made.runtime)
    return (_exported(made, cache, fetcher) if wanted else None) or _checked(encoder, runtime, made)


def _checked(encoder: Encoder, runtime: str | None, record: Record | None) -> Encoder:
    if runtime == "openvino":
        reason = record.reason if record else "this machine has something faster"
        raise ModelError(f"{encoder.name} can't be run by openvino: {reason}")
    return encoder


def _exported(record: Record, cache: Path, fetcher: Fetcher) -> Encoder | None:
    openvino = exports.runtime()
    images = openvino.open_tower(record, cache) if openvino else None
    if openvino is None or images is None:
        return None
    encoder: Encoder = openvino.OpenVinoEncoder(record, images, lambda: _text(record.card, fetcher))
    return encoder


def _text(card: Any, fetcher: Fetcher) -> TextTower:
    """Open the text half alone if that takes no torch, else the whole model."""
    from search.encoders.text import open_text_encoder

    found = open_text_encoder(card["config"], Path(card["tensors"])) if card["tensors"] else None
    if found is not None:
        return found
    from search.encoders import openclip

    return openclip.load(*parse_name(card["name"]), fetcher=fetcher, device="cpu")
