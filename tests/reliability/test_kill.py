"""A process that is killed loses nothing it had acknowledged, and the next one completes its work."""

from __future__ import annotations

import math
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from reliability.nursery import Nursery, Outcome
from reliability.scenarios import BATCH, MAKERS, PHOTOS, Scenario, first

from reliability import album
from search import failpoints

RANDOM_TRIALS = 300
ROUNDS = 4  # times every failpoint of every operation is died at


@pytest.fixture(scope="module")
def scenarios(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> list[Scenario]:
    """Every operation, done once without harm to learn how long it takes and which failpoints it passes."""
    return [measured(make(tmp_path_factory.mktemp(make.__name__), nursery), nursery) for make in MAKERS]


def measured(scenario: Scenario, nursery: Nursery) -> Scenario:
    scenario.restore()
    done = scenario.run(nursery)
    assert done.result is not None
    assert done.encoded == scenario.to_encode
    assert not album.holds(nursery.run("look", library=str(scenario.library)).result, scenario.after)
    return replace(scenario, seconds=done.seconds, failpoints=Counter(done.all("reached")))


def die_and_recover(scenario: Scenario, nursery: Nursery, *deaths: dict) -> list[Outcome]:
    """Die as often and where it is said, then complete the work; hold what is seen against what must be."""
    scenario.restore()
    died = []
    for death in deaths:
        died.append(scenario.run(nursery, **death))
        assert died[-1].killed or died[-1].code == 0, died[-1].all("failed")
        assert not died[-1].orphans
        inspect(scenario, nursery, died)
    last = scenario.run(nursery)
    assert last.result is not None
    acknowledged = set().union(*(outcome.acknowledged for outcome in died))
    assert last.encoded <= scenario.to_encode - len(acknowledged), "acknowledged photos were encoded again"
    assert last.result.get("skipped", []) == []
    seen = nursery.run("look", library=str(scenario.library)).result
    assert not seen["problems"]
    assert not album.holds(seen, scenario.after)
    return died


def inspect(scenario: Scenario, nursery: Nursery, died: list[Outcome]) -> None:
    """What was safe and what was acknowledged is there as soon as the process is dead."""
    if not scenario.safe and not (scenario.library / "catalog.db").exists():
        assert not any(outcome.acknowledged for outcome in died)
        return
    if "catalog_damaged" not in scenario.damage:
        assert nursery.run("structure", library=str(scenario.library)).result == "ok"
    looked = nursery.run("look", library=str(scenario.library), repair=False)
    if looked.code and "LibraryNotFound" in str(looked.all("failed")):  # killed while its tables were made
        assert not any(outcome.acknowledged for outcome in died)
        return
    seen = looked.result
    if seen.get("old"):
        return
    assert not [problem for problem in seen["problems"] if not problem.startswith(scenario.damage)]
    acknowledged = {path: scenario.after[path] for outcome in died for path in outcome.acknowledged}
    assert not album.faults(seen | {"remaining": []})
    assert not album.missing(seen, scenario.safe | acknowledged)


def at(name: str, hit: int) -> dict:
    return {"die_at": name, "hit": hit}


def after(seconds: float) -> dict:
    return {"kill_after_s": seconds}


def reachable(scenarios: list[Scenario]) -> list[tuple[Scenario, str]]:
    return [
        (scenario, name) for name in failpoints.NAMES for scenario in scenarios if scenario.failpoints.get(name)
    ]


def surely(scenario: Scenario, name: str) -> int:
    """How often a run reaches a failpoint at least: how often it publishes on its way is for its threads to say."""
    if not scenario.publish_every:
        return scenario.failpoints[name]
    if name == "commit.sealed":
        return scenario.failpoints[name] - scenario.failpoints["publish.switched"] + 1
    return 1 if name.startswith("publish.") else scenario.failpoints[name]


def unreached(scenarios: list[Scenario]) -> list[str]:
    reached = {name for scenario in scenarios for name in scenario.failpoints}
    elsewhere = ("sidecars.", "train.", "transfer.")  # exports, training and moves, killed in tests of their own
    return [name for name in failpoints.NAMES if name not in reached and not name.startswith(elsewhere)]


def test_a_process_that_dies_at_any_failpoint_loses_nothing(scenarios, nursery, seed):
    rng = random.Random(seed)
    once = {name: (scenario, name) for scenario, name in reachable(scenarios)}
    for scenario, name in once.values():
        death = at(name, rng.randint(1, surely(scenario, name)))
        [died] = die_and_recover(scenario, nursery, death)
        assert died.killed, f"{scenario.name} did not reach {death}"
    assert not unreached(scenarios)


@pytest.mark.slow
def test_a_process_that_dies_at_any_moment_loses_nothing(scenarios, nursery, seed):
    rng = random.Random(seed)
    for scenario in scenarios:
        die_and_recover(scenario, nursery, after(rng.uniform(0, scenario.seconds)))


@pytest.mark.parametrize("deaths", [2, 3])
def test_photos_that_were_in_flight_when_others_killed_the_process_are_indexed(nursery, tmp_path, deaths):
    """Twice with others or once alone proves nothing against a photo."""
    scenario = first(tmp_path, nursery)
    whole_batch = [at("index.marked", 5)] + [after(0.05)] * (deaths - 1)
    die_and_recover(scenario, nursery, *whole_batch)


@pytest.mark.slow
def test_hundreds_of_deaths_at_random_moments(scenarios, nursery, seed, part):
    rng = random.Random(seed)
    died = Counter()
    trials = round(RANDOM_TRIALS * part)
    for number in range(trials):
        scenario = scenarios[number % len(scenarios)]
        deaths = [after(rng.uniform(0, 1.05 * scenario.seconds)) for _ in range(rng.choice((1, 1, 1, 2)))]
        outcomes = die_and_recover(scenario, nursery, *deaths)
        died[scenario.name] += sum(outcome.killed for outcome in outcomes)
    print(f"\n{trials} trials, {died.total()} deaths by operation: {dict(died)}")
    assert died.total() > trials / 2


@pytest.mark.slow
def test_deaths_at_every_failpoint_of_every_operation(scenarios, nursery, seed, part):
    rng = random.Random(seed)
    died = Counter()
    for scenario, name in reachable(scenarios) * math.ceil(ROUNDS * part):
        [outcome] = die_and_recover(scenario, nursery, at(name, rng.randint(1, surely(scenario, name))))
        died[name] += outcome.killed
    print(f"\n{died.total()} deaths by failpoint: {dict(died)}")
    assert not unreached(scenarios)
    assert all(died[name] for _, name in reachable(scenarios))


def test_the_sweep_can_fail(nursery, tmp_path):
    """A library that lost an acknowledged photo and one that has a damaged vector are noticed."""
    scenario = first(tmp_path, nursery)
    scenario.run(nursery)
    path = Path(next(iter(scenario.after)))
    path.unlink()
    scenario.run(nursery)
    seen = nursery.run("look", library=str(scenario.library)).result
    assert album.missing(seen, scenario.after) == [f"lost: {path}"]
    assert len(scenario.after) == PHOTOS > BATCH
