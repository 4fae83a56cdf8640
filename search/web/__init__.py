"""The library over HTTP: the REST interface below /api, and those of other programs where they are switched on.

options     ServeOptions: where it listens, what it lets through
guard       the middleware around everything: Host, origin, token, limits, headers
desk        the library and whose turn it is
api         the REST interface, a table of operations; openapi tells of the same table
working     its other half, which changes the library; folders: which of them may be indexed
jobs        long work, one at a time, done by a child process (worker)
uploads     a picture that was sent → pixels
problems    errors as they are told
compat      interfaces that clients of other programs speak
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from search.web.options import ServeOptions

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from search.library import Library

__all__ = ["ServeOptions", "create_app"]


def create_app(library: Library, options: ServeOptions | None = None) -> Starlette:
    """Return the application that answers for a library, which stays the caller's to close.

    `app.state` has what handlers need: `desk` (whose turn it is to ask the library), `uploads` and `options`.
    """
    from anyio import to_thread
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.middleware import Middleware

    from search.errors import SearchError
    from search.web import api, compat, table
    from search.web.desk import Desk
    from search.web.guard import Guard
    from search.web.jobs import Jobs
    from search.web.problems import handle
    from search.web.uploads import Uploads

    options = options or ServeOptions()
    desk = Desk(library)
    jobs = Jobs(library)
    uploads = Uploads(desk, max_megapixels=options.max_megapixels)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        await to_thread.run_sync(jobs.close)
        uploads.close()

    app = Starlette(
        routes=[*compat.routes(options), *api.routes(table.OPERATIONS)],
        middleware=[Middleware(Guard, options=options)],
        exception_handlers={SearchError: handle, HTTPException: handle},
        lifespan=lifespan,
    )
    app.state.desk, app.state.uploads, app.state.options, app.state.jobs = desk, uploads, options, jobs
    return app
