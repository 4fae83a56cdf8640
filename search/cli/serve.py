"""search serve"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from typing import TYPE_CHECKING, Any

import click

from search.cli.compatible import compatible_of, compatible_options
from search.cli.options import (
    Number,
    Settings,
    as_command,
    completed_by,
    model_option,
    not_empty,
    trust_option,
)
from search.errors import SearchError, UsageError
from search.extras import how_to_add

if TYPE_CHECKING:
    from search.web.options import ServeOptions

_BACKLOG = 128


@as_command("serve")
@click.option("--host", default="127.0.0.1", show_default=True, callback=not_empty, help="Where to listen.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0: any that is free."
)
@click.option("--token", envvar="SEARCH_TOKEN", help="What everybody must know to get in. [env: SEARCH_TOKEN]")
@click.option("--other-users", is_flag=True, help="Without a token, answer other users of this machine, too.")
@click.option(
    "--allow-host",
    "allowed_hosts",
    multiple=True,
    metavar="NAME",
    callback=not_empty,
    help="A further name by which browsers may call this server.",
)
@click.option(
    "--max-upload", type=Number(min=0.001), default=32, show_default=True, metavar="MB", help="Refuse above."
)
@click.option(
    "--max-megapixels", type=Number(min=0.01), default=100, show_default=True, help="Refuse uploads above."
)
@click.option("--rate", type=Number(min=0.01), metavar="N", help="Requests a second from one address.")
@click.option(
    "--index-under",
    multiple=True,
    metavar="DIR",
    shell_complete=completed_by("folders"),
    callback=not_empty,
    help="Folders in it may be indexed by whoever is let in; may be given often.",
)
@compatible_options
@model_option
@trust_option
def command(
    settings: Settings,
    *,
    host: str,
    port: int,
    token: str | None,
    other_users: bool,
    allowed_hosts: tuple[str, ...],
    max_upload: float,
    max_megapixels: float,
    rate: float | None,
    index_under: tuple[str, ...],
    model: str,
    trust_checkpoint: str | None,
    **others: Any,
) -> None:
    """Answer over HTTP, on this machine alone and only you, unless told otherwise.

    Other machines reach it at --host 0.0.0.0, which needs a --token: open http://ADDRESS:8000/?token=TOKEN once, or
    send it as "Authorization: Bearer TOKEN". What there is to ask: http://127.0.0.1:8000/api/openapi.json.

    \b
    Example:
      search serve --port 8080
    """
    try:
        from search.web import ServeOptions, create_app, neighbours
        from search.web.connections import Server, config_of
    except ImportError:
        raise UsageError("serving needs Starlette and uvicorn", hint=how_to_add("web")) from None
    options = ServeOptions(
        host=host,
        port=port,
        token=token,
        other_users=other_users,
        allowed_hosts=allowed_hosts,
        max_upload_bytes=round(max_upload * 1e6),
        max_megapixels=max_megapixels,
        rate=rate,
        index_under=index_under,
        **compatible_of(settings, **others),
    )
    with _listening(options) as listener, settings.open_library(model, trust_checkpoint) as library:
        library.status()  # one that can't be opened is told now, not to whoever asks first
        app = create_app(library, options)
        _tell(settings, listener, library.catalog.shown)
        _tell_systemd()
        if options.is_for_one_user and not neighbours.can_tell():
            settings.talk("other users of this machine are answered, too; --token keeps them out")
        Server(config_of(app, backlog=_BACKLOG), ending=app.state.jobs.end).run(sockets=[listener])


def _listening(options: ServeOptions) -> socket.socket:
    """Return a socket that listens. Raises SearchError where it can't."""
    try:
        [(family, kind, protocol, _, address), *_] = socket.getaddrinfo(
            options.host, options.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise SearchError(f"can't listen at {options.host}: {error.strerror or error}") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        place = f"{options.host}, port {options.port}"
        raise SearchError(
            f"can't listen at {place}: {error.strerror}", hint="--port takes another, 0 any that is free"
        ) from error
    return listener


def _tell(settings: Settings, listener: socket.socket, library: str) -> None:
    """Say where it listens; the token is not shown to whoever looks over one's shoulder."""
    from search.cli.output import emit_json
    from search.documents import path_fields

    host, port = listener.getsockname()[:2]
    url = f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
    if settings.json:
        emit_json({"url": url, **path_fields(library, "library")})
        sys.stdout.flush()
    settings.talk(f"{library} answers at {url}; Ctrl-C ends it")


def _tell_systemd() -> None:
    """Say that it answers from now on, where that is waited for: sd_notify(3), to a path or an abstract socket.

    Whoever waited may be gone: a program inherits the name from any parent that was once told it.
    """
    if place := os.environ.get("NOTIFY_SOCKET"):
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.sendto(b"READY=1", place.replace("@", "\0", 1) if place.startswith("@") else place)
