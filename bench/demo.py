"""The demo: the commands a user types, on real photographs, with their answers.

    python bench/demo.py [--photos DIR] [--out DIR]

Without --photos the photographs that the wheels of scikit-image and scikit-learn carry are used.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

# Their other pictures are drawings, test charts and stacks.
PHOTOGRAPHS = {
    ("skimage", "data"): (
        "astronaut.png brick.png camera.png cell.png chelsea.png clock_motion.png coffee.png coins.png grass.png "
        "gravel.png horse.png hubble_deep_field.jpg ihc.png microaneurysms.png moon.png motorcycle_left.png "
        "motorcycle_right.png page.png retina.jpg rocket.jpg text.png"
    ),
    ("sklearn", "datasets/images"): "china.jpg flower.jpg",
}
QUERIES = ("a cat", "a rocket", "a temple", "a motorcycle", "a flower", "a brick wall", "grass", "a cup of coffee")

LABELS = ("person", "cat", "rocket", "temple", "motorcycle", "flower", "brick", "grass", "clock", "page")


def gather(folder: Path) -> Path:
    """Copy the photographs out of the installed wheels."""
    folder.mkdir(parents=True, exist_ok=True)
    for (package, inside), names in PHOTOGRAPHS.items():
        spec = find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            sys.exit(f"{package} is not installed: pip install scikit-image scikit-learn, or give --photos DIR")
        for name in names.split():
            shutil.copyfile(Path(spec.submodule_search_locations[0], inside, name), folder / name)
    return folder


def run(*command: str, to: Path | None = None) -> None:
    """Show a command as one would type it, run it, and stop at the first that fails."""
    shown = shlex.join(command) + (f" > {to}" if to else "")
    print(f"\n$ {shown}", flush=True)
    environment = {**os.environ, "SEARCH_OFFLINE": "1"}
    captured = subprocess.PIPE if to else None
    answer = subprocess.run([sys.executable, "-m", *command], check=True, stdout=captured, env=environment)
    if to:
        to.write_bytes(answer.stdout)


def installed_command() -> str:
    """Return how `search` is called here: the shell need not know the environment that it was installed into."""
    beside = Path(sys.executable).with_name("search")
    if shutil.which("search") or not beside.exists():
        return "search"
    return shlex.quote(os.path.relpath(beside) if Path.cwd() in beside.parents else str(beside))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", help="a folder of your own photos")
    parser.add_argument("--out", type=Path, default=Path("demo"), help="where library and contact sheet go")
    arguments = parser.parse_args()
    out = arguments.out
    shutil.rmtree(out / "library", ignore_errors=True)
    photos = arguments.photos or str(gather(out / "photos"))
    library = ("--library", str(out / "library"))
    queries, sheet = out / "queries.txt", out / "contact-sheet.html"
    out.mkdir(exist_ok=True)
    queries.write_text("\n".join(QUERIES) + "\n")

    run("search", "index", photos, "--model", "builtin", *library)
    run("search", "find", "a cat", "-k", "3", *library)
    run("search", "find", "--queries", str(queries), "-k", "3", *library)
    run("search", "label", *(part for label in LABELS for part in ("--label", label)), "-k", "3", *library)
    run("search", "find", "--queries", str(queries), "-k", "6", "--format", "html", *library, to=sheet)
    print(f"\nContact sheet: {sheet.resolve()}")
    print(f"In the browser: {installed_command()} -L {shlex.quote(str(out / 'library'))} serve")
    print(
        "The built-in model is small and often wrong: it is there to try things offline. For your own photos\n"
        f"leave --model out, and a real CLIP is fetched once: {installed_command()} index ~/Pictures\n"
        "Step by step: docs/tutorial.md"
    )


if __name__ == "__main__":
    main()
