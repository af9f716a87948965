"""An online store that is slow or away: refused as ever, or asked without features and flagged, as the loop says."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiokafka import AIOKafkaProducer

from millstream.contracts.envelope import Envelope
from millstream.contracts.events import PredictionServed
from millstream.contracts.package import InputColumn
from millstream.contracts.times import now, to_rfc3339
from millstream.contracts.topics import MODELS, PREDICTIONS, REPLICAS
from millstream.errors import RetryLater
from millstream.project import load_project
from millstream.runtime.packages import PackageStore
from millstream.runtime.service import Service
from millstream.runtime.topic_admin import ensure_topics, our_topics, stream_topics
from millstream.testing.kafka import EmbeddedKafka
from millstream.testing.valkey import EmbeddedValkey
from millstream_serving.adapters import kafka_log
from millstream_serving.adapters.memory import MemoryRuntime
from millstream_serving.app import create_app
from millstream_serving.domain.circuit import Circuit
from millstream_serving.errors import FeaturesUnavailable
from millstream_serving.handlers import ask, store_gate
from millstream_serving.settings import Settings

from .conftest import Stage, save_package, state_of
from .test_serving_answer_stream import batch, doorway, published
from .test_serving_predict import Flight, serve

FLIGHT = {
    "flight_id": "2013-06-01-B6-23-JFK",
    "origin": "JFK",
    "dest": "LAX",
    "carrier": "B6",
    "tailnum": "N708JB",
    "distance": 2475,
    "scheduled_minute": 510,
    "weekday": 5,
}
FLIGHTS = Path(__file__).parents[3] / "examples" / "flights"


def without(stage: Stage) -> None:
    loop = stage.loops["flight-delay"]
    predict = loop.predict.model_copy(update={"store_away": "default"})
    stage.loops["flight-delay"] = loop.model_copy(update={"predict": predict})


def asked(stage: Stage, event: dict[str, Any]) -> Any:
    return ask(stage.loops["flight-delay"], event, asked_at=0, transport="http")


def featureless(stage: Stage, transport: str) -> float:
    return stage.metric("millstream_predictions_featureless_total", loop="flight-delay", transport=transport)


def test_a_circuit_opens_after_its_failures_and_lets_one_through_to_look() -> None:
    circuit = Circuit(most=2, rest=5.0)
    circuit.failed(1.0)
    assert (circuit.state(1.0), circuit.may(1.0), circuit.since) == ("closed", True, 1.0)
    circuit.failed(2.0)
    assert (circuit.state(2.0), circuit.may(6.9)) == ("open", False)
    assert circuit.state(7.0) == "half_open"
    assert (circuit.may(7.0), circuit.may(7.0)) == (True, False), "one asks for all"
    circuit.failed(7.1)
    assert (circuit.state(12.0), circuit.state(12.1)) == ("open", "half_open")
    assert circuit.may(12.1)
    circuit.answered()
    assert (circuit.state(12.1), circuit.since) == ("closed", None)


async def test_a_loop_that_says_nothing_refuses(stage: Stage, flight: Flight) -> None:
    await serve(stage)
    stage.features.away = True
    with pytest.raises(FeaturesUnavailable):
        await stage.online.predict(asked(stage, flight()))
    assert not published(stage)


async def test_a_loop_that_can_do_without_answers_with_nulls_and_says_so(stage: Stage, flight: Flight) -> None:
    await serve(stage, lambda row: 0.75 if row["origin_delays__mean"] != row["origin_delays__mean"] else 0.25)
    without(stage)
    stage.features.away = True
    both = await asyncio.gather(*(stage.online.predict(asked(stage, flight(number))) for number in (1, 2)))
    for one in both:
        assert isinstance(one, PredictionServed)
        assert (one.store_away, one.features, one.output) == (
            True,
            {"origin_delays__mean": None},
            {"probability": 0.75},
        )
        assert one.entities == {"origin": "JFK"}
    assert featureless(stage, "http") == 2
    stage.features.away = False
    assert (await stage.online.predict(asked(stage, flight(3)))).store_away, "asked again a second later"
    stage.seconds += store_gate.AGAIN
    back = await stage.online.predict(asked(stage, flight(4)))
    assert isinstance(back, PredictionServed)
    assert (back.store_away, back.features) == (False, {"origin_delays__mean": 12.1})
    assert [one.store_away for one in published(stage)] == [True, True, True, False]  # type: ignore[union-attr]


async def test_over_kafka_questions_wait_for_half_a_minute_and_then_go_without(stage: Stage, flight: Flight) -> None:
    await serve(stage)
    without(stage)
    stage.features.away = True
    with pytest.raises(FeaturesUnavailable):
        await doorway(stage)(batch(flight(1)))
    assert (published(stage), featureless(stage, "kafka")) == ([], 0)
    stage.seconds += 30.0
    assert await doorway(stage)(batch(flight(1))) == []
    (one,) = published(stage)
    assert isinstance(one, PredictionServed)
    assert (one.store_away, featureless(stage, "kafka")) == (True, 1)


async def test_a_slow_store_holds_up_one_question_not_all(stage: Stage, flight: Flight) -> None:
    await serve(stage)
    without(stage)
    read, free, reads = stage.features.read, asyncio.Event(), 0

    async def slow(*said: Any) -> Any:
        nonlocal reads
        reads += 1
        await free.wait()
        return await read(*said)

    stage.features.read = slow  # type: ignore[method-assign]
    clock = asyncio.get_running_loop().time
    began = clock()
    async with asyncio.timeout(60):  # the store would hold it for ever
        first = await stage.online.predict(asked(stage, flight(1)))
    assert clock() - began >= store_gate.SLOW
    async with asyncio.timeout(10):  # one by one they would wait for 14 seconds
        others = [await stage.online.predict(asked(stage, flight(number))) for number in range(2, 30)]
    assert all(one.store_away for one in (first, *others))  # type: ignore[union-attr]
    assert reads == 1, "twenty-eight lose no time to what one found out"
    free.set()


async def test_a_kafka_that_is_slow_to_say_what_waits_is_no_absent_store(
    stage: Stage, flight: Flight, monkeypatch: pytest.MonkeyPatch
) -> None:
    await serve(stage)
    without(stage)
    monkeypatch.setattr(store_gate, "SLOW", 0.05)
    stale, free, asks = stage.freshness.stale, asyncio.Event(), 0

    async def slow(features: Any, *said: Any) -> Any:
        nonlocal asks
        asks += 1
        await features.applied()  # the store is there
        await free.wait()
        return await stale(features, *said)

    stage.freshness.stale = slow  # type: ignore[method-assign]
    first = asyncio.create_task(stage.online.predict(asked(stage, flight(1))))
    done, _ = await asyncio.wait({first}, timeout=0.2)
    assert not done, "a loop that can do without features does not go without those that are there"
    free.set()
    one = await first
    assert isinstance(one, PredictionServed)
    assert (one.store_away, one.features) == (False, {"origin_delays__mean": 12.1})
    assert (asks, featureless(stage, "http")) == (1, 0)


async def test_a_kafka_that_does_not_say_what_waits_is_none_either(stage: Stage, flight: Flight) -> None:
    await serve(stage)
    without(stage)
    stale = stage.freshness.stale

    async def away(*said: Any) -> Any:
        raise RetryLater("Kafka does not say what waits")

    stage.freshness.stale = away  # type: ignore[method-assign]
    with pytest.raises(RetryLater, match="Kafka does not say"):
        await stage.online.predict(asked(stage, flight(1)))
    stage.freshness.stale = stale  # type: ignore[method-assign]
    one = await stage.online.predict(asked(stage, flight(2)))
    assert isinstance(one, PredictionServed)
    assert not one.store_away, "nor is the store left alone for it"


@asynccontextmanager
async def running(service: Service) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        service.app.router.lifespan_context(service.app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app=service.app), base_url="http://serving") as http,
    ):
        yield http


@pytest.mark.timeout(300)  # Feast is imported, and a store that hangs is waited for five times
@pytest.mark.parametrize("rule", ["refuse", "default"])
async def test_a_valkey_that_hangs_and_comes_back(
    kafka: EmbeddedKafka,
    valkey: EmbeddedValkey,
    valkey_url: str,
    tmp_path: Path,
    unique_name: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
    rule: str,
) -> None:
    monkeypatch.setattr(kafka_log, "OVERDUE", 60.0)  # a Kafka that is slow to confirm is another story
    looks, soon = 0, store_gate.StoreGate._soon

    async def counted(self: store_gate.StoreGate, asks: Any) -> Any:
        nonlocal looks
        looks += 1
        return await soon(self, asks)

    monkeypatch.setattr(store_gate.StoreGate, "_soon", counted)
    loop, project = unique_name("flight-delay"), tmp_path / "project"
    shutil.copytree(FLIGHTS, project, ignore=shutil.ignore_patterns("data"))
    file = project / "loops" / "flight-delay.yaml"
    said = file.read_text().replace("loop: flight-delay", f"loop: {loop}")
    file.write_text(said.replace("predict:\n", f"predict:\n  store_away: {rule}\n"))
    streams = load_project(project).streams
    topics = [topic for name in streams for topic in stream_topics(name, 1, timedelta(days=1), [])]
    await ensure_topics(kafka.bootstrap, [*our_topics([MODELS, PREDICTIONS, REPLICAS], partitions=1), *topics])
    settings = Settings(
        kafka=kafka.bootstrap,
        valkey=valkey_url,
        project=project,
        packages=str(tmp_path / "packages"),
        data=tmp_path / "data",
        doors="http",
        request_timeout=30.0,
    )
    runtime = MemoryRuntime()
    mean = "origin_departures__mean_delay_3h"
    ref = save_package(
        PackageStore(settings.packages),
        runtime,
        "1",
        lambda row: 0.5,
        loop=loop,
        inputs=[InputColumn(name=mean, source="feature", type="number")],
        views={},
    )
    state = state_of(1, ref, loop=loop)
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap)
    await producer.start()
    headers = Envelope(id=state.id, type=state.type_name, source="trainer").headers()
    await producer.send_and_wait(MODELS.name, state.encode(), key=loop.encode(), headers=headers)
    await producer.stop()
    event = dict(FLIGHT, announced_at=to_rfc3339(now()), scheduled_at=to_rfc3339(now()))

    async with running(create_app(settings, runtime=runtime)) as http:

        async def ask_it() -> httpx.Response:
            return await http.post(f"/v1/loops/{loop}/predict", json={"event": event}, timeout=10.0)

        async def back() -> None:
            """Answered with features: the first read of a process on a busy machine may be as slow as a store that is away."""
            async with asyncio.timeout(40):
                while (found := await ask_it()).status_code != 200 or found.json()["store_away"]:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)

        async with asyncio.timeout(60):
            while not (await http.get("/readyz")).json()["ready"]:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        await back()
        clock = asyncio.get_running_loop().time
        valkey.pause()
        try:
            looks, began = 0, clock()
            answers = [await ask_it() for _ in range(5)]
            took = clock() - began
        finally:
            valkey.resume()
        if rule == "refuse":
            assert {(one.status_code, one.json()["error"]) for one in answers} == {(503, "unavailable")}
        else:
            assert {one.status_code for one in answers} == {200}, answers[0].text
            assert all(one.json()["store_away"] and set(one.json()["features"].values()) == {None} for one in answers)
            assert 1 <= looks <= 1 + took / store_gate.AGAIN, "all but the first, and one a second later, lose no time"
        await back()
