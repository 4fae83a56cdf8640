"""clip-retrieval's folders: embeddings and metadata in parts, and an index over them that its server opens.

Row i of all parts, in the order of their names, is one picture: `img_emb/*.npy` has its vector in float16 or float32,
`metadata/*.parquet` its path and what else is known. https://github.com/rom1504/clip-retrieval (2.45.0)
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from search.adoption import Entry
from search.errors import UsageError
from search.files import atomic_write, fsync_file, new_folder
from search.interop.tables import columns_of, row_of, write_parquet
from search.photos.scan import scan
from search.plurals import count_of
from search.types import Progress, Stage
from search.vectors.flat import write_flat

if TYPE_CHECKING:
    from search.library import Library
    from search.types import Photo, Vectors

_PATH = "image_path"
_PART = 100_000  # rows of one file
_TEXTS = ("taken_at", "camera", "lens")
MARK = "search.json"
"""What tells that a folder is an earlier export, and may be replaced."""


class EmbeddingFolder:
    """The pictures and vectors of such a folder: a `search.adoption.Source`.

    Relative paths start at the current folder. A picture that is younger than its vectors counts as changed.
    pictures: a folder that holds, at any depth, what the source names by keys alone, as it does where it read tar
    files; those are held to be unchanged.   Raises UsageError for a folder that is none.
    """

    kind = "clip-retrieval"
    model = None

    def __init__(self, folder: str | os.PathLike[str], *, pictures: str | os.PathLike[str] | None = None) -> None:
        self.place = os.path.abspath(os.path.expanduser(folder))
        self._keys = _by_key(os.path.abspath(os.path.expanduser(pictures))) if pictures else {}
        names = _parts(self.place, "img_emb", ".npy")
        tables = _parts(self.place, "metadata", ".parquet")
        if not names or len(names) != len(tables):
            raise UsageError(
                f"{self.place} is no folder of clip-retrieval's: img_emb has {len(names)} parts, "
                f"metadata {len(tables)}",
                hint="'clip-retrieval inference' writes one, with --enable_metadata or paths of files",
            )
        for name, table in zip(names, tables, strict=True):
            if _number(name) != _number(table):
                raise UsageError(
                    f"{self.place} lacks a part: {os.path.basename(name)} has no metadata of its number, "
                    f"the next is {os.path.basename(table)}"
                )
        self._arrays = [_array(name) for name in names]
        widths = {array.shape[1] for array in self._arrays}
        if len(widths) != 1:
            raise UsageError(f"the vectors in {self.place} have different widths: {sorted(widths)}")
        self.dim = widths.pop()
        self._starts = np.cumsum([0, *(len(array) for array in self._arrays)])
        self.entries, self.left = self._listed(names, tables)

    def _listed(self, names: Sequence[str], tables: Sequence[str]) -> tuple[list[Entry], Mapping[str, int]]:
        found: list[Entry] = []
        left: Counter[str] = Counter()
        for array, start, name, table in zip(self._arrays, self._starts, names, tables, strict=False):
            paths = columns_of(table, [_PATH])[_PATH]
            if len(paths) != len(array):
                raise UsageError(f"{name} has {count_of(len(array), 'row')}, but {table} {len(paths)}")
            made_s = os.stat(name).st_mtime
            for number, path in enumerate(paths, start=int(start)):
                if not isinstance(path, str) or not path or "\0" in path:
                    left["no path"] += 1
                elif (places := self._keys.get(path)) is None:
                    found.append(Entry(path, number, made_s=made_s))
                elif len(places) == 1:
                    found.append(Entry(places[0], number))
                else:
                    left["several pictures of one key"] += 1
        return found, dict(left)

    def vectors(self, rows: Sequence[int]) -> Vectors:
        """Return the vectors of rows, (N, dim) float32."""
        wanted = np.asarray(rows, np.int64)
        found = np.empty((len(wanted), self.dim), np.float32)
        part = np.searchsorted(self._starts, wanted, side="right") - 1
        for number in np.unique(part):
            here = part == number
            found[here] = self._arrays[number][wanted[here] - self._starts[number]]
        return found


def _parts(folder: str, inside: str, suffix: str) -> list[str]:
    try:
        names = sorted(os.listdir(os.path.join(folder, inside)))
    except OSError:
        return []
    return [os.path.join(folder, inside, name) for name in names if name.endswith(suffix)]


def _by_key(folder: str) -> dict[str, list[str]]:
    """Return where pictures are by what a tar file's samples are called: a name up to its first dot."""
    found: dict[str, list[str]] = {}
    for file in scan(folder):
        found.setdefault(os.path.basename(file.path).partition(".")[0], []).append(file.path)
    if not found:
        raise UsageError(f"{folder} holds no pictures", hint="'search import webdataset' unpacks tar files")
    return found


def _number(name: str) -> str:
    """Return the digits that a part's name ends in."""
    stem = os.path.splitext(os.path.basename(name))[0]
    return stem[len(stem.rstrip("0123456789")) :]


def _array(name: str) -> Any:
    try:
        array = np.load(name, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UsageError(f"{name} can't be read: {error}") from error
    if array.ndim != 2 or array.dtype not in (np.float16, np.float32):
        raise UsageError(f"{name} holds {array.dtype} of shape {array.shape}, not rows of float16 or float32")
    return array


# ---- writing


def export(library: Library, folder: Path, *, progress: Callable[[Progress], None] = lambda _: None) -> int:
    """Write a library's photos as such a folder with an index of inner products; return how many.

    It is whole or not there. Float16 rows of the model that answers, ids of the index are row numbers; captions are
    a photo's labels.   An earlier export in its place is replaced.
    Raises UsageError where anything else is there, LibraryError without vectors, StorageError.
    """
    refuse_strange(folder)
    encoder = library.model.answering()
    ids = library.catalog.all_ids()
    with new_folder(folder) as temporary:
        for inside in ("img_emb", "metadata"):
            (temporary / inside).mkdir()
        count = _write_parts(library, ids, temporary, progress)
        arrays = [_array(name) for name in _parts(str(temporary), "img_emb", ".npy")]
        write_flat(temporary / "image.index", arrays, encoder.dim)
        _describe(temporary, folder, {"model": encoder.name, "fingerprint": encoder.fingerprint, "photos": count})
    return count


def refuse_strange(folder: Path) -> None:
    """Raise UsageError where there is something that is no earlier export."""
    if not folder.parent.is_dir():
        raise UsageError(f"there is no folder {folder.parent} to write {folder.name} in")
    is_empty = folder.is_dir() and not any(folder.iterdir())
    if os.path.lexists(folder) and not is_empty and not (folder / MARK).is_file():
        raise UsageError(f"{folder} is there and is no earlier export; it stays, remove it first")


def _write_parts(library: Library, ids: Any, folder: Path, progress: Callable[[Progress], None]) -> int:
    """Write vectors and metadata, in parts that begin at the same rows; return how many photos have a vector."""
    count = 0
    digits = len(str(max(0, (len(ids) - 1) // _PART)))
    for part, start in enumerate(range(0, len(ids), _PART)):
        photos, vectors = _with_vectors(library, ids[start : start + _PART])
        name = f"{part:0{digits}d}"
        if photos:
            array = folder / "img_emb" / f"img_emb_{name}.npy"
            np.save(array, vectors.astype(np.float16))
            fsync_file(array)
            write_parquet(folder / "metadata" / f"metadata_{name}.parquet", [_metadata(photo) for photo in photos])
        count += len(photos)
        progress(Progress(Stage.EXPORT, min(start + _PART, len(ids)), len(ids)))
    return count


def _with_vectors(library: Library, ids: Any) -> tuple[list[Photo], Vectors]:
    found, vectors = library.catalog.embeddings(library.model.answering(), ids.tolist())
    photos = {photo.id: photo for photo in library.catalog.get(found.tolist())}
    known = np.array([id_ in photos for id_ in found.tolist()], bool)
    return [photos[id_] for id_ in found[known].tolist()], vectors[known]


def _metadata(photo: Photo) -> dict[str, Any]:
    """Return what clip-retrieval calls a picture's metadata; what is empty would be served as NaN, which is no JSON."""
    told = {name: "" if value is None and name in _TEXTS else value for name, value in row_of(photo).items()}
    told[_PATH] = told.pop("path")
    told["caption"] = ", ".join(photo.labels)
    return {name: told[name] for name in (_PATH, "caption", *told) if name not in ("path_bytes", "labels")}


def _describe(temporary: Path, folder: Path, about: dict[str, Any]) -> None:
    """Say what the folder is, for us and for clip-retrieval's server."""
    atomic_write(temporary / MARK, json.dumps(about, indent=1).encode())
    known = str(about["model"])
    index = {
        "indice_folder": os.path.abspath(folder),
        "columns_to_return": [_PATH, "caption", "taken_at", "camera", "width", "height"],
        "enable_faiss_memory_mapping": False,
        "enable_hdf5": False,
        "use_arrow": False,
        "use_jit": False,
        "enable_mclip_option": False,  # its own default asks for a model that few others have a counterpart of
        "reorder_metadata_by_ivf_index": False,
        "provide_safety_model": False,
        "provide_violence_detector": False,
        "provide_aesthetic_embeddings": False,
    }
    if "/" in known and ":" not in known:  # others it can't open
        index["clip_model"] = f"open_clip:{known}"
    atomic_write(temporary / "indices_paths.json", json.dumps({"photos": index}, indent=1).encode())
