"""Zero-shot, retrieval and robustness on vectors whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest

from search.errors import UsageError
from search.evaluate.corruptions import CORRUPTIONS, STRENGTHS
from search.evaluate.datasets import Captions, Dataset
from search.evaluate.metrics import mean_average_precision
from search.evaluate.retrieval import evaluate_retrieval
from search.evaluate.robustness import (
    compare_corrupted,
    compare_styles,
    corrupted_vectors,
    folders_of_styles,
    in_common,
)
from search.evaluate.zero_shot import evaluate_zero_shot, label_set


def dataset(targets, classes: int, name: str = "set", folders=None, truth=None) -> Dataset:
    folders = folders or tuple(f"class{number}" for number in range(classes))
    paths = tuple(f"/{name}/{row}.jpg" for row in range(len(targets)))
    return Dataset(name, folders, paths, np.array(targets, np.int64), folders, truth=truth)


def at(*classes: int, of: int) -> np.ndarray:
    """Photos that look like these classes."""
    return np.eye(of, dtype=np.float32)[list(classes)]


def test_zero_shot_figures_of_known_answers():
    found = evaluate_zero_shot(
        at(0, 0, 1, 1, 2, 3, of=6), np.eye(6, dtype=np.float32), dataset([0, 0, 0, 1, 2, 5], 6)
    )
    assert found.figures["acc1"].value == pytest.approx(4 / 6)
    assert found.figures["mean_per_class_recall"].value == pytest.approx((2 / 3 + 1 + 1 + 0) / 4)
    assert found.figures["acc5"].value == pytest.approx(5 / 6)  # class 5 is the last of five equal ones
    assert all(figure.low <= figure.value <= figure.high for figure in found.figures.values())
    worst, second, *_ = found.classes
    assert (worst.folder, worst.photos, worst.recall.value, worst.confused) == ("class5", 1, 0.0, (("class3", 1),))
    assert (second.folder, second.confused) == ("class0", (("class1", 1),))
    assert found.confusion.sum() == 6


def test_of_four_classes_there_are_no_five_best():
    found = evaluate_zero_shot(at(0, 1, of=4), np.eye(4, dtype=np.float32), dataset([0, 1], 4))
    assert set(found.figures) == {"acc1", "mean_per_class_recall"}


def test_photos_of_several_classes_are_ranked_by_each():
    random = np.random.default_rng(0)
    vectors, weights = (random.standard_normal((rows, 8)).astype(np.float32) for rows in (40, 3))
    truth = random.random((40, 3)) < 0.4
    found = evaluate_zero_shot(vectors, weights, dataset([0] * 40, 3, truth=truth))
    figure = found.figures["mean_average_precision"]
    assert set(found.figures) == {"mean_average_precision"}
    assert figure.value == pytest.approx(mean_average_precision(vectors @ weights.T, truth))
    assert figure.low < figure.value < figure.high
    assert found.classes == ()


def test_a_photo_of_no_class_is_wrong_for_all_of_them():
    truth = np.array([[1, 1], [0, 0], [0, 1]], bool)
    found = evaluate_zero_shot(at(0, 0, 1, of=2), np.eye(2, dtype=np.float32), dataset([0, -1, 1], 2, truth=truth))
    assert found.figures["mean_average_precision"].value == 1.0  # of equal scores the first counts as better
    assert found.confusion.shape == (0, 0)


def test_rare_classes_leave_the_mean_inside_its_interval():
    """Of forty photos in thirty classes a resample lacks many; they are none of its mean."""
    random = np.random.default_rng(3)
    weights = random.standard_normal((30, 8)).astype(np.float32)
    for _ in range(5):
        classes = np.concatenate([np.arange(30), random.integers(0, 30, 10)])
        vectors = weights[classes] + 1.5 * random.standard_normal((40, 8)).astype(np.float32)
        one = dataset([0] * 40, 30, truth=np.eye(30, dtype=bool)[classes])
        figure = evaluate_zero_shot(vectors, weights, one).figures["mean_average_precision"]
        assert figure.low + 0.03 < figure.value < figure.high - 0.03


def test_a_class_that_no_photo_is_of_counts_nothing_in_the_interval_too():
    random = np.random.default_rng(0)
    vectors, weights = (random.standard_normal((rows, 8)).astype(np.float32) for rows in (40, 4))
    truth = random.random((40, 4)) < 0.4
    truth[:, 2:] = False
    figure = evaluate_zero_shot(vectors, weights, dataset([0] * 40, 4, truth=truth)).figures
    assert figure["mean_average_precision"].high < 0.5


def test_classes_that_are_called_alike_are_two():
    one = dataset([0, 1], 2, folders=("n01", "n02")).named(["crane", "crane | machine"])
    labels = label_set(one, ["a {}"])
    assert labels.names == ("n01", "n02")
    assert [labels.sentences(label) for label in labels.labels] == [["a crane"], ["a crane", "a machine"]]


def test_sentences_may_stand_for_what_a_class_is_called():
    one = dataset([0], 2, folders=("n01", "n02")).named(["crane", "fox"])
    labels = label_set(one, prompts={"crane": ["a tall bird"], "n02": ["a red animal"]})
    assert [labels.sentences(label) for label in labels.labels] == [["a tall bird"], ["a red animal"]]
    with pytest.raises(UsageError, match="no prompts for n02"):
        label_set(one, prompts={"crane": ["a tall bird"]})


def captions(owners) -> Captions:
    return Captions(
        "set", tuple(f"/{row}.jpg" for row in range(max(owners) + 1)), ("x",) * len(owners), np.array(owners)
    )


def test_retrieval_figures_of_known_answers():
    """Of four captions two find their photo first, a third second; of three photos two find a caption first."""
    images = np.eye(3, dtype=np.float32)
    texts = np.array([[1, 0, 0], [0, 1, 0], [0, 1, 0.5], [1, 0, 0.2]], np.float32)
    found = evaluate_retrieval(
        images,
        texts,
        captions([0, 1, 2, 2]),
        lengths=[5, 8, 90, 12],
        context_length=77,
        recall_k=(1, 2),
        edges=(10,),
    )
    values = {name: figure.value for name, figure in found.figures.items()}
    assert values == {
        "image_retrieval_recall@1": 0.5,
        "text_retrieval_recall@1": 1.0,
        "image_retrieval_recall@2": 1.0,
        "text_retrieval_recall@2": 1.0,
    }
    short, long = found.bins
    assert (short.low, short.high, short.captions, short.recalls[1].value) == (5, 8, 2, 1.0)
    assert (long.low, long.high, long.captions, long.recalls[1].value) == (12, 90, 2, 0.0)
    assert (found.truncated, found.truncated_tokens) == (1, 13)


def test_bins_hold_as_many_captions_each_as_equal_lengths_permit():
    random = np.random.default_rng(0)
    images = random.standard_normal((20, 4)).astype(np.float32)
    owners = np.repeat(np.arange(20), 5)
    for lengths in ([*range(100)], [7] * 100, [7] * 60 + [9] * 40):
        found = evaluate_retrieval(
            images, images[owners], captions(owners.tolist()), lengths=lengths, context_length=77
        )
        assert sum(one.captions for one in found.bins) == 100
        assert len(found.bins) == min(5, len(set(lengths)))
        assert all(left.high < right.low for left, right in zip(found.bins, found.bins[1:], strict=False))


def test_bins_go_by_the_lengths_of_another_model_where_these_are_given():
    images = np.eye(4, dtype=np.float32)
    found = evaluate_retrieval(
        images,
        images,
        captions([0, 1, 2, 3]),
        lengths=[90, 5, 5, 5],
        context_length=77,
        edges=[10],
        counted=[6, 7, 20, 21],
    )
    assert [(one.low, one.high) for one in found.bins] == [(6, 7), (20, 21)]
    assert found.truncated_tokens == 13


def test_the_interval_knows_that_captions_of_a_photo_are_alike():
    """Ten photos with a hundred captions each, all right or all wrong, are ten answers and not a thousand."""
    images = np.eye(10, dtype=np.float32)
    texts = np.repeat(images, 100, axis=0)
    texts[500:] = np.repeat(images[:5], 100, axis=0)
    owners = np.repeat(np.arange(10), 100).tolist()
    found = evaluate_retrieval(
        images, texts, captions(owners), lengths=[5] * 1000, context_length=77, recall_k=(1,)
    )
    figure = found.figures["image_retrieval_recall@1"]
    assert figure.value == 0.5
    assert figure.low < 0.3
    assert figure.high > 0.7


def test_captions_that_all_find_their_photo_are_as_sure_as_there_are_photos():
    images = np.eye(10, dtype=np.float32)
    owners = np.repeat(np.arange(10), 100).tolist()
    found = evaluate_retrieval(
        images, images[owners], captions(owners), lengths=[5] * 1000, context_length=77, recall_k=(1,)
    )
    both = found.figures["image_retrieval_recall@1"], found.figures["text_retrieval_recall@1"]
    assert both[0] == both[1]
    assert both[0].low < 0.75


def test_the_drop_is_against_the_first_style():
    weights = np.eye(2, dtype=np.float32)
    photo = dataset([0, 1] * 50, 2, "photo"), at(*([0, 1] * 50), of=2)
    sketch = dataset([0, 1] * 50, 2, "sketch"), at(*([0, 1] * 25 + [1, 0] * 25), of=2)
    first, second = compare_styles([photo, sketch], weights)
    assert (first.name, first.acc1.value, first.drop.value) == ("photo", 1.0, 0.0)
    assert (second.name, second.acc1.value, second.drop.value) == ("sketch", 0.5, 0.5)
    assert 0.3 < second.drop.low < 0.5 < second.drop.high < 0.7
    assert second.mean_per_class_recall == 0.5


def test_corrupted_photos_are_compared_one_by_one():
    weights, one = np.eye(2, dtype=np.float32), dataset([0, 1] * 20, 2)
    clean, spoiled = at(*([0, 1] * 20), of=2), at(*([0, 0] * 20), of=2)
    found = compare_corrupted(one, clean, {("noise", 1): clean, ("noise", 2): spoiled}, weights)
    assert [(row.corruption, row.strength, row.acc1.value, row.drop.value) for row in found] == [
        ("noise", 1, 1.0, 0.0),
        ("noise", 2, 0.5, 0.5),
    ]
    assert -0.1 < found[0].drop.low < 0 < found[0].drop.high < 0.1, "no difference seen is not none"


def test_only_classes_that_all_have_are_compared():
    one, other = dataset([0, 1, 2], 3, "one", ("a", "b", "c")), dataset([0, 1, 1], 3, "two", ("b", "c", "d"))
    (left, right), beside = in_common([one, other])
    assert left.folders == right.folders == ("b", "c")
    assert (left.targets.tolist(), right.targets.tolist()) == ([0, 1], [0, 1, 1])
    assert beside == {"one": ["a"], "two": ["d"]}
    with pytest.raises(UsageError, match="fewer than two classes in common"):
        in_common([one, dataset([0], 2, "three", ("x", "y"))])


def test_a_folder_of_styles_is_told_from_one_of_classes(tmp_path, make_photo):
    for style in ("cartoon", "photo", "art"):
        for name in ("cat", "dog"):
            make_photo(tmp_path / "styles" / style / name / "1.png", 1)
    styles = str(tmp_path / "styles")
    assert [path.rpartition("/")[2] for path in folders_of_styles(styles)] == ["photo", "art", "cartoon"]
    assert folders_of_styles(styles, "art")[0].endswith("art")
    assert folders_of_styles(f"{styles}/photo") == []
    with pytest.raises(UsageError, match="no style sketch"):
        folders_of_styles(styles, "sketch")


# ---- corruptions


@pytest.fixture(scope="module")
def square() -> np.ndarray:
    random = np.random.default_rng(0)
    return np.repeat(np.repeat(random.integers(40, 216, (14, 14, 3), np.uint8), 16, axis=0), 16, axis=1)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corruption_is_the_same_each_time_and_stronger_each_step(name, square):
    spoiled = [CORRUPTIONS[name](square, strength) for strength in STRENGTHS]
    assert all(np.array_equal(image, CORRUPTIONS[name](square, n)) for n, image in enumerate(spoiled, 1))
    assert {(image.shape, image.dtype.name) for image in spoiled} == {((224, 224, 3), "uint8")}
    errors = [np.abs(np.float32(image) - square).mean() for image in spoiled]
    assert errors == sorted(errors)
    assert errors[0] > 0.5


def test_noise_has_the_published_deviation_and_is_each_pictures_own(square):
    grey = np.full((224, 224, 3), 128, np.uint8)
    spread = np.float32(CORRUPTIONS["noise"](grey, 1)).std() / 255
    assert spread == pytest.approx(0.08, abs=1e-3)
    other = CORRUPTIONS["noise"](grey + 1, 1).astype(int) - CORRUPTIONS["noise"](grey, 1)
    assert other.std() > 10


def test_contrast_keeps_the_mean_of_each_channel(square):
    low = CORRUPTIONS["contrast"](square, 5)
    assert low.mean(axis=(0, 1)) == pytest.approx(square.mean(axis=(0, 1)), abs=0.5)
    assert low.std(axis=(0, 1)) / square.std(axis=(0, 1)) == pytest.approx([0.05] * 3, rel=0.1)


def test_blur_is_a_gaussian(square):
    from scipy.ndimage import gaussian_filter1d

    smooth = gaussian_filter1d(
        gaussian_filter1d(np.float64(square), 2, axis=0, mode="nearest"), 2, axis=1, mode="nearest"
    )
    assert np.abs(CORRUPTIONS["blur"](square, 2) - smooth).max() < 0.51  # rounded to grey levels
    small = square[::2, ::2]
    half = gaussian_filter1d(
        gaussian_filter1d(np.float64(small), 1, axis=0, mode="nearest"), 1, axis=1, mode="nearest"
    )
    assert np.abs(CORRUPTIONS["blur"](small, 2) - half).max() < 0.51


def test_corrupted_vectors_are_kept_and_their_own(open_pictures, album, counting):
    paths = [str(path) for path in sorted(album.rglob("*.png"))[:3]]
    with open_pictures() as pictures:
        clean = pictures.image_vectors(paths).vectors
        first = corrupted_vectors(pictures, paths, ["blur"])
    assert counting.images == 3 + 3 * 5
    with open_pictures() as pictures:
        again = corrupted_vectors(pictures, paths, ["blur"])
    assert counting.images == 3 + 3 * 5
    assert list(first) == [("blur", strength) for strength in STRENGTHS]
    assert all(np.array_equal(first[key], again[key]) for key in first)
    cosines = [(first["blur", strength] * clean).sum(axis=1).mean() for strength in STRENGTHS]
    assert cosines[0] > cosines[-1]
    assert cosines[0] > 0.9
    with open_pictures() as pictures, pytest.raises(UsageError, match="no corruption fog"):
        corrupted_vectors(pictures, paths, ["fog"])


@pytest.mark.parametrize(
    "damage", [lambda kept: kept[: len(kept) // 2], lambda kept: bytes(len(kept)), lambda kept: b""]
)
def test_damaged_vectors_of_corrupted_photos_are_made_anew(open_pictures, album, counting, damage):
    paths = [str(path) for path in sorted(album.rglob("*.png"))[:2]]
    with open_pictures() as pictures:
        pictures.image_vectors(paths)
        first = corrupted_vectors(pictures, paths, ["jpeg"])
        kept = sorted((pictures.folder / "corrupted").iterdir())
        kept[2].write_bytes(damage(kept[2].read_bytes()))
        before = counting.images
        again = corrupted_vectors(pictures, paths, ["jpeg"])
        assert counting.images == before + 2
        corrupted_vectors(pictures, paths, ["jpeg"])
        assert counting.images == before + 2
    assert all(np.array_equal(first[key], again[key]) for key in first)
