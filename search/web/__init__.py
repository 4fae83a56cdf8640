"""The library over HTTP: the REST interface below /api, and those of other programs where they are switched on.

options     ServeOptions: where it listens, what it lets through
guard       the middleware around everything: Host, origin, token, limits, headers
connections, neighbours   connections with an end to each wait; which user of this machine is behind one
desk        the library and whose turn it is
api         the REST interface, a table of operations; openapi tells of the same table
working     its other half, which changes the library; folders: which of them may be indexed
reviews     reviews of labels that are under way
jobs        long work, one at a time, done by a child process (worker)
uploads     a picture that was sent → pixels
thumbnails  a photo → a small picture, kept
problems    errors as they are told
pictures    pictures to search by, as long as someone may
pages       what people see in a browser
compat      interfaces that clients of other programs speak
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from search.web.options import ServeOptions

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.routing import BaseRoute

    from search.library import Library

__all__ = ["ServeOptions", "create_app"]


def create_app(library: Library, options: ServeOptions | None = None) -> Starlette:
    """Return the application that answers for a library, which stays the caller's to close.

    `app.state` has what handlers need: `desk` (whose turn it is to ask the library), `uploads`, `thumbnails`,
    `pictures`, `jobs`, `reviews` and `options`.
    """
    from anyio import to_thread
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.middleware import Middleware

    from search.errors import SearchError
    from search.web.desk import Desk
    from search.web.guard import Guard
    from search.web.jobs import Jobs
    from search.web.pictures import Pictures
    from search.web.problems import handle
    from search.web.reviews import Reviews
    from search.web.thumbnails import Thumbnails
    from search.web.uploads import Uploads

    options = options or ServeOptions()
    desk = Desk(library)
    reviews = Reviews()
    jobs = Jobs(library, ended=lambda _: reviews.forget())
    uploads = Uploads(desk, max_megapixels=options.max_megapixels)
    thumbnails = Thumbnails(library, most_bytes=options.max_thumbnail_bytes)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        await to_thread.run_sync(jobs.close)
        uploads.close()
        thumbnails.close()

    app = Starlette(
        routes=_routes(options),
        middleware=[Middleware(Guard, options=options)],
        exception_handlers={SearchError: handle, HTTPException: handle},
        lifespan=lifespan,
    )
    app.state.desk, app.state.uploads, app.state.options, app.state.jobs = desk, uploads, options, jobs
    app.state.thumbnails, app.state.pictures, app.state.reviews = thumbnails, Pictures(), reviews
    return app


def _routes(options: ServeOptions) -> list[BaseRoute]:
    from search.web import api, compat, pages, pictures, table, thumbnails

    return [
        *compat.routes(options),
        *api.routes(table.OPERATIONS),
        *pages.routes(),
        *pictures.routes(),
        *thumbnails.routes(),
    ]
