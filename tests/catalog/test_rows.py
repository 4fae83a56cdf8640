from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.catalog.rows import is_unit, pack_vector, to_bytes, to_path, unpack_vectors

names = st.binary(min_size=1, max_size=60).filter(
    lambda name: not set(name) & {0, ord("/")} and name not in (b".", b"..")
)


@given(st.lists(names, min_size=1, max_size=4))
def test_any_name_survives(parts):
    place = b"/".join(parts)
    path = to_path(b"/root", place)
    assert os.fsencode(path) == b"/root/" + place
    assert to_bytes(os.path.relpath(path, "/root")) == place


def test_a_vector_is_kept_to_half_precision_and_bound_to_its_place():
    vector = np.float32([0.6, -0.8, 1e-3])
    blob, crc = pack_vector(vector, 7, 1)
    np.testing.assert_allclose(unpack_vectors([blob], 3)[0], vector, rtol=2**-11)
    assert (
        len({crc, pack_vector(vector, 8, 1)[1], pack_vector(vector, 7, 2)[1], pack_vector(-vector, 7, 1)[1]}) == 4
    )


@pytest.mark.parametrize(
    ("numbers", "dim", "is_one"),
    [
        ([0.6, -0.8], 2, True),
        ([0.6, -0.8], 3, False),
        ([0.6, 0.6], 2, False),
        ([np.nan, 1], 2, False),
        ([], 0, False),
    ],
)
def test_a_vector_has_as_many_numbers_as_its_model_says_and_the_length_of_one(numbers, dim, is_one):
    assert is_unit(np.array(numbers, "<f2").tobytes(), dim) is is_one
