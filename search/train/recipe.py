"""Every choice of a training run as one value, from TOML and back.

Here is no torch: the command line makes its options of these fields.
"""

from __future__ import annotations

import difflib
import json
import math
import tomllib
from collections.abc import Mapping
from dataclasses import Field, asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Self

from search.errors import UsageError

CHOICES: Mapping[str, tuple[str, ...]] = {
    "tune": ("full", "last", "heads", "text", "images"),
    "loss": ("softmax", "sigmoid"),
    "precision": ("float32", "bfloat16"),
    "save_precision": ("float32", "float16"),
}
"""What may stand in those fields that name one of a few things."""


def _said(default: Any, text: str) -> Any:
    if isinstance(default, dict):
        return field(default_factory=dict, metadata={"help": text})
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that decides what comes out of a run, and some that only decides how fast.

    Checked when it is made: raises UsageError for what can't be meant. Fields have their own sentence in
    `Recipe.meaning`, which is what the command line shows.
    """

    captions: str = _said("", "Table of image and caption: .tsv, .csv or .parquet; or webdataset's tars.")
    held_out: str = _said("", "Another such table, to measure on. [default: a part of the first]")
    held_out_share: float = _said(0.05, "Part of the photos to measure on where there is no table of them.")
    held_out_most: int = _said(1000, "Photos to measure on at most.")
    model: str = _said("", "Model to begin with; see `search models list`.")
    architecture: str = _said("", "Begin with random weights: open_clip's name, or a JSON file of its layout.")
    sizes: Mapping[str, Any] = _said({}, "Other sizes of the architecture: vision_cfg.layers=4.")
    tune: str = _said("full", "What is trained: all, the last layers, the projections, or one tower alone.")
    layers: int = _said(2, "How many last layers of each tower, with `tune` last.")
    loss: str = _said("softmax", "CLIP's loss or SigLIP's.")
    label_smoothing: float = _said(0.0, "Of the softmax loss.")
    match_equal: bool = _said(False, "Photos with equal captions fit each other's: for class names.")
    epochs: float = _said(1.0, "How often each photo is seen.")
    steps: int = _said(0, "Steps, in place of epochs.")
    batch_size: int = _said(256, "Pairs the loss compares at a time.")
    chunk: int = _said(0, "Pairs held in memory at a time; the loss stays that of the batch. [default: all]")
    learning_rate: float = _said(5e-4, "The highest.")
    warm_up: int = _said(100, "Steps until it is reached; then it falls as a cosine.")
    final_rate: float = _said(0.0, "Part of the highest rate that is left at the end.")
    weight_decay: float = _said(0.2, "Of matrices; gains, biases and the scale have none.")
    beta1: float = _said(0.9, "AdamW's.")
    beta2: float = _said(0.98, "AdamW's.")
    epsilon: float = _said(1e-6, "AdamW's.")
    clip_norm: float = _said(1.0, "Longest gradient; 0: as it is.")
    ema: float = _said(0.0, "Of a moving average of the weights, how much stays at a step; it is what is written.")
    precision: str = _said("float32", "Of the arithmetic; weights stay in float32.")
    train_size: int = _said(0, "Side of the photos in training, in pixels. [default: the model's]")
    crop_low: float = _said(0.9, "Least part of a photo's area that a crop keeps.")
    crop_ratio: float = _said(4 / 3, "Most that a crop is stretched.")
    flip: float = _said(0.0, "How likely a photo is mirrored.")
    grey: float = _said(0.0, "How likely a photo loses its colours.")
    seed: int = _said(0, "Of new weights, order, captions and crops.")
    deterministic: bool = _said(True, "The same numbers each time, on a GPU too.")
    save_precision: str = _said("float32", "Of the weights that are written.")
    evaluate_every: int = _said(0, "Steps between measurements. [default: at the start and the end]")
    checkpoint_every: int = _said(200, "Steps after which the run is saved, so that it can go on from there.")
    workers: int = _said(0, "Threads that decode photos. [default: one a processor]")
    memory_mb: int = _said(0, "Memory in which decoded photos are kept for the next epoch.")

    def __post_init__(self) -> None:
        for name, wanted in CHOICES.items():
            _require(getattr(self, name) in wanted, f"{name} is one of {', '.join(wanted)}")
        _require(bool(self.model or self.architecture), "give a model or an architecture to begin with")
        _require(not (self.model and self.architecture), "a model and an architecture are given: begin with one")
        _require(not self.sizes or bool(self.architecture), "sizes belong to an architecture")
        _require(bool(self.captions), "give a table of captions")
        _require(self.batch_size >= 2, "batch_size is 2 or more: the loss compares pairs")
        for name in _POSITIVE:
            _require(getattr(self, name) > 0, f"{name} is above 0")
        for name in _NOT_NEGATIVE:
            _require(getattr(self, name) >= 0, f"{name} is not below 0")
        for name in _SHARES:
            _require(0 <= getattr(self, name) <= 1, f"{name} is between 0 and 1")
        _require(self.held_out_share < 1 and self.beta1 < 1 and self.beta2 < 1, "a share or beta is below 1")
        _require(self.ema < 1, "ema is below 1")
        _require(self.crop_low > 0 and self.crop_ratio >= 1, "crop_low is above 0 and crop_ratio not below 1")

    @classmethod
    def meaning(cls, name: str) -> str:
        """Return the sentence that says what a field means."""
        return str(_field(cls, name).metadata["help"])

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Make a recipe of values by name.   Raises UsageError for a name or a kind of value that means nothing."""
        return cls(**{name: _fitting(_field(cls, name), value) for name, value in values.items()})

    @classmethod
    def read(cls, file: Path, **given: Any) -> Self:
        """Read a TOML file; what is given besides comes before what stands in it.

        Paths in it are relative to it.   Raises UsageError, which names the file.
        """
        return cls.of({**read_values(file), **given})

    def to_toml(self) -> str:
        """Return it as the text of a TOML file that reads as the same recipe."""
        values = asdict(self)
        sizes = values.pop("sizes")
        lines = [f"{name} = {_toml(value)}" for name, value in values.items()]
        if sizes:
            lines += [
                "",
                "[sizes]",
                *(f"{_word(name)} = {_toml(value)}" for name, value in sizes.items()),
            ]
        return "\n".join(lines) + "\n"

    def same_run(self, begun: Mapping[str, Any]) -> bool:
        """Say whether a run by this recipe may go on with what one by another began, which is given by its values."""
        try:
            other = type(self).of(begun)
        except UsageError:  # a recipe of another kind
            return False
        return replace(self, **_PACE) == replace(other, **_PACE)


# Other values of these change how fast a run is, or what is told of it, but nothing in the weights.
_PACE: Mapping[str, Any] = {"evaluate_every": 0, "checkpoint_every": 1, "workers": 0, "memory_mb": 0}
_POSITIVE = ("epochs", "learning_rate", "epsilon", "checkpoint_every", "layers")
_NOT_NEGATIVE = (
    *("steps", "chunk", "warm_up", "weight_decay", "clip_norm", "seed", "evaluate_every", "workers"),
    "train_size",
    *("memory_mb", "held_out_most", "beta1", "beta2", "ema"),
)
_SHARES = ("held_out_share", "label_smoothing", "final_rate", "crop_low", "flip", "grey")
_PATHS = ("captions", "held_out")
_KINDS: Mapping[str, tuple[type, str]] = {
    "str": (str, "a text in quotes"),
    "int": (int, "a whole number"),
    "float": (float, "a finite number"),
    "bool": (bool, "true or false"),
}


def _field(kind: type[Recipe], name: str) -> Field[Any]:
    known = {one.name: one for one in fields(kind)}
    if name not in known:
        near = difflib.get_close_matches(name, known, n=2)
        hint = f"did you mean {' or '.join(near)}?" if near else "--help lists all there are, with dashes"
        raise UsageError(f"a recipe has no {name!r}", hint=hint)
    return known[name]


def _again(default: Any, name: str) -> Any:
    """A field of `Recipe` with another default."""
    return _said(default, Recipe.meaning(name))


@dataclass(frozen=True, slots=True)
class LongClipRecipe(Recipe):
    """A recipe for long and short captions, whose defaults are those that Long-CLIP (arXiv:2403.15378) trained with.

    Crops are the middle of a photo: what a long caption says may stand at its edge.
    """

    captions: str = _said("", "Table of image, caption and short: .tsv, .csv, .parquet; or ShareGPT4V's .json.")
    label_smoothing: float = _again(0.1, "label_smoothing")
    epochs: float = _again(2.0, "epochs")
    learning_rate: float = _again(1e-6, "learning_rate")
    warm_up: int = _again(200, "warm_up")
    weight_decay: float = _again(1e-2, "weight_decay")
    beta2: float = _again(0.999, "beta2")
    epsilon: float = _again(1e-8, "epsilon")
    crop_low: float = _again(1.0, "crop_low")
    crop_ratio: float = _again(1.0, "crop_ratio")
    components: int = _said(
        32, "Principal components of the photos in a batch that short captions match; 0: photos as they are."
    )
    long_weight: float = _said(1.0, "Of the loss of long captions.")
    short_weight: float = _said(1.0, "Of the loss of short captions.")
    cut_long: bool = _said(False, "Train a model of 77 tokens or fewer too: captions that are longer are cut.")

    def __post_init__(self) -> None:
        Recipe.__post_init__(self)  # slots make another class of this one, which super() would not know
        for name in ("components", "long_weight", "short_weight"):
            _require(getattr(self, name) >= 0, f"{name} is not below 0")
        _require(self.long_weight > 0 or self.short_weight > 0, "long_weight or short_weight is above 0")


def read_values(file: Path) -> dict[str, Any]:
    """Return what stands in a TOML file, paths made absolute.   Raises UsageError, which names the file."""
    try:
        with file.open("rb") as opened:
            values = tomllib.load(opened)
    except (OSError, ValueError) as error:
        raise UsageError(f"can't read {file}: {error}") from None
    for name in _PATHS:
        if isinstance(values.get(name), str) and values[name]:
            values[name] = str(file.absolute().parent / Path(values[name]).expanduser())
    architecture = values.get("architecture")
    if isinstance(architecture, str) and architecture.endswith(".json"):
        values["architecture"] = str(file.absolute().parent / Path(architecture).expanduser())
    return values


def _fitting(one: Field[Any], value: Any) -> Any:
    name, kind = one.name, str(one.type)
    if kind == "float" and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    expected, meant = _KINDS.get(kind, (Mapping, "a table, such as {vision_cfg.layers = 4}"))
    wrong = not isinstance(value, expected) or (isinstance(value, bool) and kind != "bool")
    if wrong or (isinstance(value, float) and not math.isfinite(value)):
        raise UsageError(f"{name} can't be {value!r}", hint=f"it is {meant}")
    return value


def _toml(value: Any) -> str:
    """Return a value as TOML writes it, which is as JSON does but for tables in a line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_word(name)} = {_toml(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return _word(value)


def _word(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)  # TOML knows no surrogate pairs


def _require(true: bool, message: str) -> None:
    if not true:
        raise UsageError(message)
