"""How long functions and files may be: bench/tree.py measures it, CONTRIBUTING.md says why."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LONGEST_FILE = {"library/__init__.py": 750}  # the doors of the public noun, with their words
"""Files of more than 600 lines, each with its limit."""


@pytest.fixture(scope="module")
def tree():
    spec = importlib.util.spec_from_file_location("tree", ROOT / "bench" / "tree.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture(scope="module")
def files(tree):
    return tree.read(ROOT / "search")


def test_functions_are_short_and_take_little(tree, files):
    functions = [function for file in files for function in file.functions]
    lines, parameters = [one.lines for one in functions], [one.parameters for one in functions]
    assert tree.percentile(lines, 0.5) <= 11
    assert tree.percentile(lines, 0.95) <= 35
    assert tree.percentile(parameters, 0.95) <= 5
    assert not [f"{one.file}: {one.name} has {one.lines} lines" for one in functions if one.lines > 80]


def test_files_are_rooms(files):
    limits = {file.path: LONGEST_FILE.get(file.path.as_posix(), 600) for file in files}
    assert not [f"{file.path} has {file.lines} lines" for file in files if file.lines > limits[file.path]]


def test_everything_is_typed(files):
    assert not [one for file in files for one in file.functions if one.typed < one.typeable]


def test_what_is_counted(tree, tmp_path):
    code = '''
def f(a: int, *, b=2):
    """Say something.

    In four lines.
    """
    # why
    return a


class C:
    @property
    def g(self) -> int:
        return 1
'''
    (tmp_path / "room").mkdir()
    (tmp_path / "room" / "one.py").write_text(code)
    [file] = tree.read(tmp_path)
    f, g = file.functions
    assert (f.name, f.lines, f.parameters, f.typed, f.typeable) == ("f", 3, 2, 1, 3)
    assert (g.name, g.lines, g.parameters, g.typed, g.typeable) == ("g", 2, 0, 1, 1)
    assert file.lines == 14
    assert tree.table([file])[1] == (
        *("`room/`", "1", "14", "14", "14", "2", "2", "3", "3"),
        *("0", "0", "2", "50.0 %"),
    )


@pytest.mark.parametrize(("part", "least"), [(0.5, 2), (0.95, 4), (0.25, 1), (0.75, 3)])
def test_a_percentile_is_the_least_value_that_so_many_do_not_pass(tree, part, least):
    assert tree.percentile([4, 1, 3, 2], part) == least
