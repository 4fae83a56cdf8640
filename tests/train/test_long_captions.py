from __future__ import annotations

import json

import pytest

from search.errors import UsageError
from search.train.long_captions import first_sentence, read
from search.train.samples import Pairs

ROWS = [
    ("a.jpg", "A dog. It runs.", "a dog"),
    ("b.jpg", 'A "cat", black', "a cat"),
    ("a.jpg", "Grass. Green.", ""),
]
EXPECTED = ((("A dog. It runs.", "a dog"), ("Grass. Green.", "Grass")), (('A "cat", black', "a cat"),))


def said(pairs):
    return tuple(tuple(zip(*both, strict=True)) for both in zip(pairs.captions, pairs.shorts, strict=True))


def test_the_first_sentence_ends_at_a_full_stop_before_a_blank():
    assert first_sentence("About 2.5 dogs.\nThey run. Far.") == "About 2.5 dogs"
    assert first_sentence("no end") == "no end"


def test_a_tsv_names_its_columns_in_any_order_and_an_empty_short_is_the_first_sentence(tmp_path):
    lines = ["short\tLong\tlicence\tImage", *(f"{short}\t{long}\t-\t{path}" for path, long, short in ROWS), ""]
    (tmp_path / "c.tsv").write_text("\r\n".join(lines))
    pairs = read(str(tmp_path / "c.tsv"))
    assert pairs.paths == (str(tmp_path / "a.jpg"), str(tmp_path / "b.jpg"))
    assert said(pairs) == EXPECTED


def test_csv_and_parquet_read_as_the_same(tmp_path):
    (tmp_path / "c.csv").write_text(
        'image,caption,short\na.jpg,A dog. It runs.,a dog\nb.jpg,"A ""cat"", black",a cat\na.jpg,Grass. Green.,\n'
    )
    assert said(read(str(tmp_path / "c.csv"))) == EXPECTED
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns = dict(zip(("path", "caption", "short"), map(list, zip(*ROWS, strict=True)), strict=True))
    parquet.write_table(pyarrow.table(columns), tmp_path / "c.parquet")
    assert read(str(tmp_path / "c.parquet")) == read(str(tmp_path / "c.csv"))


@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet"])
def test_a_column_called_long_is_enough(tmp_path, suffix):
    rows = [("licence", "long", "image"), ("-", "A dog. It runs.", "a.jpg"), ("-", "Grass. Green.", "a.jpg")]
    path = tmp_path / f"c.{suffix}"
    if suffix == "parquet":
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        columns = list(zip(*rows, strict=True))
        parquet.write_table(pyarrow.table({name: cells for name, *cells in columns}), path)
    else:
        path.write_text("\n".join((("," if suffix == "csv" else "\t").join(row)) for row in rows))
    assert said(read(str(path))) == ((("A dog. It runs.", "A dog"), ("Grass. Green.", "Grass")),)


def test_lists_in_parquet_are_several_captions(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = {
        "image": ["a.jpg", "b.jpg", "c.jpg", "d.jpg"],
        "long": [["One. 1", "Two. 2"], ["Three. 3"], ["Four. 4", "Five. 5"], []],
        "short": [["one", "two"], ["three", "drei"], [], ["lost"]],
    }
    parquet.write_table(pyarrow.table(rows), tmp_path / "c.parquet")
    pairs = read(str(tmp_path / "c.parquet"))
    assert said(pairs) == (
        (("One. 1", "one"), ("Two. 2", "two")),
        (("Three. 3", "three"), ("Three. 3", "drei")),
        (("Four. 4", "Four"), ("Five. 5", "Five")),
    )
    assert [(skip.path[-5:], skip.reason) for skip in pairs.skipped] == [("d.jpg", "empty")]
    rows["short"][0] = ["1", "2", "3"]
    parquet.write_table(pyarrow.table(rows), tmp_path / "c.parquet")
    with pytest.raises(UsageError, match="2 long captions and 3 short ones"):
        read(str(tmp_path / "c.parquet"))


def test_without_a_short_column_it_is_what_contrastive_training_reads_and_its_first_sentences(tmp_path):
    (tmp_path / "c.tsv").write_text("a.jpg\tA dog. It runs.\na.jpg\tGrass. Green.")
    pairs = read(str(tmp_path / "c.tsv"))
    assert Pairs(pairs.paths, pairs.captions) == Pairs.of(str(tmp_path / "c.tsv"))
    assert pairs.shorts == (("A dog", "Grass"),)


def test_sharegpt4v_is_read_by_what_was_answered(tmp_path):
    turns = [{"from": "human", "value": "<image>\nDescribe it."}, {"from": "gpt", "value": "A dog.\n\nIt runs."}]
    (tmp_path / "list.json").write_text(json.dumps([{"id": "1", "image": "coco/a.jpg", "conversations": turns}]))
    pairs = read(str(tmp_path / "list.json"))
    assert pairs == Pairs((str(tmp_path / "coco/a.jpg"),), (("A dog. It runs.",),), (("A dog",),))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("c.tsv", "image\tshort\na.jpg\tx", "none called long or caption"),
        ("c.csv", "caption,short\nx,y", "none called image"),
        ("c.tsv", "image\tlong\tshort\na.jpg\tx", "line 2 of .* has 2 columns, not 3"),
        ("c.tsv", "image\tlong\tshort\n", "holds no captions"),
        ("c.tsv", "image\tlong\tshort\na\0\tx\ty", "NUL"),
        ("c.json", '{"a": 1}', "no list of images"),
        ("c.json", "[", "no list of images"),
        ("c.json", '[{"image": "a", "conversations": []}]', "no list of images"),
    ],
)
def test_what_is_no_such_table_is_told(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=message):
        read(str(tmp_path / name))


def test_short_captions_count_in_the_fingerprint(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"x")
    path = str(tmp_path / "a.jpg")
    pairs = [Pairs((path,), (("a dog",),), short) for short in ((), (("a",),), (("b",),))]
    assert len({one.fingerprint() for one in pairs}) == 3
