"""What a request asks, out of its address or its JSON: checked against the schema that the OpenAPI document shows."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from starlette.datastructures import QueryParams

from search.web.problems import Problem

Schema = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Parameter:
    """One thing that can be asked for; in an address it is repeated where its schema is an array."""

    name: str
    schema: Schema
    about: str
    default: Any = field(default=None)

    @property
    def is_many(self) -> bool:
        return bool(self.schema["type"] == "array")


def of_address(query: QueryParams, parameters: Sequence[Parameter]) -> dict[str, Any]:
    """Return the value of every parameter by its name. Raises Problem for what is unknown, wrong or there twice."""
    known = {parameter.name: parameter for parameter in parameters}
    given: dict[str, Any] = {}
    for name in query:
        if name not in known:
            _refuse(name, "is not known here")
        texts = query.getlist(name)
        if known[name].is_many:
            given[name] = [_value(name, text, known[name].schema["items"]) for text in texts]
        elif len(texts) > 1:
            _refuse(name, "is there more than once")
        else:
            given[name] = _value(name, texts[0], known[name].schema)
    return _checked(given, known)


def of_document(text: bytes, parameters: Sequence[Parameter]) -> dict[str, Any]:
    """Return the value of every parameter out of a JSON object. Raises Problem."""
    try:
        document = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError):  # UnicodeDecodeError is a ValueError, and so is a number of 5,000 digits
        raise Problem(400, "The body is no JSON.") from None
    if not isinstance(document, dict):
        raise Problem(400, "The body is no JSON object.")
    known = {parameter.name: parameter for parameter in parameters}
    for name in document:
        if name not in known:
            _refuse(name, "is not known here")
    return _checked({name: value for name, value in document.items() if value is not None}, known)


def _checked(given: Mapping[str, Any], known: Mapping[str, Parameter]) -> dict[str, Any]:
    for name, value in given.items():
        check(name, value, known[name].schema)
    blank: dict[str, Any] = {name: [] if one.is_many else one.default for name, one in known.items()}
    return {**blank, **given}


def check(name: str, value: object, schema: Schema) -> None:
    """Raise Problem unless a value is as a schema has it; of JSON Schema, what is used here."""
    kind = schema["type"]
    if not _IS[kind](value):
        _refuse(name, f"is no {kind}")
    if isinstance(value, str):
        _check_text(name, value, schema)
    elif isinstance(value, list):
        if len(value) > schema.get("maxItems", math.inf):
            _refuse(name, f"is there more than {schema['maxItems']} times")
        for one in value:
            check(name, one, schema["items"])
    elif isinstance(value, int | float) and not isinstance(value, bool):
        low, high = schema.get("minimum", -math.inf), schema.get("maximum", math.inf)
        if not low <= value <= high:
            _refuse(name, f"is not between {low} and {high}")


_IS = {
    "string": lambda value: isinstance(value, str),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "boolean": lambda value: isinstance(value, bool),
    "array": lambda value: isinstance(value, list),
}


def _check_text(name: str, text: str, schema: Schema) -> None:
    if not schema.get("minLength", 0) <= len(text) <= schema.get("maxLength", math.inf):
        _refuse(name, f"is not {schema.get('minLength', 0)} to {schema['maxLength']} characters long")
    if "pattern" in schema and not re.fullmatch(schema["pattern"].removeprefix("^").removesuffix("$"), text):
        _refuse(name, "is not written as it should be")
    if any("\ud800" <= char <= "\udfff" for char in text) or "\0" in text:
        _refuse(name, "has characters in it that are none")


def _value(name: str, text: str, schema: Schema) -> object:
    """Return what a text in an address stands for in JSON."""
    kind = schema["type"]
    if kind == "boolean" and text in ("true", "false"):
        return text == "true"
    if kind == "integer" and re.fullmatch("-?[0-9]{1,18}", text):
        return int(text)
    if kind == "number" and re.fullmatch(r"-?[0-9]{1,18}(\.[0-9]{1,18})?([eE][-+]?[0-9]{1,3})?", text):
        return float(text)
    if kind == "string":
        return text
    return _refuse(name, f"is no {kind}")


def _no_number(text: str) -> NoReturn:
    raise ValueError(text)


def _refuse(name: str, why: str) -> NoReturn:
    shown = name.encode("ascii", "replace").decode()[:40]
    raise Problem(400, f"{shown} {why}.", more={"parameter": shown})
