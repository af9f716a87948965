"""Two models answer the same flights: who is worse, better, unfit; told the same way however the events come."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import numpy as np
import pytest

from millstream.contracts.events import ChallengerJudged, OtherAnswer, TrialFinding
from millstream.contracts.tasks import PROBABILITY
from millstream.contracts.times import DAY, HOUR, MINUTE, from_datetime
from millstream.contracts.topics import PREDICTIONS, VERDICTS
from millstream_drift.adapters.memory import MemorySnapshots
from millstream_drift.domain.comparison import MINIMUM, Newest

from .drift_kit import CARRIERS, JUNE, LANDED, Desk, Topics, baseline, landing, prediction

LATER = 3 * HOUR
Answer = Callable[[np.random.Generator, float, float, str], float]
"""(chance, the champion's answer, carrier) → the challenger's answer."""


def same(rng: np.random.Generator, chance: float, own: float, carrier: str) -> float:
    return own


def noisy(size: float) -> Answer:
    """Adds an error of its own: 0.28 costs 2% of the champion's loss, 0.9 a fifth."""
    return lambda rng, chance, own, carrier: 1 / (1 + math.exp(-math.log(own / (1 - own)) - rng.normal(0, size)))


def better(rng: np.random.Generator, chance: float, own: float, carrier: str) -> float:
    return chance


def opposite(rng: np.random.Generator, chance: float, own: float, carrier: str) -> float:
    return 1 - own


def bad_for_ev(rng: np.random.Generator, chance: float, own: float, carrier: str) -> float:
    return noisy(1.0)(rng, chance, own, carrier) if carrier == "EV" else chance


def flights(
    count: int,
    answer: Answer = same,
    *,
    role: str = "challenger",
    fault: dict[str, Any] | None = None,
    canary: float = 0.0,
    start: int = JUNE,
    seed: int = 1,
    changed: bool = False,
    nulls: float = 0.1,
    every: int = 2 * MINUTE,
) -> list[tuple[str, Any, int]]:
    """One flight every two minutes, answered by two models; it lands three hours later. `canary`: share of flights that the
    challenger answers. `changed`: the champion knows another world, where the flights that are late here were not. `nulls`:
    share of flights whose feature is null, a tenth in training."""
    rng, features = np.random.default_rng([seed, 2013]), np.random.default_rng([seed, start // DAY])
    said: list[tuple[str, Any, int]] = []
    for n in range(count):
        asked_at, id = start + n * every, f"flight-{start // MINUTE}-{n}"
        chance = float(rng.beta(1.2, 4.0) * 0.9 + 0.02)
        carrier = CARRIERS[int(rng.integers(4))]
        own = 1 / (1 + math.exp(-math.log(chance / (1 - chance)) - rng.normal(0, 0.3)))
        own = 1 - own if changed else own
        theirs = answer(rng, chance, own, carrier)
        turn = rng.random() < canary
        mine, other = ("2", theirs), ("1", own)
        if not turn and role == "challenger":
            mine, other = other, mine
        standing = role if role != "challenger" else "champion" if turn else "challenger"
        failing: dict[str, Any] = {"output": {PROBABILITY: other[1]}, "ms": 0.1} | (fault or {})
        event = prediction(
            id,
            asked_at,
            version=mine[0],
            probability=mine[1],
            variant="challenger" if standing == "champion" else "champion",
            inputs={"distance": int(rng.integers(0, 1000)), "carrier": carrier},
            features={
                "origin__mean_1h": None if features.random() < nulls else float(features.uniform(0, 1000)),
            },
            timings_ms={"model": 0.1},
            other=OtherAnswer(version=other[0], role=standing, **failing),
        )
        late = rng.random() < chance
        said.append((PREDICTIONS.name, event, asked_at))
        said.append((LANDED, landing(id, asked_at + LATER, late=late), asked_at + LATER))
    # Somebody asks two days later, so that everything before is settled.
    after = start + count * every + 2 * DAY
    said.append((PREDICTIONS.name, prediction(f"last-{start // MINUTE}", after), after))
    return said


async def told(said: Iterable[tuple[str, Any, int]], most: int = 10_000, seed: int | None = None, **rules: Any) -> Desk:
    desk = Desk(Topics().add(said), **rules)
    desk.models.known["flight-delay", "2"] = baseline("2")
    return await (await desk.start()).read_all(most, seed)


def trials(desk: Desk) -> list[ChallengerJudged]:
    return [event for event in desk.speaker.said if isinstance(event, ChallengerJudged)]


def first(desk: Desk, finding: TrialFinding) -> ChallengerJudged:
    return next(verdict for verdict in trials(desk) if verdict.finding is finding)


async def test_two_equal_models_are_never_told_apart() -> None:
    desk = await told(flights(1_500))
    assert {verdict.finding for verdict in trials(desk)} == {TrialFinding.UNDECIDED}
    last = trials(desk)[-1]
    assert (last.questions, last.pairs, last.answered) == (1_500, 1_500, 0)
    assert (last.difference, last.low, last.high) == (0.0, 0.0, 0.0)
    assert last.loss == pytest.approx(0.5, abs=0.05)
    assert (last.version, last.against, last.watch) == ("2", "1", False)


@pytest.mark.parametrize("failure", ["raised", "not_finite", "late"])
async def test_a_challenger_that_gives_no_answer_is_unfit_after_ten_questions(failure: str) -> None:
    desk = await told(flights(100, fault={"output": {}, "failure": failure}))
    verdict = trials(desk)[0]
    assert verdict.finding is TrialFinding.UNFIT
    assert verdict.reason == f"10 of 10 questions failed: {failure} 10; 1 > 0.01"
    assert (verdict.questions, verdict.pairs) == (0, 0)
    record = next(
        record for record in desk.speaker.records if record.topic == VERDICTS.name and b"unfit" in record.value
    )
    assert dict(record.headers)["ce_causationid"] == b"prediction-flight-22834080-9"


async def test_one_batch_that_came_too_late_is_no_unfit_challenger() -> None:
    def late(n: int, at: int) -> tuple[str, Any, int]:
        return PREDICTIONS.name, prediction(f"f{n}", at, other=other), at

    other = OtherAnswer(version="2", role="challenger", failure="late")
    batches = [late(n, JUNE + n // 50 * MINUTE) for n in range(100)]
    desk = await told([*batches, (PREDICTIONS.name, prediction("last", JUNE + DAY), 0)])
    assert [verdict.finding for verdict in trials(desk)] == [TrialFinding.UNDECIDED]
    desk = await told([*batches, late(100, JUNE + 5 * MINUTE), (PREDICTIONS.name, prediction("last", JUNE + DAY), 0)])
    assert trials(desk)[0].reason == "101 of 101 questions failed: late 101; 1 > 0.01"


async def test_a_slow_challenger_is_unfit() -> None:
    desk = await told(flights(600, fault={"ms": 7.0}))
    assert first(desk, TrialFinding.UNFIT).questions == 500
    assert first(desk, TrialFinding.UNFIT).reason == "7 ms a question beside 0.1 ms; 70 > 5"


async def test_a_challenger_is_not_slow_below_a_millisecond() -> None:
    """A busy machine makes so much of a tenth of one, and a replay's decisions must not hang on it."""
    assert {verdict.finding for verdict in trials(await told(flights(600, fault={"ms": 0.9})))} == {
        TrialFinding.UNDECIDED
    }


@pytest.mark.parametrize(("role", "canary"), [("challenger", 0.1), ("previous", 0.0)])
async def test_who_answers_something_else_for_real_is_unfit_before_any_label(role: str, canary: float) -> None:
    desk = await told([one for one in flights(700, opposite, role=role, canary=canary) if one[0] == PREDICTIONS.name])
    assert trials(desk)[0].finding is TrialFinding.UNFIT
    assert trials(desk)[0].reason.startswith("psi ")
    assert (trials(desk)[0].questions, trials(desk)[0].pairs) == (500, 0)


async def test_in_the_shadow_labels_say_whether_it_may_answer_something_else() -> None:
    said = flights(700, opposite)
    unlabelled = await told([one for one in said if one[0] == PREDICTIONS.name])
    assert {verdict.finding for verdict in trials(unlabelled)} == {TrialFinding.UNDECIDED}
    assert first(await told(said), TrialFinding.WORSE).pairs < MINIMUM + 50


async def test_after_a_change_the_cure_answers_something_else_on_trial_and_on_watch() -> None:
    watch = flights(1_200, better, role="previous", start=JUNE + 4 * DAY, changed=True)
    said = [*flights(1_200, better, canary=0.5, start=JUNE + 2 * DAY, changed=True), *watch]
    said = [*flights(400, better, changed=True), *said]
    verdicts = trials(await told(said))
    assert {(verdict.finding, verdict.watch) for verdict in verdicts} == {
        (TrialFinding.UNDECIDED, False),
        (TrialFinding.BETTER, False),
        (TrialFinding.UNDECIDED, True),
        (TrialFinding.BETTER, True),
    }
    [answers] = [check for check in verdicts[-1].checks if check.name == "answers"]
    assert answers.passed
    assert answers.value > answers.bound


@pytest.mark.parametrize(("size", "pairs"), [(0.28, 1_500), (0.9, MINIMUM)])
async def test_a_worse_challenger_is_found_out(size: float, pairs: int) -> None:
    desk = await told(flights(2_500, noisy(size)), rollout={"guards": {"psi": 5.0}})
    verdict = first(desk, TrialFinding.WORSE)
    assert verdict.pairs <= pairs
    assert 0 < verdict.low < verdict.difference < verdict.high
    assert verdict.reason.startswith(f"log loss {verdict.difference:+.4f} ({verdict.low:+.4f} to {verdict.high:+.4f})")
    after = trials(desk)[trials(desk).index(verdict) :]
    assert {(later.finding, later.reason) for later in after} == {(TrialFinding.WORSE, verdict.reason)}


async def test_a_better_challenger_is_seen_to_be_better() -> None:
    desk = await told(flights(2_500, better))
    verdict = first(desk, TrialFinding.BETTER)
    assert verdict.low < verdict.difference < verdict.high < 0
    assert verdict.pairs < 2_000


async def test_worse_for_one_carrier_is_worse_and_named() -> None:
    said = flights(2_500, bad_for_ev)
    desk = await told(said, gate={"slices": ["carrier"]})
    verdict = first(desk, TrialFinding.WORSE)
    on_the_whole = [other.pairs for other in trials(await told(said)) if other.finding is TrialFinding.WORSE]
    assert all(pairs > verdict.pairs for pairs in on_the_whole)
    assert verdict.reason.startswith("worse where carrier is EV: loss +")
    assert verdict.low < 0
    checks = {check.name: check.passed for check in trials(desk)[-1].checks}
    assert checks == {
        "failures": True,
        "slower": True,
        "answers": True,
        "carrier is EV": False,
        "carrier is UA": True,
        "carrier is B6": True,
        "carrier is DL": True,
    }


async def test_a_canary_compares_the_same_pairs_whoever_answers() -> None:
    shadow = trials(await told(flights(1_200, noisy(0.5))))
    canary = trials(await told(flights(1_200, noisy(0.5), canary=0.5)))
    assert 500 < canary[-1].answered < 700
    assert shadow[-1].answered == 0
    assert [msgspec.structs.replace(verdict, answered=0) for verdict in canary] == shadow


async def test_who_did_well_for_long_and_is_wrong_lately_is_worse_by_its_newest_pairs() -> None:
    """A cure, until the world turns back."""
    well = flights(2_000, better, role="previous", changed=True)
    desk = await told([*well, *flights(1_000, opposite, role="previous", start=JUNE + 6 * DAY)])
    verdict = first(desk, TrialFinding.WORSE)
    assert verdict.watch
    assert verdict.reason.startswith("worse lately: +")
    assert "on the last 300 pairs; of all log loss -" in verdict.reason
    assert (verdict.pairs, verdict.error_rate) == (2_300, 0.025), "of the whole; the stretches have the other half"
    assert verdict.difference < 0, "on the whole it is the better one yet"


def test_of_equal_models_no_more_are_worse_by_some_stretch_than_the_rate_says() -> None:
    rng = np.random.default_rng(5)
    wrong = 0
    for _ in range(200):
        newest = Newest()
        for difference in rng.normal(0, 0.3, 3_000):
            newest.add(float(difference), True)
            low, _ = newest.pairs.differences.interval(newest.rate(0.025))
            if newest.pairs.is_enough and low > 0:
                wrong += 1
                break
    assert wrong <= 0.025 * 200


async def test_after_promotion_the_predecessor_is_beside_it_and_the_new_champion_is_on_watch() -> None:
    desk = await told(flights(1_200, noisy(1.2), role="previous"), rollout={"guards": {"psi": 5.0}})
    verdict = first(desk, TrialFinding.WORSE)
    assert (verdict.version, verdict.against, verdict.watch) == ("2", "1", True)
    assert verdict.answered == verdict.questions > MINIMUM


async def test_a_new_champion_for_whom_the_predecessor_steps_in_is_unfit() -> None:
    said = [
        (
            PREDICTIONS.name,
            prediction(f"f{n}", JUNE + n * MINUTE, fallback="raised", other=other, variant="previous"),
            0,
        )
        for n in range(20)
        for other in [OtherAnswer(version="2", role="champion", failure="raised")]
    ]
    desk = await told([*said, (PREDICTIONS.name, prediction("last", JUNE + DAY), 0)])
    verdict = trials(desk)[0]
    assert (verdict.version, verdict.against, verdict.watch) == ("2", "1", True)
    assert (verdict.finding, verdict.answered) == (TrialFinding.UNFIT, 0)


async def test_a_champion_that_fails_beside_the_challenger_is_no_fault_of_the_challenger() -> None:
    other = OtherAnswer(version="1", role="champion", failure="raised")
    said = [
        (PREDICTIONS.name, prediction(f"f{n}", JUNE + n * MINUTE, version="2", variant="challenger", other=other), 0)
        for n in range(50)
    ]
    desk = await told([*said, (PREDICTIONS.name, prediction("last", JUNE + DAY), 0)])
    (verdict,) = trials(desk)
    assert (verdict.finding, verdict.questions, verdict.answered) == (TrialFinding.UNDECIDED, 0, 50)


async def test_it_is_said_every_so_many_pairs_and_at_the_end_of_a_day() -> None:
    desk = await told(flights(600))
    verdicts = trials(desk)
    assert [verdict.pairs for verdict in verdicts] == [250, 500, 600]
    assert [verdict.at.hour for verdict in verdicts][-1] == 0
    days = await told(flights(100))
    (verdict,) = trials(days)
    assert from_datetime(verdict.at) == JUNE + DAY
    assert verdict.reason.endswith("300 pairs with 50 wrong guesses of version 1 are needed to decide")


async def test_late_and_repeated_labels_and_answers_make_one_pair_or_none() -> None:
    said = flights(400)
    plain = trials(await told(said))
    # Each answer and each landing is heard twice; ten land too late to count.
    twice = [one for one in said for _ in range(2)]
    assert trials(await told(twice)) == plain
    late = [
        (topic, landing(event["flight_id"], at + 2 * DAY), at + 2 * DAY) if topic == LANDED and n < 20 else one
        for n, one in enumerate(said)
        for topic, event, at in [one]
    ]
    last = trials(await told(late))[-1]
    assert (last.questions, last.pairs) == (400, 390)


@pytest.mark.parametrize("seed", range(4))
async def test_the_order_in_which_partitions_are_read_changes_nothing(seed: int) -> None:
    said = flights(900, bad_for_ev, canary=0.3)
    whole = trials(await told(said, gate={"slices": ["carrier"]}))
    assert len(whole) > 2
    assert trials(await told(said, most=300, seed=seed, gate={"slices": ["carrier"]})) == whole


@pytest.mark.parametrize("each", [90, 333])
async def test_a_restart_goes_on_with_the_same_verdicts(each: int) -> None:
    topics = Topics().add(flights(700, bad_for_ev))
    store, found = MemorySnapshots(), []
    while True:
        desk = Desk(topics, store, gate={"slices": ["carrier"]})
        desk.models.known["flight-delay", "2"] = baseline("2")
        await desk.start()
        read = 0
        for place in sorted(topics.records):
            before = desk.next[place]
            await desk.read(place, each)
            read += desk.next[place] - before
        await desk.judging.save()
        found += trials(desk)
        if not read:
            break
    assert len(found) > 2
    assert found == trials(await told(flights(700, bad_for_ev), gate={"slices": ["carrier"]}))


async def test_a_trial_is_judged_within_the_minute_that_ends_it() -> None:
    """Of a stream that is read as it comes, nobody waits for the end of the day."""
    desk = Desk(Topics())
    desk.models.known["flight-delay", "2"] = baseline("2")
    await desk.start()
    for one in flights(30, fault={"output": {}, "failure": "raised"})[:-1]:
        if one[0] == PREDICTIONS.name:
            desk.topics.add([one])
            await desk.read_all()
            if trials(desk):
                break
    # The tenth failure is settled when the eleventh question was heard, two minutes later.
    assert one[1].id == "prediction-flight-22834080-10"


async def test_metrics_show_the_last_comparison() -> None:
    desk = await told(flights(600, noisy(0.3)))
    last = trials(desk)[-1]
    registry = {s.name: s.value for metric in desk.registry.collect() for s in metric.samples}
    assert registry["millstream_trial_pairs"] == last.pairs == 600
    assert registry["millstream_trial_loss_difference"] == last.difference
