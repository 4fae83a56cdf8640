"""Reviewing labels: what is asked, what answers change, and what `label` makes of them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from search import Library
from search.catalog.rows import HeadRow
from search.errors import UsageError
from search.labels import Label, LabelOptions, LabelSet
from search.library import learning, reviewing
from search.library.reviewing import Review, worded

NAMES = ("orange", "green", "blue")
PICTURES, COPIES = 15, 3
COUNT = PICTURES + COPIES  # files


def picture(path: Path, number: int) -> None:
    """A picture of one of three colours, with some noise."""
    noise = np.random.default_rng(number).integers(0, 90, (6, 8, 3), np.uint8)
    noise[:, :, number % 3] += 150
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise).resize((64, 48), Image.Resampling.BICUBIC).save(path)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, builtin) -> Path:
    """A library of pictures in three colours, labelled with their names."""
    folder = tmp_path_factory.mktemp("colours")
    for number in range(PICTURES):
        picture(folder / "album" / NAMES[number % 3] / f"{number:02}.png", number)
    for copy in range(COPIES):  # of the first, other files for their last byte
        data = (folder / "album" / "orange" / "00.png").read_bytes()
        (folder / "album" / "orange" / f"00-{copy}.png").write_bytes(data + bytes([copy]))
    with Library.open(folder / "library", model="builtin", offline=True) as library:
        library.model.loaded = builtin
        library.index([folder / "album"])
        library.label(NAMES, apply=True)
    return folder / "library"


@pytest.fixture
def coloured(prepared, tmp_path, builtin) -> Library:
    """A copy of that library."""
    shutil.copytree(prepared, tmp_path / "own")
    with Library.open(tmp_path / "own", model="builtin", offline=True) as library:
        library.model.loaded = builtin
        yield library


def is_so(item) -> bool:
    return Path(item.photo.path).parent.name == item.label


def answered(review: Review, count: int) -> list:
    """Answer questions as the folders have it."""
    items = []
    for _ in range(count):
        items.append(review.next())
        review.judge(items[-1], is_so(items[-1]))
    return items


def orange(library: Library) -> list[int]:
    """The ids of orange pictures."""
    photos = library.catalog.get(library.catalog.all_ids().tolist())
    return [photo.id for photo in photos if "/orange/" in photo.path]


def said(library: Library) -> dict:
    return {(verdict.photo_id, verdict.label): verdict.accepted for verdict in library.catalog.verdicts()}


def shares(library: Library, **options) -> dict:
    labelling = library.label(NAMES, options=LabelOptions(multi=True, **options))
    return {(photo.path, found.label): found.probability for photo in labelling.photos for found in photo.labels}


def test_labels_take_turns_and_the_least_certain_comes_first(coloured):
    items = coloured.tags.review(NAMES).queue(6)
    assert sorted(item.label for item in items[:3]) == sorted(NAMES)
    assert sorted(item.label for item in items[3:]) == sorted(NAMES)
    likely = shares(coloured)
    for item in items[:3]:
        own = [1 - abs(2 * p - 1) for (_, label), p in likely.items() if label == item.label]
        assert item.uncertainty == pytest.approx(max(own), abs=1e-4)  # float32


def test_without_labels_only_proposals_are_asked_about(coloured):
    review = coloured.tags.review()
    assert set(review.names) == set(NAMES)
    assert review.left == COUNT  # one each was applied
    proposed = {(id_, name) for name in NAMES for id_, _ in coloured.catalog.proposals(name)}
    assert {(item.photo.id, item.label) for item in review.queue(COUNT + 5)} == proposed
    assert coloured.tags.review(NAMES).left == 3 * COUNT


def test_the_same_questions_come_each_time(coloured):
    first, second = (
        [(item.photo.id, item.label) for item in coloured.tags.review(NAMES).queue(9)] for _ in range(2)
    )
    assert first == second


def test_an_answer_is_committed_at_once_and_all_are_one_run(coloured, prepared):
    review = coloured.tags.review(NAMES)
    items = answered(review, 4)
    with Library.open(coloured.catalog.location, model="builtin", offline=True) as other:
        assert said(other) == {(item.photo.id, item.label): is_so(item) for item in items}
        assert [run.kind for run in other.tags.runs()] == ["label", "review"]
    report = review.finish()
    assert report.run == coloured.tags.runs()[-1].id
    assert (report.accepted, report.rejected) == (sum(map(is_so, items)), 4 - sum(map(is_so, items)))


def test_what_was_judged_is_not_asked_again(coloured):
    items = answered(coloured.tags.review(NAMES), 5)
    again = coloured.tags.review(NAMES)
    assert again.left == 3 * COUNT - 5
    asked = {(item.photo.id, item.label) for item in again.queue(3 * COUNT)}
    assert not asked & {(item.photo.id, item.label) for item in items}


def test_correcting_rejects_one_label_and_accepts_another(coloured):
    review = coloured.tags.review(["orange"])
    item = review.next()
    review.correct(item, " purple ")
    assert said(coloured) == {(item.photo.id, "orange"): False, (item.photo.id, "purple"): True}
    assert "purple" in coloured.photo(item.photo.id).labels
    report = review.finish()
    assert (report.accepted, report.rejected, report.corrected) == (0, 0, 1)
    assert {learnt.gain.label for learnt in report.learnt} == {"orange", "purple"}


@pytest.mark.parametrize("other", ["orange", " "])
def test_a_correction_must_name_another_label(coloured, other):
    review = coloured.tags.review(["orange"])
    with pytest.raises(UsageError):
        review.correct(review.next(), other)
    assert not said(coloured)


def test_skipping_says_nothing_and_does_not_ask_again(coloured):
    review = coloured.tags.review(["orange"])
    item = review.next()
    review.skip(item)
    assert review.next().photo.id != item.photo.id
    assert review.left == COUNT - 1
    assert review.finish().run is None
    assert not said(coloured)


def test_undo_takes_the_last_answer_back(coloured):
    review = coloured.tags.review(["orange"])
    before = [(item.photo.id, item.probability) for item in review.queue(COUNT)]
    answered(review, 1)
    last = review.next()
    review.correct(last, "blue")
    assert review.undo().photo.id == last.photo.id
    assert len(said(coloured)) == 1
    assert review.undo() is not None
    assert review.undo() is None
    assert not said(coloured)
    assert [(item.photo.id, item.probability) for item in review.queue(COUNT)] == before


def test_answers_teach_what_label_says_next(coloured):
    untaught = shares(coloured)
    review = coloured.tags.review(NAMES)
    answered(review, 12)
    review.finish()
    taught = shares(coloured)
    by_text = shares(coloured, learned=False)  # of what was not rejected; float32, in other batches
    assert by_text == pytest.approx({which: untaught[which] for which in by_text}, abs=1e-6)
    assert len(untaught) - len(by_text) == sum(not accepted for accepted in said(coloured).values())
    mean = {
        kind: [
            np.mean([p for (path, label), p in of.items() if (label in path) == kind]) for of in (untaught, taught)
        ]
        for kind in (True, False)
    }
    assert mean[True][1] > mean[True][0] + 0.1
    assert mean[True][1] - mean[False][1] > mean[True][0] - mean[False][0] + 0.2


def test_heads_are_a_cache_of_verdicts(coloured):
    review = coloured.tags.review(["orange"])
    answered(review, 6)
    review.finish()
    taught, row = shares(coloured), coloured.catalog.encoder()
    kept = coloured.catalog.heads(row.id)["orange"]
    assert kept.examples == 6
    with coloured.catalog.writing() as writer:
        writer.drop_heads(row.id, ["orange"])
    assert shares(coloured) == pytest.approx(taught)
    again = coloured.catalog.heads(row.id)["orange"]
    old, new = (np.frombuffer(head.weights, "<f4") for head in (kept, again))
    assert np.allclose(old, new, atol=1e-3)  # the same examples in another order


def test_a_head_that_is_no_head_is_trained_anew(coloured):
    review = coloured.tags.review(["orange"])
    answered(review, 6)
    review.finish()
    taught, row = shares(coloured), coloured.catalog.encoder()
    kept = coloured.catalog.heads(row.id)["orange"]
    nan = np.full(row.dim, np.nan, "<f4").tobytes()
    broken = HeadRow("orange", nan, 0.0, None, None, 6, kept.details, kept.trained_at)
    with coloured.catalog.writing() as writer:
        writer.put_heads(row.id, [broken])
    assert shares(coloured) == pytest.approx(taught)


def test_undoing_a_review_unteaches(coloured):
    untaught = shares(coloured)
    review = coloured.tags.review(["orange"])
    answered(review, 6)
    run = review.finish().run
    assert shares(coloured) != untaught
    coloured.tags.undo(run)
    assert shares(coloured) == untaught


def test_accepted_photos_alone_do_not_make_a_label_commoner(coloured):
    """Nothing says how many others have it: the mean log odds over the library stay what they were."""
    untaught = shares(coloured)
    single = {photo.path: photo.labels[0].label for photo in coloured.label(NAMES).photos}
    coloured.tags.accept(["orange"], photos=orange(coloured))
    taught = shares(coloured)
    before, after = (
        np.mean([np.log(p / (1 - p)) for (_, label), p in of.items() if label == "orange"])
        for of in (untaught, taught)
    )
    assert after == pytest.approx(before, abs=0.01)
    now = {photo.path: photo.labels[0].label for photo in coloured.label(NAMES).photos}
    right = [sum(f"/{label}/" in path for path, label in of.items()) for of in (single, now)]
    assert right[1] >= right[0]


def test_what_a_rule_judged_teaches_less_than_what_the_user_looked_at(coloured):
    untaught = shares(coloured)
    ruled = coloured.tags.accept(["orange"], photos=orange(coloured), above=0.0).run
    by_rule = shares(coloured)
    coloured.tags.undo(ruled)
    coloured.tags.accept(["orange"], photos=[id_ for id_, _ in coloured.catalog.proposals("orange")])
    looked_at = shares(coloured)
    moved = [sum(abs(of[key] - untaught[key]) for key in untaught) for of in (by_rule, looked_at)]
    assert 0 < moved[0] < moved[1] / 2


def test_of_very_many_verdicts_some_of_each_kind_teach(coloured, monkeypatch):
    monkeypatch.setattr(learning, "_MOST", 3)
    coloured.tags.accept(["orange"], photos=orange(coloured))
    others = [id_ for id_ in coloured.catalog.all_ids().tolist() if id_ not in orange(coloured)]
    coloured.tags.reject(["orange"], photos=others)
    shares(coloured)
    assert coloured.catalog.heads(coloured.catalog.encoder().id)["orange"].examples == 6


def test_heads_that_are_fresh_are_not_learnt_again(coloured, monkeypatch):
    coloured.tags.accept(["orange"], photos=orange(coloured))
    taught = shares(coloured)
    monkeypatch.setattr(learning, "Teacher", None)
    assert shares(coloured) == taught
    coloured.tags.reject(["orange"], photos=orange(coloured)[:1])
    with pytest.raises(TypeError):
        shares(coloured)


def test_a_review_whose_run_was_undone_goes_on_in_another(coloured):
    review = coloured.tags.review(["orange"])
    answered(review, 3)
    (first,) = [run.id for run in coloured.tags.runs() if run.kind == "review"]
    coloured.tags.undo(first)
    items = answered(review, 1)
    assert said(coloured) == {(item.photo.id, "orange"): is_so(item) for item in items}
    assert review.left == COUNT - 1
    report = review.finish()
    assert report.run not in (None, first)
    assert report.accepted + report.rejected == 1
    assert [learnt.gain.examples for learnt in report.learnt] == [1]


def test_a_review_whose_run_was_undone_reports_nothing(coloured):
    review = coloured.tags.review(["orange"])
    answered(review, 2)
    (run,) = [run.id for run in coloured.tags.runs() if run.kind == "review"]
    coloured.tags.undo(run)
    report = review.finish()
    assert (report.run, report.accepted, report.rejected, report.learnt) == (None, 0, 0, ())


def test_taking_back_an_answer_whose_run_was_undone_takes_back_no_more(coloured):
    review = coloured.tags.review(["orange"])
    answered(review, 2)
    coloured.tags.undo(coloured.tags.runs()[-1].id)
    assert review.undo() is None
    assert review.left == COUNT


def test_verdicts_given_elsewhere_teach_just_the_same(coloured):
    untaught = shares(coloured)
    orange = [
        photo.id for photo in coloured.catalog.get(coloured.catalog.all_ids().tolist()) if "/orange/" in photo.path
    ]
    coloured.tags.accept(["orange"], photos=orange)
    taught = shares(coloured)
    paths = {photo.path for photo in coloured.catalog.get(orange)}
    assert all(taught[path, "orange"] > untaught[path, "orange"] for path in paths)


def test_the_gain_is_told_where_there_are_enough_examples(coloured):
    coloured.tags.accept(["orange"], photos=orange(coloured)[:7])
    coloured.tags.reject(
        ["orange"], photos=[id_ for id_ in coloured.catalog.all_ids().tolist() if id_ not in orange(coloured)]
    )
    review = coloured.tags.review(["orange"], precision=0.5)
    answered(review, 1)
    assert review.next() is None
    (learnt,) = review.finish().learnt
    assert (learnt.gain.examples, learnt.gain.accepted) == (COUNT, len(orange(coloured)))
    assert learnt.gain.after >= learnt.gain.before > 0.5
    assert learnt.cut is not None and learnt.cut.precision >= 0.5
    row = coloured.catalog.encoder()
    assert coloured.catalog.heads(row.id)["orange"].threshold == learnt.cut.threshold


def test_few_examples_promise_no_precision(coloured):
    review = coloured.tags.review(["orange"], precision=0.9)
    answered(review, 4)
    (learnt,) = review.finish().learnt
    assert learnt.cut is None
    assert (learnt.gain.before, learnt.gain.after) == (None, None)


def test_a_precision_of_one_is_refused(coloured):
    with pytest.raises(UsageError):
        coloured.tags.review(precision=1.0)


def test_photos_that_look_the_same_are_not_asked_one_after_the_other(coloured, monkeypatch):
    """Four files are one picture, and as uncertain: three come when nothing else is left."""
    monkeypatch.setattr(reviewing, "_ALIKE", 0.999)  # all pictures of a colour are much alike
    monkeypatch.setattr(reviewing, "_JUST_ASKED", COUNT)
    names = [Path(item.photo.path).name for item in coloured.tags.review(["orange"]).queue(COUNT)]
    copies = [place for place, name in enumerate(names) if name.startswith("00")]
    assert len(copies) == 1 + COPIES
    assert copies[1:] == list(range(PICTURES, COUNT))


def test_more_photos_than_can_be_looked_at_are_taken_evenly(coloured, monkeypatch):
    monkeypatch.setattr(reviewing, "_MOST_PHOTOS", 10)
    assert coloured.tags.review(["orange"]).left == 9  # every second of 18


def test_labels_are_worded_as_they_were_when_proposed(coloured):
    labels = [Label("colour/orange", ("orange", "crimson")), Label("colour/blue", ("blue",))]
    coloured.label(LabelSet.of(labels, ["a {} picture", "{}"]), apply=True)
    found = worded(coloured._seams, ["colour/orange", "colour/blue", "pet/cat", "this | that"])
    assert {label.name: label.words for label in found.labels} == {
        "colour/orange": ("orange", "crimson"),
        "colour/blue": ("blue",),
        "pet/cat": ("cat",),
        "this | that": ("this | that",),
    }
    assert found.templates == ("a {} picture", "{}")
