"""What scaling pictures down before the model's preprocessing costs in exactness, and what it saves.

    python bench/scaling.py FOLDER...

Cosine between the built-in model's vectors of whole pictures and of the same pictures scaled down by a whole number
first, by libjpeg while it decodes or by averaging afterwards, for several sizes that both sides keep at least. Only
pictures that are scaled at all count. The last row is the crop alone: nothing scaled before, only what the crop keeps
looked at, against the whole picture scaled and then cropped.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from time import process_time

import numpy as np
from PIL import Image

from search import load_encoder
from search.encoders.preprocessing import _centre
from search.errors import PhotoError
from search.photos.decode import LoadedPhoto, load

FLOORS = ("1 ×", "2 ×", "3 ×", "4 ×", "448 px", "6 ×", "8 ×")
BATCH = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", metavar="FOLDER")
    encoder = load_encoder("builtin")
    side = encoder.preprocessing.size[0]
    paths = [path for folder in parser.parse_args().folders for path in sorted(Path(folder).rglob("*"))]
    paths = [str(path) for path in paths if path.suffix.lower() in (".jpg", ".jpeg")]
    bench = Bench(encoder, paths)
    print(f"{len(bench.paths)} JPEGs, input of {side} pixels\n")
    print("| at least | way | pictures scaled | smallest cosine | below 0.9999 | time of the whole |")
    print("|---|---|---|---|---|---|")
    for name in FLOORS:
        number = int(name.split()[0])
        floor = number if name.endswith("px") else number * side
        bench.row(name, "while decoding", lambda path, floor=floor: load(path, min_side=floor))
        bench.row(name, "afterwards", lambda path, floor=floor: averaged(path, floor))
    bench.row("–", "crop alone", load, everything=True)


def averaged(path: str, floor: int) -> LoadedPhoto:
    """Decode a JPEG whole and scale it as pictures of other formats are."""
    photo = load(path)
    factor = max(1, min(photo.image.size) // floor)
    frame = (0, 0, photo.image.width / factor, photo.image.height / factor)
    return LoadedPhoto(photo.image.reduce(factor), frame, photo.whole, photo.info, photo.content_hash, photo.stat)


class Bench:
    """The pictures, and their vectors when nothing is scaled or cropped early."""

    def __init__(self, encoder, paths: Sequence[str]) -> None:
        self._encoder = encoder
        self._preprocess = encoder.preprocessing
        self.paths, self._pixels, self._seconds = [], [], []
        for path in paths:
            started = process_time()
            try:
                image = load(path).image
            except PhotoError:
                continue
            self._pixels.append(self._whole(image))
            self._seconds.append(process_time() - started)
            self.paths.append(path)
        self._vectors = self._encode(self._pixels)

    def _whole(self, image: Image.Image) -> np.ndarray:
        height, width = self._preprocess._scaled_size(image.height, image.width)
        scaled = image.resize((width, height), self._preprocess._resampling())
        return np.asarray(_centre(scaled, self._preprocess.size, 0))

    def _encode(self, pixels: Sequence[np.ndarray]) -> np.ndarray:
        batches = [np.stack(pixels[at : at + BATCH]) for at in range(0, len(pixels), BATCH)]
        return np.concatenate([self._encoder.encode_images(batch) for batch in batches])

    def row(self, name: str, way: str, loader: Callable[[str], LoadedPhoto], *, everything: bool = False) -> None:
        """Print one row of the table."""
        pixels, which, seconds = [], [], 0.0
        for number, path in enumerate(self.paths):
            started = process_time()
            photo = loader(path)
            size = (photo.info.width, photo.info.height)
            if everything or photo.image.size != size:
                pixels.append(self._preprocess(photo.image, whole=photo.whole, frame=photo.frame))
                seconds += process_time() - started
                which.append(number)
        if not which:
            return
        cosines = (self._encode(pixels) * self._vectors[which]).sum(axis=1)
        share = seconds / sum(self._seconds[number] for number in which)
        below = int((cosines < 0.9999).sum())
        print(f"| {name} | {way} | {len(which)} | {cosines.min():.5f} | {below} | {share:.2f} |", flush=True)


if __name__ == "__main__":
    main()
