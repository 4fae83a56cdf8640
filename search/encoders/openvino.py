"""Exported models as encoders: the OpenVINO room. Opening one loads neither torch nor open_clip."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # it would report to its maker
import openvino
from openvino.preprocess import PrePostProcessor

from search import encoders, files
from search.encoders.exports import Record
from search.encoders.hub import TOKENIZER
from search.encoders.preprocessing import Preprocessing, require_batch
from search.encoders.tokens import is_english_only

if TYPE_CHECKING:
    from PIL import Image

    from search.types import Pixels, Vectors

BATCH_SIZE = 32
_TEXTS = 64  # texts that pass through a tower at a time
_NORM_EPSILON = 1e-12  # torch's, in normalize
_HALF = "BF16"  # how the runtime names the ability to multiply bfloat16


class ImageTower:
    """An exported image tower: (N, H, W, 3) uint8 → (N, dim) float32, not unit rows yet.

    threads: None means all cores.
    """

    def __init__(self, model: Any, *, threads: int | None = None) -> None:
        self.precision = "bfloat16" if _multiplies_bfloat16() else "float32"
        hint = "bf16" if self.precision == "bfloat16" else "f32"
        options = {"INFERENCE_PRECISION_HINT": hint, **({"INFERENCE_NUM_THREADS": threads} if threads else {})}
        compiled = _core().compile_model(model, "CPU", options)
        self._request = compiled.create_infer_request()
        self._lock = threading.Lock()  # a request serves one caller at a time

    def __call__(self, images: Pixels) -> Vectors:
        with self._lock:
            features = self._request.infer({0: np.ascontiguousarray(images)}, share_inputs=True)
            return np.array(features[0], dtype=np.float32)


class TextTower:
    """An exported text tower: rows of ids → (N, dim) float32, not unit rows yet, in float32 throughout.

    pad: the id that fills rows up to the longest.
    """

    def __init__(self, model: Any, pad: int) -> None:
        compiled = _core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        self.dim: int = compiled.output(0).partial_shape[1].get_length()
        self._request = compiled.create_infer_request()
        self._lock = threading.Lock()  # a request serves one caller at a time
        self._pad = pad

    def __call__(self, tokens: Sequence[list[int]]) -> Vectors:
        rows = np.empty((len(tokens), self.dim), dtype=np.float32)
        for start in range(0, len(tokens), _TEXTS):
            batch = tokens[start : start + _TEXTS]
            ids = np.full((len(batch), max(map(len, batch))), self._pad, dtype=np.int64)
            for row, known in zip(ids, batch, strict=True):
                row[: len(known)] = known
            with self._lock:
                rows[start : start + _TEXTS] = self._request.infer({0: ids}, share_inputs=True)[0]
        return rows


class OpenVinoEncoder:
    """An `Encoder` whose image tower was exported; `text` opens the other half when it is first needed."""

    runtime = "openvino"

    def __init__(self, record: Record, images: ImageTower, text: Callable[[], encoders.TextTower]) -> None:
        card = record.card
        self.name: str = card["name"]
        self.fingerprint: str = card["fingerprint"]
        self.dim: int = card["dim"]
        self.context_length: int = card["context_length"]
        self.logit_scale: float = card["logit_scale"]
        self.logit_bias: float | None = card["logit_bias"]
        self.parameters: int = card["parameters"]
        self.config: dict[str, Any] = card["config"]
        self.english_only = is_english_only(self.config)
        self.preprocessing = Preprocessing.from_dict(card["preprocessing"])
        self.weights = Path(card["weights"])
        self.tensors = Path(card["tensors"]) if card["tensors"] else None
        self.stated = {
            path: stat
            for path, stat in record.files.items()
            if path == card["weights"] or Path(path).name == TOKENIZER
        }
        self.batch_size = BATCH_SIZE
        self.precision = "int8" if self.name.endswith(encoders.INT8) else images.precision
        self.base_fingerprint: str = card.get("base", self.fingerprint)  # of the weights in their own precision
        self._images = images
        self._open_text = text
        self._text: encoders.TextTower | None = None

    def preprocess(self, image: Image.Image) -> Pixels:
        """Return an RGB image as (H, W, 3) uint8 of the model's input size."""
        return self.preprocessing(image)

    def encode_images(self, images: Pixels) -> Vectors:
        """Return (N, dim) float32 unit rows for images (N, H, W, 3) uint8; N = 0 gives (0, dim).

        Raises DimensionError if the images are not of the model's input size.
        """
        require_batch(images, self.preprocessing, self.name)
        rows = np.empty((len(images), self.dim), dtype=np.float32)
        for start in range(0, len(images), 4 * BATCH_SIZE):
            rows[start : start + 4 * BATCH_SIZE] = self._images(images[start : start + 4 * BATCH_SIZE])
        rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.float32(_NORM_EPSILON))
        return rows

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """Return (N, dim) float32 unit rows, one for each text, in order; N = 0 gives (0, dim)."""
        return self._text_tower().encode_texts(texts)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return how many tokens each text needs, start and end included, were there room for all."""
        return self._text_tower().count_tokens(texts)

    @property
    def tokenizer(self) -> Any:
        """What open_clip cuts texts with; None where open_clip is not needed for that."""
        return getattr(self._text_tower(), "tokenizer", None)

    def _text_tower(self) -> encoders.TextTower:
        if self._text is None:
            self._text = self._open_text()
        return self._text


def convert(tower: Any, example: Any, preprocessing: Preprocessing) -> Any:
    """Return a torch image tower as a graph that takes (N, H, W, 3) uint8.

    example: a batch (N, 3, H, W) for tracing it.
    """
    height, width = preprocessing.size
    graph = openvino.convert_model(tower, example_input=example)
    graph.reshape([-1, 3, height, width])
    builder = PrePostProcessor(graph)
    given = builder.input()
    given.tensor().set_element_type(openvino.Type.u8).set_layout(openvino.Layout("NHWC"))
    given.model().set_layout(openvino.Layout("NCHW"))
    steps = given.preprocess().convert_element_type(openvino.Type.f32)
    steps.mean([255 * value for value in preprocessing.mean]).scale([255 * value for value in preprocessing.std])
    return builder.build()


def convert_text(tower: Any, example: Any) -> Any:
    """Return a torch text tower as a graph that takes ids (N, L) of any length; example: such a batch."""
    graph = openvino.convert_model(tower, example_input=example)
    graph.reshape([-1, -1])
    return graph


def write(graph: Any, cache: Path, key: str, *, halved: bool | None = None) -> dict[str, str]:
    """Put a graph into the cache and return the SHA-256 of its two files by name.   Raises OSError.

    They are named by their content and mean nothing until a record names them. halved: whether weights are kept in
    float16; None means where they are multiplied in bfloat16, which has fewer digits.
    """
    halved = _multiplies_bfloat16() if halved is None else halved
    temporary = files.temporary_name(cache / key)
    parts = {suffix: temporary.with_suffix(suffix) for suffix in (".xml", ".bin")}
    exported = {}
    try:
        openvino.save_model(graph, parts[".xml"], compress_to_fp16=halved)
        for suffix, part in parts.items():
            digest = files.sha256(part)
            target = cache / f"{key}.{digest[:32]}{suffix}"
            files.publish(part, target)
            exported[target.name] = digest
    except RuntimeError as error:  # how the runtime says that the disk is full
        raise OSError(str(error)) from None
    finally:
        for part in parts.values():
            files.discard(part)
    return exported


def open_tower(record: Record, cache: Path) -> ImageTower | None:
    """Compile an exported tower whose files are known to be whole; None if the runtime refuses it."""
    with contextlib.suppress(RuntimeError):
        return ImageTower(_read(cache / name for name in record.exported))
    return None


def open_text_tower(paths: Iterable[Path], pad: int) -> TextTower | None:
    """Compile an exported text tower; None if the runtime refuses it."""
    with contextlib.suppress(RuntimeError):
        return TextTower(_read(paths), pad)
    return None


def _read(paths: Iterable[Path]) -> Any:
    weights, xml = sorted(paths, key=lambda path: path.suffix)  # .bin, .xml
    return _core().read_model(xml, weights)


def _core() -> Any:
    return openvino.Core()


def _multiplies_bfloat16() -> bool:
    return _HALF in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
