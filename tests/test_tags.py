"""Runs and verdicts: what a user says of labels, and everything taken back."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search import Filter, Library, failpoints
from search.catalog import Catalog
from search.catalog.found import Record, ScannedFile, Verdict
from search.catalog.storage import CATALOG_NAME
from search.catalog.tagging import settle_all
from search.errors import UnknownLabel, UnknownPhoto, UnknownRun, UsageError
from search.labels import Label, LabelSet
from search.library import importing
from search.library.importing import _unguarded
from search.library.tags import interval
from search.photos.keywords import legible
from search.tables import _harmless, csv_lines
from search.types import FileStat, LabelledPhoto, LabelScore, PhotoInfo, RunKind

NAMES = ("animal", "animal/cat", "car")
PHOTOS = (1, 2, 3)


class Model:
    name, fingerprint, dim, context_length, logit_scale, logit_bias = "a model", "f" * 64, 4, 77, 100.0, None


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """A library of three photos, the first with a keyword of its own."""
    folder = tmp_path_factory.mktemp("prepared") / "library"
    catalog = Catalog(str(folder))
    catalog.create()
    with catalog.writing() as writer:
        encoder_id = writer.register(Model())
        scope = writer.add_source("/album", is_folder=True)
        records = [
            Record(
                ScannedFile(scope.root_id, f"day/{n}.jpg".encode(), FileStat("", n, n), Verdict.NEW, None),
                bytes([n]) * 32,
                PhotoInfo("JPEG", 40, 30, keywords=("car",) if n == 1 else ()),
            )
            for n in PHOTOS
        ]
        vectors = np.eye(4, dtype=np.float32)[: len(PHOTOS)]
        writer.add(records, vectors, encoder_id)
    catalog.close()
    return folder


@pytest.fixture
def own(prepared, tmp_path) -> Library:
    """A copy of that library."""
    with copied(prepared, tmp_path / "library") as library:
        yield library


def copied(prepared: Path, folder: Path) -> Library:
    shutil.copytree(prepared, folder)
    return Library.open(folder, offline=True)


def propose(library: Library, labels: dict[int, str], among=NAMES, probability: float = 0.5) -> int:
    """Label photos as a model would."""
    labelled = [LabelledPhoto("", (LabelScore(label, probability, 0.3),), id_) for id_, label in labels.items()]
    with library.catalog.writing() as writer, writer.run(RunKind.LABEL, encoder_id=1, label_set="set") as run:
        run.propose(labelled, among, encoder_id=1)
    return run.id


def shown(library: Library) -> dict[int, set[str]]:
    return {photo.id: set(photo.labels) for photo in library.catalog.get(PHOTOS)}


def found(library: Library, label: str) -> list[int]:
    return library.catalog.select(Filter(labels=(label,))).tolist()


# ---- against a model


class Brute:
    """What a library's labels come to, by the words of the documentation."""

    def __init__(self) -> None:
        self.proposals: dict[tuple[int, str], tuple[int, float]] = {}
        self.files: set[tuple[int, str]] = {(1, "car")}
        self.verdicts: list[tuple[int, tuple[int, str], bool]] = []
        self.standing: list[int] = []

    def last(self, pair: tuple[int, str]) -> bool | None:
        return max(
            ((run, accepted) for run, other, accepted in self.verdicts if other == pair), default=(0, None)
        )[1]

    def say(self, run: int | None, pairs, accepted: bool, *, keep: bool = False) -> None:
        wanted = [pair for pair in pairs if self.last(pair) is not accepted]
        if keep:
            wanted = [pair for pair in wanted if self.last(pair) is None]
        assert (run is not None) == bool(wanted)
        self.verdicts += [(run, pair, accepted) for pair in wanted]
        self.standing += [run] if wanted else []

    def propose(self, run: int, labels: dict[int, str], among, probability: float) -> None:
        for pair in [pair for pair in self.proposals if pair[0] in labels and pair[1] in among]:
            del self.proposals[pair]
        self.proposals |= dict.fromkeys(labels.items(), (run, probability))
        self.standing.append(run)

    def undo(self, run: int) -> None:
        self.proposals = {pair: by for pair, by in self.proposals.items() if by[0] != run}
        self.verdicts = [said for said in self.verdicts if said[0] != run]
        self.standing.remove(run)

    def shown(self) -> dict[int, set[str]]:
        pairs = {*self.proposals, *self.files, *(pair for _, pair, _ in self.verdicts)}
        on = {pair for pair in pairs if self.last(pair) or (self.last(pair) is None and self._is_there(pair))}
        return {id_: {label for other, label in on if other == id_} for id_ in PHOTOS}

    def known(self) -> set[str]:
        return {label for _, (_, label), _ in self.verdicts}.union(*self.shown().values())

    def _is_there(self, pair: tuple[int, str]) -> bool:
        return pair in self.proposals or pair in self.files


labels_ = st.sampled_from(NAMES)
photos_ = st.sets(st.sampled_from(PHOTOS), min_size=1)
steps = st.one_of(
    st.tuples(st.just("propose"), st.dictionaries(st.sampled_from(PHOTOS), labels_, min_size=1), st.booleans()),
    st.tuples(st.sampled_from(["accept", "reject"]), photos_, st.sets(labels_, min_size=1)),
    st.tuples(st.just("rule"), st.booleans(), labels_),
    st.tuples(st.just("keywords"), st.sampled_from(PHOTOS), st.sets(labels_)),
    st.tuples(st.just("import"), labels_, st.none()),
    st.tuples(st.just("undo"), st.integers(0, 9), st.none()),
)


def play(library: Library, brute: Brute, step) -> None:
    kind, first, second = step
    if kind == "propose":
        among = NAMES if second else tuple(sorted(set(first.values())))
        probability = 0.9 if second else 0.4
        brute.propose(propose(library, first, among, probability), first, among, probability)
    elif kind in ("accept", "reject"):
        report = getattr(library.tags, kind)(second, photos=first)
        brute.say(report.run, [(id_, label) for id_ in first for label in second], kind == "accept")
    elif kind == "rule":
        try:
            report = (
                library.tags.accept([second], above=0.5) if first else library.tags.reject([second], below=0.5)
            )
        except UnknownLabel:
            assert second not in brute.known()
            return
        meant = [pair for pair, (_, p) in brute.proposals.items() if pair[1] == second and (p >= 0.5) == first]
        brute.say(report.run, meant, first, keep=True)
    elif kind == "keywords":
        with library.catalog.writing() as writer:
            writer.put_info([(first, PhotoInfo("JPEG", 40, 30, keywords=tuple(sorted(second))))], reader=1)
        brute.files = {pair for pair in brute.files if pair[0] != first} | {(first, label) for label in second}
    elif kind == "import":
        report = library.tags.import_(labels=[first], from_keywords=True)
        brute.say(report.run, [pair for pair in brute.files if pair[1] == first], True, keep=True)
    elif brute.standing:
        run = brute.standing[first % len(brute.standing)]
        library.tags.undo(run)
        brute.undo(run)
        with pytest.raises(UnknownRun, match="undone before"):
            library.tags.undo(run)


def rows(library: Library) -> list[tuple]:
    path = Path(library.catalog.location, CATALOG_NAME)
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        query = "SELECT photo_id, label, source, run_id, rejected, probability, created_at FROM labels"
        return sorted(connection.execute(query), key=repr)


@settings(max_examples=12, deadline=None)
@given(st.lists(steps, min_size=3, max_size=8))
def test_any_runs_and_undos_are_what_the_model_says(prepared, tmp_path_factory, played):
    brute = Brute()
    with copied(prepared, tmp_path_factory.mktemp("played") / "library") as library:
        for step in played:
            play(library, brute, step)
            wanted = brute.shown()
            assert shown(library) == wanted
            for label in NAMES:
                within = {
                    id_ for id_ in PHOTOS for one in wanted[id_] if one == label or one.startswith(f"{label}/")
                }
                assert set(found(library, label)) == within
        said = {(v.photo_id, v.label): v.accepted for v in library.catalog.verdicts()}
        assert said == {pair: brute.last(pair) for _, pair, _ in brute.verdicts}
        assert [run.id for run in library.tags.runs() if run.undone_at is None] == brute.standing
        before = rows(library)
        with library.catalog._storage.writing() as connection, connection.begin():
            settle_all(connection)
        assert rows(library) == before
        assert library.catalog.problems(full=True)[0] == []


def test_everything_undone_is_as_it_was(own):
    before = rows(own)
    propose(own, dict.fromkeys(PHOTOS, "animal/cat"))
    own.tags.accept(["animal/cat", "new"], photos=[1, 2])
    own.tags.reject(["animal/cat", "car"], photos=["/album/day"])
    own.tags.import_(from_keywords=True)
    assert shown(own) == {1: {"new"}, 2: {"new"}, 3: set()}
    for run in reversed(own.tags.runs()):
        own.tags.undo(run.id)
    assert rows(own) == before
    assert own.catalog.verdicts() == []


# ---- what is said, and how


def test_a_rejected_label_is_nowhere_and_labelling_anew_does_not_bring_it_back(own):
    propose(own, {1: "animal/cat", 2: "animal/cat"})
    own.tags.reject(["animal/cat"], photos=[1])
    again = propose(own, {1: "animal/cat", 2: "animal/cat"}, probability=0.99)
    assert shown(own) == {1: {"car"}, 2: {"animal/cat"}, 3: set()}
    assert found(own, "animal") == [2]
    assert own.catalog.select(Filter(labels=("animal/cat",))).tolist() == [2]
    records = own.tags.of([1])[1]
    assert [(r.label, r.source, r.run, r.rejected, r.encoder) for r in records] == [
        ("animal/cat", "zero-shot", again, True, "a model"),
        ("car", "file", None, False, None),
        ("animal/cat", "user", 2, True, None),
    ]


def test_a_rejected_keyword_stays_rejected_when_its_file_is_read_again(own):
    own.tags.reject(["car"], photos=[1])
    with own.catalog.writing() as writer:
        writer.put_info([(1, PhotoInfo("JPEG", 40, 30, keywords=("car", "red")))], reader=2)
    photo = own.photo(1)
    assert (photo.labels, photo.info.keywords) == (("red",), ("car", "red"))
    assert own.catalog.label_names() == ["red"]


def test_a_rule_leaves_alone_what_was_judged(own):
    propose(own, dict.fromkeys(PHOTOS, "car"), probability=0.8)
    own.tags.reject(["car"], photos=[2])
    report = own.tags.accept(["car"], above=0.5)
    assert (report.photos, report.labels) == (2, 2)
    assert found(own, "car") == [1, 3]
    assert own.tags.accept(["car"], above=0.5).run is None
    assert own.tags.reject(["car"], above=0.5, below=0.8, photos=[1, 3]).run is None


def test_what_was_said_before_is_not_said_twice(own):
    first = own.tags.accept(["new"], photos=[1, 2])
    assert (first.run, first.photos, first.labels, first.unchanged, first.new) == (1, 2, 2, 0, ("new",))
    second = own.tags.accept(["new"], photos=[2, 3])
    assert (second.run, second.labels, second.unchanged, second.new) == (2, 1, 1, ())
    assert own.tags.accept(["new"], photos=[1]).run is None


def test_undoing_the_run_before_last_leaves_the_last_word(own):
    first = own.tags.accept(["new"], photos=[1]).run
    own.tags.reject(["new"], photos=[1])
    report = own.tags.undo(first)
    assert (report.kind, report.verdicts, report.labels, report.photos) == ("accept", 1, 0, 1)
    assert found(own, "new") == []
    assert own.catalog.verdicts("new")[0].accepted is False


@pytest.mark.parametrize(
    ("act", "error", "said"),
    [
        (lambda tags: tags.accept(["car"], photos=[99]), UnknownPhoto, "photo 99 is not in the library"),
        (lambda tags: tags.accept(["car"], photos=["/album/no.jpg"]), UnknownPhoto, "search index"),
        (lambda tags: tags.reject(["cra"], above=0.5), UnknownLabel, "did you mean 'car'"),
        (lambda tags: tags.accept(["zebra"], above=0.5), UnknownLabel, "search tags list"),
        (lambda tags: tags.accept(["car"]), UsageError, "on which photos"),
        (lambda tags: tags.accept([" "], photos=[1]), UsageError, "a label is empty"),
        (lambda tags: tags.accept([], photos=[1]), UsageError, "there is no label"),
        (lambda tags: tags.undo(7), UnknownRun, "there is no run 7"),
        (lambda tags: tags.undo(2**80), UnknownRun, "there is no run"),
        (lambda tags: tags.photos("cra"), UnknownLabel, "did you mean 'car'"),
        (lambda tags: tags.import_(), UsageError, "either a file or"),
    ],
)
def test_what_can_not_be_meant_is_refused_and_nothing_is_written(own, act, error, said):
    with pytest.raises(error) as raised:
        act(own.tags)
    assert said in str(raised.value)
    assert own.tags.runs() == []


@pytest.mark.parametrize("act", ["accept", "undo"])
def test_a_run_killed_in_the_middle_leaves_all_or_nothing(own, act):
    own.tags.accept(["old"], photos=PHOTOS)
    before = rows(own), own.tags.runs()

    class Killed(BaseException):
        pass

    def die(name: str) -> None:
        if name == "commit.sealed":
            raise Killed

    failpoints.arm(die)
    try:
        with pytest.raises(Killed):
            own.tags.undo(1) if act == "undo" else own.tags.accept(["new"], photos=PHOTOS)
    finally:
        failpoints.arm(None)
    assert (rows(own), own.tags.runs()) == before


def test_how_good_a_label_is_told_from_the_proposals_that_were_judged(own):
    propose(own, dict.fromkeys(PHOTOS, "animal"))
    own.tags.accept(["animal"], photos=[1, 2])
    own.tags.reject(["animal"], photos=[3])
    own.tags.accept(["other"], photos=[1])
    animal, car, other = own.tags.labels()
    assert (animal.photos, animal.proposed, animal.accepted, animal.rejected) == (2, 2, 2, 1)
    assert (animal.judged, animal.right) == (3, 2)
    assert animal.precision == pytest.approx((0.2077, 2 / 3, 0.9385), abs=1e-4)  # Wilson's interval of 2 of 3
    assert (car.in_files, car.photos, car.judged, car.precision) == (1, 1, 0, None)
    assert (other.accepted, other.judged, other.precision) == (1, 0, None)


def test_a_label_that_nobody_proposed_can_be_rejected(own):
    report = own.tags.reject(["cra"], photos=[1, 2])
    assert (report.labels, report.new) == (2, ("cra",))
    assert [(said.photo_id, said.label, said.accepted) for said in own.catalog.verdicts()] == [
        (1, "cra", False),
        (2, "cra", False),
    ]


def test_what_a_rule_judged_tells_nothing_of_how_good_a_label_is(own):
    propose(own, dict.fromkeys(PHOTOS, "animal"))
    own.tags.reject(["animal"], photos=[1])
    own.tags.accept(["animal"], above=0.2)
    animal = next(one for one in own.tags.labels() if one.label == "animal")
    assert (animal.accepted, animal.judged, animal.right) == (2, 1, 0)
    own.tags.reject(["animal"], photos=[2])
    own.tags.accept(["animal"], photos=[2])
    animal = next(one for one in own.tags.labels() if one.label == "animal")
    assert (animal.accepted, animal.judged, animal.right) == (2, 2, 1)


def test_the_interval_holds_what_it_should_at_its_ends():
    assert interval(0, 10)[0] == 0.0
    assert interval(10, 10)[2] == 1.0
    assert interval(0, 10)[2] == pytest.approx(0.2775, abs=1e-4)


def test_photos_forgotten_take_what_was_said_of_them_along(own):
    propose(own, dict.fromkeys(PHOTOS, "animal"))
    own.tags.accept(["animal"], photos=PHOTOS)
    with own.catalog.writing() as writer:
        writer.purge([1])
    assert [verdict.photo_id for verdict in own.catalog.verdicts()] == [2, 3]
    own.tags.undo(2)
    assert own.catalog.problems(full=True)[0] == []


# ---- lists from elsewhere


def test_a_csv_is_taken_over_once_and_undone_whole(own, tmp_path):
    listed = tmp_path / "labels.csv"
    lines = [
        "path,label,state,probability",
        "/album/day/1.jpg,dog,accepted,",
        '/album/day/2.jpg,"a, b",imported,0.5',
        "/album/day/3.jpg,'=cat,accepted,",
        "/album/day/1.jpg,car,rejected,",
        "/album/day/1.jpg,fish,proposed,0.4",
        "/album/day/1.jpg,car2,file,",
        "/album/day/9.jpg,dog,accepted,",
        "/album/day/9.jpg,cat,accepted,",
        "/album/day/1.jpg,,accepted,",
        "/album/day/1.jpg,dog,wrong,",
    ]
    listed.write_text("\ufeff" + "\r\n".join(lines), encoding="utf-8")
    report = own.tags.import_(listed)
    assert (report.run, report.photos, report.accepted, report.rejected) == (1, 3, 3, 1)
    assert report.left == {"proposed": 1, "file": 1}
    assert [(skip.path, skip.reason) for skip in report.skipped] == [
        (str(listed), "malformed"),
        (str(listed), "malformed"),
        ("/album/day/9.jpg", "unknown"),
    ]
    assert shown(own) == {1: {"dog"}, 2: {"a, b"}, 3: {"=cat"}}
    assert {record.source for record in own.tags.of([2])[2]} == {"import"}
    again = own.tags.import_(listed)
    assert (again.run, again.unchanged) == (None, 4)
    own.tags.undo(1)
    assert shown(own) == {1: {"car"}, 2: set(), 3: set()}


def test_paths_in_a_list_start_at_its_folder_and_may_be_bytes(prepared, tmp_path):
    folder = tmp_path / "album"
    with copied(prepared, tmp_path / "library") as library:
        with library.catalog.writing() as writer:
            writer.move_root(writer.source("/album"), str(folder))
        listed = folder / "labels.json"
        folder.mkdir()
        photos = [
            {
                "path": "day/1.jpg",
                "labels": [{"label": "dog", "state": "accepted"}, {"label": "car", "state": "rejected"}],
            },
            {"path": "?", "path_bytes": "ZGF5LzIuanBn", "labels": ["plain"]},
            {"path": "day/3.jpg", "labels": [{"state": "accepted"}]},
        ]
        listed.write_text(json.dumps({"photos": photos}))
        report = library.tags.import_(listed, labels=["dog", "plain"])
        assert shown(library) == {1: {"car", "dog"}, 2: {"plain"}, 3: set()}
        assert [skip.reason for skip in report.skipped] == ["malformed"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a,b\n1,2\n", "columns path and label"),
        (b"", "columns path and label"),
        (b"{}", "no JSON of photos"),
        (b'{"photos": 3}', "no JSON of photos"),
        (b'{"photos": [1]}', "no JSON of photos"),
        (b"[" * 100_000, "no JSON of photos"),
        (b"path,label\n\xff,x\n", "not UTF-8"),
    ],
)
def test_a_file_that_is_no_list_is_refused(own, tmp_path, content, said):
    listed = tmp_path / "list"
    listed.write_bytes(content)
    with pytest.raises(UsageError, match=said):
        own.tags.import_(listed)


@pytest.mark.parametrize(
    "entry",
    [
        {"labels": [{"label": "x", "state": ["a"]}]},
        {"labels": [{"label": "x", "state": {}}]},
        {"labels": [{"label": "x", "state": 0}]},
        {"labels": ["x\ud800"]},
        {"labels": ["\x00\x1b"]},
        {"labels": [["x"]]},
        {"labels": None},
        {"labels": ["x"], "path": "/album/day/\ud800.jpg"},
        {"labels": ["x"], "path": "/album/day/\0.jpg"},
        {"labels": ["x"], "path_bytes": "L2EAYg=="},
    ],
)
def test_an_entry_that_means_nothing_is_skipped_and_the_others_are_not(own, tmp_path, entry):
    listed = tmp_path / "labels.json"
    good = {"path": "/album/day/2.jpg", "labels": "cat"}
    listed.write_text(json.dumps({"photos": [{"path": "/album/day/1.jpg", **entry}, good]}))
    report = own.tags.import_(listed)
    assert [skip.reason for skip in report.skipped] == ["malformed"]
    assert shown(own) == {1: {"car"}, 2: {"cat"}, 3: set()}


def test_labels_are_kept_on_one_line_without_what_can_not_be_seen(own, tmp_path):
    odd, plain = " a\x00b\x1b[31m\nc\u202ed ", "ab[31m cd"
    own.tags.accept([odd], photos=[2])
    own.tags.reject([odd], photos=[3])
    listed = tmp_path / "labels.json"
    listed.write_text(json.dumps({"photos": [{"path": "/album/day/1.jpg", "labels": [odd]}]}))
    own.tags.import_(listed)
    assert {verdict.label for verdict in own.catalog.verdicts()} == {plain}
    assert LabelSet.of([odd]).names == Label.parse(odd).words == (plain,)


awkward = st.text(st.one_of(st.sampled_from("'=+-@\t\r\n\v\f\x1c\x85\u2028\u2029\",;\\ ab"), st.characters()))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(awkward, awkward.map(legible).filter(bool))))
def test_a_csv_that_was_written_is_read_as_it_was(tmp_path_factory, rows):
    path = tmp_path_factory.getbasetemp() / "labels.csv"
    rows = [("/" + place.replace("\0", ""), label) for place, label in rows if is_text(place + label)]
    lines = csv_lines(("path", "label"), [{"path": place, "label": label} for place, label in rows])
    path.write_bytes("".join(lines).encode())
    read = importing.read(str(path), lambda places: {place: number for number, place in enumerate(places)})
    assert read.skipped == ()
    assert sorted(label for _, label in read.said) == sorted({row: row[1] for row in rows}.values())
    assert all(_unguarded(_harmless(text)) == text for row in rows for text in row)


def is_text(text: str) -> bool:
    return not any("\ud800" <= c <= "\udfff" for c in text)
