"""Storage that is reached over a network: whatever fsspec speaks to, asked a few times and then no more.

Credentials and end points come from where each protocol's own tools have them (AWS_ENDPOINT_URL, ~/.aws): nothing of
them passes through here.
"""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from search.addresses import check_no_password, is_remote, protocol
from search.errors import SourceAway, UsageError
from search.extras import how_to_add

T = TypeVar("T")

HERE = ("memory",)
"""Protocols that open no network connection."""

_DELAYS_S = (0.2, 1.0, 3.0)  # before a second, third and fourth try
_CONNECT_S, _READ_S = 5, 30

# Chains, archives and copies: what they reach is somewhere else, and some run what they are told.
_REFUSED = (
    *("asynclocal", "async_wrapper", "blockcache", "cached", "dask", "data", "dir", "dirfs", "file", "filecache"),
    *("generic", "git", "jupyter", "libarchive", "local", "reference", "simplecache", "tar", "zip"),
)

# An answer, not a failure to get one: asking again gives the same.
_ANSWERS = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, NotImplementedError)
_HOPELESS = ("NoCredentialsError", "PartialCredentialsError", "NoRegionError", "ParamValidationError")
# Of who asks, not of what is asked for: no other object would be given either.
_NOBODY = (
    *("AccountProblem", "ExpiredToken", "InvalidAccessKeyId", "InvalidSecurity", "NotSignedUp"),
    *("RequestTimeTooSkewed", "SignatureDoesNotMatch"),
)

# Its own tries and waits would come on top of those here, and add up to minutes.
_OPTIONS: dict[str, dict[str, Any]] = {
    "s3": {
        "config_kwargs": {
            "connect_timeout": _CONNECT_S,
            "read_timeout": _READ_S,
            "retries": {"total_max_attempts": 1, "mode": "standard"},
        }
    }
}
_lock = threading.Lock()


def reach(url: str) -> tuple[Any, str]:
    """Return the file system (fsspec's) of an address, and the address as that has it; no connection is made yet.

    Raises UsageError for a protocol that nothing here speaks, and for an address with a password.
    """
    check_no_password(url)
    with _lock:
        files = _file_system(protocol(url), os.getpid())
    return files, files._strip_protocol(url)


@functools.cache
def _file_system(name: str, _pid: int) -> Any:
    """What a process opened is of no use to its children."""
    if name in _REFUSED:
        raise UsageError(f"{name}:// is no address of photos", hint="name local files by their path")
    try:
        import fsspec
    except ImportError:
        raise UsageError(f"{name}:// needs fsspec", hint=how_to_add("s3")) from None
    try:
        files = fsspec.filesystem(
            name, use_listings_cache=False, skip_instance_cache=True, **_OPTIONS.get(name, {})
        )
    except Exception as error:  # each file system raises its own where it needs more than an address
        hint = f"s3:// needs {how_to_add('s3')}"
        raise UsageError(f"{name}:// can't be opened: {error}", hint=hint) from None
    if hasattr(files, "retries"):
        files.retries = 1
    return files


def forget() -> None:
    """Let go of all connections; the next ones are made as the environment is then."""
    _file_system.cache_clear()


def check_permitted(url: str, *, offline: bool) -> None:
    """Raise SourceAway for an address that can't be reached without a network, where none may be used."""
    if offline and is_remote(url) and protocol(url) not in HERE:
        raise SourceAway(f"{url} is not looked at", hint="--offline opens no connection")


def asked(url: str, call: Callable[[], T]) -> T:
    """Return what a call of a file system does, asked up to four times within seconds.

    Raises FileNotFoundError, PermissionError; SourceAway where no answer came.
    """
    for delay_s in (*_DELAYS_S, None):
        try:
            return call()
        except _ANSWERS as error:
            if _code(error) in _NOBODY:
                said = f"{url} lets nobody in: {_said(error)}"
                raise SourceAway(said, hint="credentials may have expired") from error
            raise
        except Exception as error:  # what reaches a server raises whatever it likes
            if delay_s is None or type(error).__name__ in _HOPELESS:
                raise SourceAway(
                    f"{url} can't be reached: {_said(error)}",
                    hint="what is done is kept; once it is there again, the same command does the rest",
                ) from error
            time.sleep(delay_s)
    raise AssertionError


def _code(error: Exception) -> str:
    """Return what S3 calls an error, "" for any other."""
    response = getattr(error.__cause__, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""


def _said(error: Exception) -> str:
    own = isinstance(error, OSError) and error.strerror
    return " ".join((own or f"{type(error).__name__}: {error}").split())[:200]
