from __future__ import annotations

import importlib

import pytest

import search


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
