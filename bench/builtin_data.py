"""The photos and phrases that the built-in model was trained with, out of clones of public repositories.

    python bench/builtin_data.py CLONES OUT [--held-out DIR...]

CLONES holds a git clone of each repository below, in a folder OWNER+NAME; objects that a clone lacks are left out. OUT
gets `train.tsv`, which `search train contrastive` reads, `held_out.tsv`, and photos scaled to a shorter side of 128
pixels, with some drawn pictures among them. A tenth of each set is held out by its names, where it has no split of its
own, and a photo to train with that looks like one that is held out (correlation of 16 × 16 thumbnails above 0.97) is
left out. Photos under --held-out are held out too.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import subprocess
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from drawn import drawings

SIDE = 128
ALIKE = 0.97
COPIES = {"flickr": 4, "coco": 4, "cells": 8, "xrays": 8, "drawn": 2}
"""How often in an epoch: photos with captions say more than a name, and those of science are few."""

_SUFFIXES = (".jpg", ".jpeg", ".png")
_THUMBNAIL = 16
_HELD_OUT_OF_256 = 26


@dataclass(frozen=True, slots=True)
class Clone:
    """A repository at a commit."""

    folder: Path
    commit: str

    def names(self, under: str) -> list[tuple[str, str]]:
        """Return (object, path) of every file under a path."""
        listed = self._git("ls-tree", "-r", "-z", self.commit, "--", under).split(b"\0")
        rows = [line.decode("utf-8", "replace").split("\t", 1) for line in listed if line]
        return [(about.split()[2], path) for about, path in rows]

    def read(self, path: str) -> bytes:
        return self._git("show", f"{self.commit}:{path}")

    def contents(self, objects: Sequence[str]) -> Iterator[bytes | None]:
        """Yield the bytes of objects, None for one that the clone lacks."""
        command = ["git", "-C", str(self.folder), "cat-file", "--batch"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdin and process.stdout
            for name in objects:
                process.stdin.write(name.encode() + b"\n")
                process.stdin.flush()
                about = process.stdout.readline().split()
                if about[1] == b"missing":
                    yield None
                    continue
                yield process.stdout.read(int(about[2]))
                process.stdout.read(1)  # the line's end

    def _git(self, *arguments: str) -> bytes:
        command = ["git", "-C", str(self.folder), *arguments]
        return subprocess.run(command, capture_output=True, check=True).stdout


Phrases = Callable[[Clone, PurePosixPath], Sequence[str] | None]


@dataclass(frozen=True, slots=True)
class Source:
    """A set of photos in a repository.

    phrases: what may be said of the photo at a path, None for one that is no part of the set.   split: whether a path
    is held out; None: a tenth by name.
    """

    set: str
    repository: str
    commit: str
    under: str
    phrases: Phrases
    split: Callable[[Clone, PurePosixPath], bool] | None = None


def an(name: str) -> str:
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def said_of(names: Sequence[str], *more: str) -> list[str]:
    """Return what may be said of a class: its first names, bare and in sentences.   more: templates of one name."""
    bare = list(dict.fromkeys(name.replace("_", " ").strip() for name in names))[:4]
    sentences = [
        sentence
        for name in bare[:3]
        for sentence in (f"a photo of {an(name)}.", f"a photo of the {name}.", f"a close-up photo of {an(name)}.")
    ]
    return [*bare, *sentences, *(template.format(bare[0]) for template in more)]


def text(clone: Clone, path: str) -> str:
    return clone.read(path).decode("utf-8", "replace")


def by_wordnet(words: Mapping[str, Sequence[str]], _: Clone, path: PurePosixPath) -> Sequence[str] | None:
    number = next((part[:9] for part in path.parts if part[:9] in words), "")
    return said_of(words[number]) if number else None


def product(_: Clone, path: PurePosixPath) -> Sequence[str] | None:
    return None if "iconic" in str(path) else said_of([path.parent.name.replace("-", " ")])


def by_table(table: Mapping[str, Sequence[str]], _: Clone, path: PurePosixPath) -> Sequence[str] | None:
    """Look a photo's phrases up by its folder, else by its name without digits."""
    return table.get(path.parent.name) or table.get("".join(filter(str.isalpha, path.stem)))


SCENES = {
    "buildings": ("buildings", "a building", "city buildings", "a photo of buildings."),
    "forest": ("forest", "a forest", "trees in a forest", "a photo of a forest."),
    "glacier": ("glacier", "a glacier", "snow and ice", "a photo of a glacier."),
    "mountain": ("mountain", "mountains", "a mountain landscape", "a photo of a mountain."),
    "sea": ("sea", "the sea", "the ocean", "a photo of the sea."),
    "street": ("street", "a street", "a city street", "a photo of a street."),
}
WEATHER = {
    "cloudy": ("cloudy sky", "clouds", "a cloudy day", "a photo of clouds."),
    "rain": ("rain", "a rainy day", "a photo of rain."),
    "shine": ("sunshine", "a sunny day", "the sun in the sky"),
    "sunrise": ("sunrise", "sunset", "the sun rising over the horizon", "a photo of a sunrise."),
}
CALTECH = {
    "Faces_easy": ("face", "human face", "person"),
    "Faces": ("face", "human face", "person"),
    "airplanes": ("airplane",),
    "car_side": ("car from the side",),
    "cougar_body": ("cougar",),
    "cougar_face": ("face of a cougar",),
    "crocodile_head": ("head of a crocodile",),
    "flamingo_head": ("head of a flamingo",),
    "Leopards": ("leopard",),
    "Motorbikes": ("motorbike", "motorcycle"),
}
CELLS = ("blood cells under a microscope", "a microscope picture of cells", "a stained blood smear", "cells")
XRAYS = ("x-ray", "a chest x-ray", "an x-ray picture of the lungs", "a medical scan")
STYLES = {
    "photo": ("a photo of {}.", "a close-up photo of {}."),
    "art_painting": ("a painting of {}.", "an oil painting of {}.", "art of {}.", "a photo of {}."),
    "cartoon": ("a cartoon of {}.", "an illustration of {}.", "a drawing of {}.", "a photo of {}."),
    "sketch": ("a sketch of {}.", "a pencil drawing of {}.", "a line drawing of {}.", "a photo of {}."),
}


def caltech(_: Clone, path: PurePosixPath) -> Sequence[str] | None:
    name = path.parent.name
    return None if name == "BACKGROUND_Google" else said_of(CALTECH.get(name, (name,)))


def style(_: Clone, path: PurePosixPath) -> Sequence[str]:
    name = path.parent.name
    return [name, *(template.format(an(name)) for template in STYLES[path.parent.parent.name])]


def dog(words: Mapping[str, Sequence[str]], _: Clone, path: PurePosixPath) -> Sequence[str]:
    number, name = path.parent.name.split("-", 1)
    return said_of(words[number]) if number in words else said_of([name], "a photo of a {}, a breed of dog.")


def texture(_: Clone, path: PurePosixPath) -> Sequence[str]:
    name = path.parent.name
    return [name, f"{name} texture", f"a photo of a {name} texture.", f"{name} pattern"]


def waste(_: Clone, path: PurePosixPath) -> Sequence[str]:
    name = path.parent.name
    return [name, f"{name} waste", f"a photo of {name}."]


def pet(_: Clone, path: PurePosixPath) -> Sequence[str]:
    return said_of(["cat" if "cat" in path.name else "dog"])


def clothes(_: Clone, path: PurePosixPath) -> Sequence[str]:
    name = path.parent.name
    return said_of([{"longsleeve": "long-sleeved shirt", "outwear": "jacket"}.get(name, name)])


def captioned(captions: Mapping[str, Sequence[str]], _: Clone, path: PurePosixPath) -> Sequence[str] | None:
    return captions.get(path.name)


def garment(table: Mapping[str, Sequence[str]], _: Clone, path: PurePosixPath) -> Sequence[str] | None:
    return table.get(path.stem)


def sources(clones: Callable[[str, str], Clone]) -> Iterator[Source]:
    """Yield the sets, with the texts that belong to them read."""
    tiny = clones("Sachitbansal/DLA", "4457920")
    words = dict(line.split("\t") for line in text(tiny, "tiny-imagenet-200/words.txt").splitlines())
    named = {number: names.split(",") for number, names in words.items()}
    wordnet, never = partial(by_wordnet, named), lambda *_: False
    yield Source("tiny", "Sachitbansal/DLA", "4457920", "tiny-imagenet-200/train", wordnet, never)
    for name, repository, commit in (
        ("mini", "Deo0330/split_minidataset", "557ebca"),
        ("imagenette", "thunderInfy/imagenette", "b850f03"),
    ):
        yield Source(name, repository, commit, ".", wordnet)
    yield Source("dogs", "ksara28/dog-breed-classification", "ce81acc", "images", partial(dog, named))
    for name, repository, commit, under, phrases in (
        ("intel", "afroozsheikh/Intel-Image-Classifier", "1bde52b2", ".", partial(by_table, SCENES)),
        *(
            (f"pacs_{name}", "MachineLearning2020/Homework3-PACS", "d586a6c", f"PACS/{name}", style)
            for name in STYLES
        ),
        ("caltech", "taibarehm/CVassimgement", "5e5ee69", "caltech-101", caltech),
        ("grocery", "marcusklasson/GroceryStoreDataset", "fc80ba9", "dataset", product),
        ("clothing", "alexeygrigorev/clothing-dataset-small", "1196151", ".", clothes),
        ("catsdogs", "quoctrung163/keras-cnn-on-cats-and-dogs-dataset", "8eb7e53", "train", pet),
        ("textures", "pan8915/DeepTexture", "522f46f", "images", texture),
        ("trash", "congduytran12/Trash-Classification-", "00212f2", "dataset-resized", waste),
        (
            "weather",
            "talalahmad27/Image-Classification-Using-Pretrained-models",
            "08bb03a616",
            "dataset2",
            partial(by_table, WEATHER),
        ),
        ("cells", "Shenggan/BCCD_Dataset", "d272fb1", "BCCD/JPEGImages", lambda *_: CELLS),
        ("xrays", "agchung/Figure1-COVID-chestxray-dataset", "95bb569", "images", lambda *_: XRAYS),
        ("xrays", "agchung/Actualmed-COVID-chestxray-dataset", "27240dd", "images", lambda *_: XRAYS),
    ):
        yield Source(name, repository, commit, under, phrases)
    yield flowers(clones)
    yield fashion(clones)
    yield flickr(clones)
    yield from coco(clones)


def flowers(clones: Callable[[str, str], Clone]) -> Source:
    place = "kibru9399/Image-classifier", "c4503f1"
    names = json.loads(text(clones(*place), "cat_to_name.json"))
    more = "a photo of a {}, a type of flower.", "{} flower", "a photo of a flower."
    table = {number: said_of([name], *more) for number, name in names.items()}
    return Source("flowers102", *place, "flowers/train", partial(by_table, table))


def fashion(clones: Callable[[str, str], Clone]) -> Source:
    told = clones("animmala3942/FashionProductRecommendationSystem", "HEAD")
    facts = list(csv.DictReader(io.StringIO(text(told, "styles.csv"))))
    names = csv.DictReader(io.StringIO(text(told, "styles_text.csv")))  # in the same order
    table = {}
    for fact, name in zip(facts, names, strict=True):
        kind, colour, gender = (fact[key].lower() for key in ("articleType", "baseColour", "gender"))
        table[fact["id"]] = [
            name["productDisplayName"],
            *(f"{colour} {kind}", kind, f"a photo of {colour} {kind}.", f"{gender}'s {kind}"),
        ]
    place = "GaneshNeupane01/Fashion-Recommendation-System", "7cf2634"
    return Source("fashion", *place, "images", partial(garment, table))


def flickr(clones: Callable[[str, str], Clone]) -> Source:
    told = clones("edwardcruzcruz/Describiendo_imagenes_keras", "HEAD")
    said = defaultdict(list)
    for line in text(told, "Flickr8k_text/Flickr8k.token.txt").splitlines():
        name, caption = line.split("\t", 1)
        said[name.split("#")[0]].append(" ".join(caption.split()))
    test = set(text(told, "Flickr8k_text/Flickr_8k.testImages.txt").split())
    place = "RlNZLER/Image-Text-Matching", "56a15d913c3f290e2ee896386ece6076c1eea02e"
    return Source("flickr", *place, "data/images", partial(captioned, said), lambda _, path: path.name in test)


def coco(clones: Callable[[str, str], Clone]) -> Iterator[Source]:
    for repository, commit, folder in (
        ("Obmutescence/COCO-MINI", "644f29e", "."),
        ("lizhogn/tiny_coco_dataset", "68523dd", "tiny_coco"),
    ):
        said = defaultdict(list)
        for part in ("train2017", "val2017"):
            clone = clones(repository, commit)
            told = json.loads(text(clone, str(PurePosixPath(folder) / f"annotations/captions_{part}.json")))
            names = {image["id"]: image["file_name"] for image in told["images"]}
            for one in told["annotations"]:
                said[names[one["image_id"]]].append(" ".join(one["caption"].split()))
        yield Source("coco", repository, commit, folder, partial(captioned, said))


@dataclass(frozen=True, slots=True)
class Photo:
    """One photo of a set, scaled down.   phrases: what may be said of it.   thumbnail: (256,) unit, centred."""

    set: str
    path: Path
    phrases: tuple[str, ...]
    held_out: bool
    thumbnail: np.ndarray


def photos(source: Source, clone: Clone, out: Path) -> Iterator[Photo]:
    """Scale the photos of a set and yield them; what is no picture is left out."""
    rows = [(name, PurePosixPath(path)) for name, path in clone.names(source.under)]
    rows = [row for row in rows if row[1].suffix.lower() in _SUFFIXES]
    for (_, path), content in zip(rows, clone.contents([name for name, _ in rows]), strict=True):
        phrases = source.phrases(clone, path)
        if content is None or not phrases:
            continue
        held_out = source.split(clone, path) if source.split else is_tenth(f"{source.set}/{path.name}")
        target = out / "images" / source.set / f"{hashlib.sha1(str(path).encode()).hexdigest()}.jpg"
        found = scaled(content, target)
        if found is not None:
            yield Photo(source.set, target, tuple(phrases), held_out, found)


def drawn(out: Path) -> Iterator[Photo]:
    """Write the drawn pictures and yield them."""
    folder = out / "images" / "drawn"
    folder.mkdir(parents=True, exist_ok=True)
    for number, (image, phrases) in enumerate(drawings()):
        target = folder / f"{number:05}.jpg"
        image.save(target, quality=90)
        yield Photo("drawn", target, tuple(phrases), held_out=False, thumbnail=thumbnail(image))


def is_tenth(name: str) -> bool:
    return hashlib.md5(name.encode()).digest()[0] < _HELD_OUT_OF_256


def scaled(content: bytes, target: Path) -> np.ndarray | None:
    """Write a photo with a shorter side of SIDE pixels, or as it is if smaller; return its thumbnail."""
    try:
        with Image.open(io.BytesIO(content)) as opened:
            opened.draft("RGB", (SIDE, SIDE))
            image = opened.convert("RGB")
    except (OSError, ValueError):
        return None
    target.parent.mkdir(parents=True, exist_ok=True)
    if min(image.size) > SIDE:
        scale = SIDE / min(image.size)
        width, height = (max(SIDE, round(scale * side)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=3)
        image.save(target, quality=90)
    else:
        target.write_bytes(content)
    return thumbnail(image)


def thumbnail(image: Image.Image) -> np.ndarray:
    small = image.convert("L").resize((_THUMBNAIL, _THUMBNAIL), Image.Resampling.BOX)
    grey = np.asarray(small, np.float32).ravel()
    grey = grey - grey.mean()
    return grey / max(float(np.linalg.norm(grey)), 1e-3)


def without_look_alikes(found: Sequence[Photo], held_out: np.ndarray) -> list[Photo]:
    """Return the photos to train with that look like none of these thumbnails, (M, 256)."""
    kept = []
    for begin in range(0, len(found), 4096):
        part = found[begin : begin + 4096]
        alike = np.stack([photo.thumbnail for photo in part]) @ held_out.T  # (N, M)
        kept += [photo for photo, most in zip(part, alike.max(axis=1), strict=True) if most <= ALIKE]
    return kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clones", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--held-out", type=Path, nargs="*", default=[])
    options = parser.parse_args()
    clones = cache(lambda repository, commit: Clone(options.clones / repository.replace("/", "+"), commit))
    found: list[Photo] = []
    for source in sources(clones):
        before = len(found)
        found += photos(source, clones(source.repository, source.commit), options.out)
        print(f"{source.set}: {len(found) - before} photos", flush=True)
    found += drawn(options.out)
    apart = [photo for photo in found if photo.held_out]
    unseen = [photo.thumbnail for photo in apart]
    for folder in options.held_out:
        unseen += [
            thumbnail(Image.open(path)) for path in sorted(folder.rglob("*")) if path.suffix.lower() in _SUFFIXES
        ]
    kept = without_look_alikes([photo for photo in found if not photo.held_out], np.stack(unseen))
    alike = len(found) - len(kept) - len(apart)
    print(f"{len(kept)} photos to train with, {len(apart)} held out, {alike} look like those")
    write(options.out / "train.tsv", [copy for photo in kept for copy in copies(photo)])
    write(options.out / "held_out.tsv", apart)


def copies(photo: Photo) -> Iterator[Photo]:
    """Yield a photo once, or with other names for as often as it is to come in an epoch."""
    yield photo
    for number in range(1, COPIES.get(photo.set, 1)):
        other = photo.path.with_stem(f"{photo.path.stem}-{number}")
        other.unlink(missing_ok=True)
        other.hardlink_to(photo.path)
        yield replace(photo, path=other)


def write(table: Path, found: Sequence[Photo]) -> None:
    with table.open("w", encoding="utf-8") as file:
        file.write("image\tcaption\n")
        for photo in found:
            file.writelines(f"{photo.path.relative_to(table.parent)}\t{phrase}\n" for phrase in photo.phrases)


if __name__ == "__main__":
    main()
