"""search import immich"""

from __future__ import annotations

from typing import Any

from search.cli.import_.adopting import adopt, adopting, source_argument
from search.cli.options import Settings, as_command


@as_command("immich")
@source_argument()
@adopting
def command(settings: Settings, *, source: str, **options: Any) -> int:
    """Take over the photos and vectors of immich.

    SOURCE is a dump of its database in SQL, gzipped or not, as its own backups are, or the database's URL:
    postgresql://USER@HOST/immich, with pip install 'search[immich]'. Paths are those inside its container: --moved
    says where they are.

    immich encodes previews, so that its vectors agree less with the photos': --agreement 0.97 may be called for.

    \b
    Example:
      search import immich dump.sql.gz --moved /usr/src/app/upload /srv/immich
    """
    from search.interop.immich import open_source

    return adopt(settings, open_source(source), **options)
