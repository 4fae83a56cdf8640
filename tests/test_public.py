from __future__ import annotations

import importlib

import pytest

import search
from search import types


def test_public_names_are_sorted_and_complete():
    assert search.__all__ == sorted(search.__all__)
    assert set(search.__all__) == set(search._HOMES)
    assert set(search.__all__) <= set(dir(search))


@pytest.mark.parametrize("name", search.__all__)
def test_every_public_name_is_the_one_at_home(name):
    value = getattr(search, name)
    assert value is getattr(importlib.import_module(search._HOMES[name]), name)
    assert value.__doc__


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'nothing'"):
        _ = search.nothing


def test_values_are_at_home_where_their_index_says():
    """Three lists name each: for type checkers, for readers, and for who imports it."""
    assert set(types.__all__) == {name for names in types._HOMES.values() for name in names}
    for module, names in types._HOMES.items():
        home = importlib.import_module(f"search.types.{module}")
        assert all(getattr(types, name) is getattr(home, name) for name in names)
        own = {name for name, value in vars(home).items() if getattr(value, "__module__", "") == home.__name__}
        assert own <= set(names)
    with pytest.raises(AttributeError, match="'Nothing'"):
        _ = types.Nothing
