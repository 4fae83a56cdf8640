"""Tars of samples: what is found in them, what is left out, and that they train as files of their own do."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from search.encoders.preprocessing import Preprocessing
from search.errors import PhotoError, UsageError
from search.train import long_captions, shards
from search.train.contrastive import train
from search.train.samples import Feeder, Pairs

SMALL = Preprocessing(size=(8, 8))
COLOURS = ("black", "blue", "brown", "gold", "gray", "green")


def pack(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture
def packed(data, tmp_path):
    """Two tars of three pictures with a caption each, and a table of the same."""
    for number in range(2):
        members = {}
        for place, colour in enumerate(COLOURS[3 * number : 3 * number + 3]):
            key = f"{1000 * number + place:04}"
            members[f"{key}.png"] = (data / f"{colour}.png").read_bytes()
            members[f"{key}.txt"] = f"a {colour} wall\n".encode()
            members[f"{key}.json"] = json.dumps({"caption": "not this", "key": key}).encode()
        pack(tmp_path / f"part-{number:03}.tar", members)
    lines = [f"{data}/{colour}.png\ta {colour} wall" for colour in COLOURS]
    (tmp_path / "same.tsv").write_text("\n".join(lines))
    return tmp_path


def fed(pairs, recipe):
    with Feeder(pairs, recipe(batch_size=3, epochs=2.0, steps=0), SMALL) as feeder:
        return list(feeder.batches(0))


def test_samples_in_tars_feed_the_batches_that_files_do(packed, recipe):
    files = fed(Pairs.of(str(packed / "same.tsv")), recipe)
    for source in (packed, packed / "part-{000..001}.tar"):
        pairs, skipped = Pairs.of(str(source)).present()
        assert not skipped
        for batch, expected in zip(fed(pairs, recipe), files, strict=True):
            np.testing.assert_array_equal(batch.pixels, expected.pixels)
            assert batch.captions == expected.captions
    assert len(Pairs.of(str(packed / "part-001.tar")).paths) == 3


def test_captions_are_texts_else_those_of_json(packed, data):
    picture = (data / "red.png").read_bytes()
    pack(
        packed / "one.tar",
        {
            "./a/0.v1.txt": b"another sample's",  # webdataset: a key ends at the first full stop
            "./a/1.JPG": picture,
            "./a/1.json": json.dumps({"caption": ["one", " two "]}).encode(),
            "2.png": picture,
            "2.txt": b"\n",
            "2.json": json.dumps({"text": "three. And more"}).encode(),
            "3.webp": picture,
            "3.txt": "\ufefffour".encode(),
            "3.seg.png": b"a mask",
        },
    )
    found = long_captions.read(str(packed / "one.tar"))
    assert found.captions == (("one", "two"), ("three. And more",), ("four",))
    assert found.shorts == (("one", "two"), ("three",), ("four",))
    assert [path.rpartition(".tar/")[2] for path in found.paths] == ["a/1.JPG", "2.png", "3.webp"]


def test_what_is_no_sample_is_skipped_with_its_reason(packed, data, recipe):
    picture = (data / "red.png").read_bytes()
    pack(
        packed / "part-002.tar",
        {
            "0.png": picture,
            "1.txt": b"without a picture",
            "2.png": b"no picture",
            "2.txt": b"broken",
            "3.png": picture,
            "3.txt": b"whole",
            "4.json": b"[" * 100_000,
        },
    )
    pairs, skipped = Pairs.of(str(packed / "part-{002..003}.tar")).present()
    found = [(skip.path.removeprefix(f"{packed}/"), skip.reason, skip.detail) for skip in skipped]
    assert found == [
        ("part-002.tar/0", "empty", "no caption"),
        ("part-002.tar/1", "unsupported_format", "no picture"),
        ("part-003.tar", "unreadable", "No such file or directory"),
    ]
    with Feeder(pairs, recipe(batch_size=2, steps=1), SMALL) as feeder:
        (batch,) = feeder.batches(0)
        assert feeder.middles(pairs)[1] == [1]
    assert (batch.captions, [skip.reason for skip in batch.skipped]) == (("whole",), ["unsupported_format"])


@pytest.mark.parametrize("cut", [1024 + 700, 5 * 512 + 100, 6 * 512])
def test_of_a_tar_that_was_cut_off_what_is_whole_is_kept(packed, cut):
    whole = (packed / "part-000.tar").read_bytes()
    everything = Pairs.of(str(packed / "part-000.tar"))
    (packed / "part-000.tar").write_bytes(whole[:cut])
    pairs, skipped = Pairs.of(str(packed)).present()
    assert any("cut off" in skip.detail and skip.path.endswith("part-000.tar") for skip in skipped)
    assert 3 <= len(pairs.paths) < 6
    assert set(pairs.paths) & set(everything.paths) <= set(everything.paths[:2])


def test_damage_in_a_header_is_told(packed):
    path = packed / "part-000.tar"
    content = bytearray(path.read_bytes())
    second = next(start for start in range(512, len(content), 512) if content[start : start + 8] == b"0001.png")
    content[second : second + 8] = b"\xff" * 8
    path.write_bytes(content)
    pairs, skipped = Pairs.of(str(path)).present()
    assert len(pairs.paths) == 1
    assert f"damaged or cut off at byte {second}" in skipped[-1].detail


def extended(records: bytes) -> bytes:
    """A member of a tar that says more of the one after it."""
    info = tarfile.TarInfo("more")
    info.type, info.size = tarfile.XHDTYPE, len(records)
    return info.tobuf(tarfile.USTAR_FORMAT) + records.ljust(512, b"\0")


def sized(field: bytes) -> bytes:
    """The header of a file with bytes of its own for the size."""
    header = bytearray(tarfile.TarInfo("0001.png").tobuf(tarfile.USTAR_FORMAT))
    header[124:136] = field
    header[148:156] = b"%06o\0 " % tarfile.calc_chksums(bytes(header))[0]
    return bytes(header)


@pytest.mark.parametrize(
    "nonsense",
    [
        extended(b"27 GNU.sparse.map=1,a,b,c,d\n") + tarfile.TarInfo("x").tobuf(),
        extended(b"22 GNU.sparse.size=a\n") + tarfile.TarInfo("x").tobuf(),
        extended(b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n") + tarfile.TarInfo("x").tobuf(),
        sized(b"\x80" + b"\x7f" * 11),
        sized(b"\xff" * 10 + b"\xfc\x00"),
    ],
)
def test_headers_that_make_no_sense_end_their_tar_alone(packed, nonsense):
    whole = (packed / "part-000.tar").read_bytes()
    second = whole.index(b"0001.png")
    (packed / "part-000.tar").write_bytes(whole[:second] + nonsense + whole[second:])
    pairs, skipped = Pairs.of(str(packed)).present()
    assert [path.rpartition("/part-")[2][:12] for path in pairs.paths][:2] == ["000.tar/0000", "001.tar/1000"]
    assert len(pairs.paths) == 4
    assert ["part-000.tar" in skip.path and "damaged" in skip.detail for skip in skipped] == [True]


def test_a_tar_that_shrinks_while_it_is_read_makes_a_skip(packed):
    pairs = Pairs.of(str(packed / "part-000.tar"))
    (packed / "part-000.tar").write_bytes(b"")
    with pytest.raises(PhotoError, match="ends before it"):
        pairs.load(pairs.paths[0], min_side=8)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.tar", "holds no photo with a caption: .*No such file"),
        ("a.tar.gz", "decompress it"),
        ("empty", "a folder without tars"),
        ("x-{3..1}.tar", "stands for 0 tars"),
    ],
)
def test_what_is_no_source_is_told(tmp_path, name, message):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=message):
        Pairs.of(str(tmp_path / name))


def test_ranges_keep_their_digits():
    assert shards._expanded("a{08..10}-{1..2}.tar") == [
        f"a{tens}-{ones}.tar" for tens in ("08", "09", "10") for ones in (1, 2)
    ]


def test_a_run_on_tars_that_was_stopped_goes_on_to_identical_weights_and_knows_other_tars(
    packed, recipe, tmp_path
):
    options = recipe(captions=str(packed), held_out_share=0.2, steps=3, batch_size=2)
    train(options, tmp_path / "whole", device="cpu")
    train(options, tmp_path / "cut", device="cpu", stop=lambda: True)
    shutil.copytree(tmp_path / "cut", tmp_path / "other")
    train(options, tmp_path / "cut", device="cpu")
    whole, cut = (load_file(tmp_path / name / "open_clip_model.safetensors") for name in ("whole", "cut"))
    assert all((whole[name] == cut[name]).all() for name in whole)
    (packed / "part-001.tar").unlink()
    with pytest.raises(UsageError, match="begun with other data"):
        train(options, tmp_path / "other", device="cpu")
