"""What the documentation shows of the code and of the measurements, written from them: `make docs`.

README.md                    the table of commands
docs/reference/commands.md   every command, from its help
docs/reference/rest.md       from the OpenAPI document that `search serve` hands out
docs/reference/python.md     the public names, from their signatures and docstrings
all of these pages           between `<!-- measured: TITLE -->` and `<!-- end of measured -->`, the first table below
                             the heading TITLE of bench/RESULTS.md or bench/ONCE.md
"""

from __future__ import annotations

import enum
import functools
import inspect
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import click

import search
from search.cli import cli
from search.cli.options import EXIT_CODES
from search.errors import UsageError
from search.files import atomic_write

ROOT = Path(__file__).parent.parent
MADE = "<!-- made by `make docs`: what stands here is changed in the code -->"
BEGIN, END = "<!-- commands: made by `make docs` -->", "<!-- end of commands -->"
_MEASURED = re.compile(r"(<!-- measured: (.+?) -->\n).*?(<!-- end of measured -->)", re.DOTALL)

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


def main() -> None:
    """Write everything that is made."""
    for path, text in written().items():
        atomic_write(path, text.encode())


def written() -> dict[Path, str]:
    """Return every file of the documentation that has something made in it, as it should be."""
    reference = ROOT / "docs" / "reference"
    texts = {path: path.read_text(encoding="utf-8") for path in [ROOT / "README.md", *ROOT.glob("docs/**/*.md")]}
    texts[ROOT / "README.md"] = with_table(texts[ROOT / "README.md"])
    figures = measured_tables()
    texts = {path: with_figures(text, figures) for path, text in texts.items() if "<!-- " in text}
    return texts | {
        reference / "commands.md": commands_page(),
        reference / "rest.md": rest_page(),
        reference / "python.md": python_page(),
    }


def _table(*columns: str, rows: Iterable[tuple[str, ...]]) -> str:
    """Return a Markdown table, its cells on one line each."""
    head, *lines = [f"| {' | '.join(_cell(cell) for cell in line)} |\n" for line in (columns, *rows)]
    return "".join([head, "|---" * len(columns), "|\n", *lines])


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|")


# ---- commands


def command_table() -> str:
    """Return a Markdown table of every command and what it does."""
    rows = ((f"`search {name}`", command.get_short_help_str(200)) for name, command in commands())
    return _table("command", "what it does", rows=rows)


def with_table(text: str) -> str:
    """Return a document with the table of commands between its two marks replaced."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{command_table()}\n{END}{after}"


def commands() -> list[tuple[str, click.Command]]:
    """Return every command by its full name, sub-commands in place of their group."""
    context = click.Context(cli)
    found = []
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        if isinstance(command, click.Group):
            inside = (
                (inner, command.get_command(context, inner)) for inner in sorted(command.list_commands(context))
            )
            found += [(f"{name} {inner}", one) for inner, one in inside if one]
        elif command:
            found.append((name, command))
    return found


def commands_page() -> str:
    """Return the reference of all commands: usage, what each does, options, examples."""
    context = click.Context(cli, info_name="search")
    shared = [option for option in cli.get_params(context) if isinstance(option, click.Option)]
    codes = ((str(code), meaning) for code, meaning in EXIT_CODES.items())
    parts = [
        f"# Commands\n\n{MADE}\n",
        "`search --help` and `search COMMAND --help` say the same.\n",
        "## Everywhere\n\nThese stand before or after a command's name.\n",
        _options(shared, context),
        "## Exit codes\n",
        _table("code", "is", rows=codes),
    ]
    known = {option.name for option in shared}
    return "\n".join([*parts, *(_command(name, command, known) for name, command in commands())])


def _command(name: str, command: click.Command, shared: set[str | None]) -> str:
    context = click.Context(command, info_name=f"search {name}")
    about, examples = _help(command)
    own = [one for one in command.params if isinstance(one, click.Option) and one.name not in shared]
    usage = " ".join([f"search {name}", *command.collect_usage_pieces(context)])
    parts = [f"## search {name}\n", f"    {usage}\n", about, f"```sh\n{examples}\n```\n"]
    return "\n".join([*parts, _options(own, context)] if own else parts)


def _help(command: click.Command) -> tuple[str, str]:
    """Return what a command's help says, and its examples."""
    about, _, examples = inspect.cleandoc(command.help or "").partition("\b\nExample")
    lines = examples.splitlines()[1:]
    return about.replace("\b\n", "").strip() + "\n", inspect.cleandoc("\n".join(lines))


def _options(options: Iterable[click.Option], context: click.Context) -> str:
    rows = []
    for option in options:
        if record := option.get_help_record(context):
            named = f" [environment: {option.envvar}]" if option.envvar else ""
            rows.append((f"`{record[0]}`", record[1] + named))
    return _table("option", "what it says", rows=rows)


# ---- the REST interface


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
        _table("status", "is", rows=sorted(_problems(asked))),
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
        parts.append(_table("parameter", "is", "what it says", rows=rows))
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
    return _table(column, "is", "what it says", rows=rows)


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
    return _table("address", "with", "what it does", rows=rows)


# ---- Python


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


# ---- measurements


def measured_tables() -> dict[str, str]:
    """Return every measured table by its title."""
    paths = (ROOT / "bench" / "RESULTS.md", ROOT / "bench" / "ONCE.md")
    return tables_in("".join(path.read_text(encoding="utf-8") for path in paths if path.exists()))


def tables_in(text: str) -> dict[str, str]:
    """Return the first table below each heading, by the heading, with and without the command in brackets behind it."""
    tables: dict[str, str] = {}
    for section in re.split("^##+ ", text, flags=re.MULTILINE)[1:]:
        title, _, below = section.partition("\n")
        if found := re.search(r"(?:^\|.*\n)+", below, re.MULTILINE):
            tables[title.strip()] = tables[re.sub(r" \(`.*", "", title.strip())] = found[0]
    return tables


def with_figures(text: str, tables: Mapping[str, str]) -> str:
    """Return a document with every measured table in it as it was measured. Raises UsageError for an unknown one."""

    def table(found: re.Match[str]) -> str:
        if found[2] not in tables:
            raise UsageError(f"no measurement is called {found[2]!r}", hint="its heading is in bench/RESULTS.md")
        return f"{found[1]}\n{tables[found[2]]}\n{found[3]}"

    return _MEASURED.sub(table, text)


if __name__ == "__main__":
    main()
