"""Duplicates: which are found on a made set, and how long 100,000 photos take.

python bench/duplicates.py --photos DIR        precision and recall per kind and change, from the photographs of DIR
python bench/duplicates.py [--count 100000]    time on synthetic vectors with planted duplicates, against n × n

The made set: each photograph coded anew, scaled, cropped, turned and mirrored (the same picture), copied (exact), and
taken again (same moment: another standpoint, another light, something that moved, with EXIF times). Everything else is
a pair that must not be found; photographs of DIR that are duplicates of one another count as mistakes.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import resource
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from time import perf_counter, process_time
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageEnhance

from search import Library
from search.catalog import Catalog
from search.catalog.found import Record, ScannedFile, Verdict
from search.duplicates import NEAREST, DuplicateKind, by_hash
from search.photos.likeness import METHOD
from search.types import FileStat, Likeness, PhotoInfo, TakenAtSource
from search.vectors.pairs import near_rows
from stopwatch import print_head, workshop
from synthetic import ROOT, Identity, vector_batches

if TYPE_CHECKING:
    from search.types import Ids, Vectors

_START = datetime(2000, 1, 1)  # noqa: DTZ001
_CHANGES = 5  # of each photograph
_BICUBIC = Image.Resampling.BICUBIC
_DateTimeOriginal, _Make, _Model, _ExifIFD = 0x9003, 0x010F, 0x0110, 0x8769

Told = tuple[DuplicateKind | None, str]
"""What a file of the made set is: a duplicate of which kind, None for the first of its kind; and how it was made."""
Change = Callable[[Image.Image, random.Random], Image.Image]


def _crop(part: float) -> Change:
    def change(image: Image.Image, chance: random.Random) -> Image.Image:
        left, top = (chance.random() * part * side for side in image.size)
        width, height = ((1 - part) * side for side in image.size)
        return image.crop((round(left), round(top), round(left + width), round(top + height)))

    return change


def _scale(factor: float) -> Change:
    return lambda image, _: image.resize(tuple(max(1, round(factor * side)) for side in image.size), _BICUBIC)


def _turn(way: Image.Transpose) -> Change:
    return lambda image, _: image.transpose(way)


def _as_is(image: Image.Image, _: random.Random) -> Image.Image:
    return image


SAME: dict[str, tuple[Change, str, dict[str, int]]] = {
    "JPEG 95": (_as_is, "jpg", {"quality": 95}),
    "JPEG 60": (_as_is, "jpg", {"quality": 60}),
    "JPEG 30": (_as_is, "jpg", {"quality": 30}),
    "WebP 60": (_as_is, "webp", {"quality": 60}),
    "PNG": (_as_is, "png", {}),
    "scaled to 0.25": (_scale(0.25), "jpg", {"quality": 80}),
    "scaled to 0.5": (_scale(0.5), "jpg", {"quality": 60}),
    "scaled to 2": (_scale(2), "jpg", {"quality": 80}),
    "cropped by 2 %": (_crop(0.02), "jpg", {"quality": 85}),
    "cropped by 5 %": (_crop(0.05), "jpg", {"quality": 85}),
    "cropped by 10 %": (_crop(0.10), "jpg", {"quality": 85}),
    "rotated by 90°": (_turn(Image.Transpose.ROTATE_90), "jpg", {"quality": 85}),
    "rotated by 180°": (_turn(Image.Transpose.ROTATE_180), "jpg", {"quality": 85}),
    "rotated by 270°": (_turn(Image.Transpose.ROTATE_270), "jpg", {"quality": 85}),
    "mirrored": (_turn(Image.Transpose.FLIP_LEFT_RIGHT), "jpg", {"quality": 85}),
}


def _stand(image: Image.Image, shift: float) -> Image.Image:
    """The middle of a picture, from a little further right and down."""
    width, height = image.size
    left, top = (0.03 + shift) * width, (0.03 + shift) * height
    return image.crop((round(left), round(top), round(left + 0.94 * width), round(top + 0.94 * height)))


def _moved(image: Image.Image, chance: random.Random) -> Image.Image:
    """Something in the picture is elsewhere."""
    width, height = image.size
    x, y = chance.randint(width // 8, width // 2), chance.randint(height // 8, height // 2)
    other = image.copy()
    other.paste(image.crop((x, y, x + width // 4, y + height // 4)), (x + width // 16, y + height // 32))
    return other


BURST: dict[str, Change] = {
    "burst: standpoint": lambda image, _: _stand(image, 0.02),
    "burst: light": lambda image, _: ImageEnhance.Brightness(_stand(image, 0)).enhance(1.25),
    "burst: standpoint and light": lambda image, _: ImageEnhance.Brightness(_stand(image, -0.02)).enhance(0.8),
    "burst: something moved": lambda image, chance: _moved(_stand(image, 0), chance),
}


def make_set(photos: Sequence[Path], folder: Path, *, seed: int = 0) -> dict[str, Told]:
    """Write copies of photographs, as they are and changed; return each file's kind, None for originals, and how."""
    chance, told = random.Random(seed), {}
    folder.mkdir(parents=True)
    for number, path in enumerate(photos):
        with Image.open(path) as opened:
            image = opened.convert("RGB")
        name = f"{number:04}"
        image.save(folder / f"{name}.jpg", quality=92)
        told[f"{name}.jpg"] = (None, "original")
        shutil.copyfile(folder / f"{name}.jpg", folder / f"{name}_copy.jpg")
        told[f"{name}_copy.jpg"] = (DuplicateKind.EXACT, "copied")
        changes = list(SAME.items())
        for step in range(_CHANGES):
            change, (do, ending, options) = changes[(_CHANGES * number + step) % len(changes)]
            file = f"{name}_same{step}.{ending}"
            do(image, chance).save(folder / file, **options)
            told[file] = (DuplicateKind.SAME_PICTURE, change)
    return told


def make_bursts(photos: Sequence[Path], folder: Path, *, seed: int = 0) -> dict[str, Told]:
    """Write bursts of three shots of the middles of photographs, 3 seconds apart; return as `make_set` does."""
    chance, told = random.Random(seed), {}
    folder.mkdir(parents=True)
    for number, path in enumerate(photos):
        with Image.open(path) as opened:
            image = opened.convert("RGB")
        changes = list(BURST.items())
        some = [changes[(2 * number + step) % len(changes)] for step in (0, 1)]
        shots = [("first", _stand(image, 0)), *((change, do(image, chance)) for change, do in some)]
        for second, (what, shot) in enumerate(shots):
            name = f"b{number:04}_{second}.jpg"
            shot.save(folder / name, quality=92, exif=_exif(number, 3 * second))
            told[name] = (DuplicateKind.SAME_MOMENT if second else None, what)
    return told


def _exif(number: int, second: int) -> Image.Exif:
    exif = Image.Exif()
    exif[_Make], exif[_Model] = "Maker", "Model"
    day, hour = number // 24 % 28 + 1, number % 24
    exif.get_ifd(_ExifIFD)[_DateTimeOriginal] = f"2020:{number // 672 + 1:02}:{day:02} {hour:02}:00:{second:02}"
    return exif


def judge(photos: Sequence[Path]) -> None:
    """Make the set, look for duplicates and print what was found."""
    with workshop() as place:
        told = make_set(photos[::2], place / "set") | make_bursts(photos[1::2], place / "bursts")
        with Library.open(place / "library", model="builtin", offline=True) as library:
            started = perf_counter()
            library.index([place / "set", place / "bursts"])
            indexed = perf_counter()
            report = library.duplicates()
        print(
            f"{len(told)} files; indexed in {indexed - started:.0f} s, looked through in {report.seconds:.0f} s\n"
        )
    pairs: dict[frozenset[str], DuplicateKind] = {}
    for group in report.groups:
        for other in group.others:
            names = frozenset((Path(group.keep.path).name, Path(other.photo.path).name))
            pairs[names] = group.kind
    _print_found(told, pairs)


def _print_found(told: dict[str, Told], pairs: dict[frozenset[str], DuplicateKind]) -> None:
    """Print how much was found, by change, and how much of what was found is right, by kind."""
    stem = {name: name.split(".")[0].split("_")[0] for name in told}
    right = {
        names: len({stem[name] for name in names}) == 1 and kind in {told[name][0] for name in names}
        for names, kind in pairs.items()
    }
    by_change: dict[Told, list[str]] = defaultdict(list)
    for name, (kind, change) in told.items():
        if kind is not None:
            found = [k for names, k in pairs.items() if name in names and len({stem[n] for n in names}) == 1]
            by_change[kind, change].append(str(kind if kind in found else found[0] if found else ""))
    print("| kind | change | planted | found as such | found as another kind |\n|---|---|---|---|---|")
    for (kind, change), found in by_change.items():
        also = ", ".join(f"{k} {n}" for k, n in Counter(found).items() if k not in ("", kind)) or "–"
        print(f"| {kind} | {change} | {len(found)} | {found.count(str(kind)) / len(found):.3f} | {also} |")
    print("\n| kind | planted | recall | pairs reported | precision |\n|---|---|---|---|---|")
    for kind in DuplicateKind:
        ours = [f for (k, _), found in by_change.items() if k is kind for f in found]
        reported = [right[names] for names, k in pairs.items() if k is kind]
        recall = f"{ours.count(str(kind)) / len(ours):.3f}" if ours else "–"
        precision = f"{np.mean(reported):.3f}" if reported and ours else "–"
        print(f"| {kind} | {len(ours)} | {recall} | {len(reported)} | {precision} |")
    for names, fine in right.items():
        if not fine and pairs[names] is not DuplicateKind.SIMILAR:
            one, other = sorted(names)
            print(f"\nwrongly {pairs[names]}: {one} ({told[one][1]}), {other} ({told[other][1]})", end="")
    print()


# ---- time


def planted(count: int, dim: int, *, share: float, cosines: Sequence[float]) -> tuple[Vectors, Ids, Ids]:
    """Return vectors of which a share in the second half are near one of the first; and who is near whom."""
    vectors = np.concatenate([rows for _, rows in vector_batches(count, dim)])
    chance = np.random.default_rng(1)
    near = count // 2 + np.arange(round(share * count))
    to = chance.choice(count // 2, len(near), replace=False)
    wanted = np.resize(np.asarray(cosines, np.float32), len(near))[:, None]
    aside = vectors[near] - (vectors[near] * vectors[to]).sum(1, keepdims=True) * vectors[to]
    aside /= np.linalg.norm(aside, axis=1, keepdims=True)
    vectors[near] = wanted * vectors[to] + np.sqrt(1 - wanted**2) * aside
    return vectors, to, near


def every_pair(vectors: Vectors, least: float) -> int:
    """Count near pairs the plain way: each row against every other."""
    found = 0
    for start in range(0, len(vectors), 1024):
        scores = vectors[start : start + 1024] @ vectors.T
        found += int((scores >= least).sum()) - len(scores)
    return found // 2


def shortlists(count: int, dim: int) -> None:
    """Print what the shortlists of so many photos take, and find."""
    vectors, to, near = planted(count, dim, share=0.01, cosines=(0.98, 0.94, 0.9))
    started = process_time()
    pairs = near_rows(lambda at: vectors[at], count, NEAREST, 0.85)
    listed = process_time() - started
    found = set(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))
    hits = np.array([pair in found for pair in zip(to.tolist(), near.tolist(), strict=True)])
    started = process_time()
    every_pair(vectors[: count // 5], 0.85)
    plain = 25 * (process_time() - started)
    chance = np.random.default_rng(2)
    hashes = chance.integers(0, 256, (count, 8, 8), np.uint8)
    hashes[near, 0] = hashes[to, chance.integers(0, 8, len(near))]
    for bit in (3, 21, 40, 57, 60):
        hashes[near, 0, bit // 8] ^= np.uint8(1 << bit % 8)
    started = process_time()
    hashed = by_hash(np.arange(count), hashes)
    by_hash_s = process_time() - started
    same = set(zip(hashed.first.tolist(), hashed.second.tolist(), strict=True))
    hashed_hits = np.mean([pair in same for pair in zip(to.tolist(), near.tolist(), strict=True)])
    print(f"| {count:,} photos, {dim} dimensions | CPU s | of every pair, a fifth of the photos × 25 | recall |")
    print("|---|---|---|---|")
    print(f"| near by their vectors | {listed:.1f} | 1/{plain / listed:.1f} | ", end="")
    print(", ".join(f"{hits[step::3].mean():.3f} at {cos}" for step, cos in enumerate((0.98, 0.94, 0.9))) + " |")
    print(f"| same but for 5 bits of their hashes, in any of 8 turns | {by_hash_s:.1f} | | {hashed_hits:.3f} |\n")


def whole(count: int, dim: int) -> None:
    """Print what a look through a library of so many photos takes that were never on this machine."""
    vectors, to, near = planted(count, dim, share=0.01, cosines=(0.99,))
    with workshop() as place:
        catalog = Catalog(str(place / "library"))
        catalog.create()
        with catalog.writing() as writer:
            encoder = writer.register(Identity(dim=dim))
            root = writer.add_source(ROOT, is_folder=True).root_id
            for start in range(0, count, 4096):
                some = range(start, min(start + 4096, count))
                writer.add([_record(root, number) for number in some], vectors[start : start + 4096], encoder)
        catalog.close()
        with Library.open(place / "library", offline=True) as library:
            library.rebuild()
            used, started = process_time(), perf_counter()
            report = library.duplicates()
            took_s, cpu_s = perf_counter() - started, process_time() - used
    numbers = [{int(Path(p.path).stem) for p in (g.keep, *(o.photo for o in g.others))} for g in report.groups]
    found = sum({one, other} in numbers for one, other in zip(to.tolist(), near.tolist(), strict=True))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(
        f"`search duplicates` on {count:,} photos: {took_s:.0f} s, {cpu_s:.0f} s of CPU, {memory:.1f} GB at most,"
    )
    print(f"the planted vectors included; {found} of {len(near)} planted pairs found.")


def _record(root: int, number: int) -> Record:
    """A photo of a burst of its own."""
    place = f"{number // 1000:04}/{number:07}.jpg"
    stat = FileStat(f"{ROOT}/{place}", 1_000_000 + number, 10**18 + number)
    info = PhotoInfo("jpeg", 4000, 3000, 1, _START + timedelta(minutes=number), TakenAtSource.EXIF, "A")
    digest = hashlib.sha512(b"%d" % number).digest()
    file = ScannedFile(root, place.encode(), stat, Verdict.NEW, None)
    return Record(file, digest[:32], info, Likeness(METHOD, digest, 100.0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--most", type=int, default=300)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=512)
    arguments = parser.parse_args()
    if arguments.photos:
        print_head("Duplicates on a made set")
        judge(
            sorted(p for p in arguments.photos.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))[
                : arguments.most
            ]
        )
    else:
        print_head("Duplicates among many")
        shortlists(arguments.count, arguments.dim)
        whole(arguments.count, arguments.dim)


if __name__ == "__main__":
    main()
