"""Named moments at which tests may end the process or let something fail; in use, each costs one look at a variable.

`reach` stands where a crash would be worst: between the steps that make a change durable. Nothing outside tests
arms anything.
"""

from __future__ import annotations

from collections.abc import Callable

NAMES = (
    "index.scanned",  # the walk is over, nothing written yet
    "index.recognised",  # moves are committed, nobody is gone yet
    "index.marked",  # the next files are in flight
    "index.encoded",  # vectors are there, not committed
    "index.committed",  # the batch is acknowledged
    "commit.sealed",  # everything is written, not committed
    "publish.written",  # the generation's files are durable under their temporary name
    "publish.renamed",  # the generation has its name, the catalog does not know it
    "publish.switched",  # the catalog knows it, the old ones are still there
    "sidecars.remembered",  # the catalog knows what is about to be written beside photos
    "sidecars.replaced",  # one of these files is written
    "compact.purged",  # old tombstones are gone, the catalog not yet compacted
    "upgrade.backed_up",  # the copy is there, the schema still old
    "upgrade.migrated",  # the schema is new, not committed
    "transfer.compared",  # every row of a library is in its new place, not committed
    "repair.backed_up",  # the copy is there, nothing repaired
    "repair.restored",  # repaired, not committed
    "train.stepped",  # the weights have changed, nothing of it is saved
    "train.saving",  # a checkpoint is written under its temporary name
    "train.placing",  # the new model is whole, the old one's description gone, nothing moved
)
"""Every failpoint that exists."""

_armed: Callable[[str], None] | None = None


def arm(action: Callable[[str], None] | None) -> None:
    """Call `action` with the name of every failpoint reached from now on; None disarms."""
    global _armed
    _armed = action


def reach(name: str) -> None:
    """Mark that the program is at this point."""
    if _armed is not None:
        _armed(name)
