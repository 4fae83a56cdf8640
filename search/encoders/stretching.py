"""A model → a folder with the same model that reads longer texts: Long-CLIP's stretching of its positions.

Knowledge-preserving stretching (Long-CLIP, arXiv:2403.15378, sec. 3.1): the first positions of the text tower, which
training saw most, keep their embeddings, and the others move apart, with interpolated ones between them. No weight is
trained. What differs here: both numbers can be chosen, and the place that a tower without end-of-text reads its vector
off keeps its own embedding.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from search import files
from search.encoders import INT8, blueprints, parse_name
from search.encoders.blueprints import open_clip
from search.encoders.hub import CONFIG, WEIGHTS, Fetcher
from search.errors import ModelError, StorageError, UsageError

KEEP = 20
RATIO = 4
RECIPE = "stretched.json"
_FORMAT = 1
_POSITIONS = "positional_embedding"


@dataclass(frozen=True, slots=True)
class Stretched:
    """A model folder that was made.

    source, fingerprint: of the model it was made of.   unchanged: texts of so many tokens, start and end included,
    have the vectors they had; 0 where the tower sees the padding too, which there is more of now.
    """

    path: Path
    context_length: int
    keep: int
    ratio: int
    source: str
    fingerprint: str
    unchanged: int

    @property
    def name(self) -> str:
        """What `load_encoder` opens it by."""
        return f"dir:{self.path}"


def stretch(
    name: str,
    out: str | os.PathLike[str],
    *,
    fetcher: Fetcher,
    keep: int = KEEP,
    ratio: int = RATIO,
    force: bool = False,
) -> Stretched:
    """Write a model whose text tower reads (L - keep) · ratio + keep tokens where the named one reads L.

    keep: positions that stay as they are.   ratio: how far apart the others move.   force: replace a folder that was
    written by this.
    Raises UsageError for numbers that mean nothing or a folder that is not free, ModelError for a text tower without
    positions of its own, StorageError; else as `search.encoders.load_encoder`.
    """
    if name.endswith(INT8):
        raise UsageError(f"{name} is made for the processor and can't be stretched", hint=f"stretch {name[:-5]}")
    if keep < 0 or ratio < 2:
        raise UsageError("positions to keep are 0 or more, and the ratio is 2 or more")
    target = Path(out).expanduser().absolute()
    _require_free(target, force=force)
    loaded = blueprints.load(*parse_name(name), fetcher=fetcher)
    if loaded.weights.resolve().parent == target.resolve():
        raise UsageError(f"{target} can't be stretched into itself", hint="give another folder")
    state, config, unchanged = _stretched(loaded, keep=keep, ratio=ratio)
    made = Stretched(
        target, config["text_cfg"]["context_length"], keep, ratio, loaded.name, loaded.fingerprint, unchanged
    )
    _write(made, state, config, loaded)
    return made


def stretched_positions(table: torch.Tensor, *, keep: int, ratio: int) -> torch.Tensor:
    """Return ((L - keep) · ratio + keep, W) for the positions (L, W) of a text tower.

    Behind the last one there is nothing to interpolate with: the step to it goes on.
    Raises UsageError unless there are two positions or more, and one behind those kept.
    """
    if len(table) < 2 or keep >= len(table):
        raise UsageError(f"there are {len(table)} positions: at most {len(table) - 1} can be kept")
    steps = torch.cat([table.diff(dim=0), table[-1:] - table[-2:-1]])[keep:, None]  # (L - keep, 1, W)
    parts = (torch.arange(ratio, dtype=table.dtype) / ratio)[None, :, None]  # (1, ratio, 1)
    return torch.cat([table[:keep], (table[keep:, None] + parts * steps).flatten(0, 1)])


def _stretched(
    loaded: blueprints.Loaded, *, keep: int, ratio: int
) -> tuple[dict[str, torch.Tensor], dict[str, Any], int]:
    """Return weights and configuration of the stretched model, and how long a text keeps its vector."""
    model = loaded.model
    tower = getattr(model, "text", model)
    if not isinstance(tower, open_clip.CLIP | open_clip.transformer.TextTransformer):
        raise ModelError(f"{loaded.name} has a text tower of Hugging Face's: its positions can't be stretched")
    state = {name: tensor.detach().contiguous() for name, tensor in model.state_dict().items()}
    name = _POSITIONS if tower is model else f"text.{_POSITIONS}"
    length = int(tower.context_length)
    positions = state[name].float()
    text = stretched_positions(positions[:length], keep=keep, ratio=ratio)
    if _pool(tower) == "last":
        text[-1] = positions[length - 1]
    state[name] = torch.cat([text, positions[length:]])  # behind the text's there is a class token's, if any
    config = deepcopy(dict(loaded.config))
    config["text_cfg"]["context_length"] = len(text)
    if "multimodal_cfg" in config:
        config["multimodal_cfg"]["context_length"] = len(text)
    return state, config, keep if _never_sees_padding(tower) else 0


def _pool(tower: Any) -> str:
    """Where a tower's vector is read off; a class token, which stands behind the text, has its own name here."""
    if getattr(tower, "cls_emb", None) is not None:
        return "class"
    return str(getattr(tower, "text_pool_type", None) or tower.pool_type)


def _never_sees_padding(tower: Any) -> bool:
    """Say whether it makes no difference to a vector how much padding there is behind its text."""
    return getattr(tower, "attn_mask", None) is not None and _pool(tower) != "last"


# the folder


def _require_free(target: Path, *, force: bool) -> None:
    """Raise UsageError unless there is nothing at the target, or what may be replaced."""
    if not os.path.lexists(target) or _is_empty(target):
        return
    if not _is_ours(target):
        raise UsageError(
            f"{target} is there already, and is no model folder that stretching made", hint="give another folder"
        )
    if not force:
        raise UsageError(f"{target} is there already", hint="--force replaces it")


def _is_empty(folder: Path) -> bool:
    with contextlib.suppress(OSError):
        return not folder.is_symlink() and not any(folder.iterdir())
    return False


def _is_ours(folder: Path) -> bool:
    """Say whether a folder holds nothing but what was written into it."""
    try:
        recipe = json.loads((folder / RECIPE).read_text(encoding="utf-8"))
        known = {RECIPE, *recipe["files"]}
        return not folder.is_symlink() and {path.name for path in folder.iterdir()} <= known
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _write(
    made: Stretched, state: Mapping[str, torch.Tensor], config: Mapping[str, Any], loaded: blueprints.Loaded
) -> None:
    """Raises StorageError; then what was at the place is as it was."""
    try:
        made.path.parent.mkdir(parents=True, exist_ok=True)
        files.sweep(made.path.parent)
        with files.new_folder(made.path) as folder:
            save_file(dict(state), folder / WEIGHTS[0], metadata={"format": "pt"})
            described = {"model_cfg": dict(config), "preprocess_cfg": loaded.preprocessing.to_dict()}
            _write_json(folder / CONFIG, described)
            if config["text_cfg"].get("hf_tokenizer_name"):
                loaded.tokenizer.tokenizer.save_pretrained(folder)
            _write_json(folder / RECIPE, _recipe(made, folder))
    except (OSError, SafetensorError) as error:
        raise StorageError(
            f"{made.path} can't be written: {error}", hint="make room or give another folder"
        ) from error


def _recipe(made: Stretched, folder: Path) -> dict[str, Any]:
    return {
        "format": _FORMAT,
        "made_by": "search models stretch",
        "from": made.source,
        "fingerprint": made.fingerprint,
        "keep": made.keep,
        "ratio": made.ratio,
        "context_length": made.context_length,
        "files": sorted(path.name for path in folder.iterdir()),
    }


def _write_json(path: Path, document: Mapping[str, Any]) -> None:
    files.atomic_write(path, (json.dumps(document, indent=2) + "\n").encode())
