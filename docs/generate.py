"""What the documentation shows of the code and of the measurements, written from them: `make docs`.

README.md                    the table of commands
docs/reference/commands.md   every command, from its help
docs/reference/rest.md       from the OpenAPI document that `search serve` hands out
docs/reference/python.md     the public names, from their signatures and docstrings
all of these pages           between `<!-- measured: TITLE -->` and `<!-- end of measured -->`, the first table below
                             the heading TITLE of bench/RESULTS.md or bench/ONCE.md, or "TITLE #2", the second
"""

from __future__ import annotations

from pathlib import Path

from docs.making.commands import commands_page, with_table
from docs.making.figures import measured_tables, with_figures
from docs.making.python import python_page
from docs.making.rest import rest_page
from search.files import atomic_write

ROOT = Path(__file__).parent.parent


def main() -> None:
    """Write everything that is made."""
    for path, text in written().items():
        atomic_write(path, text.encode())


def written() -> dict[Path, str]:
    """Return every file of the documentation that has something made in it, as it should be."""
    reference = ROOT / "docs" / "reference"
    texts = {path: path.read_text(encoding="utf-8") for path in [ROOT / "README.md", *ROOT.glob("docs/**/*.md")]}
    texts[ROOT / "README.md"] = with_table(texts[ROOT / "README.md"])
    figures = measured_tables(ROOT)
    texts = {path: with_figures(text, figures) for path, text in texts.items() if "<!-- " in text}
    return texts | {
        reference / "commands.md": commands_page(),
        reference / "rest.md": rest_page(),
        reference / "python.md": python_page(),
    }


if __name__ == "__main__":
    main()
