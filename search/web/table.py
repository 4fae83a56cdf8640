"""The one table of the REST interface: routes are made from it, and the OpenAPI document tells of it."""

from __future__ import annotations

from search.web import api, working

OPERATIONS = (*api.OPERATIONS, *working.OPERATIONS)
