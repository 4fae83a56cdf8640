"""Interfaces that other programs' clients already speak.

clip_retrieval   what clip-retrieval's `back` answers to its ClipClient and its web page
immich           what immich's machine learning container answers to its server
fetching         pictures at addresses that clients send, where that was allowed
upstream         requests handed on as they came
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.routing import BaseRoute

    from search.web.options import ServeOptions


def routes(options: ServeOptions) -> list[BaseRoute]:
    """Return the routes of what was switched on."""
    found: list[BaseRoute] = []
    if options.clip_retrieval is not None:
        from search.web.compat import clip_retrieval

        found += clip_retrieval.routes(options.clip_retrieval)
    if options.immich is not None:
        from search.web.compat import immich

        found += immich.routes(options.immich)
    return found
