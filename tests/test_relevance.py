from __future__ import annotations

import numpy as np
import pytest

from search import banks
from search.relevance import DEFAULT_CUT, Bank, Calibration, calibrate
from search.vectors import normalize


def against(scores: list[float], usual: np.ndarray, photos: int) -> list[float]:
    """The relevance of scores without a bank, in a library whose photos' scores are `usual`."""
    background = np.stack([usual, np.zeros_like(usual)], axis=1)
    found = calibrate(np.float32([1, 0]), background=background, photos=photos)
    return found.relevance(np.float32(scores), np.zeros((len(scores), 2), np.float32)).tolist()


# 0.1 ± 0.02: for a normal distribution the median absolute deviation is 0.6745 sigma.
USUAL = np.random.default_rng(0).normal(0.1, 0.02, 2000).astype(np.float32)


def test_without_words_it_is_the_chance_that_no_unrelated_photo_scores_higher():
    # Φ(3) = 0.99865; of 100 unrelated photos none lies above with 0.99865^100 = 0.8736.
    assert against([0.16], USUAL, 100) == [pytest.approx(0.8736, abs=0.03)]  # sampled background


def test_it_rises_with_the_score_and_falls_with_the_library():
    low, middle, high = against([0.1, 0.15, 0.3], USUAL, 1000)
    assert 0 <= low < middle < high <= 1
    assert against([0.16], USUAL, 10)[0] > against([0.16], USUAL, 10_000)[0]


def test_a_standout_is_certain_and_an_average_photo_is_not():
    assert against([0.4], USUAL, 1_000_000) == [1.0]
    assert against([0.1], USUAL, 1000)[0] < 1e-6


def test_one_photo_alone_is_neither():
    assert against([0.2], np.float32([0.2]), 1) == [0.5]


def test_no_background_gives_no_relevance():
    assert against([0.2], np.float32([]), 10)[0] < 0.01


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
    words = banks.lines(banks._WORDS)
    assert list(banks._nonsense(words)) == list(banks._nonsense(words))
    assert len(set(banks._sentences(words))) > 390
    assert next(iter(banks._nonsense(words))) == "tkgnkuhmpxnht"


def test_the_shipped_bank_is_what_the_prompts_give(builtin):
    shipped, made = banks.load(None, builtin.fingerprint), banks.make(builtin)
    assert shipped is not None
    assert np.allclose(shipped.mean, made.mean, atol=2e-3)  # another runtime's rounding
    assert shipped.origin == pytest.approx(made.origin, abs=0.1)
