"""The list of what was moved, in the folder it was moved to: a JSON document a line, before a file goes and after.

A line says `from` and `to`; those that follow for the same two say what became of it. The last one counts.
"""

from __future__ import annotations

import json
from pathlib import Path

from search.errors import StorageError
from search.files import append_line

NAME = "moved.jsonl"
BEGUN, DONE, FAILED, UNDOING, UNDONE = "begun", "done", "failed", "undoing", "undone"


class Moves:
    """One such list; what cannot be read of it was never written whole."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._states: dict[tuple[str, str], str] = {}
        content = path.read_bytes() if path.exists() else b""
        self._is_torn = bool(content) and not content.endswith(b"\n")
        for line in content.splitlines():
            try:
                said = json.loads(line)
                self._note((said["from"], said["to"]), _state(said))
            except (ValueError, TypeError, KeyError):
                continue

    def write(self, source: Path, place: Path, state: str) -> None:
        """Add a line; it is on the disk when this returns.   Raises StorageError."""
        said: dict[str, str | bool] = {"from": str(source), "to": str(place)}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            line = json.dumps(said if state == BEGUN else said | {state: True}).encode()
            append_line(self.path, b"\n" * self._is_torn + line)
        except OSError as error:
            hint = "what was moved before is there"
            raise StorageError(f"can't write to {self.path.parent}: {error.strerror}", hint=hint) from error
        self._is_torn = False
        self._note((str(source), str(place)), state)

    def state(self, source: Path, place: Path) -> str | None:
        """Return what became of a move, None if nothing is said of it."""
        return self._states.get((str(source), str(place)))

    def to_undo(self) -> list[tuple[Path, Path]]:
        """Return from where and to where files were moved that may still be there, the newest first."""
        kept = [pair for pair, state in self._states.items() if state not in (FAILED, UNDONE)]
        return [(Path(source), Path(place)) for source, place in reversed(kept)]

    def _note(self, pair: tuple[str, str], state: str) -> None:
        if state == BEGUN:
            self._states.pop(pair, None)
        self._states[pair] = state


def _state(said: dict[str, object]) -> str:
    return next((state for state in (DONE, FAILED, UNDOING, UNDONE) if said.get(state)), BEGUN)
