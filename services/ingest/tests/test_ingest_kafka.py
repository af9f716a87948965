"""ingest on a real Kafka: a 202 means that the record is in its topic; without Kafka the producer is told what holds."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiokafka import AIOKafkaConsumer

from millstream.contracts.envelope import envelope_of
from millstream.contracts.times import from_rfc3339
from millstream.project import Stream
from millstream.runtime.service import Service
from millstream.runtime.topic_admin import TopicSpec, ensure_topics
from millstream.testing.kafka import BrokerPorts, EmbeddedKafka
from millstream.testing.ports import free_port
from millstream_ingest.app import create_app
from millstream_ingest.settings import IngestSettings

from .conftest import DEPARTURES, departure, lines

pytestmark = pytest.mark.connected
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def departures() -> Stream:
    """The stream of departures under a name of its own, so that each test has its own topic."""
    return DEPARTURES.model_copy(update={"stream": f"flights-{uuid.uuid4().hex[:8]}"})


async def topic_of(kafka: EmbeddedKafka, stream: Stream) -> None:
    await ensure_topics(kafka.bootstrap, [TopicSpec(name=stream.name, partitions=3, retention=timedelta(days=1))])


def made(bootstrap: str, stream: Stream, **settings: Any) -> Service:
    return create_app(IngestSettings(kafka=bootstrap, instance="jfk", **settings), streams={stream.name: stream})


@asynccontextmanager
async def running(service: Service) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(service.app)
    async with (
        service.app.router.lifespan_context(service.app),
        httpx.AsyncClient(transport=transport, base_url="http://ingest", timeout=30) as client,
    ):
        yield client


@asynccontextmanager
async def ingest(bootstrap: str, stream: Stream, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with running(made(bootstrap, stream, **settings)) as client:
        yield client


@contextmanager
def impatient(service: Service, seconds: float) -> Iterator[None]:
    """For a Kafka that is away: it gives up soon. One that is there has the seconds that a busy machine may take."""
    publisher: Any = service.publisher
    patience, publisher._timeout = publisher._timeout, seconds
    try:
        yield
    finally:
        publisher._timeout = patience


async def ready(client: httpx.AsyncClient) -> None:
    async with asyncio.timeout(60):
        while (await client.get("/readyz")).status_code != 200:  # noqa: ASYNC110 - another task's state
            await asyncio.sleep(0.02)


async def send(
    client: httpx.AsyncClient, stream: Stream, flight: str = "2013-01-01-UA-1545-EWR", **headers: str
) -> httpx.Response:
    named = {"content-type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
    body = json.dumps(departure(flight_id=flight)).encode()
    return await client.post(f"/v1/streams/{stream.name}/events", content=body, headers=named)


async def records(kafka: EmbeddedKafka, stream: Stream, count: int) -> list[Any]:
    consumer = AIOKafkaConsumer(stream.name, bootstrap_servers=kafka.bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    try:
        async with asyncio.timeout(30):
            return [await consumer.getone() for _ in range(count)]
    finally:
        await consumer.stop()


async def test_an_accepted_event_is_in_its_topic_with_its_envelope(kafka: EmbeddedKafka) -> None:
    stream = departures()
    await topic_of(kafka, stream)
    async with ingest(kafka.bootstrap, stream, trust_known_at=True) as client:
        await ready(client)
        answer = await send(client, stream, traceparent=TRACE, ce_knownat="2013-01-01T11:00:00Z")

    assert answer.status_code == 202
    [record] = await records(kafka, stream, 1)
    assert (record.key, json.loads(record.value)) == (b"N14228", departure())
    headers = dict(record.headers)
    assert headers["ce_specversion"] == b"1.0"
    assert headers["content-type"] == b"application/json"
    envelope = envelope_of(record.headers)
    assert (envelope.id, envelope.type) == (departure()["flight_id"], f"stream.{stream.name}.v1")
    assert (envelope.source, envelope.traceparent) == ("millstream/ingest", TRACE)
    assert envelope.time == from_rfc3339("2013-01-01T10:17:00Z")
    assert envelope.known_at == from_rfc3339("2013-01-01T11:00:00Z")


async def test_a_batch_is_in_its_topic_without_what_was_rejected(kafka: EmbeddedKafka) -> None:
    """Ninety departures of nine aircraft: each aircraft's events stay in order, on one partition."""
    stream = departures()
    await topic_of(kafka, stream)
    good = [departure(flight_id=f"{n:03}", tailnum=f"N{n % 9}") for n in range(90)]
    async with ingest(kafka.bootstrap, stream) as client:
        await ready(client)
        answer = await client.post(
            f"/v1/streams/{stream.name}/batch",
            content=lines(*good[:45], {"flight_id": 7}, *good[45:]),
            headers={"content-type": "application/x-ndjson"},
        )

    assert (answer.status_code, answer.json()["accepted"], answer.json()["rejected"]) == (207, 90, 1)
    found = await records(kafka, stream, 90)
    for aircraft in range(9):
        mine = [record for record in found if record.key == f"N{aircraft}".encode()]
        assert len({record.partition for record in mine}) == 1
        assert [json.loads(r.value)["flight_id"] for r in mine] == [f"{n:03}" for n in range(aircraft, 90, 9)]


async def test_kafka_freezes_in_the_middle_of_a_stream(kafka: EmbeddedKafka) -> None:
    """What a line says is true: every accepted one is in the topic, and no line is without a word but those after the end."""
    stream = departures()
    await topic_of(kafka, stream)
    service, goes_on = made(kafka.bootstrap, stream), asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield lines(*(departure(flight_id=f"early-{n}") for n in range(1_000)))
        published = f'records_published_total{{topic="{stream.name}"}} 1001.0'
        while published not in (await client.get("/metrics")).text:  # noqa: ASYNC110 - another task's state
            await asyncio.sleep(0.02)
        kafka.pause()
        asyncio.get_running_loop().call_later(3, goes_on.set)
        with impatient(service, 1.0):
            yield lines(*(departure(flight_id=f"frozen-{n}") for n in range(1_000)))
            await asyncio.wait_for(goes_on.wait(), 60)

    async with running(service) as client:
        await ready(client)
        assert (await send(client, stream, "first")).status_code == 202
        try:
            answer = await client.post(
                f"/v1/streams/{stream.name}/events", content=body(), headers={"content-type": "application/x-ndjson"}
            )
        finally:
            kafka.resume()

    *results, last = [json.loads(line) for line in answer.text.splitlines()]
    assert {r["status"] for r in results[:1_000]} == {"accepted"}
    assert {r["status"] for r in results[1_000:]} <= {"unknown", "not_accepted"}
    assert (len(results), last["accepted"], last["unknown"] + last["not_accepted"]) == (2_000, 1_000, 1_000)
    assert last["error"] in ("unknown", "unavailable")


async def test_an_event_of_nearly_a_megabyte_is_taken(kafka: EmbeddedKafka) -> None:
    stream = departures()
    await topic_of(kafka, stream)
    async with ingest(kafka.bootstrap, stream) as client:
        await ready(client)
        answer = await client.post(
            f"/v1/streams/{stream.name}/events",
            content=json.dumps(departure(remark="x" * 990_000)),
            headers={"content-type": "application/json"},
        )

    assert answer.status_code == 202
    assert len((await records(kafka, stream, 1))[0].value) > 990_000


async def test_a_frozen_kafka_makes_the_outcome_unknown_and_then_it_goes_on(kafka: EmbeddedKafka) -> None:
    stream = departures()
    await topic_of(kafka, stream)
    service = made(kafka.bootstrap, stream)
    async with running(service) as client:
        await ready(client)
        assert (await send(client, stream, "early")).status_code == 202
        kafka.pause()
        try:
            with impatient(service, 1.0):
                during = await send(client, stream)
                behind = await send(client, stream, "another")
        finally:
            kafka.resume()
        assert (during.status_code, during.json()["outcome"]) == (503, "unknown")
        assert during.headers["retry-after"] == "5"
        assert (behind.status_code, behind.json()["outcome"]) == (503, "not_accepted"), "it waited behind the first"
        async with asyncio.timeout(60):
            while (await send(client, stream)).status_code != 202:
                pass

    early, *later = [envelope_of(record.headers).id for record in await records(kafka, stream, 2)]
    assert early == "early"
    assert set(later) == {departure()["flight_id"]}, "the retry of an unknown outcome has the id of the first try"


async def test_ingest_starts_without_kafka_and_recovers_when_it_comes_and_when_it_comes_back(tmp_path: Path) -> None:
    port, stream = free_port(), departures()
    kafka = EmbeddedKafka(tmp_path, ports=[BrokerPorts(clients=port)])
    service = made(f"127.0.0.1:{port}", stream)
    async with running(service) as client:
        early = await send(client, stream)
        assert (early.status_code, early.json()["outcome"]) == (503, "not_accepted")
        assert (await client.get("/readyz")).status_code == 503
        assert (await client.get("/v1/streams")).status_code == 200

        await asyncio.to_thread(kafka.start)
        try:
            await topic_of(kafka, stream)
            await ready(client)
            assert (await send(client, stream)).status_code == 202

            await asyncio.to_thread(kafka.kill9)
            with impatient(service, 2.0):
                assert (await send(client, stream, "later")).status_code == 503
            await asyncio.to_thread(kafka.start)
            async with asyncio.timeout(60):
                while (await send(client, stream, "later")).status_code != 202:
                    pass
            assert len(await records(kafka, stream, 2)) == 2
        finally:
            await asyncio.to_thread(kafka.stop)
