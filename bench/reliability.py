"""What interruptions cost here and in rclip: killed runs, a folder that is away for a while, broken files, company.

    python bench/reliability.py [--photos 1000]

rclip's code runs as it comes (bench/rivals.py); its weights are replaced by a random projection of the same shape, and
a counter stands around the call of its model. Both programs index the same files.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from rivals import RCLIP, environment, lay_out, onnx_python
from stopwatch import Figure, save_figures

# The same inputs and outputs as ViT-B-32-256's halves.
WEIGHTS = """
import sys
import numpy as np
from onnx import TensorProto, helper, numpy_helper, save

def model(path, kind, shape, before, width):
    weights = np.random.default_rng(0).standard_normal((width, 512)).astype(np.float32)
    nodes = [*before, helper.make_node("MatMul", ["flat", "w"], ["output"])]
    graph = helper.make_graph(
        nodes, "m",
        [helper.make_tensor_value_info("input", kind, shape)],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["n", 512])],
        [numpy_helper.from_array(weights, "w")],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)

pool = helper.make_node("AveragePool", ["input"], ["pooled"], kernel_shape=[32, 32], strides=[32, 32])
flat = helper.make_node("Flatten", ["pooled"], ["flat"])
cast = helper.make_node("Cast", ["input"], ["flat"], to=TensorProto.FLOAT)
model(sys.argv[1] + "/visual.onnx", TensorProto.FLOAT, ["n", 3, 256, 256], [pool, flat], 192)
model(sys.argv[1] + "/textual.onnx", TensorProto.INT64, ["n", 77], [cast], 77)
"""

# Both programs as they are; each batch that a model has encoded adds a line to a file.
COUNTED_SEARCH = """
import os, sys
from search.cli import main
from search.library import Library
from search.library.model import LibraryModel
counts = os.open(os.environ["COUNTS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
load = LibraryModel.load
def counting(self, name):
    encoder = load(self, name)
    encode = encoder.encode_images
    def counted(images):
        vectors = encode(images)
        os.write(counts, b"%d\\n" % len(images))
        return vectors
    encoder.encode_images = counted
    return encoder
LibraryModel.load = counting
main()
"""

COUNTED_RCLIP = """
import os, sys
from rclip import main, model
counts = os.open(os.environ["COUNTS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
encode = model.Model.compute_preprocessed_image_features
def counted(self, images, **named):
    features = encode(self, images, **named)
    os.write(counts, b"%d\\n" % len(images))
    return features
model.Model.compute_preprocessed_image_features = counted
main.main()
"""


@dataclass
class Run:
    """A finished run: exit code, images given to the model, how many photos a search named, what was said."""

    code: int
    encoded: int = 0
    found: int = 0
    errors: str = ""


class Counts:
    """How many images a program's model has encoded, over all its runs."""

    def __init__(self, work: Path) -> None:
        self.counts = work / "counts"
        self.before = 0

    def count(self) -> int:
        return sum(map(int, self.counts.read_text().split())) if self.counts.exists() else 0


class Ours(Counts):
    """Search, with its built-in model."""

    name = "search"

    def __init__(self, work: Path, photos: Path) -> None:
        super().__init__(work)
        self.library, self.photos = work / "library", photos

    def start(self) -> subprocess.Popen[str]:
        self.before = self.count()
        return self._start("index", self.photos, "--model", "builtin", "--json")

    def finish(self, process: subprocess.Popen[str]) -> Run:
        _, errors = process.communicate()
        return Run(process.returncode, self.count() - self.before, errors=errors)

    def run(self) -> Run:
        """Index, then search."""
        done = self.finish(self.start())
        out, errors = self._start(
            "find", "a photo", "-k", "1000", "--min-relevance", "0", "--format", "paths"
        ).communicate()
        done.found, done.errors = len(out.splitlines()), done.errors + errors
        return done

    def kept(self) -> int:
        """Photos with finished vectors, as a search finds them."""
        if not (self.library / "catalog.db").exists():
            return 0
        out, _ = self._start("status", "--json").communicate()
        return int(json.loads(out).get("photos", 0)) if out else 0

    def names(self, path: Path) -> str:
        out, _ = self._start("skipped", "--json").communicate()
        return "yes" if path.name in out else "no"

    def _start(self, *words: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", COUNTED_SEARCH, "--library", str(self.library), *map(str, words)]
        environment = {**os.environ, "COUNTS": str(self.counts)}
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )


class Rclip(Counts):
    """rclip, with a data folder of its own."""

    name = RCLIP.replace("==", " ")

    def __init__(self, work: Path, photos: Path, *, weights: Path) -> None:
        super().__init__(work)
        self.python, self.data, self.photos = environment("rclip", [RCLIP]), work / "rclip", photos
        lay_out(self.data, weights)

    def start(self) -> subprocess.Popen[str]:
        self.before = self.count()
        return subprocess.Popen(
            [str(self.python), "-c", COUNTED_RCLIP, "a photo", "--top", "1000", "--filepath-only"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.photos,
            env={**os.environ, "RCLIP_DATADIR": str(self.data), "COUNTS": str(self.counts)},
        )

    def finish(self, process: subprocess.Popen[str]) -> Run:
        out, errors = process.communicate()
        return Run(process.returncode, self.count() - self.before, len(out.splitlines()), errors)

    def run(self) -> Run:
        """Index and search: rclip does both in one."""
        return self.finish(self.start())

    def kept(self) -> int:
        if not (self.data / "db.sqlite3").exists():
            return 0
        with closing(sqlite3.connect(self.data / "db.sqlite3")) as connection:
            [[count]] = connection.execute("SELECT count(*) FROM images WHERE deleted IS NULL").fetchall()
        return int(count)

    def names(self, path: Path) -> str:
        return "no list"


Program = Ours | Rclip


def make_photos(folder: Path, count: int) -> list[Path]:
    """Write JPEGs of noise, each different."""
    folder.mkdir(parents=True)
    paths = [folder / f"{number:05}.jpg" for number in range(count)]
    for number, path in enumerate(paths):
        noise = np.random.default_rng(number).integers(0, 256, (12, 16, 3), np.uint8)
        Image.fromarray(noise).resize((640, 480), Image.Resampling.BICUBIC).save(path, quality=85)
    return paths


def interrupted(program: Program, number: signal.Signals) -> tuple[str, str, str]:
    """End a first index when half of the photos are encoded; what is kept, and what the next run encodes."""
    half = len(list(program.photos.iterdir())) // 2
    process = program.start()
    while program.count() < half and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(number)
    encoded = program.finish(process).encoded
    return str(encoded), str(program.kept()), str(program.run().encoded)


def away(program: Program) -> tuple[str, str, str]:
    """Let the folder be empty for one run: what a search finds meanwhile and after, what is encoded again."""
    program.run()
    aside = program.photos.with_name("aside")
    program.photos.rename(aside)
    program.photos.mkdir()
    meanwhile = program.run()
    program.photos.rmdir()
    aside.rename(program.photos)
    back = program.run()
    return str(meanwhile.found), str(back.found), str(back.encoded)


def broken(program: Program, path: Path) -> tuple[str, str, str]:
    """Cut one photo in half: whether the run goes on, what it makes of the file, and whether it is remembered."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    run = program.run()
    made = "searched as it is, half grey" if program.kept() == len(list(program.photos.iterdir())) else "left out"
    return str(run.code), made, program.names(path)


def company(program: Program) -> tuple[str, str, str]:
    """Start two at the same time: how they end, images given to the models, what is there."""
    first, second = program.start(), program.start()
    ended = []
    for process in (first, second):
        _, errors = process.communicate()
        last = errors.strip().splitlines()[-1:] if process.returncode else []
        said = last[0].replace(str(program.photos.parent), "…") if last else ""
        ended.append(f"{process.returncode}" + (f" ({said[:60]})" if said else ""))
    return ", ".join(ended), str(program.count()), str(program.kept())


def random_weights(folder: Path) -> Path:
    """Write the two halves of a model that costs nothing."""
    folder.mkdir()
    subprocess.run([onnx_python(), "-c", WEIGHTS, folder], check=True)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=1000)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures, too")
    arguments = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # shells make jobs in the background ignore it
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        weights = random_weights(work / "weights")
        originals = work / "originals"
        make_photos(originals, arguments.photos)
        columns = [probe(work / kind.__name__, originals, kind, weights) for kind in (Ours, Rclip)]
        table(arguments.photos, columns)
        save_figures(arguments.json, figures(*columns))


def figures(ours: dict[str, str], theirs: dict[str, str]) -> list[Figure]:
    """What a kill leaves of the photos that were encoded until then."""
    [row] = [name for name in ours if name.startswith("kill")]
    sides = []
    for program in (ours, theirs):
        encoded, kept, _ = program[row].split(" · ")
        sides.append(f"{kept} of {encoded} encoded")
    return [Figure("photos kept when the run is killed half way", sides[0], f"rclip {sides[1]}")]


def probe(work: Path, originals: Path, kind: type[Program], weights: Path) -> dict[str, str]:
    """Put one program through everything; a fresh copy of the photos and a fresh library for each probe."""
    made = 0

    def fresh() -> Program:
        nonlocal made
        made += 1
        photos = work / str(made) / "photos"
        photos.mkdir(parents=True)
        for path in sorted(originals.iterdir()):
            shutil.copy2(path, photos)
        if kind is Rclip:
            return Rclip(photos.parent, photos, weights=weights)
        return Ours(photos.parent, photos)

    cells: dict[str, Sequence[str]] = {"": [kind.name]}
    for number, what in ((signal.SIGKILL, "kill -9"), (signal.SIGINT, "Ctrl-C")):
        name = f"{what} with half encoded: encoded until then · kept · encoded by the next run"
        cells[name] = interrupted(fresh(), number)
    cells["folder empty during a run: found meanwhile · found when it is back · encoded again"] = away(fresh())
    program = fresh()
    cut = sorted(program.photos.iterdir())[0]
    cells["one photo cut in half: exit code · the file · listed with its reason later"] = broken(program, cut)
    cells["two at once: exit codes · images encoded · photos there"] = company(fresh())
    return {name: " · ".join(values) for name, values in cells.items()}


def table(count: int, columns: Sequence[dict[str, str]]) -> None:
    print(f"{count} photos\n")
    for number, name in enumerate(columns[0]):
        print(f"| {name} | " + " | ".join(column[name] for column in columns) + " |")
        if not number:
            print("|---" * (len(columns) + 1) + "|")


if __name__ == "__main__":
    main()
