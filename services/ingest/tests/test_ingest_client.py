"""The Python client against ingest as a process, on a real Kafka: killed in the middle, it loses and repeats nothing."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from millstream import AsyncClient, Client
from millstream.client import EventRejected, NotFound, Progress
from millstream.contracts.envelope import envelope_of
from millstream.runtime.topic_admin import TopicSpec, ensure_topics
from millstream.testing.kafka import EmbeddedKafka
from millstream.testing.ports import free_port
from millstream.testing.process import ManagedProcess

pytestmark = pytest.mark.connected
DOCS = Path(__file__).parents[3] / "docs" / "client.md"

STREAM = """
stream: {name}
description: A flight left the gate.
key: tailnum
id: flight_id
time: departed_at
schema:
  type: object
  required: [flight_id, tailnum, departed_at]
  properties:
    flight_id: {{type: string}}
    tailnum: {{type: string}}
    departed_at: {{type: string, format: date-time}}
    dep_delay: {{type: number}}
"""

LOOP = """
loop: {name}
predict: {{on: {name}, features: delay_v1, inputs: [tailnum]}}
label: {{from: {name}, by: flight_id, value: dep_delay, within: 24h}}
model: {{task: regression}}
"""


class Ingest(ManagedProcess):
    """`python -m millstream_ingest` with one stream of departures."""

    def __init__(self, folder: Path, kafka: EmbeddedKafka, stream: str, **settings: str) -> None:
        self.stream = stream
        project = folder / "project"
        (project / "streams").mkdir(parents=True)
        (project / "streams" / f"{stream}.yaml").write_text(STREAM.format(name=stream))
        (project / "loops").mkdir()
        (project / "loops" / f"{stream}.yaml").write_text(LOOP.format(name=stream))
        (project / "features").mkdir()
        (project / "features" / "feature_store.yaml").write_text(f"project: {stream}\n")
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        super().__init__(
            "ingest",
            [sys.executable, "-m", "millstream_ingest"],
            log=folder / "ingest.log",
            env={
                "MILLSTREAM_PORT": str(port),
                "MILLSTREAM_KAFKA": kafka.bootstrap,
                "MILLSTREAM_PROJECT": str(project),
                **settings,
            },
            ready=self._ready,
        )

    def _ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz").status_code == 200
        except httpx.TransportError:
            return False


@pytest.fixture
async def ingest(tmp_path: Path, kafka: EmbeddedKafka) -> Any:
    stream = f"flights-{uuid.uuid4().hex[:8]}"
    await ensure_topics(kafka.bootstrap, [TopicSpec(name=stream, partitions=3, retention=timedelta(days=1))])
    made = Ingest(tmp_path, kafka, stream)
    made.start()
    yield made
    made.terminate()


def departures(count: int) -> Iterator[dict[str, Any]]:
    for n in range(count):
        yield {"flight_id": f"{n:05}", "tailnum": f"N{n % 9}", "departed_at": "2013-01-01T10:17:00Z", "dep_delay": n}


async def test_a_killed_ingest_costs_no_event_and_doubles_none(kafka: EmbeddedKafka, ingest: Ingest) -> None:
    """Killed twice while 20,000 events are on their way: each is there, and once by its id."""
    killers: list[threading.Thread] = []

    def kill_and_start() -> None:
        ingest.kill9()
        ingest.launch()

    def watch(progress: Progress) -> None:
        if progress.done in (4_000, 12_000):
            killers.append(threading.Thread(target=kill_and_start))
            killers[-1].start()

    with Client(ingest.url) as client:
        done = client.send_many(ingest.stream, departures(20_000), on_progress=watch, batch_events=200)
    for killer in killers:
        killer.join()

    assert (len(killers), done) == (2, Progress(accepted=20_000))
    found = Counter[str]()
    written = 0
    for record in await every_record(kafka, ingest.stream):
        written += 1
        found[envelope_of(record.headers).id] += 1
        assert json.loads(record.value)["flight_id"] == envelope_of(record.headers).id
    assert len(found) == 20_000, "one id for every event"
    assert written - len(found) <= 2 * 200, "a kill leaves at most the batch in hand twice, under the same ids"


async def every_record(kafka: EmbeddedKafka, topic: str) -> list[Any]:
    """Up to where the topic ends now."""
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    try:
        partitions = [TopicPartition(topic, n) for n in range(3)]
        consumer.assign(partitions)
        count = sum((await consumer.end_offsets(partitions)).values())
        async with asyncio.timeout(30):
            return [await consumer.getone() for _ in range(count)]
    finally:
        await consumer.stop()


async def test_refusals_are_errors_that_say_what_to_write(ingest: Ingest) -> None:
    [good] = departures(1)
    bad: list[EventRejected] = []
    async with AsyncClient(ingest.url) as client:
        first = await client.send(ingest.stream, good)
        again = await client.send(ingest.stream, good)
        with pytest.raises(EventRejected) as refused:
            await client.send(ingest.stream, good | {"dep_delay": "two"})
        with pytest.raises(NotFound) as unknown:
            await client.send("flights", good)
        done = await client.send_many(ingest.stream, [good, {"flight_id": 7}], on_rejected=bad.append)

    assert (first.id, first.replayed, again.replayed) == ("00000", False, True)
    assert (refused.value.pointer, refused.value.expected) == ("/dep_delay", 'type: "number"')
    assert unknown.value.known == (ingest.stream,)
    assert (done, bad[0].index, bad[0].code) == (Progress(accepted=1, rejected=1), 1, "schema")


async def test_a_label_is_in_its_stream(kafka: EmbeddedKafka, ingest: Ingest) -> None:
    async with AsyncClient(ingest.url) as client:
        said = await client.label(ingest.stream, {"flight_id": "a", "tailnum": "N1"}, 12.5)
        with pytest.raises(EventRejected) as refused:
            await client.label(ingest.stream, {"flight_id": "b"}, 12.5)

    [record] = await every_record(kafka, ingest.stream)
    event = json.loads(record.value)
    assert (said.id, event["flight_id"], event["dep_delay"]) == ("a", "a", 12.5)
    assert (refused.value.pointer, "also has tailnum" in str(refused.value)) == ("/key", True)


def test_the_documentation_runs(ingest: Ingest, tmp_path: Path) -> None:
    """Every example of docs/client.md that speaks to ingest alone, as it stands there but for address and stream."""
    examples = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    run = [one for one in examples if "predict" not in one and "label" not in one]
    assert len(run) >= 3
    (tmp_path / "departures.ndjson").write_text("".join(json.dumps(one) + "\n" for one in departures(1200)))
    for number, example in enumerate(run):
        text = example.replace("http://localhost:8101", ingest.url).replace("flights-departed", ingest.stream)
        text = text.replace("departures.ndjson", str(tmp_path / "departures.ndjson"))
        exec(compile(text, f"client.md, example {number}", "exec"), {})
