"""Serving on a real Kafka: questions in, answers out, models heard; and what is left of a crash."""

from __future__ import annotations

import asyncio
import io
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import fastavro
import httpx
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from millstream.codecs.wire import framed
from millstream.contracts.dead_letters import DeadLetter, letter_of
from millstream.contracts.envelope import Envelope, envelope_of
from millstream.contracts.events import (
    Event,
    ModelRef,
    PredictionServed,
    QuestionUnanswered,
    ReplicaObeyed,
    decode_event,
)
from millstream.contracts.times import from_rfc3339
from millstream.contracts.topics import MODELS, PREDICTIONS, REPLICAS, dead_letter_topic
from millstream.runtime.packages import PackageStore
from millstream.runtime.service import Service
from millstream.runtime.topic_admin import ensure_topics, our_topics, stream_topics
from millstream.testing.kafka import EmbeddedKafka
from millstream.testing.registry_server import RegistryServer
from millstream_serving.adapters.memory import MemoryRuntime
from millstream_serving.settings import Settings

from .conftest import flight, save_package, state_of, write_project
from .serving_process import in_memory, steady

ELEVEN = from_rfc3339("2013-06-01T11:00:00Z")


@dataclass
class Town:
    """One loop with its own stream on the session's Kafka, and the folder of its trainer."""

    bootstrap: str
    loop: str
    stream: str
    settings: Settings
    packages: PackageStore
    runtime: MemoryRuntime
    producer: AIOKafkaProducer

    def package(self, version: str, score: Callable[[Any], float] = steady) -> ModelRef:
        return save_package(self.packages, self.runtime, version, score, loop=self.loop)

    async def promote(self, revision: int, ref: ModelRef, **said: Any) -> None:
        state = state_of(revision, ref, loop=self.loop, **said)
        headers = Envelope(id=state.id, type=state.type_name, source="trainer").headers()
        await self.producer.send_and_wait(MODELS.name, state.encode(), key=self.loop.encode(), headers=headers)

    async def ask(self, *events: dict[str, Any] | bytes, age: float = 0.0) -> None:
        """`age`: seconds since when they lie in Kafka."""
        for event in events:
            value = event if isinstance(event, bytes) else json.dumps(event).encode()
            headers = Envelope(id="cause", type="flight", source="airline/b6", known_at=ELEVEN).headers()
            at = round((time.time() - age) * 1000)
            await self.producer.send_and_wait(self.stream, value, headers=headers, timestamp_ms=at)

    async def answers(self, count: int) -> list[PredictionServed | QuestionUnanswered]:
        """The first `count` answers of this loop, in the order of their topic."""
        found: list[PredictionServed | QuestionUnanswered] = []
        async with self._reading(PREDICTIONS.name) as records, asyncio.timeout(100):
            async for record in records:
                event: Event | None = decode_event(envelope_of(record.headers).type, record.value)
                if isinstance(event, (PredictionServed, QuestionUnanswered)) and event.loop == self.loop:
                    found.append(event)
                if len(found) == count:
                    return found
        raise AssertionError("the topic ended")

    async def replicas(self, until: Callable[[ReplicaObeyed], bool]) -> list[ReplicaObeyed]:
        """What replicas said of this loop, up to the first word that is as wanted."""
        found: list[ReplicaObeyed] = []
        async with self._reading(REPLICAS.name) as records, asyncio.timeout(100):
            async for record in records:
                event: Event | None = decode_event(envelope_of(record.headers).type, record.value)
                if isinstance(event, ReplicaObeyed) and event.loop == self.loop:
                    found.append(event)
                    if until(event):
                        return found
        raise AssertionError("the topic ended")

    async def dead_letters(self, count: int) -> list[DeadLetter | None]:
        async with self._reading(dead_letter_topic(self.stream, "serving")) as records, asyncio.timeout(100):
            return [letter_of(await anext(records)) for _ in range(count)]

    async def committed(self) -> int | None:
        consumer = AIOKafkaConsumer(bootstrap_servers=self.bootstrap, group_id="serving", enable_auto_commit=False)
        await consumer.start()
        try:
            offset: int | None = await consumer.committed(TopicPartition(self.stream, 0))
            return offset
        finally:
            await consumer.stop()

    @asynccontextmanager
    async def _reading(self, topic: str) -> AsyncIterator[AsyncIterator[Any]]:
        consumer = AIOKafkaConsumer(topic, bootstrap_servers=self.bootstrap, auto_offset_reset="earliest")
        await consumer.start()
        try:
            yield aiter(consumer)
        finally:
            await consumer.stop()


@pytest.fixture
async def town(kafka: EmbeddedKafka, tmp_path: Path, unique_name: Callable[[str], str]) -> AsyncIterator[Town]:
    loop, stream = unique_name("flight-delay"), unique_name("flights-scheduled")
    await ensure_topics(
        kafka.bootstrap,
        [
            *our_topics([MODELS, PREDICTIONS, REPLICAS], partitions=1),
            *stream_topics(stream, 1, timedelta(days=1), ["serving"]),
        ],
    )
    project = write_project(tmp_path / "project", loop=loop, stream=stream)
    # Whoever is to be answered whatever happens is so while Kafka takes a second for a record, as it may on a busy machine.
    file = project / "loops/loop.yaml"
    file.write_text(file.read_text().replace("predict: {", "predict: { unlogged: answer,"))
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap)
    await producer.start()
    yield Town(
        bootstrap=kafka.bootstrap,
        loop=loop,
        stream=stream,
        settings=Settings(
            kafka=kafka.bootstrap,
            project=project,
            packages=str(tmp_path / "packages"),
            session_timeout_ms=6_000,
            drain_timeout=5.0,
            request_timeout=60.0,
        ),
        packages=PackageStore(str(tmp_path / "packages")),
        runtime=MemoryRuntime(),
        producer=producer,
    )
    await producer.stop()


@asynccontextmanager
async def running(service: Service) -> AsyncIterator[httpx.AsyncClient]:
    """The service with its Kafka, spoken to over HTTP without a socket."""
    async with (
        service.app.router.lifespan_context(service.app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app=service.app), base_url="http://serving") as http,
    ):
        yield http


async def eventually(holds: Callable[[], Awaitable[bool]]) -> None:
    """Ask again every 50 ms: what is waited for happens in another process."""
    async with asyncio.timeout(100):
        while not await holds():  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def until(http: httpx.AsyncClient, path: str, holds: Callable[[Any], bool]) -> None:
    async def asked() -> bool:
        return holds((await http.get(path)).json())

    await eventually(asked)


async def test_questions_become_answers_and_a_new_model_takes_over_without_a_restart(town: Town) -> None:
    async with running(in_memory(town.settings, town.runtime)) as http:
        await until(http, "/readyz", lambda said: said["ready"])
        await town.ask(flight(1))
        (early,) = await town.answers(1)
        assert isinstance(early, QuestionUnanswered)
        assert early.reason == "no_model"

        await town.promote(1, town.package("1"))
        await until(http, f"/v1/loops/{town.loop}", lambda said: said["revision"] == 1)
        await town.ask(flight(2), b"\xff no json", flight(3))
        asked_over_http = await http.post(f"/v1/loops/{town.loop}/predict", json={"event": flight(2)})
        found = await town.answers(4)
        second = [a for a in found if a.question == "B6-2"]
        assert {a.id for a in second} == {asked_over_http.json()["prediction_id"]}, "one question, one id, both ways"
        assert {a.transport for a in second if isinstance(a, PredictionServed)} == {"kafka", "http"}
        [letter] = await town.dead_letters(1)
        assert letter is not None
        assert (letter.reason, letter.topic, letter.group) == ("bad_json", town.stream, "serving")

        await town.promote(2, town.package("2", lambda row: 0.75))
        await until(http, f"/v1/loops/{town.loop}", lambda said: said["revision"] == 2)
        await town.ask(flight(4))
        (last,) = [a for a in await town.answers(5) if a.question == "B6-4"]
        assert isinstance(last, PredictionServed)
        assert (last.version, last.output) == ("2", {"probability": 0.75})
        assert last.asked_at.timestamp() * 1_000_000 == ELEVEN


async def test_a_question_that_breaks_the_schema_is_a_letter_that_says_where_and_who_and_costs_no_other_its_answer(
    town: Town,
) -> None:
    """Of producers who write the topic themselves, without ingest."""
    whole, without_carrier = flight(2), flight(2)
    del without_carrier["carrier"]
    bad: list[tuple[dict[str, Any] | bytes, str, str]] = [
        (whole | {"distance": [2475]}, "schema", "/distance: [2475] is not of type"),
        (without_carrier, "schema", '/: "carrier" is a required property'),
        (whole | {"flight_id": 7}, "schema", '/flight_id: 7 is not of type "string"'),
        ([whole], "schema", ""),  # type: ignore[list-item]
        (b'{"flight_id": "B6-2", "flight_id": "B6-3"}', "schema", "required property"),
        (b'{"flight_id": "\xff"}', "invalid_utf8", ""),
        (whole | {"announced_at": "soon"}, "schema", '/announced_at: "soon" is not a "date-time"'),
        (whole | {"announced_at": "2013-06-01T12:00:00Z"}, "too_early", "more than 5 minutes ahead"),
    ]
    await town.promote(1, town.package("1"))
    async with running(in_memory(town.settings, town.runtime)):
        await town.ask(flight(1), *(event for event, _, _ in bad), flight(3))
        answers = await town.answers(2)
        letters = await town.dead_letters(len(bad))
        await eventually(lambda: _is_read(town, len(bad) + 2))

    assert {one.question for one in answers} == {"B6-1", "B6-3"}, "of two partitions, in any order"
    assert all(isinstance(one, PredictionServed) for one in answers)
    for offset, ((_, reason, words), letter) in enumerate(zip(bad, letters, strict=True), start=1):
        assert letter is not None
        assert (letter.topic, letter.group, letter.source_offset) == (town.stream, "serving", offset)
        assert (letter.reason, words in letter.detail, letter.producer) == (reason, True, "airline/b6"), letter


async def test_a_question_of_an_unknown_schema_waits_for_it_and_is_a_letter_where_it_never_comes(town: Town) -> None:
    fields: list[dict[str, Any]] = [{"name": name, "type": "string"} for name in ("flight_id", "origin", "carrier")]
    time = {"name": "announced_at", "type": {"type": "long", "logicalType": "timestamp-micros"}}
    fields += [time, {"name": "distance", "type": "int"}]
    said = json.dumps({"type": "record", "name": "Asked", "fields": fields})
    # The newer one has a field more, so that it has an id of its own.
    newer = said.replace('"fields": [', '"fields": [{"name": "seats", "type": "int"}, ')
    streams = town.settings.project / "streams"
    (streams / "asked.avsc").write_text(said)
    head, _, _ = (streams / "question.yaml").read_text().partition("schema:")
    (streams / "question.yaml").write_text(f"{head}format: avro\nschema: {{file: asked.avsc}}\n")

    def avro(id: int, schema: str, number: int) -> bytes:
        out, event = io.BytesIO(), flight(number)
        event |= {"seats": 50, "announced_at": datetime.fromisoformat(event["announced_at"])}
        fastavro.schemaless_writer(out, fastavro.parse_schema(json.loads(schema)), event)
        return framed(id, out.getvalue())

    with RegistryServer().running() as registry:
        known = registry.register(f"{town.stream}-value", said)
        more: dict[str, Any] = {"schema_registry": registry.url, "schema_patience": 60.0}
        await town.promote(1, town.package("1"))
        async with running(in_memory(town.settings.model_copy(update=more), town.runtime)):
            await town.ask(avro(known, said, 1), avro(77, newer, 2))
            async with asyncio.timeout(50):
                while registry.asked.count("GET /schemas/ids/77") < 3:  # noqa: ASYNC110 - the registry's thread
                    await asyncio.sleep(0.01)
            assert not await _is_read(town, 2)
            registry.register(f"{town.stream}-value", newer, id=77)
            await town.answers(2)
            await town.ask(avro(78, newer, 3), age=59.0)
            await town.ask(avro(known, said, 4))
            answers = await town.answers(3)
            [letter] = await town.dead_letters(1)
            await eventually(lambda: _is_read(town, 4))

    assert {one.question for one in answers} == {"B6-1", "B6-2", "B6-4"}
    assert letter is not None
    assert (letter.reason, letter.producer, "78" in letter.detail) == ("unknown_schema", "airline/b6", True)


async def test_a_trial_over_both_doorways_from_the_shadow_to_the_watch(town: Town) -> None:
    champion, challenger = town.package("1"), town.package("2", lambda row: 0.75)
    steps: list[tuple[ModelRef, dict[str, Any]]] = [
        (champion, {"challenger": challenger}),
        (champion, {"challenger": challenger, "share": 0.5}),
        (challenger, {"previous": champion, "watched": True}),
    ]
    others = []
    async with running(in_memory(town.settings, town.runtime)) as http:
        for revision, (model, said) in enumerate(steps, start=1):
            await town.promote(revision, model, **said)
            await until(http, f"/v1/loops/{town.loop}", lambda shown, now=revision: shown["revision"] == now)  # type: ignore[misc]
            # Who is answered by which is drawn anew with each run's name: all 30 by the same one once in 500 million runs.
            flights = [flight(100 * revision + number) for number in range(30)]
            await town.ask(*flights)
            for event in flights:
                response = await http.post(f"/v1/loops/{town.loop}/predict", json={"event": event})
                assert response.status_code == 200
            found = [one for one in await town.answers(60 * revision) if one.question.startswith(f"B6-{revision}")]
            by_flight: dict[str, set[str]] = {}
            for one in found:
                assert isinstance(one, PredictionServed)
                assert one.producer == ("airline/b6" if one.transport == "kafka" else "")
                assert one.output == {"probability": 0.75 if one.version == "2" else 0.25}
                assert one.other is not None
                assert {one.version, one.other.version} == {"1", "2"}
                by_flight.setdefault(one.key, set()).add(one.variant)
            assert len(found) == 60
            assert all(len(variants) == 1 for variants in by_flight.values()), "one entity, one variant"
            others.append({one.other.role for one in found if isinstance(one, PredictionServed) and one.other})
        shown = (await http.get(f"/v1/loops/{town.loop}")).json()
    assert others == [{"challenger"}, {"challenger", "champion"}, {"previous"}]
    assert (shown["champion"]["version"], shown["other"]["version"], shown["other"]["role"]) == ("2", "1", "previous")
    words = await town.replicas(until=lambda said: said.leaving)
    # Each is said again every half minute.
    obeyed = dict.fromkeys((said.revision, said.version) for said in words if not said.leaving)
    assert [*obeyed][-3:] == [(1, "1"), (2, "1"), (3, "2")]
    assert {said.instance for said in words} == {town.settings.instance}


async def test_a_fresh_replica_knows_the_newest_model_before_its_first_question(town: Town) -> None:
    for revision in (1, 2, 3):
        await town.promote(revision, town.package(str(revision)))
    await town.ask(flight(1))
    async with running(in_memory(town.settings, town.runtime)):
        (found,) = await town.answers(1)
    assert isinstance(found, PredictionServed)
    assert found.version == "3"


@pytest.mark.timeout(300)  # a process starts, and Kafka waits six seconds for it when it is gone
async def test_a_crash_between_publish_and_commit_says_the_same_ids_twice_and_nothing_else(town: Town) -> None:
    await town.promote(1, town.package("1"))
    town.runtime.graphs[b"graph of 1"] = steady
    await town.ask(flight(1), flight(2))
    dies = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        f"import runpy; runpy.run_path({str(Path(__file__).with_name('serving_process.py'))!r}, run_name='__main__')",
        env={
            **os.environ,
            "SERVING_DIES": "1",
            "MILLSTREAM_KAFKA": town.bootstrap,
            "MILLSTREAM_PROJECT": str(town.settings.project),
            "MILLSTREAM_PACKAGES": town.settings.packages,
            "MILLSTREAM_SESSION_TIMEOUT_MS": "6000",
        },
    )
    async with asyncio.timeout(100):
        assert await dies.wait() == -9
    assert await town.committed() in (None, 0)
    async with running(in_memory(town.settings, town.runtime)):
        await eventually(lambda: _is_read(town, 2))
        await town.ask(flight(3))
        found = await town.answers(5)
    # Answers of different questions lie in different partitions: only those of one question have an order.
    assert sorted(answer.question for answer in found) == ["B6-1", "B6-1", "B6-2", "B6-2", "B6-3"]
    assert len({answer.id for answer in found}) == 3
    assert {answer.output["probability"] for answer in found if isinstance(answer, PredictionServed)} == {0.25}


async def _is_read(town: Town, count: int) -> bool:
    return await town.committed() == count
