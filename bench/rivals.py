"""Other programs of the kind, in environments of their own, with a model that is drawn at random.

Everything is installed from the Python package index into build/rivals; no weights are downloaded. The model is
ViT-B-32-256, which rclip uses, with the same random weights as a checkpoint for us and as ONNX files for rclip, whose
code runs as it comes.
"""

from __future__ import annotations

import os
import shutil
import site
import sqlite3
import subprocess
import sys
import venv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from search import Library
from stopwatch import REPOSITORY, Took, timed

if TYPE_CHECKING:
    from search.types import Vectors

RCLIP = "rclip==3.3.0"
ARCHITECTURE = "ViT-B-32-256"
RIVALS = REPOSITORY / "build" / "rivals"

_MODEL = "ViT-B-32-256-datacomp_s34b_b86k"  # the folder in which rclip looks for it
_VOCABULARY = "bpe_simple_vocab_16e6.txt.gz"

# Runs where torch, open_clip and onnx are to be had.
_DRAW = """
import logging, sys
from pathlib import Path
logging.disable(logging.WARNING)  # "No pretrained weights loaded"
import torch
from search.encoders.torchvision_ops import ensure_torchvision
ensure_torchvision()
import open_clip
from safetensors.torch import save_file

class Half(torch.nn.Module):
    def __init__(self, encode):
        super().__init__()
        self.model, self.encode = model, encode
    def forward(self, input):
        return getattr(self.model, self.encode)(input)

architecture, folder = sys.argv[1], Path(sys.argv[2])
torch.manual_seed(0)
model = open_clip.create_model(architecture).eval()
side = model.visual.image_size[0]
save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, folder / "model.safetensors")
inputs = {"visual": ("encode_image", torch.zeros(2, 3, side, side)),
          "textual": ("encode_text", torch.zeros(2, 77, dtype=torch.int64))}
for name, (encode, example) in inputs.items():
    torch.onnx.export(
        Half(encode), (example,), folder / f"{name}.onnx", input_names=["input"], output_names=["output"],
        dynamic_axes={"input": {0: "n"}, "output": {0: "n"}}, opset_version=17, dynamo=False,
    )
"""


def environment(
    name: str, packages: Sequence[str], *, bare: Sequence[str] = (), borrowing: bool = False, own: bool = False
) -> Path:
    """Return the Python of an environment that has these packages, made on first use.

    bare: packages that come without what they say they need.   borrowing: what this process can import is there too,
    after what was installed.   own: of what is both installed and borrowed, other versions than ours may be installed.
    """
    folder = RIVALS / name
    python, done = folder / "bin" / "python", folder / "installed"
    wanted = "\n".join([*packages, *bare, sys.version])
    if not done.exists() or done.read_text() != wanted:
        print(f"installing {' '.join([*packages, *bare])} into {folder.relative_to(REPOSITORY)}", file=sys.stderr)
        venv.create(folder, with_pip=True, clear=True)
        install = [python, "-m", "pip", "install", "-q"]
        constraints = ["-c", str(REPOSITORY / "constraints.txt")] if borrowing and not own else []
        subprocess.run([*install, *constraints, *packages], check=True)
        if bare:
            subprocess.run([*install, "--no-deps", *bare], check=True)
        if borrowing:  # after pip, which would count what is there as installed
            [place] = folder.glob("lib/python*/site-packages")
            (place / "borrowed.pth").write_text("\n".join([str(REPOSITORY), *site.getsitepackages()]))
        done.write_text(wanted)
    return python


def model_files() -> Path:
    """Return the folder of the random model: model.safetensors, visual.onnx, textual.onnx."""
    folder = RIVALS / "model"
    if not folder.exists():
        draft = folder.with_suffix(".draft")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        subprocess.run([onnx_python(), "-W", "ignore", "-c", _DRAW, ARCHITECTURE, draft], check=True)
        draft.rename(folder)
    return folder


def onnx_python() -> Path:
    """Return a Python that can write ONNX files; torch is there too."""
    return environment("export", ["onnx>=1.17"], borrowing=True)


class Ours:
    """The command line of this repository, with one library and the random model unless another is named.

    A random model finds nothing relevant, so all is shown; `--quiet` leaves out what a first run tells of the library.
    """

    name = "search"

    def __init__(self, library: Path, model: str | None = None) -> None:
        self.library = library
        self.model = model or f"{ARCHITECTURE}/{model_files() / 'model.safetensors'}"

    def index(self, photos: Path, *options: str) -> Took:
        """Index a folder."""
        return self._run("index", photos, "--model", self.model, "--json", "--quiet", *options)

    def rescan(self, photos: Path) -> Took:
        """Index a folder once more, by the model that the library has."""
        return self._run("index", photos, "--json")

    def find(self, text: str, *, wanted: int = 10) -> Took:
        """Ask for photos. Raises RuntimeError if there come more or fewer."""
        return _answered(self._run("find", text, "-k", wanted, "--min-relevance", 0, "--format", "paths"), wanted)

    def _run(self, command: str, *words: object) -> Took:
        program = Path(sys.executable).with_name("search")
        start = [program] if program.exists() else [sys.executable, "-m", "search"]
        return timed([*start, "--library", self.library, "--offline", command, *words])


class Rclip:
    """rclip as it comes, with a data folder of its own in which it finds the random model.

    weights: a folder with other halves, in place of the random model's.
    """

    name = RCLIP.replace("==", " ")
    dim = 512

    def __init__(self, data: Path, weights: Path | None = None) -> None:
        self.python, self.data = environment("rclip", [RCLIP]), data
        lay_out(data, weights or model_files())

    def index(self, photos: Path) -> Took:
        """Index a folder and answer a query: it does both in one."""
        return self._run("a photo", cwd=photos)

    def find(self, text: str, photos: Path) -> Took:
        """Ask for ten photos without looking at the folder. Raises RuntimeError if there are not ten."""
        return _answered(self._run(text, "--no-indexing", cwd=photos), 10)

    @property
    def database(self) -> Path:
        return self.data / "db.sqlite3"

    def _run(self, text: str, *options: str, cwd: Path) -> Took:
        command = [self.python.with_name("rclip"), text, "--top", "10", "--filepath-only", *options]
        kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        env = {**kept, "RCLIP_DATADIR": str(self.data), "HF_HUB_OFFLINE": "1"}
        return timed(command, cwd=cwd, env=env)


def lay_out(data: Path, weights: Path) -> None:
    """Put weights and tokenizer where rclip looks for them."""
    spec = find_spec("open_clip")
    assert spec and spec.submodule_search_locations
    model, tokenizer = data / _MODEL, data / "tokenizer"
    model.mkdir(parents=True), tokenizer.mkdir()
    shutil.copy(Path(spec.submodule_search_locations[0], _VOCABULARY), tokenizer)
    for name in ("visual.onnx", "textual.onnx"):
        (model / name).symlink_to((weights / name).resolve())


def fill_rclip(rclip: Rclip, paths: Sequence[str], batches: Iterator[tuple[int, Vectors]]) -> None:
    """Write rows into rclip's database as its own index run would: (number of the first, vectors) at a time."""
    make = "import sys; from rclip.db import DB; DB(sys.argv[1]).close()"
    subprocess.run([rclip.python, "-c", make, rclip.database], check=True)
    insert = "INSERT INTO images(filepath, modified_at, size, vector, hash) VALUES (?, ?, ?, ?, ?)"
    with closing(sqlite3.connect(rclip.database)) as connection:
        for start, vectors in batches:
            for number, row in enumerate(vectors, start):
                stat = os.stat(paths[number])
                values = (paths[number], stat.st_mtime, stat.st_size, row.tobytes(), f"{number:064x}")
                connection.execute(insert, values)
        connection.commit()


def rclip_vectors(rclip: Rclip) -> dict[str, Vectors]:
    """Return rclip's vectors by the photo's path."""
    with closing(sqlite3.connect(rclip.database)) as connection:
        rows = connection.execute("SELECT filepath, vector FROM images WHERE deleted IS NULL")
        return {path: np.frombuffer(vector, np.float32) for path, vector in rows}


def rclip_versions() -> dict[str, str]:
    """Return the versions of what rclip's time goes into."""
    return versions_in(environment("rclip", [RCLIP]), "rclip", "onnxruntime", "pillow", "numpy")


def agreement(ours: Ours, theirs: Mapping[str, Vectors]) -> str:
    """Say how far both programs' vectors of each photo agree, by its path. Raises RuntimeError if they are unlike."""
    with Library.open(ours.library, offline=True) as library:
        row = library.catalog.encoder()
        assert row
        ids, mine = library.catalog.embeddings(row, library.catalog.all_ids()[:500].tolist())
        other = np.stack([theirs[photo.path] for photo in library.catalog.get(ids.tolist())])
    cosines = mine @ other.T
    own = cosines.diagonal()
    same = int((cosines.argmax(axis=1) == np.arange(len(ids))).sum())
    if own.min() < 0.98:
        raise RuntimeError(f"the two do not run the same network: cosine {own.min():.4f}")
    return f"Both programs' vectors agree: cosine ≥ {own.min():.4f}, {same} of {len(ids)} nearest to their own photo's."


def versions_in(python: Path, name: str, *others: str) -> dict[str, str]:
    """Return the versions of a rival and of what it uses in its environment."""
    say = "import importlib.metadata as m, sys; print(*map(m.version, sys.argv[1:]))"
    done = subprocess.run([python, "-c", say, name, *others], capture_output=True, text=True, check=True)
    return dict(zip([name, *(f"its {other}" for other in others)], done.stdout.split(), strict=True))


def _answered(took: Took, wanted: int) -> Took:
    if len(took.out.splitlines()) != wanted:
        raise RuntimeError(f"{wanted} photos were asked for, this came: {took.out!r} {took.errors[-500:]!r}")
    return took
