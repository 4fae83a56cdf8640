"""Decoding in children: the file that breaks its decoder is named, everything else goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime, timedelta, timezone
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from search.decoding import budget, wire
from search.decoding.budget import default_workers, free_memory
from search.decoding.pool import Decoded, Decoders, ahead, close_warm, lend
from search.decoding.wire import Garbled, Limits
from search.encoders.preprocessing import Preprocessing
from search.errors import SearchError
from search.photos.decode import load
from search.types import FileStat, Likeness, PhotoInfo, Skip, SkipReason, TakenAtSource

linux = pytest.mark.skipif(sys.platform != "linux", reason="limits are the Linux kernel's")
SMALL = Preprocessing((48, 64))

# A decoder that does what the file says, as broken or taken-over ones do.
ROGUE = """
import ctypes, os, signal, sys, time
from search.photos import decode

def load(path, **options):
    words = open(path, "rb").read().split(b" ")
    if words[0] == b"crash":
        os.write(2, b"free(): invalid pointer\\n")
        ctypes.string_at(0)
    elif words[0] == b"crash-once":
        os.replace(words[1], path)
        os.kill(os.getpid(), signal.SIGBUS)
    elif words[0] == b"killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif words[0] == b"leave":
        os._exit(3)
    elif words[0] == b"compute":
        while True: pass
    elif words[0] == b"large":
        options["on_header"](60_000_000, 100)
        end = time.process_time() + 2
        while time.process_time() < end: pass
        return decode.load(words[1].decode(), **options)
    elif words[0] == b"sleep":
        time.sleep(1000)
    elif words[0] == b"eat":
        eaten = [b"x" * 10_000_000 for _ in range(100)]
    elif words[0] == b"print":
        os.write(1, b"garbage on stdout"); os.write(2, b"garbage on stderr"); print("and more", flush=True)
        return decode.load(words[1].decode(), **options)
    elif words[0] == b"answer":
        pipes = [int(fd) for fd in os.listdir("/proc/self/fd") if int(fd) > 2]
        for fd in pipes:
            try:
                os.readlink(f"/proc/self/fd/{fd}").startswith("pipe:") and os.write(fd, words[1].replace(b"_", b"\\0"))
            except OSError:
                pass
        time.sleep(1000)
    elif words[0] == b"modules":
        raise ValueError(",".join({name.partition(".")[0] for name in sys.modules} & set(words[1].decode().split(","))))
    elif words[0] == b"environment":
        raise ValueError(f"{os.getpgid(0) == os.getpid()} {signal.getsignal(signal.SIGINT)!r}")
    return decode.load(path, **options)
"""


@pytest.fixture
def rogue(tmp_path, monkeypatch) -> str:
    """The name of a loader that files can command."""
    (tmp_path / "rogue_decoder.py").write_text(ROGUE)
    monkeypatch.syspath_prepend(tmp_path)
    return "rogue_decoder:load"


@pytest.fixture
def say(tmp_path):
    """Write a file that commands the rogue decoder."""

    def write(*words: str) -> str:
        path = tmp_path / f"{'-'.join(words).replace('/', '_')[-60:]}.jpg"
        path.write_text(" ".join(words))
        return str(path)

    return write


STRANGERS: set[int] = set()


@pytest.fixture(autouse=True)
def no_other_children():
    """What other tests left running for the rest of the run is none of these tests' business."""
    close_warm()
    STRANGERS.clear()
    STRANGERS.update(processes())


@pytest.fixture
def photo(tmp_path, make_photo) -> str:
    return str(make_photo(tmp_path / "photo.png", seed=1, size=(200, 100)))


def decode(paths: list[str], **options) -> list[Decoded | Skip]:
    with Decoders(**options) as decoders:
        return [future.result() for future in [decoders.submit(path, SMALL) for path in paths]]


def children() -> set[int]:
    """Processes, ended or not, that this one has since the test began."""
    return processes() - STRANGERS


def processes() -> set[int]:
    found = set()
    for task in os.listdir("/proc/self/task") if sys.platform == "linux" else ():
        with suppress(FileNotFoundError):  # a thread that has just ended
            found |= {int(pid) for pid in Path(f"/proc/self/task/{task}/children").read_text().split()}
    return found


def gone(pid: int) -> bool:
    """Whether a process has ended; a zombie, which its new parent has not reaped yet, has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def wait_until(true) -> None:
    """Fail if it does not become true in a time that is ample on any machine."""
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


# ---- how many


@pytest.mark.parametrize(
    ("cores", "free", "workers"),
    [(2, 64e9, 3), (16, 64e9, 8), (1, 64e9, 2), (8, 4e9, 2), (8, 1.7e9, 1), (8, 0, 1)],
)
def test_children_are_as_many_as_cores_and_free_memory_feed(cores, free, workers):
    assert default_workers(cores=cores, free_bytes=int(free)) == workers


def test_a_container_with_little_memory_counts(tmp_path, monkeypatch):
    (tmp_path / "max").write_text("3000000000\n")
    (tmp_path / "current").write_text("1000000000\n")
    monkeypatch.setattr(
        budget, "_LIMITS", ((tmp_path / "max", tmp_path / "current", tmp_path / "stat"), ("/no",) * 3)
    )
    assert 0 < free_memory() <= 2_000_000_000
    (tmp_path / "current").write_text("2900000000\n")
    assert free_memory() <= 100_000_000
    (tmp_path / "stat").write_text("anon 400000000\ninactive_file 2000000000\n")  # files that were read
    assert 1_000_000_000 < free_memory() <= 2_100_000_000
    (tmp_path / "max").write_text("max\n")
    assert free_memory() == budget._of_the_machine() or free_memory() > 2_000_000_000


# ---- what comes back


def test_children_give_what_this_process_would(photo, tmp_path, make_photo):
    photos = [photo, *(str(make_photo(tmp_path / f"{n}.jpg", n, (97, 301))) for n in range(6))]
    for preprocessing in (
        SMALL,
        Preprocessing((64, 48), interpolation="bilinear", resize_mode="longest", fill_color=9),
    ):
        with Decoders(workers=2) as decoders:
            found = [future.result() for future in [decoders.submit(path, preprocessing) for path in photos]]
        for path, got in zip(photos, found, strict=True):
            here = load(path)
            assert (got.info, got.content_hash, got.stat) == (here.info, here.content_hash, here.stat)
            np.testing.assert_array_equal(got.pixels, preprocessing(here.image))
            assert got.pixels.flags.writeable
            assert got.pixels.dtype == np.uint8


def test_children_scale_large_pictures_while_they_decode(tmp_path, make_photo):
    path = str(make_photo(tmp_path / "large.jpg", 1, (1999, 1001)))
    [got] = decode([path])
    here = load(path, min_side=448)
    assert here.image.size == (1000, 501)
    assert (got.info.width, got.info.height) == (1999, 1001)
    np.testing.assert_array_equal(got.pixels, SMALL(here.image, whole=(1001, 1999), frame=(0, 0, 999.5, 500.5)))


def test_one_child_serves_models_of_different_sizes(photo):
    with Decoders(workers=1) as decoders:
        for size in ((8, 8), (64, 32), (8, 8)):
            assert decoders.submit(photo, Preprocessing(size)).result().pixels.shape == (*size, 3)


def test_without_shared_memory_pixels_come_through_the_pipe(photo, monkeypatch):
    monkeypatch.delattr(os, "memfd_create")
    [found] = decode([photo])
    np.testing.assert_array_equal(found.pixels, SMALL(load(photo).image))


def test_what_can_not_be_used_is_skipped_with_the_decoders_reason(tmp_path, photo):
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "cut.png").write_bytes(Path(photo).read_bytes()[:-30])
    paths = [str(tmp_path / name) for name in ("empty.jpg", "cut.png", "absent.jpg")]
    found = decode(paths)
    assert [skip.path for skip in found] == paths
    assert [skip.reason for skip in found] == ["empty", "decode_error", "unreadable"]


def test_a_picture_above_the_limit_is_too_large(photo):
    [found] = decode([photo], max_megapixels=0.01)
    assert found.reason == SkipReason.TOO_LARGE


def test_names_that_are_no_text_and_relative_ones_are_found(tmp_path, photo, monkeypatch):
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9\n\xff.png")
    os.rename(photo, odd)
    monkeypatch.chdir(tmp_path)
    [absolute, relative] = decode([odd, os.path.basename(odd)])
    assert absolute.stat.path == odd
    assert relative.stat.path == os.path.basename(odd)
    assert absolute.content_hash == relative.content_hash


# ---- decoders that break


@linux
def test_a_file_that_crashes_its_decoder_twice_is_named_and_the_others_are_decoded(rogue, say, photo):
    bad = say("crash")
    found = decode([photo, bad, photo, photo], loader=rogue, workers=2)
    assert [type(one) for one in found] == [Decoded, Skip, Decoded, Decoded]
    assert (found[1].reason, found[1].path) == (SkipReason.CRASHED, bad)
    assert found[1].detail == "its decoder ended by SIGSEGV: free(): invalid pointer"


@linux
def test_a_file_whose_decoder_died_of_something_else_is_decoded_by_a_fresh_one(rogue, say, photo):
    [found] = decode([say("crash-once", photo)], loader=rogue)
    assert isinstance(found, Decoded)


@linux
def test_a_decoder_killed_from_outside_ran_out_of_memory(rogue, say):
    [found] = decode([say("killed")], loader=rogue)
    assert found.reason == SkipReason.MEMORY


def test_a_decoder_that_leaves_has_crashed(rogue, say):
    [found] = decode([say("leave")], loader=rogue)
    assert (found.reason, found.detail) == (SkipReason.CRASHED, "its decoder ended by status 3")


@linux
def test_endless_computing_is_ended_by_cpu_time(rogue, say, photo):
    [found, fine] = decode([say("compute"), photo], loader=rogue, limits=Limits(cpu_s=1))
    assert (found.reason, found.detail) == (SkipReason.TIMEOUT, "not decoded after 1 seconds of computing")
    assert isinstance(fine, Decoded)


@linux
def test_a_large_picture_may_compute_longer(rogue, say, photo):
    [found] = decode([say("large", photo)], loader=rogue, limits=Limits(cpu_s=1))
    assert isinstance(found, Decoded)


def test_waiting_for_ever_is_ended_by_the_clock(rogue, say, photo):
    found = decode([say("sleep"), photo, photo], loader=rogue, workers=1, limits=Limits(wall_s=2))
    assert [getattr(one, "reason", None) for one in found] == [SkipReason.TIMEOUT, None, None]


@linux
def test_memory_is_bounded_and_the_child_before_is_not_blamed(rogue, say, photo):
    limits = Limits(memory_bytes=300_000_000)
    found = decode([photo, say("eat"), photo], loader=rogue, workers=1, limits=limits)
    assert [getattr(one, "reason", None) for one in found] == [None, SkipReason.MEMORY, None]


@linux
@pytest.mark.parametrize("answer", ["garbage", "___\x02{}", '___\x0c{"more_s":9}x'])
def test_a_decoder_that_answers_nonsense_is_replaced(rogue, say, photo, answer):
    found = decode([say("answer", answer), photo], loader=rogue, workers=1, limits=Limits(wall_s=5))
    assert found[0].reason in (SkipReason.CRASHED, SkipReason.TIMEOUT)
    assert isinstance(found[1], Decoded)


@linux
def test_what_decoders_print_disturbs_no_answer_and_no_terminal(rogue, say, photo, capfd):
    [found] = decode([say("print", photo)], loader=rogue)
    assert isinstance(found, Decoded)
    assert capfd.readouterr() == ("", "")


def test_a_decoder_that_can_not_start_ends_the_run_not_the_files(photo):
    with Decoders(loader="no_such_module:load") as decoders:
        future = decoders.submit(photo, SMALL)
        with pytest.raises(SearchError, match=r"does not start.*no_such_module"):
            future.result()


# ---- what a child is


def test_children_load_no_model_and_no_catalog(rogue, say):
    [found] = decode(
        [say("modules", "search,numpy,torch,sqlalchemy,faiss,click,open_clip,huggingface_hub")], loader=rogue
    )
    loaded = set(found.detail.split(": ")[1].split(","))
    assert loaded == {"search", "numpy"}


@linux
def test_ctrl_c_is_the_parents_affair(rogue, say):
    [found] = decode([say("environment")], loader=rogue)
    assert found.detail == "ValueError: True <Handlers.SIG_IGN: 1>"


@linux
def test_a_child_is_replaced_after_its_share_of_files(photo):
    with Decoders(workers=1, limits=Limits(files=3)) as decoders:
        pids = []
        for _ in range(7):
            decoders.submit(photo, SMALL).result()
            pids += children() - set(pids)
    assert len(pids) == 3


@linux
def test_nothing_is_left_after_closing(rogue, say, photo):
    decode([photo], loader=rogue)
    before = set(os.listdir("/proc/self/fd"))
    decode([photo, say("crash"), say("sleep"), photo], loader=rogue, workers=2, limits=Limits(wall_s=1))
    assert not children()
    assert set(os.listdir("/proc/self/fd")) == before


@linux
def test_closing_ends_what_is_at_work_and_cancels_the_rest(rogue, say):
    with Decoders(loader=rogue, workers=2) as decoders:
        futures = [decoders.submit(say("sleep"), SMALL) for _ in range(9)]
        wait_until(lambda: len(children()) == 2)
    assert not children()
    for future in futures:
        with pytest.raises(CancelledError):
            future.result(timeout=0)


@linux
def test_no_child_starts_before_there_is_work():
    with Decoders(workers=2) as decoders:
        assert not children()
        decoders.start(1)
        wait_until(lambda: len(children()) == 1)


@linux
@pytest.mark.parametrize("word", ["sleep", "compute"])
def test_children_do_not_outlive_a_killed_parent(rogue, say, tmp_path, word):
    script = (
        "import json, sys; sys.path[:] = json.loads(sys.argv[1])\n"
        "from search.decoding.pool import Decoders; from search.encoders.preprocessing import Preprocessing\n"
        f"decoders = Decoders(loader={rogue!r}, workers=2)\n"
        "futures = [decoders.submit(sys.argv[2], Preprocessing((8, 8))) for _ in range(2)]\n"
        "decoders.start(0); futures[0].result()\n"
    )
    command = [sys.executable, "-c", script, json.dumps([os.path.abspath(p) for p in sys.path]), say(word)]
    with subprocess.Popen(command) as parent:
        tasks = f"/proc/{parent.pid}/task"

        def born() -> set[int]:
            return {int(c) for t in os.listdir(tasks) for c in Path(f"{tasks}/{t}/children").read_text().split()}

        wait_until(lambda: len(born()) == 2)
        pids = born()
        parent.send_signal(signal.SIGKILL)
    wait_until(lambda: all(gone(pid) for pid in pids))


def test_threads_may_share_a_pool(photo, tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8\xff")
    paths, found = [photo, str(tmp_path / "bad.jpg")] * 10, []

    def use(decoders: Decoders) -> None:
        found.append([type(one.result()) for one in [decoders.submit(path, SMALL) for path in paths]])

    with Decoders(workers=2) as decoders:
        threads = [threading.Thread(target=use, args=(decoders,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == [[Decoded, Skip] * 10] * 4


def test_look_ahead_is_bounded(photo):
    submitted = []
    with Decoders(workers=2) as decoders:
        loaded = ahead(lambda path: (submitted.append(path), decoders.submit(path, SMALL))[1], [photo] * 30, 5)
        next(loaded)
        assert len(submitted) == 6
        assert len(list(loaded)) == 29


# ---- what is said


STAT = FileStat("a.jpg", 12, 34, 56)
INFO = PhotoInfo(
    format="jpeg",
    width=3,
    height=4,
    orientation=6,
    taken_at=datetime(2024, 2, 29, 1, 2, 3, 456789, timezone(timedelta(hours=5, minutes=45))),
    taken_at_source=TakenAtSource.EXIF,
    camera="a \udcff\n camera",
    lens="lens",
    latitude=-12.345678901234567,
    longitude=0.1,
    rating=-1,
    keywords=("animal/cat", "Bär"),
)


@pytest.mark.parametrize(
    ("info", "stat"),
    [
        (INFO, STAT),
        (PhotoInfo(format="png", width=1, height=1), FileStat("a.jpg", 0, -5)),
        (PhotoInfo(format="png", width=1, height=1, taken_at=datetime(1970, 1, 1, tzinfo=UTC)), STAT),
    ],
)
def test_what_is_said_of_a_photo_arrives_exactly(info, stat):
    stream = BytesIO()
    wire.send(stream, wire.describe(info, bytes(range(32)), stat), b"pixels")
    stream.seek(0)
    assert wire.understand(wire.receive(stream), "a.jpg") == (info, bytes(range(32)), stat)
    assert stream.read() == b"pixels"


def test_what_is_said_of_a_picture_arrives_exactly():
    likeness = Likeness(3, bytes(range(64)), 12.5)
    assert wire.understand_likeness(json.loads(json.dumps(wire.describe_likeness(likeness)))) == likeness


@pytest.mark.parametrize("field", ["method", "hash", "sharpness"])
@pytest.mark.parametrize(
    "value", [None, True, -1, -1.0, 2**70, float("nan"), float("inf"), "x" * 128, "00", [], {}]
)
def test_a_likeness_of_another_kind_is_garbled(field, value):
    words = wire.describe_likeness(Likeness(1, bytes(64), 1.0))
    words["likeness"][field] = value
    with pytest.raises(Garbled):
        wire.understand_likeness(words)
    with pytest.raises(Garbled):
        wire.understand_likeness({"likeness": [value]})


def said() -> dict:
    return json.loads(json.dumps(wire.describe(INFO, bytes(32), STAT)))


FINE = [
    *(("latitude", value) for value in (None, -1, 0, 1.5)),
    *(("rating", value) for value in (None, -1, 0)),
    ("keywords", []),
    ("format", "\x00"),
    ("taken_at", None),
]


FIELDS = ["width", "height", "orientation", "latitude", "format", "taken_at", "info", "hash", "rating", "keywords"]
WORDS = (None, True, -1, 0, 2**70, 1.5, float("nan"), "x" * 5000, [], {}, "\x00")


@pytest.mark.parametrize(
    "field, value",
    [
        (field, value)
        for field in FIELDS
        for value in WORDS
        if isinstance(value, bool) or (field, value) not in FINE
    ],
)
def test_a_word_of_another_kind_is_garbled(field, value):
    words = said()
    (words if field in words else words["info"])[field] = value
    with pytest.raises(Garbled):
        wire.understand(words, "a.jpg")


@pytest.mark.parametrize("words", [["a", "a"], [""], ["\ud800"], ["a\0b"], [1], list("abcdefghij" * 30)])
def test_keywords_that_the_catalog_could_not_keep_are_garbled(words):
    words_said = said()
    words_said["info"]["keywords"] = words
    with pytest.raises(Garbled):
        wire.understand(words_said, "a.jpg")


@pytest.mark.parametrize("missing", ["info", "hash", "stat"])
def test_a_missing_word_is_garbled(missing):
    words = said()
    del words[missing]
    with pytest.raises(Garbled):
        wire.understand(words, "a.jpg")


@pytest.mark.parametrize(
    "frame",
    [
        b"\x00\x00",
        b"\xff\xff\xff\xff",
        b"\x00\x00\x00\x09{}",
        b"\x00\x00\x00\x02[]",
        b"\x00\x00\x00\x02{x",
        b"\x00\x01\x00\x00" + b"[" * 2**16,
        b"\x00\x00\x00\x02\xff\xfe",
    ],
)
def test_a_frame_that_is_none_is_garbled(frame):
    with pytest.raises(Garbled):
        wire.receive(BytesIO(frame))


def test_the_end_of_a_stream_is_no_frame():
    assert wire.receive(BytesIO(b"")) is None


@pytest.mark.parametrize(
    "words", [{"reason": "because", "detail": ""}, {"reason": "empty"}, {"reason": 1, "detail": ""}]
)
def test_a_reason_that_is_none_is_garbled(words):
    with pytest.raises(Garbled):
        wire.refusal(words)


@pytest.mark.parametrize(
    "preprocessing",
    [
        SMALL,
        Preprocessing((336, 224), (0.1, 0.2, 0.30000000000000004), (1 / 3, 1, 2), "bilinear", "longest", 255),
        Preprocessing((1, 1), resize_mode="squash"),
    ],
)
def test_preprocessing_travels_exactly(preprocessing):
    assert Preprocessing.from_dict(json.loads(json.dumps(preprocessing.to_dict()))) == preprocessing
    assert asdict(preprocessing)["size"] == preprocessing.size


def test_children_stay_for_the_next_borrower_and_are_no_more_than_asked_for(photo):
    close_warm()
    for _ in range(3):
        with lend(workers=2) as decoders:
            decoders.start(9)
            for _ in range(3):
                assert isinstance(decoders.submit(photo, SMALL).result(), Decoded)
            children = {child.process.pid for child in decoders._alive}
            assert len(children) <= 2
    with lend(workers=2) as again:
        assert {child.process.pid for child in again._alive} == children
    close_warm()
    assert not again._alive


def test_a_pool_with_work_undone_is_not_lent_again(photo):
    with lend(workers=1) as decoders:
        for _ in range(100):
            decoders.submit(photo, SMALL)
    with lend(workers=1) as another:
        assert another is not decoders
    assert not decoders._alive
    close_warm()
