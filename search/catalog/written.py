"""What the catalog remembers of the keywords in sidecars that are labels, not keywords of the photos' own."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from search.photos.keywords import alike, levels


def written_keywords(rows: Iterable[tuple[int, str]]) -> dict[int, set[str]]:
    """Return the keywords that we wrote, by photo, as `alike` has them.   rows: photo ids, `SidecarRow.tags`.

    Among them the bare name, which is all that some software keeps, and the folders that labels are in below the root
    of those nobody accepted. What the photo had by itself before is none.
    """
    found: dict[int, set[str]] = {}
    for id_, tags in rows:
        said = json.loads(tags)
        before = {alike(name) for name in said["existing"]}
        ours = {alike(name) for one in said["tags"] for name in _names(one)}
        found.setdefault(id_, set()).update(ours - before)
    return found


def _names(tag: dict[str, Any]) -> Iterator[str]:
    root, label = levels(tag["root"], "/"), levels(tag["label"], "/")
    whole = root + label
    yield from ("/".join(whole), *label[-1:])
    if root:
        yield from ("/".join(whole[:depth]) for depth in range(1, len(whole)))
