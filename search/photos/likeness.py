"""What tells that two files show the same picture: a perceptual hash, and a look at the pixels themselves.

The hash only makes a shortlist. Two pictures are the same if one, turned and cut to a box, shows the other in every
part: a person who moved, another light or another standpoint is another picture. Last they are held against each other
as large as the smaller one is: an invoice with another number is another picture too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import imagehash
import numpy as np
from PIL import Image

from search.types import Likeness

if TYPE_CHECKING:
    import numpy.typing as npt

    from search.types import Pixels

    Floats = npt.NDArray[np.float32]
    Box = npt.NDArray[np.float64]
    """(left, top, right, bottom), parts of a picture's width and height."""

METHOD = 1
"""Which way hashes and sharpness are made: those of different ways can't be compared."""

VIEW_PX, FINE_PX = 256, 1024
"""Width and height to which a picture is squeezed, whatever its shape, to be held against another: first, and last."""

TURNS = (
    None,
    Image.Transpose.ROTATE_90,
    Image.Transpose.ROTATE_180,
    Image.Transpose.ROTATE_270,
    Image.Transpose.FLIP_LEFT_RIGHT,
    Image.Transpose.FLIP_TOP_BOTTOM,
    Image.Transpose.TRANSPOSE,
    Image.Transpose.TRANSVERSE,
)
"""The eight ways to lay a picture on a table or a light box; a hash has 8 bytes for each."""

_IN_WORDS = (
    "",
    "rotated by 90°",
    "rotated by 180°",
    "rotated by 270°",
    *["mirrored"] * 2,
    *["mirrored, rotated"] * 2,
)
_HASHED_PX = 32
_UPRIGHT = np.array([0.0, 0.0, 1.0, 1.0])


def likeness(image: Image.Image) -> Likeness:
    """Return what is kept of a picture to find others of it.   image: RGB, upright, 64 pixels a side at least helps.

    hash: ImageHash's dHash (differences of neighbours in a row, 8 × 8) of each of TURNS. Its pHash tells no better
    and takes scipy's import in every process that decodes.   sharpness: variance of the Laplacian at 256 pixels a
    side (Pech-Pacheco et al., ICPR 2000).
    """
    grey = image.convert("L").resize((VIEW_PX, VIEW_PX), Image.Resampling.BOX)
    small = grey.resize((_HASHED_PX, _HASHED_PX), Image.Resampling.BOX)
    return Likeness(
        METHOD,
        hash=b"".join(_hash(small if turn is None else small.transpose(turn)) for turn in TURNS),
        sharpness=_sharpness(np.asarray(grey, np.float32)),
    )


def _hash(grey: Image.Image) -> bytes:
    return np.packbits(imagehash.dhash(grey).hash).tobytes()


def _sharpness(grey: Floats) -> float:
    inner = grey[1:-1, 1:-1]
    laplacian = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * inner
    return round(float(laplacian.var()), 2)


# ---- the pixels


@dataclass(frozen=True, slots=True)
class Same:
    """How a picture is another: turned (its place in TURNS) and cut.

    difference: of the part that differs most, as a share of what may differ at most.   kept: the share of the larger
    view's area that the smaller one shows, in `box` of `one` or of the other.
    """

    turn: int
    kept: float
    difference: float
    box: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)
    in_one: bool = True

    @property
    def in_words(self) -> str:
        """What was done to one to get the other: "rotated by 90°, cropped to 92 %"; "" for nothing but its size."""
        cut = f"cropped to {round(100 * self.kept)} %" if self.kept < _WHOLE else ""
        return ", ".join(filter(None, (_IN_WORDS[self.turn], cut)))


_FLAT = 4.0  # contrast of a picture of nothing: a wall, a lid before the lens
_WHOLE = 0.985  # of the area; less was cut off
_LEAST_KEPT = 0.6  # of the area, that counts as the same picture still
_ALIKE = 0.85  # correlation of what lies in the right box, even coarsely
_COARSE, _FINE = 32, 64  # pixels a side while looking for the box
_SEEN_PX = 128  # pixels a side in the end
_PARTS = 8  # a side: each part must be the same
_MARGIN = 0.004  # of a side: a box may reach so far beyond, since nothing is known better


class View:
    """One picture, squeezed into a square, to be held against others.

    pixels: (N, N, 3) uint8.   side_px: the shorter side of the picture itself: finer detail is invented.
    """

    def __init__(self, pixels: Pixels, side_px: int) -> None:
        self._image = Image.fromarray(pixels)
        self.side_px = side_px

    @cached_property
    def grey(self) -> Image.Image:
        return self._image.convert("L").convert("F")

    def seen(self, box: Box, size_px: int) -> npt.NDArray[np.float64]:
        """Return the brightness of what a box shows, (size_px, size_px)."""
        return np.asarray(_cut(self.grey, box, size_px), np.float64)

    def turned(self, turn: int) -> View:
        """Return it laid another way."""
        way = TURNS[turn]
        return self if way is None else View(np.asarray(self._image.transpose(way)), self.side_px)

    @cached_property
    def contrast(self) -> float:
        """The standard deviation of its brightness, in levels of 255."""
        return float(self.seen(_UPRIGHT, _FINE).std())

    def cut(self, box: Box, size_px: int) -> Floats:
        """Return what a box shows, (size_px, size_px, 3)."""
        return np.asarray(_cut(self._image, box, size_px), np.float32)


def compare(one: View, other: View, turns: tuple[int, ...] = (0,)) -> Same | None:
    """Tell whether two views show the same picture, and how; None if they don't, or show nothing at all.

    turns: of `one`, to be tried.
    """
    if min(one.contrast, other.contrast) < _FLAT:
        return None
    found = [same for turn in turns for same in _ways(one.turned(turn), other, turn)]
    best = min(found, key=lambda same: same.difference, default=None)
    return best if best and best.difference <= 1 else None


def _ways(one: View, other: View, turn: int) -> Iterator[Same]:
    """Hold two views of the same turn against each other: as they are, then each as a part of the other."""
    whole = _difference(one, other, _UPRIGHT)
    yield Same(turn, 1.0, whole)
    if whole <= 1:
        return
    for large, small in ((one, other), (other, one)):
        box = _find(large, small)
        if box is None:
            continue
        kept = float(np.prod(box[2:] - box[:2]))
        if kept >= _LEAST_KEPT:
            left, top, right, bottom = box.tolist()
            yield Same(turn, kept, _difference(large, small, box), (left, top, right, bottom), in_one=large is one)


def _difference(large: View, small: View, box: Box) -> float:
    """Return how much the part that differs most does, as a share of what it may: noise, and less where it is flat."""
    size = max(_PARTS * 3, min(_SEEN_PX, large.side_px // 2, small.side_px // 2) // _PARTS * _PARTS)
    seen, wanted = large.cut(box, size), small.cut(_UPRIGHT, size)
    error = _parts(((seen - wanted) ** 2).mean(axis=2)) ** 0.5
    detail = _parts(wanted.mean(axis=2) ** 2) - _parts(wanted.mean(axis=2)) ** 2
    noise = _NOISE * max(1.0, _SMALL_PX / min(large.side_px, small.side_px))
    share: Floats = error / (noise + _SHARE * np.sqrt(np.maximum(detail, 0)))
    return float(share.max())


_NOISE = 7.0  # levels of 255, root mean square over a part, that coding may cost
_SMALL_PX = 160  # a side below which it costs more: there is less to average
_SHARE = 0.25  # of a part's own detail, which scaling blurs


def _parts(values: Floats) -> Floats:
    """Return the means of _PARTS × _PARTS parts of a square."""
    step = len(values) // _PARTS
    means: Floats = values.reshape(_PARTS, step, _PARTS, step).mean(axis=(1, 3))
    return means


def _find(large: View, small: View) -> Box | None:
    """Return the box of `large` that looks most like the whole of `small`, by Gauss-Newton steps, coarse to fine.

    None where it looks like none of it already coarsely.

    Lucas and Kanade's image alignment (IJCAI 1981) with a box's four sides for parameters; brightness may differ.
    """
    box = _UPRIGHT.copy()
    for size_px, steps in ((_COARSE, 12), (_FINE, 6)):
        wanted = small.seen(_UPRIGHT, size_px)
        box = _nearer(large, wanted, box, steps=steps, least_px=0.1)
        if not np.corrcoef(large.seen(box, size_px).ravel(), wanted.ravel())[0, 1] >= _ALIKE:
            return None
    return box


def _nearer(large: View, wanted: npt.NDArray[np.float64], box: Box, *, steps: int, least_px: float) -> Box:
    """Return a box that shows more of what is wanted, (N, N): after so many steps, or one smaller than `least_px`."""
    size_px = len(wanted)
    for _ in range(steps):
        step = _step(large.seen(box, size_px), wanted)
        box = _inside(box + step * np.tile(box[2:] - box[:2], 2))
        if np.abs(step).max() < least_px / size_px:
            break
    return box


def _step(seen: npt.NDArray[np.float64], wanted: npt.NDArray[np.float64]) -> Box:
    """Return how far to move each side, in parts of the box, for the seen to become the wanted."""
    size = len(seen)
    down, right = np.gradient(seen)
    at = (np.arange(size) + 0.5) / size
    slopes = [right * (1 - at), down * (1 - at)[:, None], right * at, down * at[:, None]]
    system = np.stack([*(slope.ravel() for slope in slopes), seen.ravel(), np.ones(size * size)], axis=1)
    system[:, :4] *= size
    gram = system.T @ system
    gram[range(6), range(6)] *= 1 + 1e-6
    found = np.linalg.lstsq(gram, system.T @ (wanted - seen).ravel(), rcond=None)[0]
    moved: Box = np.clip(found[:4], -0.05, 0.05)
    return moved


def _inside(box: Box) -> Box:
    """Keep a box within the picture and of some size."""
    box = np.clip(box, -_MARGIN, 1 + _MARGIN)
    for low, high in ((0, 2), (1, 3)):
        if box[high] - box[low] < 0.5:
            box[low], box[high] = _UPRIGHT[low], _UPRIGHT[high]
    return box


def _cut(image: Image.Image, box: Box, size_px: int) -> Image.Image:
    scaled = np.clip(box, 0, 1) * image.width
    return image.resize((size_px, size_px), Image.Resampling.BILINEAR, box=tuple(scaled))


# ---- the pixels, large

_CELL, _CELLS = 4, 3  # pixels of a cell, and cells a side of what is held against each other: about a letter
_FINE_NOISE, _FINE_SHARE = 8.0, 0.25  # as _NOISE and _SHARE, for so few pixels
_MOST_APART = 0.9  # of what coding may cost: 0.81 at most in copies of documents and photographs
_ODD, _ODD_TIMES = 0.35, 2.4  # and of what 99 of 100 places show: 2.0 at most in copies, 2.5 where a digit differs
_LEAST_FINE_PX = 48  # a side below which there is nothing more to see


def agree(one: View, other: View, same: Same) -> bool:
    """Tell whether two pictures that `compare` calls the same are so in the small: no letter is another one.

    one, other: the same two, FINE_PX a side.
    """
    one = one.turned(same.turn)
    large, small = (one, other) if same.in_one else (other, one)
    box = np.array(same.box)
    size = int(min(FINE_PX, small.side_px, large.side_px * float((box[2:] - box[:2]).min()))) // _CELL * _CELL
    if size < _LEAST_FINE_PX:
        return True
    if same.kept >= _WHOLE and _is_alike(large.seen(box, size), small.seen(_UPRIGHT, size)):
        return True
    box = _refine(large, small, box, size)
    return _is_alike(large.seen(box, size), small.seen(_UPRIGHT, size))


def _refine(large: View, small: View, box: Box, size_px: int) -> Box:
    """Return the box to a tenth of a pixel, from one that is right to a few."""
    for at_px, steps in ((min(256, size_px), 4), (min(512, size_px), 3)):
        box = _nearer(large, small.seen(_UPRIGHT, at_px), box, steps=steps, least_px=0.03)
    return box


def _is_alike(seen: npt.NDArray[np.float64], wanted: npt.NDArray[np.float64]) -> bool:
    """Whether nothing the size of a letter differs by more than coding explains, a few pixels from the edge."""
    seen, wanted = _smooth(seen), _smooth(wanted)
    error = np.sqrt(_places((seen - wanted) ** 2))
    detail = np.maximum(*(_places(side**2) - _places(side) ** 2 for side in (seen, wanted)))
    apart = error / (_FINE_NOISE + _FINE_SHARE * np.sqrt(np.maximum(detail, 0)))
    most = float(apart.max())
    return most <= _MOST_APART and not (most > _ODD and most > _ODD_TIMES * np.quantile(apart, 0.99))


def _smooth(grey: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Blur by a pixel, which ways to scale differ by; a cell is lost at each edge."""
    for _ in range(2):
        grey = (grey[:-2] + 2 * grey[1:-1] + grey[2:]).T / 4
    inner: npt.NDArray[np.float64] = grey[_CELL - 1 : 1 - _CELL, _CELL - 1 : 1 - _CELL]
    return inner


def _places(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the means of all squares of _CELLS × _CELLS cells."""
    count = len(values) // _CELL
    cells: npt.NDArray[np.float64] = values.reshape(count, _CELL, count, _CELL).mean(axis=(1, 3))
    for _ in range(2):
        cells = (cells[:-2] + cells[1:-1] + cells[2:]).T / _CELLS
    return cells
