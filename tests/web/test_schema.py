"""Requests made of the OpenAPI document, thousands of them, right ones and wrong ones: `make test-slow`."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable

from search.web import ServeOptions, create_app

pytestmark = pytest.mark.slow

CASES = 150  # for each operation, of either kind


@pytest.fixture(scope="module")
def operations(library):
    """The operations by their names, as schemathesis reads them."""
    schemathesis = pytest.importorskip("schemathesis")
    app = create_app(library, ServeOptions(allowed_hosts=("testserver",)))
    schema = schemathesis.openapi.from_asgi("/api/openapi.json", app)
    return {found.ok().label: found.ok() for found in schema.get_all_operations()}


def failures(operation, mode, *, cases: int) -> list[str]:
    """Ask for an operation in many ways; return what of the answers is not as the document has it."""
    from schemathesis.checks import CHECKS
    from schemathesis.core.failures import Failure, FailureGroup

    # A query that asks for nothing, or a date that is none, is refused, and no schema could say so.
    [semantic] = [one for one in CHECKS.get_all() if one.__name__ == "positive_data_acceptance"]

    found: dict[str, str] = {}

    @settings(
        max_examples=cases,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(mode))
    def ask(case) -> None:
        try:
            case.call_and_validate(excluded_checks=[semantic])
        except (FailureGroup, Failure) as failed:
            for one in getattr(failed, "exceptions", [failed]):
                found.setdefault(type(one).__name__, f"{case.as_curl_command()}\n{one}")

    with contextlib.suppress(Unsatisfiable):  # there is nothing to ask wrongly where nothing can be told
        ask()
    return list(found.values())


@pytest.mark.parametrize("mode", ["positive", "negative"])
def test_whatever_is_asked_is_answered_as_the_document_has_it(operations, mode):
    from schemathesis import GenerationMode

    for operation in operations.values():
        assert failures(operation, GenerationMode(mode), cases=CASES) == [], operation.label
