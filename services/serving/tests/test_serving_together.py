"""Callers who ask in the same moment are answered by one run; who is alone waits for nobody."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from millstream.contracts.events import PredictionServed
from millstream.errors import RejectEvent
from millstream.runtime.room import Held, Room
from millstream_serving.domain.question import Question
from millstream_serving.errors import StaleFeatures
from millstream_serving.handlers import Answer, ask
from millstream_serving.handlers.given import Given
from millstream_serving.handlers.together import AT_ONCE, MOST_TOGETHER, Together

from .conftest import NOON, Stage, asking, flight


class Counter:
    """Answers numbers by their squares, and remembers who came together."""

    def __init__(self) -> None:
        self.runs: list[list[int]] = []
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def __call__(self, numbers: Sequence[int]) -> list[int | Exception]:
        self.runs.append(list(numbers))
        await self.go_on.wait()
        if 13 in numbers:
            raise RejectEvent("bad_input", "13")
        return [ValueError(f"{number}") if number < 0 else number**2 for number in numbers]


async def test_who_comes_in_the_same_moment_goes_together_and_each_has_his_own_answer() -> None:
    counter = Counter()
    together = Together(counter)
    found = await asyncio.gather(*(together.ask(number) for number in (1, 2, -3, 4)), return_exceptions=True)
    assert counter.runs == [[1, 2, -3, 4]]
    assert [str(one) for one in found] == ["1", "4", "-3", "16"]
    with pytest.raises(RejectEvent):
        await together.ask(13)
    assert await together.ask(5) == 25, "a run that failed is over"


async def test_a_crowd_goes_in_bounded_runs() -> None:
    counter = Counter()
    together = Together(counter)
    found = await asyncio.gather(*(together.ask(number) for number in range(20, 20 + 3 * MOST_TOGETHER)))
    assert found == [number**2 for number in range(20, 20 + 3 * MOST_TOGETHER)]
    assert [len(run) for run in counter.runs] == [MOST_TOGETHER] * 3


async def test_runs_that_hang_hold_nobody_up_for_longer_than_a_moment() -> None:
    counter = Counter()
    together = Together(counter)
    counter.go_on.clear()
    hanging = []
    for number in range(AT_ONCE):
        hanging.append(together.ask(number))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    late = [together.ask(100), together.ask(101)]
    async with asyncio.timeout(30):
        while len(counter.runs) <= AT_ONCE:  # noqa: ASYNC110  (a list has no event)
            await asyncio.sleep(0.001)
    assert counter.runs == [*([number] for number in range(AT_ONCE)), [100, 101]], (
        "they waited for company, not for those"
    )
    counter.go_on.set()
    assert await asyncio.gather(*late) == [100**2, 101**2]
    await asyncio.gather(*hanging)


async def test_a_caller_who_leaves_costs_his_neighbours_nothing() -> None:
    counter = Counter()
    together = Together(counter)
    counter.go_on.clear()
    leaving, staying = together.ask(3), together.ask(4)
    await asyncio.sleep(0.01)
    leaving.cancel()
    counter.go_on.set()
    assert await staying == 16


def question(stage: Stage, number: int, asked_at: int = NOON) -> Question:
    return ask(stage.loops["flight-delay"], flight(number, distance=number), asked_at=asked_at, transport="http")


def _share(row: object) -> float:
    distance = row["distance"]  # type: ignore[index]
    return 0.5 if distance != distance else float(distance) / 10_000


async def test_callers_of_one_moment_are_one_read_and_one_run(stage: Stage) -> None:
    await stage.obey(stage.package("1", _share))
    reads, read = [], stage.features.read

    async def counted(*asked: object) -> object:
        reads.append(asked)
        return await read(*asked)  # type: ignore[arg-type]

    stage.features.read = counted  # type: ignore[method-assign, assignment]
    found: list[Answer] = await asyncio.gather(*(stage.online.predict(question(stage, number)) for number in range(9)))
    assert len(reads) == 1
    assert [round(one.output["probability"], 4) for one in found if isinstance(one, PredictionServed)] == [
        number / 10_000 for number in range(9)
    ]
    assert [json.loads(one.value)["question"] for one in stage.publisher.sent] == [
        f"B6-{number}" for number in range(9)
    ]


async def test_a_stale_question_is_refused_alone(stage: Stage) -> None:
    stage.rule(bound="30s", when_stale="refuse")
    await stage.obey(stage.package("1", _share))
    stage.freshness.known_until["origin_delays"] = NOON
    asked = [question(stage, 1), question(stage, 2, NOON + 60_000_000), question(stage, 3)]
    found = await asyncio.gather(*(stage.online.predict(one) for one in asked), return_exceptions=True)
    assert [type(one) for one in found] == [PredictionServed, StaleFeatures, PredictionServed]
    assert len(stage.publisher.sent) == 2


async def test_an_answer_too_large_for_kafka_is_refused_and_its_neighbour_answered(stage: Stage) -> None:
    await stage.obey(stage.package("1", _share))
    huge = ask(stage.loops["flight-delay"], flight(1, carrier="x" * 1_050_000), asked_at=NOON, transport="http")
    asked = [stage.online.predict(huge), stage.online.predict(question(stage, 2))]
    found = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(one) for one in found] == [RejectEvent, PredictionServed]
    assert len(stage.publisher.sent) == 1


async def test_large_requests_of_one_moment_are_runs_of_bounded_size(stage: Stage) -> None:
    await stage.obey(stage.package("1", lambda row: 0.25))
    sizes, run = [], stage.predictor.infer

    async def counted(standing: Any, questions: Any, features: Any, *, pinned: bool) -> Any:
        sizes.append(len(questions))
        return await run(standing, questions, features, pinned=pinned)

    stage.predictor.infer = counted  # type: ignore[method-assign]
    standing = stage.roster.standing("flight-delay")

    def asked(rows: int) -> Any:
        questions = [question(stage, number) for number in range(rows)]
        features = {"origin_delays__mean": np.arange(rows, dtype=np.float64)}
        return stage.online.infer(Given(standing, questions, features, pinned=False))

    found = await asyncio.gather(*(asked(rows) for rows in (300, 150, 100, 900, 2)))
    assert [len(one) for one in found] == [300, 150, 100, 900, 2]
    assert sizes == [450, 100, 900, 2]
    last = found[1][-1]
    assert isinstance(last, PredictionServed)
    assert last.features == {"origin_delays__mean": 149.0}, "each has its own rows"


async def test_bodies_in_pieces_are_read_like_whole_ones(stage: Stage) -> None:
    """Its head alone first: what comes later is waited for, under a clock."""
    from millstream.errors import Refusal
    from millstream_serving.api.raw import read_small

    go_on = asyncio.Event()
    pieces = [b'{"a":', b" 1}"]

    async def receive() -> dict[str, object]:
        await go_on.wait()
        piece = pieces.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(pieces)}

    headers = {b"content-length": b"8"}
    scope = {"type": "http", "method": "POST", "headers": list(headers.items())}
    held = Held(Room(100))
    reading = asyncio.create_task(read_small(scope, headers, receive, 100, 60.0, held))
    await asyncio.sleep(0.01)
    go_on.set()
    assert await reading == b'{"a": 1}'
    go_on.clear()
    with pytest.raises(Refusal, match="did not arrive within"):
        await read_small(scope, headers, receive, 100, 0.01, held)
    reading = asyncio.create_task(read_small(scope, headers, receive, 100, 60.0, held))
    await asyncio.sleep(0.01)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading


async def test_the_hot_doors_answer_as_the_frames_routes_do(stage: Stage) -> None:
    await stage.obey(stage.package("1", _share))
    await stage.keeper.known.wait()
    said: list[list[tuple[int, object]]] = []
    for hot in (False, True):
        async with asking(stage.app(hot=hot)) as http:
            replies = [
                await http.post(path, content=body, headers={"content-type": kind})
                for path in ("/v1/loops/flight-delay/predict", "/v2/models/flight-delay/infer")
                for kind in ("application/json", "text/plain")
                for body in (json.dumps({"event": flight(5)}), "{", "[]", '{"inputs": [{"name": "x"}]}')
            ]
        said.append([(reply.status_code, {**reply.json(), "timings_ms": None}) for reply in replies])
    assert said[0] == said[1]
    assert {status for status, _ in said[0]} == {200, 400, 415, 422}
