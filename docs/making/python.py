"""The public names of the package, from their signatures and docstrings."""

from __future__ import annotations

import enum
import functools
import inspect
import re
import textwrap
from collections.abc import Iterable, Iterator
from importlib import import_module
from itertools import pairwise
from typing import Any

import search
from docs.making.markdown import MADE

BESIDE = (
    "search.library.tags.Tags",
    "search.query.Term",
    "search.query.Kind",
    "search.labels.Label",
    "search.types.LabelScore",
    "search.types.PhotoInfo",
    "search.shards.run.ShardOptions",
    "search.engines.RayOptions",
    "search.web.ServeOptions",
)
"""What public names take and give, which is imported from where it is at home."""


class _Bare(str):
    """An annotation that is shown without quotes."""

    __repr__ = str.__str__


def python_page() -> str:
    """Return the reference of the public names: signatures and docstrings."""
    names = [(name, getattr(search, name)) for name in search.__all__]
    names.sort(key=lambda one: one[0] != "Library")
    beside = [at.rpartition(".") for at in BESIDE]
    _, drawn, after = (import_module("search.errors").__doc__ or "").split("\n\n")
    parts = [
        f"# Python\n\n{MADE}\n",
        f"```py\n{inspect.cleandoc((search.__doc__ or '').partition(chr(10))[2])}\n```\n",
        *(_name(name, value) for name, value in names),
        "# Beside them\n\nWhat these take and give, from the modules it is at home in.\n",
        *(_name(name, getattr(import_module(home), name), home=home) for home, _, name in beside),
        f"# Errors\n\nAll are in `search.errors`. {after.strip()}\n\n```text\n{textwrap.dedent(drawn)}\n```\n",
    ]
    return "\n".join(parts)


def _name(name: str, value: Any, *, home: str = "") -> str:
    """Return all there is to say of a class or a function.   home: the module to import it from, if not `search`."""
    imported = f"`from {home} import {name}`\n\n" if home else ""
    parts = [f"## {name}\n\n{imported}{_shown(name, value)}"]
    if inspect.isclass(value):
        parts += [_shown(f"{name}.{inner}", one, heading="### ") for inner, one in _members(value)]
    return "\n".join(parts)


def _members(class_: type) -> Iterator[tuple[str, Any]]:
    """Yield methods and properties that say what they are for."""
    for name, value in vars(class_).items():
        if not name.startswith("_") and inspect.isfunction(_function(value)) and inspect.getdoc(value):
            yield name, value


def _function(value: Any) -> Any:
    """Return what a method, class method or property runs."""
    for at in ("__func__", "fget", "func"):
        value = getattr(value, at, value)
    return value


def _shown(name: str, value: Any, *, heading: str = "") -> str:
    title = f"{heading}{name.rpartition('.')[2]}\n\n" if heading else ""
    about = _listed(inspect.getdoc(value) or "", _given(value))
    return f"{title}```py\n{_signature(name, value)}\n```\n\n{about}\n"


def _given(value: Any) -> list[str]:
    """Return the names of what is given to a function, or of the fields of a class."""
    return [] if isinstance(value, property | enum.EnumType) else [*inspect.signature(_function(value)).parameters]


def _listed(about: str, names: Iterable[str]) -> str:
    """Return a docstring with an item for each parameter it explains, and paragraphs for what stands apart in it."""
    name = f"(?:{'|'.join(names)})"
    items = re.sub(rf"(?:\n*^|   )({name}(?:, {name})*): ", r"\n- `\1`: ", about, flags=re.MULTILINE)
    return re.sub(r"(?<=\S)   (?=\S)|(?<=\.)\n(?=[A-Z])", "\n\n", items)


def _signature(name: str, value: Any) -> str:
    """Return how something is called, or read where it is a property."""
    function = _function(value)
    if isinstance(value, enum.EnumType):
        return "\n".join(f'{name}.{one.name} = "{one.value}"' for one in value)
    if getattr(value, "_is_protocol", False):
        return f"class {name}(Protocol)"
    signature = inspect.signature(function)
    given = [one.replace(annotation=_Bare(one.annotation)) for one in signature.parameters.values()]
    returned = _Bare(signature.return_annotation)
    if isinstance(value, property | functools.cached_property):
        return f"{name}: {returned}"
    if "." in name:
        given = given[1:]
    arrow = "" if inspect.isclass(value) else f" -> {returned}"
    return _folded(name, [*_starred(given)], arrow)


def _starred(given: list[inspect.Parameter]) -> Iterator[str]:
    """Yield parameters as they are written, with the mark before those that are named."""
    keyword = inspect.Parameter.KEYWORD_ONLY
    for before, one in pairwise([None, *given]):
        if one.kind is keyword and (before is None or before.kind is not keyword):
            yield "*"
        yield re.sub(r"<(\w+\.\w+): [^>]+>|<factory>", lambda found: found[1] or "...", str(one))


def _folded(name: str, given: list[str], arrow: str) -> str:
    """Return a call on one line, or of a line for each parameter."""
    line = f"{name}({', '.join(given)}){arrow}"
    return line if len(line) <= 100 else "\n".join([f"{name}(", *(f"    {one}," for one in given), f"){arrow}"])
