from __future__ import annotations

import os

import numpy as np
import pytest

from search.errors import UsageError
from search.evaluate.datasets import Captions, Dataset, spoken


@pytest.fixture
def classes(tmp_path, make_photo):
    root = tmp_path / "classes"
    for folder, count in (("red_fox", 2), ("cat", 3), ("n02084071_dog", 1)):
        for number in range(count):
            make_photo(root / folder / f"{number}.png", number)
    return root


def names(dataset: Dataset) -> list[str]:
    return [os.path.relpath(path, dataset.root) for path in dataset.paths]


def test_a_folder_of_class_folders_is_read_in_the_order_of_names(classes):
    found = Dataset.of(classes)
    assert (found.name, found.folders) == ("classes", ("cat", "n02084071_dog", "red_fox"))
    assert found.classnames == ("cat", "dog", "red fox")
    assert names(found) == [
        "cat/0.png",
        "cat/1.png",
        "cat/2.png",
        "n02084071_dog/0.png",
        "red_fox/0.png",
        "red_fox/1.png",
    ]
    assert found.targets.tolist() == [0, 0, 0, 1, 2, 2]
    assert found.truth is None


def test_what_is_no_photo_of_a_class_is_left_out(classes, make_photo):
    make_photo(classes / "lost.png", 9)
    (classes / "cat" / "notes.txt").write_text("no photo")
    (classes / "empty").mkdir()
    make_photo(classes / ".hidden" / "0.png", 9)
    make_photo(classes / "cat" / "more" / "deep.png", 9)
    assert Dataset.of(classes).folders == ("cat", "empty", "n02084071_dog", "red_fox")
    found = Dataset.of(classes).present()
    assert found.folders == ("cat", "n02084071_dog", "red_fox")
    assert found.empty == ("empty",)
    assert found.targets.tolist() == [0, 0, 0, 0, 1, 2, 2]
    assert names(found)[3] == "cat/more/deep.png"
    assert len(found.paths) == 7


def test_links_to_photos_and_folders_are_followed(classes, tmp_path):
    farm = tmp_path / "farm"
    (farm / "fox").mkdir(parents=True)
    (farm / "fox" / "one.png").symlink_to(classes / "red_fox" / "0.png")
    (farm / "feline").symlink_to(classes / "cat")
    found = Dataset.of(farm)
    assert found.folders == ("feline", "fox")
    assert found.targets.tolist() == [0, 0, 0, 1]


@pytest.mark.skipif(os.name == "nt", reason="names are text there")
def test_a_class_whose_name_is_no_text_is_read(classes, make_photo):
    folder = os.fsdecode(os.fsencode(classes) + b"/caf\xe9")
    os.mkdir(folder)
    os.rename(make_photo(classes / "x.png", 1), f"{folder}/x.png")
    found = Dataset.of(classes)
    assert found.folders[0] == "caf\udce9"
    assert found.classnames[0] == "caf\ufffd"
    assert os.path.isfile(found.paths[0])


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("n02084071_dog", "dog"),
        ("n02084071-great_dane", "great dane"),
        ("n02084071", "n02084071"),
        ("_", "_"),
        ("a_b", "a b"),
    ],
)
def test_what_prompts_call_a_folder(folder, name):
    assert spoken(folder) == name


@pytest.mark.parametrize("head", ["", "path,label\n", "\ufeffImage,label\n"])
def test_a_csv_of_paths_and_labels(tmp_path, head):
    (tmp_path / "set.csv").write_text(
        f"{head}b/2.jpg,dog\n'a,dog\n".replace("'a", '"a,1.jpg"') + "\n/x.jpg,cat\n", encoding="utf-8"
    )
    found = Dataset.of(tmp_path / "set.csv")
    here = os.path.realpath(tmp_path)
    assert found.paths == (f"{here}/b/2.jpg", f"{here}/a,1.jpg", "/x.jpg")
    assert (found.name, found.folders, found.targets.tolist()) == ("set", ("cat", "dog"), [1, 1, 0])
    assert found.truth is None


def test_several_labels_of_a_photo_are_all_true(tmp_path):
    (tmp_path / "set.csv").write_text("1.jpg,dog; cat\n2.jpg,\n3.jpg,dog\n")
    found = Dataset.of(tmp_path / "set.csv")
    assert found.truth.tolist() == [[True, True], [False, False], [False, True]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1.jpg\n", "line 1 of .* is not two columns"),
        ("1.jpg,cat\n2.jpg,a,b\n", "line 2 of .* is not two columns"),
        ("1.jpg,cat\n1.jpg,dog\n", "names .*1.jpg twice"),
        ("path,label\n", "holds no photo of a class"),
    ],
)
def test_a_table_that_makes_no_sense_is_refused(tmp_path, text, message):
    (tmp_path / "set.csv").write_text(text)
    with pytest.raises(UsageError, match=message):
        Dataset.of(tmp_path / "set.csv")


def test_a_folder_without_classes_is_refused(album):
    with pytest.raises(UsageError, match="holds no photo of a class"):
        Dataset.of(album / "day0")


def test_classes_are_called_what_one_says(classes):
    assert Dataset.of(classes).named(["a", "b", "c"]).classnames == ("a", "b", "c")


def test_classes_whose_photos_are_gone_are_left_out(tmp_path):
    (tmp_path / "set.csv").write_text("1.jpg,a;b\n2.jpg,\n3.jpg,c;b\n4.jpg,d\n")
    found = Dataset.of(tmp_path / "set.csv").take([1, 2]).present()
    assert (found.folders, found.empty) == (("b", "c"), ("a", "d"))
    assert found.truth.tolist() == [[False, False], [True, True]]
    assert found.targets.tolist() == [-1, 1]


def test_some_photos_and_some_classes(tmp_path):
    (tmp_path / "set.csv").write_text("1.jpg,a\n2.jpg,b\n3.jpg,c\n4.jpg,b\n")
    found = Dataset.of(tmp_path / "set.csv")
    few = found.take(np.array([3, 0]))
    assert ([path[-5:] for path in few.paths], few.targets.tolist()) == (["4.jpg", "1.jpg"], [1, 0])
    only = found.only(["c", "b"])
    assert (only.folders, only.targets.tolist()) == (("c", "b"), [1, 0, 1])
    assert [path[-5:] for path in only.paths] == ["2.jpg", "3.jpg", "4.jpg"]


def test_captions_of_a_photo_stand_in_lines_of_their_own(tmp_path):
    table = tmp_path / "c.tsv"
    table.write_text(
        'image\tcaption\na.jpg\tA "dog", running\nb.jpg\tA cat\na.jpg\tDogs\nb.jpg\t\n', encoding="utf-8"
    )
    found = Captions.of(table)
    assert [os.path.basename(path) for path in found.paths] == ["a.jpg", "b.jpg"]
    assert found.captions == ('A "dog", running', "A cat", "Dogs")
    assert found.owners.tolist() == [0, 1, 0]
    one = found.take([1])
    assert (one.captions, one.owners.tolist()) == (("A cat",), [0])
    with pytest.raises(UsageError, match="holds no captions"):
        table.write_text("image\tcaption\n")
        Captions.of(table)


def test_a_header_names_the_column_of_captions(tmp_path):
    table = tmp_path / "c.csv"
    table.write_text("Short,licence,Image,Caption\ndog,-,a.jpg,A dog runs\n,-,b.jpg,\n")
    found = Captions.of(table)
    assert ([os.path.basename(path) for path in found.paths], found.captions) == (["a.jpg"], ("A dog runs",))
    assert [(skip.path[-5:], skip.reason, skip.detail) for skip in found.skipped] == [
        ("b.jpg", "empty", "no caption in line 3")
    ]
    assert Captions.of(table, column="short").captions == ("dog",)
    with pytest.raises(UsageError, match="has columns short, licence, image, caption, none called shirt"):
        Captions.of(table, column="shirt")
    table.write_text("a.jpg,dog\n")
    with pytest.raises(UsageError, match="has no first line that names its columns"):
        Captions.of(table, column="short")


@pytest.mark.parametrize("read", [Captions.of, Dataset.of])
def test_a_first_line_of_other_names_is_no_photo(tmp_path, read):
    (tmp_path / "c.csv").write_text("foo,bar\na.jpg,dog\n")
    with pytest.raises(UsageError, match=r"first line of .* names no photo"):
        read(tmp_path / "c.csv")
    (tmp_path / "foo").touch()
    assert len(read(tmp_path / "c.csv").paths) == 2


def test_a_class_may_lie_in_several_folders_of_its_name(tmp_path, make_photo):
    for number, folder in enumerate(("photo/cat", "photo/dog", "art/cat")):
        make_photo(tmp_path / "styles" / folder / f"{number}.png", number)
    found = Dataset.by_folder(tmp_path / "styles")
    assert (found.folders, names(found)) == (
        ("cat", "dog"),
        ["art/cat/2.png", "photo/cat/0.png", "photo/dog/1.png"],
    )
    assert found.targets.tolist() == [0, 0, 1]
    with pytest.raises(UsageError, match="holds no photo"):
        (tmp_path / "none").mkdir()
        Dataset.by_folder(tmp_path / "none")


@pytest.mark.skipif(os.name == "nt", reason="names are text there")
def test_a_table_may_name_files_whose_names_are_no_text(tmp_path):
    (tmp_path / "set.tsv").write_bytes(b"caf\xe9.jpg\tein caf\xe9\n")
    found = Captions.of(tmp_path / "set.tsv")
    assert os.path.basename(os.fsencode(found.paths[0])) == b"caf\xe9.jpg"
    assert found.captions == ("ein caf\ufffd",)


@pytest.mark.parametrize("label", ["", ";", " ; "])
def test_a_photo_without_a_label_is_refused_where_each_has_one(tmp_path, label):
    (tmp_path / "set.csv").write_text(f"1.jpg,dog\n\n2.jpg,{label}\n3.jpg,cat\n")
    with pytest.raises(UsageError, match=r"line 3 of .*set.csv has no label"):
        Dataset.of(tmp_path / "set.csv")


def test_a_label_that_stands_twice_in_a_line_is_one(tmp_path):
    (tmp_path / "set.csv").write_text("1.jpg,dog;dog\n2.jpg,cat\n")
    assert Dataset.of(tmp_path / "set.csv").truth is None


def test_only_a_new_line_ends_a_caption(tmp_path):
    """Other marks that Unicode takes for the end of a line occur in captions."""
    (tmp_path / "c.tsv").write_bytes("a.jpg\tone\u2028two\r\nb.jpg\tthree\x85four\x0bfive\n".encode())
    assert Captions.of(tmp_path / "c.tsv").captions == ("one\u2028two", "three\x85four\x0bfive")


@pytest.mark.parametrize("name", ["set.csv", "set.tsv"])
def test_a_path_that_no_file_can_have_is_refused(tmp_path, name):
    (tmp_path / name).write_text("a\0b.jpg,cat\n".replace(",", "\t" if name.endswith("tsv") else ","))
    with pytest.raises(UsageError, match=r"line 1 of .*NUL"):
        Dataset.of(tmp_path / name)
