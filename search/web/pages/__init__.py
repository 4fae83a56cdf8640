"""The pages that people see, made on the server; scripts only make them pleasant.

rendering   values → HTML: the one environment of templates, where everything is escaped
asked       an address → what is asked for, and the addresses beside it
searching   the page to search with
photo       a photo's own page
status      what the library holds, and folders brought in
labelling   labels: proposed, counted, taken back
reviewing   one question after the other
forms       what a form sent
statics     style sheet and scripts, under names that change with what is in them
"""

from __future__ import annotations

from starlette.routing import BaseRoute

from search.web.pages import labelling, photo, reviewing, searching, statics, status


def routes() -> list[BaseRoute]:
    """Return the routes of all pages."""
    return [
        *searching.routes(),
        *photo.routes(),
        *status.routes(),
        *labelling.routes(),
        *reviewing.routes(),
        *statics.routes(),
    ]
