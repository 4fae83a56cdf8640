"""How long PostgreSQL is waited for, by the catalog and by an index alike."""

from __future__ import annotations

from typing import Any

# A server or a network that went away without a word is noticed within a minute or so, on either side.
PATIENCE: dict[str, Any] = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
"""What libpq is told of a connection: seconds, and milliseconds of the last."""
