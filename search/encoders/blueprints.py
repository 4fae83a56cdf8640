"""A model's name → an open_clip model, its weights loaded and checked: where each source keeps what is needed."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import importlib.util
import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.nn import init
from torch.overrides import TorchFunctionMode

from search.encoders import checkpoints, unknown_name
from search.encoders.hub import (
    CONFIG,
    TOKENIZER,
    WEIGHTS,
    Fetcher,
    first_line,
    known_sha256,
    no_network,
    tag_files,
    url_sha256,
)
from search.encoders.preprocessing import Preprocessing
from search.encoders.torchvision_ops import ensure_torchvision
from search.errors import CheckpointError, ModelError, SearchError
from search.extras import how_to_add
from search.files import stat_of

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what third parties deprecate among themselves is nothing to act on here
    ensure_torchvision()
    import open_clip
    from open_clip.factory import get_model_config
    from open_clip.pretrained import get_pretrained_cfg

__all__ = ["Loaded", "describe", "draw", "load", "open_clip", "pretrained_tags"]

_QUICKGELU = "-quickgelu"
_WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pth", ".pt")
_TOKENIZER_OPTIONS = frozenset({"clean", "strip_sep_token", "language"})
_LOCAL = "local-dir:"  # open_clip's word
_SEE_LIST = "`search models list --all` shows what there is"


@dataclass(frozen=True, slots=True)
class Blueprint:
    """All that is needed to build an encoder, its files already on this machine.

    config, preprocess: open_clip's model_cfg and preprocess_cfg.   state: the weights, where they had to be
    read to know the architecture.   pin: the SHA-256 that where they come from gives them, or how it begins.
    tokenizer: what open_clip.get_tokenizer takes; "" is CLIP's own.   described: the file that config is from.
    """

    name: str
    config: dict[str, Any]
    preprocess: Mapping[str, Any]
    weights: Path
    tokenizer: str = ""
    pin: str = ""
    identified: checkpoints.Weights | None = None
    state: checkpoints.State | None = None
    described: Path | None = None


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model in float32 with its weights in it, and what it was made of.

    tensors: a safetensors file with the weights, if there is one.   files: what must not change for the same name
    to mean the same model.   stated: size and time that weights and tokenizer had before they were read.
    """

    model: Any
    tokenizer: Any
    name: str
    fingerprint: str
    config: Mapping[str, Any]
    preprocessing: Preprocessing
    weights: Path
    sha256: str
    tensors: Path | None
    files: tuple[Path, ...]
    stated: Mapping[str, Mapping[str, int]]


def load(source: str, identifier: str, *, fetcher: Fetcher) -> Loaded:
    """Build a model of one of the sources that `search.encoders.parse_name` tells apart, and load its weights.

    Raises as `search.encoders.load_encoder`.
    """
    blueprint = _BLUEPRINTS[source](identifier, fetcher)
    _require_usable(blueprint)
    spelled = _stated_tokenizer(blueprint)
    tokenizer = _tokenizer(blueprint, fetcher)
    model = _model(blueprint, fetcher)
    weights = blueprint.identified or _identify(blueprint.weights, fetcher, blueprint.pin)
    state = checkpoints.read_state_dict(weights) if blueprint.state is None else blueprint.state
    checkpoints.load_strict(model, state, weights.path)
    preprocessing = Preprocessing.from_dict(blueprint.preprocess, size=model.visual.image_size)
    return Loaded(
        model,
        tokenizer,
        name=blueprint.name,
        fingerprint=_fingerprint(blueprint, weights, preprocessing),
        config=blueprint.config,
        preprocessing=preprocessing,
        weights=weights.path,
        sha256=weights.sha256,
        tensors=weights.tensors,
        files=(weights.path, *((blueprint.described,) if blueprint.described else ())),
        stated={str(weights.path): weights.stated} | spelled,
    )


def describe(architecture: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return model_cfg and preprocess_cfg of an architecture by open_clip's name or of a JSON file of its layout.

    Raises ModelError.
    """
    file = Path(architecture).expanduser()
    if file.suffix == ".json":
        described = _read_config(file, bare=True)
        return described["model_cfg"], described["preprocess_cfg"]
    config = get_model_config(architecture)
    if config is None:
        near = difflib.get_close_matches(architecture, open_clip.list_models())
        hint = f"did you mean {' or '.join(near)}?" if near else "a file's name ends with .json"
        raise ModelError(f"open_clip has no architecture {architecture!r}", hint=hint)
    return config, {}


def draw(config: Mapping[str, Any], *, name: str, fetcher: Fetcher) -> tuple[Any, Any]:
    """Build a model of a model_cfg with random weights, drawn from torch's generator, and its tokenizer.

    name: what errors call it.   Raises as `load`.
    """
    blueprint = Blueprint(name, dict(config), {}, Path(), name)
    _require_usable(blueprint)
    return _model(blueprint, fetcher, drawn=True), _tokenizer(blueprint, fetcher)


def pretrained_tags() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield every architecture and tag open_clip knows, with the tag's configuration."""
    for arch, tag in open_clip.list_pretrained():
        if get_model_config(arch) is not None:
            yield arch, tag, get_pretrained_cfg(arch, tag)


# one blueprint for each source


def _builtin(_: str, fetcher: Fetcher) -> Blueprint:
    from search.resources import data_path

    return _folder(str(data_path("builtin")), fetcher, name="builtin")


def _folder(path: str, _: Fetcher, *, name: str = "") -> Blueprint:
    folder = Path(path)
    if not (folder / CONFIG).is_file():
        raise ModelError(f"{folder} is no model folder: it has no {CONFIG}")
    config = _read_config(folder / CONFIG)
    weights = _weights_in(folder)
    return Blueprint(
        name or f"dir:{folder}",
        config["model_cfg"],
        config["preprocess_cfg"],
        weights,
        f"{_LOCAL}{folder}",
        described=folder / CONFIG,
    )


def _hub(repo: str, fetcher: Fetcher) -> Blueprint:
    described = fetcher.file(repo, CONFIG)
    config = _read_config(described)
    weights = fetcher.file(repo, *WEIGHTS)
    name = f"hf-hub:{repo}"
    return Blueprint(name, config["model_cfg"], config["preprocess_cfg"], weights, name, described=described)


def _open_clip(identifier: str, fetcher: Fetcher) -> Blueprint:
    arch, _, pretrained = identifier.partition("/")
    config = get_model_config(arch)
    if config is None:
        raise unknown_name(identifier, [f"{arch}/{tag}" for arch, tag, _ in pretrained_tags()])
    file = Path(pretrained).expanduser().absolute()
    if tag := get_pretrained_cfg(arch, pretrained):
        if tag.get("quick_gelu"):
            config["quick_gelu"] = True  # open_clip warns and computes with the wrong activation
        hub = bool(tag.get("hf_hub"))
        weights = fetcher.file(*_hub_place(tag)) if hub else fetcher.url(tag["url"])
        pin = "" if hub else url_sha256(tag["url"])
        return Blueprint(f"{arch}/{_clean(pretrained)}", config, tag, weights, arch, pin)
    if file.is_file():
        return Blueprint(f"{arch}/{file}", config, {}, file, arch)
    raise _unknown_tag(arch, pretrained)


def _openai(path: str, fetcher: Fetcher) -> Blueprint:
    weights = _identify(Path(path), fetcher)
    return _from_shapes(f"clip:{path}", checkpoints.read_state_dict(weights), weights)


def _long_clip(path: str, fetcher: Fetcher) -> Blueprint:
    weights = _identify(Path(path), fetcher)
    state = checkpoints.merge_long_positions(checkpoints.read_state_dict(weights), weights.path)
    return _from_shapes(f"longclip:{path}", state, weights)


def _from_shapes(name: str, state: checkpoints.State, weights: checkpoints.Weights) -> Blueprint:
    """The shapes are the file's word: they must agree among themselves before memory is given to them."""
    file = weights.path
    config = checkpoints.openai_config(state, file)
    try:
        with torch.device("meta"):
            expected = open_clip.CLIP(**deepcopy(config)).state_dict()
    except (RuntimeError, ValueError, AssertionError) as error:  # torch's own limits: sizes beyond 64 bits
        raise CheckpointError(f"{file} describes no model that can be built: {first_line(error)}") from None
    checkpoints.require_shapes(expected, state, file)
    return Blueprint(name, config, {}, file, identified=weights, state=state)


_BLUEPRINTS: dict[str, Callable[[str, Fetcher], Blueprint]] = {
    "builtin": _builtin,
    "open_clip": _open_clip,
    "hf-hub": _hub,
    "dir": _folder,
    "clip": _openai,
    "longclip": _long_clip,
}


def _read_config(path: Path, *, bare: bool = False) -> dict[str, Any]:
    """Return open_clip_config.json with model_cfg and preprocess_cfg in it.

    bare: the file may be a model_cfg alone.

    Raises ModelError, which names the file, if it can't be read or they are not what open_clip writes.
    """
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} can't be read: {error}") from None
    if bare and isinstance(config, dict) and "model_cfg" not in config:
        config = {"model_cfg": config}
    model = config.get("model_cfg") if isinstance(config, dict) else None
    kinds = {"embed_dim": int, "vision_cfg": dict, "text_cfg": dict}
    if not isinstance(model, dict) or not all(isinstance(model.get(key), kind) for key, kind in kinds.items()):
        raise ModelError(f"{path} describes no model: it needs model_cfg with embed_dim, vision_cfg and text_cfg")
    for owner, key in ((config, "preprocess_cfg"), (model["text_cfg"], "tokenizer_kwargs")):
        if not isinstance(owner.get(key), dict | None):
            raise ModelError(f"{path} can't be used: {key} is no object")
    preprocess = config.get("preprocess_cfg") or {}
    try:
        Preprocessing.from_dict(preprocess)
    except ModelError as error:
        raise ModelError(f"{path} can't be used: {error.message}") from None
    return {"model_cfg": model, "preprocess_cfg": preprocess}


def _weights_in(folder: Path) -> Path:
    for name in WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    found = sorted(path for path in folder.iterdir() if path.suffix in _WEIGHT_SUFFIXES)
    if len(found) == 1:
        return found[0]
    seen = f"several weights files: {', '.join(path.name for path in found)}" if found else "no weights"
    raise ModelError(f"{folder} has {seen}", hint=f"call the file to use {WEIGHTS[0]} or {WEIGHTS[1]}")


def _hub_place(tag: Mapping[str, Any]) -> tuple[str, ...]:
    repo, candidates = tag_files(tag["hf_hub"])
    return repo, *candidates


def _unknown_tag(arch: str, pretrained: str) -> ModelError:
    if pretrained.endswith(_WEIGHT_SUFFIXES) or "/" in pretrained:
        return ModelError(f"{pretrained} is no file, and no tag of {arch} either", hint=_SEE_LIST)
    base = arch.removesuffix(_QUICKGELU)
    if base != arch and get_pretrained_cfg(base, pretrained):
        return ModelError(f"{pretrained} was not trained with QuickGELU", hint=f"its name is {base}/{pretrained}")
    tags = open_clip.list_pretrained_tags_by_model(arch)
    near = difflib.get_close_matches(_clean(pretrained), tags, n=3, cutoff=0.3) or tags[:3]
    nearest = f"did you mean {' or '.join(f'{arch}/{tag}' for tag in near)}? " if near else ""
    return ModelError(f"open_clip has no weights {pretrained!r} for {arch}", hint=nearest + _SEE_LIST)


def _clean(tag: str) -> str:
    return tag.lower().replace("-", "_")  # as open_clip writes its tags


# from a blueprint to a model


def _require_usable(blueprint: Blueprint) -> None:
    """Refuse what the configuration may not ask for, before anything acts on it."""
    text = blueprint.config["text_cfg"]
    options = text.get("tokenizer_kwargs") or {}
    if strange := options.keys() - _TOKENIZER_OPTIONS:  # trust_remote_code would run the folder's own code
        raise ModelError(f"{blueprint.name} asks for tokenizer options we don't pass on: {sorted(strange)}")
    if _uses_transformers(text) and importlib.util.find_spec("transformers") is None:
        raise ModelError(f"{blueprint.name} needs transformers", hint=how_to_add("huggingface"))


def _uses_transformers(text: Mapping[str, Any]) -> bool:
    return bool(text.get("hf_model_name") or text.get("hf_tokenizer_name"))


def _stated_tokenizer(blueprint: Blueprint) -> dict[str, Mapping[str, int]]:
    """Return size and time of a folder's tokenizer.json, by path; empty where the model's tokenizer is another."""
    if not blueprint.config["text_cfg"].get("hf_tokenizer_name") or not blueprint.tokenizer.startswith(_LOCAL):
        return {}
    file = Path(blueprint.tokenizer.removeprefix(_LOCAL)) / TOKENIZER
    return {str(file): stat_of(file)} if file.is_file() else {}


def _tokenizer(blueprint: Blueprint, fetcher: Fetcher) -> Any:
    text = blueprint.config["text_cfg"]
    hugging_face = bool(text.get("hf_tokenizer_name"))
    if hugging_face:
        make = partial(open_clip.get_tokenizer, blueprint.tokenizer, trust_remote_code=False)
    else:
        options = text.get("tokenizer_kwargs") or {}
        make = partial(open_clip.SimpleTokenizer, context_length=text.get("context_length", 77), **options)
    try:
        if hugging_face and not blueprint.tokenizer.startswith(_LOCAL):
            return fetcher.local_first(make)
        with no_network():
            return make()
    except SearchError:
        raise
    except Exception as error:  # a tokenizer's files are input too; what they break with is transformers' matter
        raise ModelError(f"the tokenizer of {blueprint.name} can't be read: {first_line(error)}") from None


def _model(blueprint: Blueprint, fetcher: Fetcher, *, drawn: bool = False) -> Any:
    """Build the architecture with room for the weights, and nothing in it yet, unless they are drawn."""
    build = partial(_build, blueprint.config, drawn=drawn)
    try:
        if blueprint.config["text_cfg"].get("hf_model_name"):  # transformers looks up the tower's configuration
            return fetcher.local_first(build)
        with no_network():
            return build()
    except SearchError:
        raise
    except Exception as error:  # the configuration is input; open_clip and timm have no one error for a bad one
        raise ModelError(
            f"open_clip can't build {blueprint.name} from its configuration: {first_line(error)}"
        ) from None


def _build(config: Mapping[str, Any], *, drawn: bool = False) -> Any:
    """As open_clip.create_model chooses classes, but never with the weights of a tower alone."""
    config = dict(deepcopy(config))
    config["vision_cfg"]["timm_model_pretrained"] = False
    config["text_cfg"]["hf_model_pretrained"] = False
    custom = config.pop("custom_text", False) or "hf_model_name" in config["text_cfg"]
    kind = open_clip.CLIP
    if custom:
        kind = open_clip.CoCa if "multimodal_cfg" in config else open_clip.CustomTextCLIP
    with contextlib.nullcontext() if drawn else _Unfilled():
        return kind(**config)


class _Unfilled(TorchFunctionMode):
    """Skips drawing random weights: strict loading overwrites them all, and drawing takes the most time."""

    _DRAWS = frozenset(
        {torch.Tensor.normal_, torch.Tensor.uniform_, torch.Tensor.erfinv_}
        | {init.normal_, init.uniform_, init.trunc_normal_, init.kaiming_uniform_, init.kaiming_normal_}
        | {init.xavier_uniform_, init.xavier_normal_}
    )

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if func not in self._DRAWS:
            return func(*args, **given)
        return args[0] if args else given["tensor"]


def _identify(path: Path, fetcher: Fetcher, pin: str = "") -> checkpoints.Weights:
    """Hash the weights, which their fingerprint takes at every start anyway, and compare with all that is known."""
    pins = [known for known in (fetcher.trust_checkpoint, pin, known_sha256(path)) if known]
    return checkpoints.identify(path, pins=pins, cache=fetcher.cache)


def _fingerprint(blueprint: Blueprint, weights: checkpoints.Weights, preprocessing: Preprocessing) -> str:
    """Hash what decides the vectors; keys that only say where towers' first weights come from don't."""
    config = deepcopy(blueprint.config)
    config["vision_cfg"].pop("timm_model_pretrained", None)
    config["text_cfg"].pop("hf_model_pretrained", None)
    config["quick_gelu"] = bool(config.get("quick_gelu"))
    described = json.dumps([config, preprocessing.to_dict()], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256((weights.sha256 + described).encode()).hexdigest()
