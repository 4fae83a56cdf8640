"""search import rclip"""

from __future__ import annotations

from typing import Any

from search.cli.import_.adopting import adopt, adopting, source_argument
from search.cli.options import Settings, as_command


@as_command("rclip")
@source_argument()
@adopting
def command(settings: Settings, *, source: str, **options: Any) -> int:
    """Take over the photos and vectors of rclip.

    SOURCE is its db.sqlite3, or the folder that it is in. rclip does not turn photos that lie on their side: they are
    encoded here.

    \b
    Example:
      search import rclip ~/.local/share/rclip
    """
    from search.interop.rclip import RclipDatabase

    return adopt(settings, RclipDatabase(source), **options)
