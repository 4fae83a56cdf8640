from __future__ import annotations

import numpy as np
import pytest

from search import Library, banks
from search.relevance import DEFAULT_CUT, Bank, Calibration, calibrate
from search.resources import text_lines
from search.vectors import normalize


def against(scores: list[float], usual: np.ndarray, photos: int) -> list[float]:
    """The relevance of scores without a bank, in a library whose photos' scores are `usual`."""
    background = np.stack([usual, np.zeros_like(usual)], axis=1)
    found = calibrate(np.float32([1, 0]), background=background, photos=photos)
    return found.relevance(np.float32(scores), np.zeros((len(scores), 2), np.float32)).tolist()


# 0.1 ± 0.02: for a normal distribution the median absolute deviation is 0.6745 sigma.
USUAL = np.random.default_rng(0).normal(0.1, 0.02, 2000).astype(np.float32)


def test_without_words_it_is_how_far_a_score_stands_out_after_fishers_transformation():
    """Half of it at 2.5 spreads; artanh is the identity for small scores, and 1.4722 at 0.9."""
    assert against([0.15], USUAL, 100) == [pytest.approx(0.5, abs=0.06)]  # sampled background
    wide = np.tanh(np.random.default_rng(0).normal(0.45, 0.3, 20_000)).astype(np.float32)
    z = (1.4722 - 0.45) / 0.3
    assert against([0.9], wide, 100) == [pytest.approx(1 / (1 + np.exp(-1.5 * (z - 2.5))), abs=0.01)]


def test_it_rises_with_the_score_and_does_not_know_how_large_the_library_is():
    scores = np.linspace(0.02, 0.19, 30).tolist()
    found = against(scores, USUAL, 1000)
    assert found == sorted(set(found))
    assert 0 <= found[0] < found[-1] <= 1
    assert found == against(scores, USUAL, 1_000_000)


def test_the_same_picture_is_certain_and_a_photo_by_chance_is_not():
    """Also where all photos of a library are alike: cosines of 0.4 to 0.8."""
    alike = np.random.default_rng(0).uniform(0.4, 0.8, 2000).astype(np.float32)
    for usual, middle in ((USUAL, 0.1), (alike, 0.6)):
        assert min(against([0.985, 1.0], usual, 1000)) > 0.95
        assert against([middle], usual, 1000)[0] < 0.05


@pytest.mark.parametrize("usual", [[0.2], [], [1.0, 1.0], [-1.0, 1.0]])
def test_libraries_that_tell_nothing_give_numbers_all_the_same(usual):
    found = against([-1.0, 0.2, 1.0], np.float32(usual), len(usual))
    assert all(0 <= one <= 1 for one in found)
    assert found == sorted(found)


def test_standing_is_in_spreads_of_the_librarys_scores():
    standing = calibrate(np.float32([1, 0]), background=np.stack([USUAL, 0 * USUAL], axis=1), photos=100).standing(
        np.float32([0.1, 0.14])
    )
    assert standing.tolist() == pytest.approx([0, 2], abs=0.1)  # a sample's median


@pytest.fixture(scope="module")
def bank() -> Bank:
    """Prompts lie about one direction, nonsense about another, in ten dimensions."""
    random = np.random.default_rng(1)
    around = random.normal(0, 0.2, (2, 500, 10)).astype(np.float32)
    around[0, :, 0] += 1
    around[1, :, 1] += 1
    return Bank.fit(normalize(around[0]), normalize(around[1]))


def query(*numbers: float) -> np.ndarray:
    return normalize(np.float32([*numbers, *[0] * (10 - len(numbers))]))


def judged(bank: Bank, asked: np.ndarray, photos: np.ndarray, library: np.ndarray) -> np.ndarray:
    found = calibrate(asked, background=library, bank=bank, photos=len(library))
    return found.relevance(photos @ asked, photos)


LIBRARY = normalize(np.random.default_rng(2).normal(0, 1, (400, 10)).astype(np.float32))


def test_sense_is_in_spreads_of_the_prompts(bank):
    assert bank.sense(query(1)) == pytest.approx(0, abs=1)
    assert bank.sense(query(0, 1)) < -3


def test_nonsense_finds_nothing_however_near_a_photo_lies(bank):
    asked = query(0, 1)
    assert judged(bank, asked, asked[None], LIBRARY)[0] < DEFAULT_CUT / 2


def test_a_photo_that_every_prompt_fits_is_worth_less_than_one_that_this_query_fits(bank):
    """The score is the same; one photo is near to all texts, the other only to this one."""
    asked = query(1, 0, 0.6)
    scores = np.float32([0.6, 0.6])
    photos = np.stack([query(1, 0, 0), query(0, 0, 1)])
    found = calibrate(asked, background=LIBRARY, bank=bank, photos=400).relevance(scores, photos)
    assert found[0] < found[1]


def test_luck_in_a_large_library_is_taken_off(bank):
    asked, photo = query(1, 0, 0.6), query(0.2, 0, 1)[None]
    small, large = (
        calibrate(asked, background=LIBRARY, bank=bank, photos=photos).relevance(photo @ asked, photo)[0]
        for photos in (100, 1_000_000)
    )
    assert large < small


def test_the_best_are_judged_together_and_what_lies_far_below_them_by_itself(bank):
    """One photo by luck is worth less than three that agree, and lends nothing to one that does not."""
    asked = query(1, 0, 0.6)
    near, far = query(0.2, 0, 1), query(1, 0, -1)
    found = calibrate(asked, background=LIBRARY, bank=bank, photos=400)

    def judge(*photos: np.ndarray) -> list[float]:
        return found.relevance(np.stack(photos) @ asked, np.stack(photos)).tolist()

    alone, agreeing = judge(near, far, far), judge(near, near, near, far)
    assert alone[0] < agreeing[0]
    assert agreeing[0] == agreeing[2] > agreeing[3]
    assert found.relevance(np.float32([]), np.zeros((0, 10), np.float32)).tolist() == []


def test_among_few_photos_one_is_enough(bank):
    asked = query(1, 0, 0.6)
    photos = np.stack([query(0.2, 0, 1), query(1, 0, -1), query(1, 0, -1)])
    few, many = (
        calibrate(asked, background=LIBRARY, bank=bank, photos=400, among=among).relevance(photos @ asked, photos)
        for among in (10, 400)
    )
    assert few[0] > many[0]


def test_numbers_that_could_not_be_stay_in_bounds(bank):
    flat = Bank.fit(np.ones((5, 4), np.float32) / 2, np.ones((5, 4), np.float32) / 2)
    alone = Calibration(0.0, 1e-6, 10**6, flat, -1e9)
    assert 0 <= alone.relevance(np.float32([1.0]), np.float32([[1, 0, 0, 0]]))[0] <= 1


def test_a_bank_is_kept_and_read_back_and_a_damaged_one_is_none(bank, tmp_path):
    banks.save(bank, tmp_path, "f00d")
    [file] = tmp_path.iterdir()
    kept = banks.load(tmp_path, "f00d")
    assert kept is not None
    assert np.allclose(kept.covariance, bank.covariance, atol=1e-6)  # float32
    assert kept.sense(query(0, 1)) == pytest.approx(bank.sense(query(0, 1)), abs=1e-3)
    for damaged in (file.read_bytes()[:-9], b"", b"\x93NUMPY"):
        file.write_bytes(damaged)
        assert banks.load(tmp_path, "f00d") is None


def test_a_second_library_of_a_model_has_its_bank_at_once(tiny_model, album, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    told: list[str] = []
    for place in ("one", "other"):
        with Library.open(tmp_path / place, model=tiny_model, offline=True, notify=told.append) as library:
            library.index([album])
    assert len([message for message in told if message.startswith("learning")]) == 1
    beside = [next((tmp_path / place).rglob("*.npy")) for place in ("one", "other")]
    assert beside[0].read_bytes() == beside[1].read_bytes()  # a library that is taken elsewhere has it with it


def test_a_library_that_cannot_keep_a_bank_has_relevance_all_the_same(
    builtin, tiny_model, album, tmp_path, monkeypatch
):
    """On a database server there is no folder beside it: the user's cache has it, and if need be none."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    told: list[str] = []

    def relevance() -> list[float]:
        place = f"sqlite:///{tmp_path / 'catalog.db'}"
        with Library.open(place, model=tiny_model, offline=True, notify=told.append) as library:
            library.index([album])
            answers = [library.answer("a wall", 12, min_relevance=None) for _ in range(2)]
            assert {answer.cut for answer in answers} == {DEFAULT_CUT}
            return [answer.best for answer in answers]

    first = relevance()
    [kept] = (tmp_path / "cache" / "search" / "banks").iterdir()
    learning = [message for message in told if message.startswith("learning")]
    assert len(learning) == 1
    assert relevance() == pytest.approx(first, abs=1e-3)  # kept in float32
    assert [message for message in told if message.startswith("learning")] == learning
    kept.unlink()
    kept.parent.rmdir()
    kept.parent.touch()  # as a disk that can't be written to
    assert relevance() == pytest.approx(first, abs=1e-3)


def test_a_bank_of_other_prompts_is_none(bank, tmp_path, monkeypatch):
    banks.save(bank, tmp_path, "f00d")
    monkeypatch.setattr(banks, "_LONGER", 401)
    assert banks.load(tmp_path, "f00d") is None


def test_the_built_in_models_bank_ships_and_tells_words_from_nonsense(builtin):
    shipped = banks.load(None, builtin.fingerprint)
    assert shipped is not None
    words, nonsense = (
        ["a cat", "people on a beach", "a red car in the rain"],
        ["xqzvkj", "asdfghjkl qwer", "#8%!2"],
    )
    senses = [shipped.sense(vector) for vector in builtin.encode_texts([*words, *nonsense])]
    assert min(senses[:3]) > -1.5 > max(senses[3:])


def test_prompts_and_nonsense_are_the_same_each_time():
    words = text_lines(banks._WORDS)
    assert list(banks._nonsense(words)) == list(banks._nonsense(words))
    assert len(set(banks._sentences(words))) > 390
    assert next(iter(banks._nonsense(words))) == "tkgnkuhmpxnht"


def test_the_shipped_bank_is_what_the_prompts_give(builtin):
    shipped, made = banks.load(None, builtin.fingerprint), banks.make(builtin)
    assert shipped is not None
    assert np.allclose(shipped.mean, made.mean, atol=2e-3)  # another runtime's rounding
    assert shipped.origin == pytest.approx(made.origin, abs=0.1)
