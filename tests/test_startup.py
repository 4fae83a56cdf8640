"""Start-up is a feature: what a command does not need is not imported."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = {"numpy", "sqlalchemy", "alembic", "faiss", "torch", "open_clip", "PIL", "tqdm", "huggingface_hub"}


NOT_FOR_A_QUERY = {
    *("torch", "torchvision", "open_clip", "transformers", "sqlalchemy", "alembic", "PIL", "huggingface_hub"),
    *("tqdm", "platformdirs", "psutil", "email", "http", "ssl", "asyncio", "secrets", "tempfile", "sysconfig"),
    *("psycopg", "pymilvus", "grpc", "pandas"),
}


def modules_after(code: str) -> set[str]:
    """The top-level modules loaded once `code` has run in a fresh interpreter."""
    script = f"{code}\nimport json, sys\nprint(json.dumps(sorted({{name.split('.')[0] for name in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def after_command(*arguments: str) -> set[str]:
    return after_commands(list(arguments))


def after_commands(*commands: list[str]) -> set[str]:
    """What they load together, one after the other in one interpreter: what none of them may is not there."""
    runs = [f"cli.main({arguments!r}, standalone_mode=False)" for arguments in commands]
    return modules_after("\n".join(["from search.cli import cli", *runs]))


def test_help_imports_click_and_little_else():
    assert not after_command("--help") & HEAVY


def test_help_of_every_command_is_light():
    names = ("index", "find", "label", "status", "duplicates")
    assert not after_commands(*([name, "--help"] for name in names)) & HEAVY


def test_help_of_the_server_imports_none_of_it():
    web = {"starlette", "uvicorn", "anyio", "asyncio", "multipart", "python_multipart"}
    assert not after_command("serve", "--help") & (HEAVY | web)


def test_help_of_evaluations_draws_and_trains_nothing():
    heavy = HEAVY | {"matplotlib", "sklearn", "scipy"}
    commands = (["evaluate", "prompts"], ["evaluate", "probe"], ["train", "contrastive"], ["train", "probe"])
    assert not after_commands(*([*command, "--help"] for command in commands)) & heavy


def test_no_command_without_a_library_imports_click_and_little_else(tmp_path):
    assert not after_command("--library", str(tmp_path / "none")) & (HEAVY | {"sqlite3"})


def test_no_command_with_a_library_opens_neither_model_nor_index(library, album, tmp_path):
    library.index([album])
    loaded = after_command("--library", str(tmp_path / "library"))
    assert "sqlite3" in loaded
    assert not loaded & {"torch", "open_clip", "faiss", "sqlalchemy", "alembic", "PIL", "psutil", "openvino"}


def test_importing_the_package_is_light():
    assert not modules_after("import search") & HEAVY


def test_naming_an_encoder_loads_no_torch():
    assert not modules_after("from search import load_encoder") & {"torch", "open_clip", "numpy"}


def test_a_text_query_on_an_indexed_library_loads_no_torch(library, album, tmp_path):
    library.index([album])
    library.search("a red wall")  # the first query after a run notes that its index is whole
    where = ("--after", "2000", "--where", "has gps or megapixels < 12 and not camera:canon or label:cat")
    loaded = after_command("--library", str(tmp_path / "library"), "find", "a red wall", *where)
    assert {"numpy", "sqlite3"} <= loaded
    assert not loaded & NOT_FOR_A_QUERY


@pytest.mark.parametrize("kind", ["milvus-lite", "pgvector"])
def test_a_text_query_on_an_index_on_a_server_loads_no_torch(library, album, tmp_path, postgres, kind):
    url = f"milvus+file://{tmp_path}/twin.db" if kind == "milvus-lite" else postgres.uri(postgres.database())
    library.index([album])
    library.rebuild(index=url)
    library.search("a red wall")
    library.close()
    loaded = after_command("--library", str(tmp_path / "library"), "find", "a red wall", "--camera", "canon")
    clients = {"psycopg", "pymilvus"}
    assert loaded & clients == {"pymilvus" if kind == "milvus-lite" else "psycopg"}
    assert not loaded & {"torch", "torchvision", "open_clip", "transformers", "sqlalchemy", "alembic", "PIL"}


def test_labelling_photos_whose_vectors_are_known_loads_no_torch(library, album, tmp_path):
    library.index([album])
    place, photo = str(tmp_path / "library"), str(album / "day0" / "photo00.png")
    for arguments in (
        ["--label", "a wall"],
        [photo, "--labels", "everyday", "--multi", "--none-of-these"],
        ["--label", "a wall", "--apply"],
    ):
        loaded = after_command("--library", place, "label", *arguments)
        assert {"numpy", "sqlite3"} <= loaded
        assert not loaded & {"torch", "torchvision", "open_clip", "transformers"}


def test_a_probe_on_photos_whose_vectors_are_known_loads_no_torch(library, album, tmp_path):
    library.index([album])
    loaded = after_command("--library", str(tmp_path / "library"), "--quiet", "train", "probe", str(album))
    assert not loaded & {"torch", "torchvision", "open_clip", "transformers", "sklearn", "PIL"}


def test_status_and_an_index_run_with_nothing_new_load_no_model(library, album, tmp_path):
    library.index([album])
    given = ["--library", str(tmp_path / "library")]
    commands = (["status"], ["index", str(album)], ["show", "1"], ["skipped"], ["root", "list"], ["tags", "list"])
    loaded = after_commands(*([*given, *command] for command in commands))
    assert not loaded & {"torch", "open_clip", "faiss", "alembic", "sqlalchemy"}


def test_looking_for_duplicates_loads_no_model(library, album, tmp_path):
    library.index([album])
    loaded = after_command("--library", str(tmp_path / "library"), "duplicates", str(album))
    assert "imagehash" in loaded
    assert not loaded & {"torch", "open_clip", "transformers", "scipy", "sqlalchemy", "alembic"}


def test_masked_arrays_are_not_looked_for(library, album, tmp_path):
    """numpy's median imports them, which takes longer than a search."""
    library.index([album])
    code = f"from search import Library\nLibrary.open({str(tmp_path / 'library')!r}).search('a red wall')\n"
    script = f"{code}import sys\nassert 'numpy.ma' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, check=False).returncode == 0


def test_the_interpreter_ends_without_a_look_through_all_modules():
    """What it would look through is set aside: a tenth of a query's time."""
    code = (
        "import atexit, gc, sys\n"
        "atexit.register(lambda: print(gc.get_freeze_count() > 1000))\n"
        "from search.cli import main\nsys.argv = ['search', '--version']\nmain()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "True"


def test_an_index_run_with_nothing_new_loads_no_decoder(library, album, tmp_path):
    library.index([album])
    run = ["--library", str(tmp_path / "library"), "index", str(album)]
    code = f"from search.cli import cli\ncli.main({run!r}, standalone_mode=False)"
    names = "print({'PIL.Image', 'pi_heif', 'psutil', 'search.decoding.pool'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", f"{code}\nimport sys\n{names}"], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "set()"


def test_completing_a_label_of_the_library_loads_little(library, album, tmp_path):
    library.index([album])
    words = ["--library", str(tmp_path / "library"), "find", "--tag"]
    loaded = modules_after(
        f"from search.cli.completion import completing\ncompleting('bash').get_completions({words!r}, '')"
    )
    assert "sqlite3" in loaded
    assert not loaded & (NOT_FOR_A_QUERY | {"faiss"})
