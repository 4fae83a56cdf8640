"""The REST interface, from the OpenAPI document that `search serve` hands out."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from docs.making.markdown import MADE, table


def rest_page() -> str:
    """Return the reference of the REST interface: what can be asked, and what comes back."""
    from search.web.openapi import document

    described = document()
    asked = [(path, method, one) for path, those in described["paths"].items() for method, one in those.items()]
    always = set.intersection(*({code for code in one["responses"] if code >= "4"} for _, _, one in asked))
    parts = [
        f"# REST\n\n{MADE}\n",
        f"{described['info']['description']} `GET /api/openapi.json` tells a program the same as this page;"
        " [serve.md](../how-to/serve.md) has examples, who is let in, and what is worth knowing.\n",
        "Every `GET` answers 304 for what the caller has already. What is no answer is a [Problem](#problem):"
        f" {', '.join(sorted(always))} of anything, others where they are named.\n",
        table("status", "is", rows=sorted(_problems(asked))),
        *(_operation(path, method, one, always) for path, method, one in asked),
        "# What is sent\n",
        *(_schema(name, schema) for name, schema in described["components"]["schemas"].items()),
        "# Interfaces of other programs\n\nThey are there where `search serve` was told so.\n",
        _compatible(),
    ]
    return "\n".join(parts)


def _problems(asked: Iterable[tuple[str, str, Mapping[str, Any]]]) -> set[tuple[str, str]]:
    answers = (answer for _, _, one in asked for answer in one["responses"].items())
    return {(code, answer["description"]) for code, answer in answers if code >= "4"}


def _operation(path: str, method: str, one: Mapping[str, Any], always: set[str]) -> str:
    codes = {code: answer for code, answer in one["responses"].items() if code not in {*always, "304"}}
    good = [f"{code}: {_media(answer)}" for code, answer in codes.items() if code < "3"]
    bad = [code for code in codes if code >= "4"]
    parts = [f"## {method.upper()} {path}\n", f"{one['summary']}\n"]
    if one["parameters"]:
        rows = ((f"`{p['name']}`", _kind(p["schema"]), p.get("description", "")) for p in one["parameters"])
        parts.append(table("parameter", "is", "what it says", rows=rows))
    if body := one.get("requestBody"):
        parts.append(f"Body: {', '.join(f'`{kind}`' for kind in body['content'])}.\n")
        parts.append(_fields("in the body", body["content"]["application/json"]["schema"]))
    return "\n".join([*parts, f"Answers {', '.join(good)}{' · ' if bad else ''}{', '.join(bad)}\n"])


def _media(answer: Mapping[str, Any]) -> str:
    content = answer["content"]
    return (
        _kind(content["application/json"]["schema"])
        if list(content) == ["application/json"]
        else ", ".join(content)
    )


def _schema(name: str, schema: Mapping[str, Any]) -> str:
    shown = _fields("field", schema) if "properties" in schema else "A JSON object.\n"
    return f"## {name}\n\n{shown}"


def _fields(column: str, schema: Mapping[str, Any]) -> str:
    rows = ((f"`{name}`", _kind(one), one.get("description", "")) for name, one in schema["properties"].items())
    return table(column, "is", "what it says", rows=rows)


def _kind(schema: Mapping[str, Any]) -> str:
    """Return what a value must be, in words."""
    if name := schema.get("$ref", "").rpartition("/")[2]:
        return f"[{name}](#{name.lower()})"
    if "enum" in schema:
        return " or ".join(f"`{one}`" for one in schema["enum"])
    if "properties" in schema:
        of = ", ".join(f"`{name}`" for name in schema["properties"])
        return f"{of}{' or null' if 'null' in schema['type'] else ''}"
    if schema["type"] == "array":
        most = f", {schema['maxItems']} at most" if "maxItems" in schema else ""
        return f"list of {_kind(schema['items'])}{most}"
    kinds = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
    bounds = f", {schema['minimum']} to {schema['maximum']}" if "maximum" in schema else ""
    default = f", else `{str(schema['default']).lower()}`" if "default" in schema else ""
    return f"{' or '.join(kinds)}{bounds}{default}"


def _compatible() -> str:
    from search.web.compat import clip_retrieval, immich
    from search.web.options import ClipRetrieval, Immich

    routes = [("--clip-retrieval", one) for one in clip_retrieval.routes(ClipRetrieval())]
    routes += [("--immich", one) for one in immich.routes(Immich())]
    rows = (
        (f"`{'POST' if 'POST' in one.methods else 'GET'} {one.path}`", f"`{switch}`", inspect.getdoc(one.endpoint))
        for switch, one in routes
    )
    return table("address", "with", "what it does", rows=rows)
