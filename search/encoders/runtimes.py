"""Which runtime runs a model: torch, or the one it was exported to where that was measured to be faster here.

A model that has been exported is opened from its record, without torch; only its text half may take torch, later.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
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


@dataclass(frozen=True, slots=True)
class _Asked:
    """A model by its name, and how it is to run; None where that is left to us."""

    name: str
    fetcher: Fetcher
    cache: Path
    device: str | None = None
    runtime: str | None = None
    precision: str | None = None

    @property
    def source(self) -> tuple[str, str]:
        """Its source and what it identifies there."""
        return parse_name(self.name)

    def may_be_exported(self) -> bool:
        """Say whether the exported form may be used at all.   Raises ModelError for what contradicts itself."""
        if self.runtime not in (None, *RUNTIMES):
            raise ModelError(f"there is no runtime {self.runtime!r}", hint=f"there are {', '.join(RUNTIMES)}")
        on_cpu = self.device in (None, "cpu") and self.precision is None
        if self.runtime == "openvino":
            exports.require_runtime()
            if not on_cpu:
                raise ModelError("openvino runs on the CPU, in the precision that suits it")
        return self.runtime != "torch" and on_cpu and exports.is_possible()


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
    asked = _Asked(name, fetcher, folder or exports.default_folder(name), device, runtime, precision)
    if name.endswith(INT8):
        return _quantised(asked)
    if not asked.may_be_exported():
        from search.encoders import openclip

        return openclip.load(*asked.source, fetcher=fetcher, device=device, precision=precision)
    record = recorded(name, asked.cache, fetcher.trust_checkpoint)
    if record and record.exported and "openvino" in (runtime, record.runtime):
        encoder = _exported(record, asked)
        if encoder is not None:
            return encoder
    wanted = runtime == "openvino" or is_worth_exporting(name, photos, asked.cache)
    return _by_torch(asked, record, export=wanted, on_export=on_export)


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


def _quantised(asked: _Asked) -> Encoder:
    """Open what `quantising.export` made; nothing else has its vectors.   Raises ModelError."""
    replace(asked, device=None, runtime=asked.runtime or "openvino", precision=None).may_be_exported()
    if asked.device not in (None, "cpu") or asked.runtime == "torch" or asked.precision is not None:
        raise ModelError(f"{asked.name} runs by openvino on the CPU, and in int8")
    record = recorded(asked.name, asked.cache, asked.fetcher.trust_checkpoint)
    encoder = _exported(record, asked) if record else None
    if encoder is None:
        name = canonical_name(asked.name)
        raise ModelError(
            f"{name} was not made on this machine, or of other weights than are here now",
            hint=f"search models export {name.removesuffix(INT8)} --int8",
        )
    return encoder


def _by_torch(
    asked: _Asked, record: Record | None, *, export: bool, on_export: Callable[[str], None] | None
) -> Encoder:
    """Load a model, and export it where that is wanted, was not done and pays or was asked for."""
    from search.encoders import blueprints, exporting, openclip

    used, required = openclip.usable_device(asked.device), asked.runtime == "openvino"
    loaded = blueprints.load(*asked.source, fetcher=asked.fetcher)
    if used != "cpu" or record is not None or not (export and (required or exporting.pays(loaded))):
        return _checked(openclip.encoder_of(loaded, device=used), asked, record)
    if on_export:
        on_export(loaded.name)
    try:
        encoder, made = exporting.export(loaded, asked.cache)
    except StorageError:
        if required:
            raise
        return openclip.load(*asked.source, fetcher=asked.fetcher, device=used)
    wanted = bool(made.exported) and "openvino" in (asked.runtime, made.runtime)
    return (_exported(made, asked) if wanted else None) or _checked(encoder, asked, made)


def _checked(encoder: Encoder, asked: _Asked, record: Record | None) -> Encoder:
    if asked.runtime == "openvino":
        reason = record.reason if record else "this machine has something faster"
        raise ModelError(f"{encoder.name} can't be run by openvino: {reason}")
    return encoder


def _exported(record: Record, asked: _Asked) -> Encoder | None:
    openvino = exports.runtime()
    images = openvino.open_tower(record, asked.cache) if openvino else None
    if openvino is None or images is None:
        return None
    encoder: Encoder = openvino.OpenVinoEncoder(record, images, lambda: _text(record.card, asked.fetcher))
    return encoder


def _text(card: Any, fetcher: Fetcher) -> TextTower:
    """Open the text half alone if that takes no torch, else the whole model."""
    from search.encoders.text import open_text_encoder

    found = open_text_encoder(card["config"], Path(card["tensors"])) if card["tensors"] else None
    if found is not None:
        return found
    from search.encoders import openclip

    return openclip.load(*parse_name(card["name"]), fetcher=fetcher, device="cpu")
