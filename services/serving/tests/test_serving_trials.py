"""Two models score each question, one answers: in the shadow, in a canary and on watch, and the other harms nobody."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import msgspec
import pytest

from millstream.contracts.canary import is_answered_by_challenger
from millstream.contracts.events import OtherAnswer, PredictionServed, QuestionUnanswered
from millstream.project.rollout import Guards, Rollout
from millstream_serving.adapters.memory import MemoryFeatures, MemoryModel

from .conftest import INPUTS, Stage
from .test_serving_answer_stream import batch, doorway, published
from .test_serving_predict import Flight, answers

PREDICT = "/v1/loops/flight-delay/predict"
PATIENT, HURRIED = Guards(deadline=60_000), Guards(deadline=100)
"""The second where a model is to be late; elsewhere a busy core would make it so."""


def old(row: Any) -> float:
    return 0.25


def new(row: Any) -> float:
    return 0.75


def ok_when_warm(bad: Callable[[Any], float]) -> Callable[[Any], float]:
    """Bears the two rows of the warm-up, which have no carrier, or one that nobody knows."""
    return lambda row: 0.5 if row["carrier"] in ("", "\N{REPLACEMENT CHARACTER}") else bad(row)


async def served(stage: Stage, *events: dict[str, Any]) -> list[PredictionServed]:
    found = await answers(stage, *events)
    assert all(isinstance(one, PredictionServed) for one in found), found
    return found  # type: ignore[return-value]


def rolls_out(stage: Stage, **rollout: Any) -> None:
    loop = stage.loops["flight-delay"]
    stage.loops["flight-delay"] = loop.model_copy(update={"rollout": Rollout(**{"guards": PATIENT} | rollout)})


async def test_in_the_shadow_the_champion_answers_and_the_challenger_is_on_record(stage: Stage, flight: Flight) -> None:
    reads = 0
    read = stage.features.read

    async def counted(*asked: Any) -> Any:
        nonlocal reads
        reads += 1
        return await read(*asked)

    stage.features.read = counted  # type: ignore[method-assign]
    await stage.obey(stage.package("1", old), challenger=stage.package("2", new))
    for found in await served(stage, flight(1), flight(2)):
        assert (found.version, found.variant, found.output) == ("1", "champion", {"probability": 0.25})
        assert found.other == OtherAnswer(
            version="2", role="challenger", output={"probability": 0.75}, ms=found.other.ms if found.other else -1
        )
        assert found.fallback == ""
    assert reads == 1, "both score what was read once"
    assert stage.metric("millstream_trial_model_seconds_count", loop="flight-delay", role="challenger") == 1.0


async def test_in_a_canary_one_entity_has_one_answerer_over_both_doorways(
    stage: Stage, http: httpx.AsyncClient, flight: Flight
) -> None:
    champion, challenger = stage.package("1", old), stage.package("2", new)
    flights = [flight(number) for number in range(60)]
    before: set[str] = set()
    for share in (0.1, 0.5):
        await stage.obey(champion, challenger=challenger, share=share)
        stage.publisher.sent.clear()
        assert await doorway(stage)(batch(*flights)) == []
        for event in flights:
            assert (await http.post(PREDICT, json={"event": event})).status_code == 200
        variants: dict[str, set[tuple[str, str]]] = {}
        for found in published(stage):
            assert isinstance(found, PredictionServed)
            assert found.other is not None
            assert {found.variant, found.other.role} == {"champion", "challenger"}
            assert found.output["probability"] == (0.75 if found.variant == "challenger" else 0.25)
            variants.setdefault(found.key, set()).add((found.variant, found.transport))
        assert all(len(seen) == 2 for seen in variants.values()), "one variant, two doorways"
        taken = {key for key, seen in variants.items() if ("challenger", "http") in seen}
        assert taken == {
            event["flight_id"]
            for event in flights
            if is_answered_by_challenger("flight-delay", challenger.run, event["flight_id"], share)
        }
        assert before < taken, "a growing share keeps whom it has"
        before = taken


async def test_a_loop_says_whom_its_canary_is_about(stage: Stage, flight: Flight) -> None:
    rolls_out(stage, by="carrier")
    await stage.obey(stage.package("1", old), challenger=stage.package("2", new), share=0.5)
    carriers = [f"C{number}" for number in range(20)]
    found = await served(stage, *(flight(n, carrier=carrier) for carrier in carriers for n in range(3)))
    by_carrier = {carrier: {one.variant for one in found if one.inputs["carrier"] == carrier} for carrier in carriers}
    assert all(len(variants) == 1 for variants in by_carrier.values())
    assert {variant for variants in by_carrier.values() for variant in variants} == {"champion", "challenger"}


async def test_without_an_entity_the_question_stands_for_itself(stage: Stage, flight: Flight) -> None:
    rolls_out(stage, by="gate")
    await stage.obey(stage.package("1", old), challenger=stage.package("2", new), share=0.5)
    flights = [flight(number) for number in range(20)]
    for found, event in zip(await served(stage, *flights), flights, strict=True):
        turn = is_answered_by_challenger("flight-delay", "run-2", event["flight_id"], 0.5)
        assert found.variant == ("challenger" if turn else "champion")


def raising(row: Any) -> float:
    raise ZeroDivisionError("no such tree")


def not_a_number(row: Any) -> float:
    return float("nan")


def beyond_one(row: Any) -> float:
    return 1.5


Planted = tuple[Callable[[Any], float], str]
"""A score, and what it is called on record."""


@pytest.fixture(params=["raising", "not a number", "beyond one", "late"])
def planted(request: pytest.FixtureRequest) -> Iterator[Planted]:
    over = threading.Event()

    def late(row: Any) -> float:
        over.wait(60)
        return 0.75

    scores = {"raising": raising, "not a number": not_a_number, "beyond one": beyond_one, "late": late}
    yield scores[request.param], {"raising": "raised", "late": "late"}.get(request.param, "not_finite")
    over.set()


async def test_a_challenger_that_fails_costs_no_question_and_says_so(
    stage: Stage, http: httpx.AsyncClient, flight: Flight, planted: Planted
) -> None:
    score, failure = planted
    if failure == "late":
        rolls_out(stage, guards=HURRIED)
    challenger = stage.package("2", ok_when_warm(score))
    await stage.obey(stage.package("1", old), challenger=challenger, share=1.0)
    said = await http.post(PREDICT, json={"event": flight(1)})
    assert (said.status_code, said.json()["version"], said.json()["variant"]) == (200, "1", "champion")
    assert await doorway(stage)(batch(*(flight(number) for number in range(2, 6)))) == []
    found = published(stage)
    assert [one.key for one in found] == [f"B6-{number}" for number in range(1, 6)]
    for one in found:
        assert isinstance(one, PredictionServed)
        assert (one.version, one.fallback, one.output) == ("1", failure, {"probability": 0.25})
        assert one.other is not None
        assert (one.other.version, one.other.failure, one.other.output) == ("2", failure, {})
    labels = {"loop": "flight-delay", "role": "challenger", "reason": failure}
    assert stage.metric("millstream_trial_failures_total", **labels) == 5.0

    stage.publisher.sent.clear()
    await stage.obey(stage.roster.standing("flight-delay").models["champion"].ref, challenger=challenger)
    assert (await http.post(PREDICT, json={"event": flight(6)})).status_code == 200
    (shadow,) = published(stage)
    assert isinstance(shadow, PredictionServed)
    assert shadow.fallback == "", "in the shadow it was not its turn"
    assert shadow.other is not None
    assert shadow.other.failure == failure


async def test_one_odd_row_costs_its_neighbours_nothing(stage: Stage, flight: Flight) -> None:
    def odd(row: Any) -> float:
        return raising(row) if row["carrier"] == "ZZ" else float("nan") if row["carrier"] == "NN" else 0.75

    await stage.obey(stage.package("1", old), challenger=stage.package("2", odd), share=1.0)
    found = await served(stage, flight(1), flight(2, carrier="ZZ"), flight(3, carrier="NN"))
    assert [one.variant for one in found] == ["challenger", "champion", "champion"]
    assert [one.fallback for one in found] == ["", "raised", "not_finite"]


async def test_a_library_that_fails_in_a_way_of_its_own_harms_nobody(
    stage: Stage, flight: Flight, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stage.obey(stage.package("1", old), challenger=stage.package("2", new), share=1.0)
    run = MemoryModel.run

    def out_of_memory(self: MemoryModel, columns: Any) -> Any:
        if self.score is new:
            raise MemoryError("no arena of 3 GiB")
        return run(self, columns)

    monkeypatch.setattr(MemoryModel, "run", out_of_memory)
    (found,) = await served(stage, flight())
    assert (found.variant, found.fallback) == ("champion", "raised")


async def test_a_challenger_that_hangs_costs_one_deadline_and_one_thread(stage: Stage, flight: Flight) -> None:
    go_on, asked = threading.Event(), 0

    def hangs(row: Any) -> float:
        nonlocal asked
        asked += 1
        go_on.wait(60)
        return 0.75

    others = set(threading.enumerate())
    rolls_out(stage, guards=Guards(deadline=1_000))
    await stage.obey(stage.package("1", old), challenger=stage.package("2", ok_when_warm(hangs)), share=1.0)
    began = time.monotonic()
    together = await asyncio.gather(*(served(stage, flight(number)) for number in range(20)))
    took = time.monotonic() - began
    assert {one.fallback for (one,) in together} == {"late"}
    assert 1.0 <= took < 10.0, "they wait beside each other, not after each other"
    rolls_out(stage, guards=PATIENT)
    async with asyncio.timeout(30):  # half of what it would wait
        (again,) = await served(stage, flight(20))
    assert again.fallback == "late"
    assert asked == 1, "not asked while a run is overdue"
    assert [thread.name for thread in set(threading.enumerate()) - others].count("model on trial") == 1
    go_on.set()
    async with asyncio.timeout(30):
        while (await served(stage, flight(21)))[0].variant != "challenger":  # noqa: ASYNC110  (a thread ends when it does)
            await asyncio.sleep(0.01)


async def test_the_deadline_is_the_loops_own(stage: Stage, flight: Flight) -> None:
    def sleeping(row: Any) -> float:
        time.sleep(0.2)  # twice what is waited where a loop says nothing
        return 0.75

    rolls_out(stage, guards=PATIENT)
    await stage.obey(stage.package("1", old), challenger=stage.package("2", ok_when_warm(sleeping)), share=1.0)
    (found,) = await served(stage, flight())
    assert (found.variant, found.fallback) == ("challenger", "")
    assert found.timings_ms["model"] >= 200
    assert found.other is not None
    assert found.other.ms < found.timings_ms["model"], "each has its own time"


async def test_a_challenger_in_the_shadow_answers_nobody(stage: Stage, flight: Flight) -> None:
    champion = stage.package("1", ok_when_warm(not_a_number))
    await stage.obey(champion, challenger=stage.package("2", new))
    (found,) = await answers(stage, flight())
    assert isinstance(found, QuestionUnanswered)
    assert found.reason == "model_failed"
    await stage.obey(champion, challenger=stage.package("2", new), share=1.0)
    (canary,) = await served(stage, flight())
    assert (canary.variant, canary.other and canary.other.failure) == ("challenger", "not_finite")


async def test_on_watch_the_predecessor_comes_back_for_what_the_champion_cannot_answer(
    stage: Stage, flight: Flight, planted: Planted
) -> None:
    score, failure = planted

    def odd(row: Any) -> float:
        return score(row) if row["carrier"] == "ZZ" else 0.75

    before, champion = stage.package("1", old), stage.package("2", odd)
    await stage.obey(champion, previous=before, watched=True)
    (good,) = await served(stage, flight(1))
    assert (good.version, good.variant) == ("2", "champion")
    assert good.other == OtherAnswer(
        version="1", role="previous", output={"probability": 0.25}, ms=good.other.ms if good.other else -1
    )
    if failure == "late":
        rolls_out(stage, guards=HURRIED)
    (bad,) = await served(stage, flight(2, carrier="ZZ"))
    assert (bad.version, bad.variant, bad.fallback) == ("1", "previous", failure)
    assert bad.other is not None
    assert (bad.other.version, bad.other.role, bad.other.failure) == ("2", "champion", failure)
    served_by = {"loop": "flight-delay", "variant": "previous", "transport": "kafka"}
    assert stage.metric("millstream_predictions_served_total", **served_by) == 1.0

    await stage.obey(champion, previous=before)
    (after,) = await served(stage, flight(3))
    assert (after.variant, after.other) == ("champion", None), "nobody watches any more"


async def test_a_challenger_with_other_features_reads_its_own(stage: Stage, flight: Flight) -> None:
    await stage.obey(stage.package("1", old))
    own = MemoryFeatures(join_keys=["carrier"], views={"carrier_delays": "v1"}, values={("carrier", "B6"): 3.5})
    stage.store.services["delay_v2"] = own
    inputs = [*INPUTS[:1], msgspec.structs.replace(INPUTS[2], name="carrier_delays__mean")]
    challenger = stage.package("2", new, feature_service="delay_v2", views={"carrier_delays": "v1"}, inputs=inputs)
    champion = stage.roster.standing("flight-delay").models["champion"].ref
    await stage.obey(champion, challenger=challenger)
    (shadow,) = await served(stage, flight())
    assert (shadow.features, shadow.inputs) == ({"origin_delays__mean": 12.1}, {"distance": 2475, "carrier": "B6"})
    await stage.obey(champion, challenger=challenger, share=1.0)
    (canary,) = await served(stage, flight())
    assert (canary.entities, canary.features) == ({"carrier": "B6"}, {"carrier_delays__mean": 3.5})
    assert canary.inputs == {"distance": 2475}


async def test_what_only_the_challenger_cannot_take_is_a_question_nevertheless(stage: Stage, flight: Flight) -> None:
    category = [msgspec.structs.replace(INPUTS[0], type="category"), *INPUTS[1:]]
    challenger = stage.package("2", new)
    await stage.obey(stage.package("1", old, inputs=category), challenger=challenger, share=1.0)
    far, near = await served(stage, flight(1, distance="far"), flight(2))
    assert (far.variant, far.fallback) == ("champion", "raised")
    assert near.variant == "challenger"


async def test_steps_are_taken_under_load_without_a_failed_request(
    stage: Stage, http: httpx.AsyncClient, flight: Flight
) -> None:
    """Eight callers ask on and on while challengers come, step forward, are rejected, promoted and rolled back."""
    champion = stage.package("1", old)
    await stage.obey(champion)
    done, seen, news = asyncio.Event(), [], asyncio.Condition()

    async def caller(number: int) -> None:
        while not done.is_set():
            response = await http.post(PREDICT, json={"event": flight(number)})
            seen.append((response.status_code, response.json().get("version")))
            async with news:
                news.notify_all()
            # Nothing in memory ever waits, and a loop that is never idle keeps the GIL from the threads that load models.
            await asyncio.sleep(0.01)

    callers = [asyncio.create_task(caller(number)) for number in range(8)]
    for version in range(2, 6):
        planted = [new, ok_when_warm(raising), new, ok_when_warm(not_a_number)][version - 2]
        challenger = stage.package(str(version), planted)
        steps: list[dict[str, Any]] = [{"challenger": challenger, "share": share} for share in (0.0, 0.1, 0.5)]
        steps.append({"champion": challenger, "previous": champion, "watched": True})
        for step in steps:
            await stage.obey(step.pop("champion", champion), **step)
            before = len(seen)
            async with asyncio.timeout(30), news:
                await news.wait_for(lambda wanted=before + 8: len(seen) > wanted)  # type: ignore[misc]
        champion = challenger if planted is new else champion
        await stage.obey(champion)
    done.set()
    await asyncio.gather(*callers)
    assert {status for status, _ in seen} == {200}
    assert {version for _, version in seen} == {"1", "2", "4"}, "who cannot answer never did"
