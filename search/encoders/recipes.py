"""A model's recipe, kept beside the library: enough to open its text half again without torch.

A recipe is a cache. It names the weights file, and what that was converted to, with size and time; where those no
longer hold there is no recipe to speak of, and the whole model is opened. Beside it lie a copy of the text half's
tensors, where they can't be mapped as they are; where numpy can't run it, what it was exported to; and what was
remembered of texts.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from search import files
from search.encoders.remembered import Entry, Memory
from search.encoders.tokens import is_english_only
from search.errors import SearchError
from search.resources import data_path

if TYPE_CHECKING:
    from search.encoders import Encoder, TextTower, blueprints
    from search.encoders.foreign_tokens import ForeignTokenizer
    from search.encoders.text import TextEncoder, Tokenizer
    from search.types import Vectors

_FORMAT = 2
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)
_REMEMBERED = 512  # texts at once; more are the prompts of a label set, which is remembered as a whole
_MANY = 1000  # texts at once, beyond which the seconds that opening the whole model takes are won back


def save(encoder: Encoder, folder: Path, *, on_export: Callable[[str], None] | None = None) -> None:
    """Write the recipe of an open model, unless it is there; a folder that can't be written is no harm.

    None is written of weights that were replaced since they were loaded: they are another model.
    A text half that is Hugging Face's is exported to the faster runtime, where that is installed.
    on_export: called with the model's name just before.
    """
    config: dict[str, Any] | None = getattr(encoder, "config", None)
    weights: Path | None = getattr(encoder, "weights", None)
    tensors: Path | None = getattr(encoder, "tensors", None)
    if config is None or weights is None or _is_complete(_read(folder, encoder.fingerprint), config):
        return
    with contextlib.suppress(OSError):
        stated = _stated(encoder, weights, tensors)
        if stated is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        files.sweep(folder)
        loaded = _loaded(encoder, config, on_export)
        recipe = _said(encoder) | {
            "config": config,
            "tensors": str(tensors or weights),
            "tokenizer": _tokenizer(loaded or encoder, config, folder, stated),
            "files": stated,
            "export": _export(config, tensors or weights, _exported(folder, encoder.fingerprint)),
        }
        if loaded is not None:
            recipe["graph"] = _graph(loaded, _opened(folder, encoder.fingerprint, recipe), folder, stated)
        _write(folder, encoder.fingerprint, recipe)


def _said(encoder: Encoder) -> dict[str, Any]:
    """Return what a model says of itself that its text half says too."""
    return {
        "format": _FORMAT,
        "name": encoder.name,
        "dim": encoder.dim,
        "context_length": encoder.context_length,
        "logit_scale": encoder.logit_scale,
        "logit_bias": encoder.logit_bias,
    }


def open_text(folder: Path, fingerprint: str) -> TextEncoder | None:
    """Open the text half of the model of this fingerprint; None where that takes the whole model."""
    from search.encoders.text import open_text_encoder

    recipe = _read(folder, fingerprint)
    if recipe is None:
        return None
    tokenizer = _opened(folder, fingerprint, recipe)
    if recipe.get("graph"):
        return _run_graph(recipe, folder, tokenizer)
    path = _mappable(folder, fingerprint, recipe)
    return open_text_encoder(recipe["config"], path, tokenizer=tokenizer, folder=folder)


def open_half(folder: Path, fingerprint: str, whole: Callable[[], Encoder]) -> TextHalf | None:
    """Return the text half of the model of this fingerprint, nothing of it opened yet; None without a recipe."""
    recipe = _read(folder, fingerprint)
    if recipe is None:
        return None
    try:
        return TextHalf(recipe, fingerprint, folder, whole)
    except KeyError:
        return None


class TextHalf:
    """What a model says of texts, with as little work as will do: remembered, without torch, or by the whole model.

    whole: opens the whole model, for what its text half can't do.
    """

    def __init__(
        self, recipe: Mapping[str, Any], fingerprint: str, folder: Path, whole: Callable[[], Encoder]
    ) -> None:
        self.name: str = recipe["name"]
        self.fingerprint = fingerprint
        self.context_length: int = recipe["context_length"]
        self.logit_scale: float = recipe["logit_scale"]
        self.logit_bias: float | None = recipe["logit_bias"]
        self.english_only = is_english_only(recipe["config"])
        self._folder = folder
        self._whole = whole
        self._memory = Memory(folder, fingerprint, recipe["dim"])
        self._last: dict[str, Entry] = {}  # whoever asks for numbers of tokens wants vectors next

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """Return (N, dim) float32 unit rows, one for each text, in order."""
        if not 0 < len(texts) <= _REMEMBERED:
            return self._tower(len(texts)).encode_texts(texts)
        return np.concatenate([entry.rows for entry in self._entries(texts)])

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return how many tokens each text needs, start and end included, were there room for all."""
        if not 0 < len(texts) <= _REMEMBERED:
            return (self._alone or self._whole()).count_tokens(texts)  # no reason to open an image half
        return [entry.tokens for entry in self._entries(texts)]

    def remember(
        self, prompts: Sequence[Sequence[str]], make: Callable[[], tuple[Vectors, int]]
    ) -> tuple[Vectors, int]:
        """Return what `make` gives for the prompts of several classes, rows and a number: computed only once."""
        entry = self._memory.of_set(prompts, lambda: Entry(*make()))
        return entry.rows, entry.tokens

    def _entries(self, texts: Sequence[str]) -> list[Entry]:
        last = self._last  # another thread may put its own in its place
        if all(text in last for text in texts):
            return [last[text] for text in texts]
        known = {text: entry for text, entry in zip(texts, self._memory.of_texts(texts), strict=True) if entry}
        if missing := [text for text in dict.fromkeys(texts) if text not in known]:
            tower = self._tower(len(missing))
            rows, counts = tower.encode_texts(missing), tower.count_tokens(missing)
            new = {text: Entry(row[None], n) for text, row, n in zip(missing, rows, counts, strict=True)}
            self._memory.keep_texts(new)
            known |= new
        self._last = known
        return [known[text] for text in texts]

    def _tower(self, count: int) -> TextTower:
        """Return what embeds so many texts; never by whether the whole model is open, whose rows may be rounded."""
        if count >= _MANY:
            return self._whole()
        return self._alone or self._whole()

    @cached_property
    def _alone(self) -> TextEncoder | None:
        return open_text(self._folder, self.fingerprint)


# the files


def _read(folder: Path, fingerprint: str) -> dict[str, Any] | None:
    """A recipe whose weights, and what they were converted to, are still the files it was written for."""
    try:
        recipe: dict[str, Any] = json.loads(_place(folder, fingerprint).read_text(encoding="utf-8"))
        current = all(files.stat_of(Path(name)) == stat for name, stat in recipe["files"].items())
        known = recipe["format"] == _FORMAT and recipe["tensors"] in recipe["files"]
        return recipe if current and known and not _is_anothers(recipe) else None
    except _UNREADABLE:
        return None


def _is_anothers(recipe: Mapping[str, Any]) -> bool:
    """Whether it is of the built-in model of another installation, whose weights may be others."""
    shipped = data_path("builtin")
    return recipe["name"] == "builtin" and not any(shipped in Path(name).parents for name in recipe["files"])


def _stated(encoder: Encoder, weights: Path, tensors: Path | None) -> dict[str, dict[str, int]] | None:
    """Return size and time of a model's files as they were loaded; None where one is another now.   Raises OSError."""
    known: Mapping[str, Mapping[str, int]] = getattr(encoder, "stated", {})
    if str(weights) not in known or any(files.stat_of(Path(path)) != stat for path, stat in known.items()):
        return None
    converted = {str(tensors): files.stat_of(tensors)} if tensors else {}
    return converted | {path: dict(stat) for path, stat in known.items()}


def _write(folder: Path, fingerprint: str, recipe: Mapping[str, Any]) -> None:
    files.atomic_write(_place(folder, fingerprint), json.dumps(recipe).encode())


def _mappable(folder: Path, fingerprint: str, recipe: dict[str, Any]) -> Path:
    """Return the file to map: the export if there is to be one, made again where it is gone or another."""
    tensors, export = Path(recipe["tensors"]), _exported(folder, fingerprint)
    if recipe.get("export") is None:
        return tensors
    with contextlib.suppress(OSError):
        if files.stat_of(export) == recipe["export"]:
            return export
    stat = _export(recipe["config"], tensors, export)
    if stat is None:
        return tensors
    with contextlib.suppress(OSError):
        _write(folder, fingerprint, recipe | {"export": stat})
    return export


def _export(config: Mapping[str, Any], tensors: Path, target: Path) -> dict[str, int] | None:
    """Write the text half's tensors to be mapped, and say how the file looks; None where there is none to be."""
    from search.encoders import text

    try:
        return files.stat_of(target) if text.export(config, tensors, target) else None
    except _UNREADABLE:
        return None


def _tokenizer(
    encoder: Encoder | blueprints.Loaded,
    config: Mapping[str, Any],
    folder: Path,
    stated: dict[str, dict[str, int]],
) -> dict[str, Any] | None:
    """Keep a tokenizer that is not CLIP's and return what is to be known of it; note its file.   Raises OSError."""
    text = config["text_cfg"]
    if not text.get("hf_tokenizer_name"):
        return None
    from search.encoders import foreign_tokens

    clean = (text.get("tokenizer_kwargs") or {}).get("clean", "whitespace")
    described = foreign_tokens.describe(getattr(encoder, "tokenizer", None), clean)
    if described is None:
        return None
    content, facts = described
    path = _spelled(folder, encoder.fingerprint)
    files.atomic_write(path, content.encode())
    stated[str(path)] = files.stat_of(path)
    return facts


def _loaded(
    encoder: Encoder, config: Mapping[str, Any], on_export: Callable[[str], None] | None
) -> blueprints.Loaded | None:
    """Load a model whose text half is to be exported, in float32; the open one may be cast, or have no such half.

    None stands for all that numpy may run, and for another time: the runtime is not here, the model not to be had.
    """
    if not config["text_cfg"].get("hf_model_name") or not _has_runtime():
        return None
    from search.encoders import blueprints, parse_name
    from search.encoders.hub import Fetcher

    if on_export:
        on_export(f"the text half of {encoder.name}")
    with contextlib.suppress(SearchError):
        loaded = blueprints.load(*parse_name(encoder.name), fetcher=Fetcher(encoder.name, offline=True))
        same = loaded.fingerprint == getattr(encoder, "base_fingerprint", encoder.fingerprint)
        return loaded if same else None
    return None


def _graph(
    loaded: blueprints.Loaded,
    tokenizer: ForeignTokenizer | None,
    folder: Path,
    stated: dict[str, dict[str, int]],
) -> list[str]:
    """Export a text half that numpy can't run; name its files, none if it can't be, and note them.   Raises OSError."""
    from search.encoders import exporting

    made = exporting.export_text(loaded, tokenizer, folder) if tokenizer else ()
    stated |= {str(path): files.stat_of(path) for path in made}
    return [path.name for path in made]


def _run_graph(recipe: Mapping[str, Any], folder: Path, tokenizer: Tokenizer | None) -> TextEncoder | None:
    """Open an exported text half; None where its runtime is not here any more, or refuses it."""
    if tokenizer is None or not _has_runtime():
        return None
    from search.encoders import openvino
    from search.encoders.text import TextEncoder

    tower = openvino.open_text_tower([folder / name for name in recipe["graph"]], tokenizer.pad)
    if tower is None:
        return None
    return TextEncoder(tower, tokenizer, dim=recipe["dim"], context_length=recipe["context_length"])


def _is_complete(recipe: Mapping[str, Any] | None, config: Mapping[str, Any]) -> bool:
    """Say whether there is a recipe, with what is known of exporting its text half if that can be done now."""
    if recipe is None:
        return False
    return "graph" in recipe or not config["text_cfg"].get("hf_model_name") or not _has_runtime()


def _has_runtime() -> bool:
    from search.encoders import exports

    return exports.runtime() is not None


def _opened(folder: Path, fingerprint: str, recipe: Mapping[str, Any]) -> ForeignTokenizer | None:
    """Open a kept tokenizer; None if there is none."""
    if not recipe.get("tokenizer"):
        return None
    from search.encoders import foreign_tokens

    return foreign_tokens.load(_spelled(folder, fingerprint), recipe["context_length"], recipe["tokenizer"])


def _spelled(folder: Path, fingerprint: str) -> Path:
    return folder / f"{fingerprint}.tokenizer.json"


def _place(folder: Path, fingerprint: str) -> Path:
    return folder / f"{fingerprint}.json"


def _exported(folder: Path, fingerprint: str) -> Path:
    return folder / f"{fingerprint}.safetensors"
