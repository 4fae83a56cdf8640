"""Who may import whom, as data: rooms downwards only, third parties each in their room."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "search"

# A room may import rooms of lower layers; siblings only where the reason stands here.
LAYERS = (
    {
        *("types", "errors", "conditions", "documents", "tables", "resources", "failpoints", "files", "measures"),
        *("addresses", "extras", "mounts", "objects", "plurals", "postgresql"),
    },
    {"photos", "query", "grammar", "clauses", "where", "relevance", "diversity", "encoders", "vectors", "catalog"},
    {
        "adoption",
        "shards",
        "decoding",
        "indexer",
        "labels",
        "heads",
        "banks",
        "suggestions",
        "inspection",
        "generations",
        "live",
        "mirror",
        "duplicates",
    },
    {"library"},
    {"evaluate", "train", "interop", "engines"},
    {"cli", "web"},
)
SIBLINGS = {
    ("types", "conditions"),  # a filter holds a condition, a condition is one on a photo: types alone
    ("conditions", "types"),
    ("errors", "types"),  # what was compared goes with the refusal: a type alone
    ("documents", "types"),  # what it writes down; for their types alone
    ("types", "errors"),  # a filter that could not be meant is none
    ("conditions", "addresses"),  # how folders are named, and object storage
    ("objects", "addresses"),
    ("objects", "errors"),  # a place that can't be reached is one
    ("objects", "extras"),  # what a protocol needs may not be installed
    ("addresses", "errors"),  # and a name that could not be meant
    ("grammar", "query"),
    ("query", "grammar"),  # how it is written, where that is needed
    ("query", "vectors"),  # normalize(): dividing by a norm lives in one place
    ("adoption", "indexer"),  # it is a run over other software's photos
    ("adoption", "decoding"),
    ("shards", "indexer"),  # it is a run whose photos are encoded elsewhere
    ("shards", "adoption"),  # and finds the folders of photos that come with a list as that does
    ("shards", "decoding"),
    ("indexer", "decoding"),  # both have photos decoded by its children
    (
        "catalog",
        "photos",
    ),  # keywords: which of a file's are labels that we wrote is told as photos tells them apart
    ("labels", "decoding"),
    ("labels", "banks"),  # a label by itself is held against unrelated prompts
    ("train", "evaluate"),  # how data are read and a model is measured is the same before and after training
    ("cli", "web"),  # `search serve` starts it; web knows nothing of the command line
    ("live", "generations"),  # what an index starts from
    ("live", "mirror"),  # or what lies on a server, for its type
    ("mirror", "generations"),  # how many changes are worth writing down
}

THIRD_PARTIES = {
    "click": {"cli"},
    "tqdm": {"cli"},
    "starlette": {"web"},
    "anyio": {"web"},
    "jinja2": {"web/pages/rendering"},
    "uvicorn": {"web/connections"},
    "platformdirs": {
        "resources",
        "encoders/exports",
    },
    "sqlalchemy": {
        *("catalog/check", "catalog/damage", "catalog/engines", "catalog/jobs", "catalog/repair", "catalog/roots"),
        *(
            "catalog/doubts",
            "catalog/scan",
            "catalog/schema",
            "catalog/standing",
            "catalog/seals",
            "catalog/server",
            "catalog/transfer",
            "catalog/snapshot",
            "catalog/spares",
            "catalog/tagging",
        ),
        "catalog/transaction",
        *("catalog/upgrades", "catalog/writer"),
        "interop/immich",  # another program's database
        "catalog/storage",  # its types; what it imports at once is told below
    },
    "alembic": {"catalog/upgrades"},
    "psutil": {"mounts", "decoding/budget"},
    "faiss": {"vectors/scan", "vectors/coarse", "vectors/lists", "vectors/pairs", "vectors/flat"},
    "imagehash": {"photos/likeness"},
    "PIL": {"photos", "encoders/preprocessing", "encoders/__init__", "encoders/openclip", "encoders/openvino"}
    | {"train/samples"},
    "pi_heif": {"photos"},
    "rawpy": {"photos/raw"},
    "defusedxml": {"photos/xmp"},
    "matplotlib": {"cli/report/plots"},
    "sklearn": {"evaluate/probe"},
    "torch": {
        "encoders/blueprints",
        "encoders/openclip",
        "encoders/tuning",
        "encoders/exporting",
        "encoders/checkpoints",
        "encoders/foreign",
        "encoders/stretching",
        "encoders/torchvision_ops",
        "train",
    },
    "openvino": {"encoders/openvino"},
    "nncf": {"encoders/quantising"},
    "timm": {"encoders/tuning"},
    "torchvision": {"encoders/torchvision_ops"},
    "open_clip": {"encoders/blueprints", "encoders/checkpoints", "encoders/hub"},
    "safetensors": {
        "encoders/checkpoints",
        "encoders/foreign",
        "encoders/stretching",
        "train/checkpoints",
        "train/probe",
    },
    "pyarrow": {"train/samples", "interop", "shards/store"},
    "fsspec": {"objects"},
    "ray": {"engines"},
    "pymilvus": {"vectors/stores/milvus"},
    "psycopg": {"catalog/server", "vectors/stores/pgvector"},
    "scipy": {"heads"},
    "regex": {"encoders/tokens"},
    "tokenizers": {"encoders/foreign_tokens"},
    "ftfy": {"encoders/tokens"},
    "huggingface_hub": {"encoders/hub"},
    "numpy": {
        "types",
        "measures",
        "conditions",
        "photos",
        "query",
        "relevance",
        "diversity",
        "banks",
        "suggestions",
        "encoders",
        "vectors",
        "catalog",
        "decoding",
        "indexer",
        "labels",
        "heads",
        "generations",
        "live",
        "mirror",
        "duplicates",
        "adoption",
        "shards",
        "library",
        "evaluate",
        "train",
        "interop",
        "cli/report/plots",
        "web/compat/clip_retrieval",  # a vector that a client sends
        "web/querying",  # pictures that were sent, stacked for the model
    },
}

FILES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse((PACKAGE / path).read_text(encoding="utf-8"))


@cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(parsed(path)))


def imports(path: Path) -> Iterator[str]:
    """Every module a file imports, anywhere in it."""
    for node in nodes(path):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path} imports relatively"
            if node.module == "search":
                yield from (f"search.{alias.name}" for alias in node.names)
            else:
                yield node.module


def room(path: Path) -> str:
    return path.parts[0].removesuffix(".py")


def layer(name: str) -> int:
    return next(number for number, rooms in enumerate(LAYERS) if name in rooms)


INSIDE = [path for path in FILES if room(path) not in {"__init__", "__main__"}]


def may_import(here: str, there: str) -> bool:
    """Say whether a room may import another, or what the package's front has for its users."""
    if there not in set().union(*LAYERS):
        return here in {"cli", "web"}
    return here == there or layer(there) < layer(here) or (here, there) in SIBLINGS


def test_rooms_import_downwards_only():
    inside = [(path, module) for path in INSIDE for module in imports(path) if module.startswith("search.")]
    assert [
        f"{path} imports {module}" for path, module in inside if not may_import(room(path), module.split(".")[1])
    ] == []


def test_third_parties_stay_in_their_rooms():
    foreign = [
        (path, name)
        for path in FILES
        for name in {module.partition(".")[0] for module in imports(path)}
        if name not in sys.stdlib_module_names and name != "search"
    ]
    assert [
        f"{path} imports {name}"
        for path, name in foreign
        if not {room(path), str(path.with_suffix(""))} & THIRD_PARTIES.get(name, set())
    ] == []


def test_every_permission_is_made_use_of():
    """One that nobody needs any more would let in what nobody decided on."""
    third = {(str(path.with_suffix("")), module.partition(".")[0]) for path in FILES for module in imports(path)}
    allowed = {(place, name) for name, places in THIRD_PARTIES.items() for place in places}
    assert not {
        (place, name)
        for place, name in allowed
        if not any(name == found and f"{path}/".startswith(f"{place}/") for path, found in third)
    }
    inside = {(room(path), *module.split(".")[1:2]) for path in INSIDE for module in imports(path)}
    assert not SIBLINGS - inside


def names(statements: Iterator[ast.AST]) -> Iterator[str]:
    """The modules that import statements name."""
    for node in statements:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def at_once(path: Path) -> set[str]:
    """Every module that importing a file imports, of this package and of others, directly or not."""
    found: set[str] = set()
    waiting = [path]
    while waiting:
        file = waiting.pop()
        for name in names(ast.iter_child_nodes(parsed(file))):
            if name in found:
                continue
            found.add(name)
            inner = Path(*name.split(".")[1:])
            places = (inner.with_suffix(".py"), inner / "__init__.py") if name.startswith("search.") else ()
            waiting += [place for place in places if place in FILES]
    return found


# What a text query imports. None of it may import what only writing, servers or a whole model need.
QUERY_PATH = [
    *(
        "library/__init__.py",
        "library/answering.py",
        "library/texts.py",
        "library/model.py",
        "query.py",
        "conditions.py",
        "where.py",
        "grammar.py",
        "clauses.py",
        "relevance.py",
        "banks.py",
        "live.py",
        "mirror.py",
        "library/mirroring.py",
        "vectors/stored.py",
        "vectors/stores/__init__.py",
        "vectors/stores/milvus.py",
        "vectors/stores/pgvector.py",
        "generations/__init__.py",
        "cli/find.py",
        "cli/output.py",
    ),
    *("catalog/__init__.py", "catalog/reading.py", "catalog/copies.py", "catalog/lite.py", "catalog/storage.py"),
    *("catalog/tags.py", "library/tags.py", "library/importing.py"),
    *(
        "vectors/__init__.py",
        "vectors/minimum.py",
        "encoders/__init__.py",
        "encoders/recipes.py",
        "encoders/text.py",
    ),
]


def test_what_a_query_imports_imports_no_sqlalchemy():
    heavy = {"sqlalchemy", "alembic", "torch", "open_clip", "transformers", "PIL", "psutil", "huggingface_hub"}
    found = {path: heavy & {name.partition(".")[0] for name in at_once(Path(path))} for path in QUERY_PATH}
    assert {path: names for path, names in found.items() if names} == {}


def test_the_gate_sees_what_is_imported_by_what_is_imported():
    assert {"sqlalchemy", "search.catalog.schema"} <= at_once(Path("catalog/writer.py"))


def test_every_room_has_a_layer():
    for path in INSIDE:
        assert layer(room(path)) >= 0


def test_nothing_is_called_like_the_package():
    assert not list(PACKAGE.rglob("search.py"))
    for path in FILES:
        tree = parsed(path)
        assert "search" not in {
            node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)
        }


FORBIDDEN = (
    "weights_only=False",
    "pickle.load(",
    "allow_pickle=True",
    "jit.load(",
    "export.load(",
    "yaml.load(",
    "shell=True",
    "os.system",
    "LOAD_TRUNCATED_IMAGES = True",
)
RUN_BY_NAME = {"eval", "exec"}
WRITE_MODES = set("wxa+")
WRITERS = {
    "files": "the helper itself",
    "generations/writing": "written under a temporary folder's name, which is what gets renamed",
    "cli/completion": "a line added to a start file of the shell, which stays the file that it is",
    "catalog/lock": "the lock file: it belongs to the open file and is never replaced",
}


def test_untrusted_files_are_never_given_a_way_to_run_code():
    code = {path: "\n".join(ast.unparse(node) for node in parsed(path).body) for path in FILES}
    assert [f"{path}: {word}" for path in FILES for word in FORBIDDEN if word in code[path]] == []
    named = [(path, name) for path in FILES for name, call in calls(path) if isinstance(call.func, ast.Name)]
    assert [f"{path}: {name}" for path, name in named if name in RUN_BY_NAME] == []


def test_pickles_are_read_only_in_the_room_for_it_and_only_its_process_goes_there():
    """What runs there is bounded and cut off; the process that asks for it must not be the one that reads."""
    assert [str(path) for path in FILES if "pickle" in imports(path)] == ["encoders/foreign.py"]
    assert not [path for path in FILES if "search.encoders.foreign" in imports(path)]


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    """Every call of a plain name or a method in a file, by that name."""
    for node in nodes(path):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node.func.id, node
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            yield node.func.attr, node


def writes(name: str, call: ast.Call) -> bool:
    """Say whether a call puts a file on the disk in place, so that a crash would leave half of it."""
    if name in {"write_text", "write_bytes"}:
        return True
    modes = [
        node.value
        for node in (*call.args, *(keyword.value for keyword in call.keywords))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    return name == "open" and any(set(mode) <= set("rwxabt+") and set(mode) & WRITE_MODES for mode in modes)


def test_files_are_written_by_the_one_helper():
    others = [path for path in FILES if path.with_suffix("").as_posix() not in WRITERS]
    assert [
        f"{path}:{call.lineno}: {name}" for path in others for name, call in calls(path) if writes(name, call)
    ] == []


@pytest.mark.parametrize("code", ["open(p, 'w')", "p.open('xb')", "open(p, mode='r+')", "p.write_text('')"])
def test_the_gate_knows_a_write(code):
    call = ast.parse(code, mode="eval").body
    name = call.func.id if isinstance(call.func, ast.Name) else call.func.attr
    assert writes(name, call)


TELLS = {"engines"}  # Ray is told what to do by the environment alone


def talks(node: ast.AST) -> str:
    """Return the name by which a node prints, exits or asks the environment, empty if it does not."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return node.func.id if node.func.id in {"print", "exit", "input"} else ""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        name = f"{node.value.id}.{node.attr}"
        return name if name in {"sys.exit", "os.getenv", "os.environ"} else ""
    return ""


def test_the_core_neither_prints_nor_exits():
    core = [path for path in INSIDE if room(path) != "cli"]
    found = [(path, name) for path in core for node in nodes(path) if (name := talks(node))]
    assert [f"{path}: {name}" for path, name in found if not (name == "os.environ" and room(path) in TELLS)] == []
