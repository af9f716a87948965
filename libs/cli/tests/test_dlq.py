"""Dead letters of a real subscription on a real Kafka: listed, shown, sent back once, dropped. The command is the user's."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition

from millstream.contracts.dead_letters import letter_of, mark_of, source_of
from millstream.contracts.topics import dead_letter_topic
from millstream.project import Stream
from millstream.runtime.dead_letter_log import DeadLetterLog
from millstream.runtime.delivery import Batch, Rejected, Retry
from millstream.runtime.service import Service
from millstream.runtime.settings import ServiceSettings
from millstream.runtime.topic_admin import TopicSpec, ensure_topics
from millstream.runtime.user_events import read_batch
from millstream_cli.dlq import Wanted
from millstream_cli.dlq_drop import drop, loss
from millstream_cli.dlq_replay import Replayer, replay

pytestmark = pytest.mark.timeout(400)
"""The command is a process each time, and some stories have six, beside two services that join a group."""

GROUP = "tower"
DAY = timedelta(days=1)


def stream_of(topic: str, *, delay: str) -> Stream:
    """Departures whose delay is of this type."""
    return Stream.model_validate(
        {
            "stream": topic,
            "description": "A flight left the gate.",
            "key": "tailnum",
            "id": "flight_id",
            "time": "departed_at",
            "schema": {
                "type": "object",
                "required": ["flight_id", "tailnum", "departed_at"],
                "properties": {
                    "flight_id": {"type": "string"},
                    "tailnum": {"type": "string"},
                    "departed_at": {"type": "string", "format": "date-time"},
                    "dep_delay": {"type": delay},
                },
            },
        }
    )


class Tower:
    """Adds up delays by flight; an event of an id counts once, as the real services have it."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.delays: dict[str, Any] = {}
        self.heard = Counter[str]()
        self.known_at: dict[str, int] = {}
        self.causes: dict[str, str | None] = {}

    async def __call__(self, batch: Batch) -> Sequence[Rejected]:
        good, bad = read_batch(self._stream, batch)
        for one in good:
            id = one.envelope.id
            self.heard[id] += 1
            self.delays.setdefault(id, one.event["dep_delay"])
            self.known_at[id] = one.known_at
            self.causes[id] = one.envelope.causation_id
        return bad


@asynccontextmanager
async def listening(kafka: str, topic: str, tower: Tower, group: str = GROUP) -> AsyncIterator[Service]:
    settings = ServiceSettings(kafka=kafka, instance="test", session_timeout_ms=6000)
    service = Service("test", settings, title="test")
    service.hears([topic], group=group, handler=tower, retry=Retry(first=0.01, ceiling=0.05))
    async with service.app.router.lifespan_context(service.app):
        yield service


async def until(condition: Callable[[], object], within: float = 90.0) -> None:
    async with asyncio.timeout(within):
        while not condition():  # noqa: ASYNC110 - another task's state
            await asyncio.sleep(0.02)


def departure(number: int, delay: Any) -> dict[str, Any]:
    return {"flight_id": f"F{number}", "tailnum": "N1", "departed_at": "2013-01-01T10:17:00Z", "dep_delay": delay}


async def sent(kafka: str, topic: str, *events: dict[str, Any]) -> None:
    """As a producer of its own writes them: an hour after the departure, each caused by another event."""
    producer = AIOKafkaProducer(bootstrap_servers=kafka, acks="all")
    await producer.start()
    try:
        for event in events:
            id = event["flight_id"]
            headers = [("ce_id", id.encode()), ("ce_causationid", f"gate-{id}".encode()), ("x-odd", b"\xff")]
            await producer.send_and_wait(
                topic, json.dumps(event).encode(), key=b"N1", headers=headers, timestamp_ms=1357038000000
            )
    finally:
        await producer.stop()


@pytest.fixture
async def topic(kafka: Any) -> str:
    """With dead-letter topics of two groups."""
    name = f"flights-{uuid.uuid4().hex[:8]}"
    dead = [TopicSpec(name=dead_letter_topic(name, g), partitions=1, retention=DAY) for g in (GROUP, "radar")]
    await ensure_topics(kafka.bootstrap, [TopicSpec(name=name, partitions=2, retention=DAY), *dead])
    return name


def dlq(kafka: Any, *args: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "millstream_cli.main", "dlq", *map(str, args), "--kafka", kafka.bootstrap]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=180, check=False, env={**os.environ, "COLUMNS": "300"}
    )


async def asked(kafka: Any, *args: object) -> Any:
    done = await asyncio.to_thread(dlq, kafka, *args, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


async def test_what_was_refused_is_mended_and_replayed_and_counts_once(kafka: Any, topic: str) -> None:
    """Delays come as text by mistake; the schema learns to take them; one replay, and another by a careful colleague."""
    strict = Tower(stream_of(topic, delay="number"))
    async with listening(kafka.bootstrap, topic, strict) as service:
        await sent(kafka.bootstrap, topic, departure(1, 2), departure(2, "late"), departure(3, "later"))
        buried = service.metrics.dead_letters.labels(topic, GROUP, "schema")._value
        await until(lambda: buried.get() == 2 and strict.heard["F1"])

    [told] = await asked(kafka, "list", topic)
    assert (told["group"], told["reason"], told["letters"], told["replayed"]) == (GROUP, "schema", 2, 0)
    assert "/dep_delay" in told["example"]
    shown = await asked(kafka, "show", topic, "--limit", 1)
    assert [(one["id"], one["value"]["dep_delay"], one["replayed"]) for one in shown] == [("F3", "later", False)]
    tried = await asked(kafka, "replay", topic, "--dry-run")
    assert tried["topics"][f"{topic}-{GROUP}-dlq"] == {"sent": 2, "before": 0, "cut": 0}

    mended = Tower(stream_of(topic, delay="string"))
    async with listening(kafka.bootstrap, topic, mended) as service:
        done = await asyncio.to_thread(dlq, kafka, "replay", topic, "--reason", "schema")
        assert (done.returncode, done.stdout) == (
            0,
            f"{topic}-radar-dlq: 0 replayed\n{topic}-{GROUP}-dlq: 2 replayed\n",
        ), done.stderr
        again = await asked(kafka, "replay", topic)
        assert again["topics"][f"{topic}-{GROUP}-dlq"] == {"sent": 0, "before": 2, "cut": 0}
        await sent(kafka.bootstrap, topic, departure(4, "last"))
        await until(lambda: mended.heard["F4"])

    assert mended.delays == {"F2": "late", "F3": "later", "F4": "last"}
    assert set(mended.heard.values()) == {1}, "what was replayed twice was heard once"
    assert mended.known_at["F2"] == 1357038000000000, "known when it was, not when it was replayed"
    assert mended.causes["F2"] == "gate-F2"
    [told] = await asked(kafka, "list", topic)
    assert (told["letters"], told["replayed"]) == (2, 2)


async def test_a_replay_that_dies_before_its_mark_sends_the_same_ids_again(kafka: Any, topic: str) -> None:
    strict = Tower(stream_of(topic, delay="number"))
    async with listening(kafka.bootstrap, topic, strict) as service:
        await sent(kafka.bootstrap, topic, departure(1, "late"))
        buried = service.metrics.dead_letters.labels(topic, GROUP, "schema")._value
        await until(lambda: buried.get() == 1)
    name = dead_letter_topic(topic, GROUP)

    async with DeadLetterLog(kafka.bootstrap) as log, Replayer(kafka.bootstrap) as replayer:

        async def killed_before_its_mark(letters: Any) -> None:
            await asyncio.gather(*[await replayer._back(one) for one in letters])
            raise ConnectionAbortedError

        with pytest.raises(ConnectionAbortedError):
            await replay(log, [name], Wanted(), killed_before_its_mark, lambda count: None)
        found = await replay(log, [name], Wanted(), replayer.send, lambda count: None)
        assert found[name].sent == 1

    mended = Tower(stream_of(topic, delay="string"))
    async with listening(kafka.bootstrap, topic, mended, group="mended"):
        await until(lambda: mended.heard["F1"] == 3)
    assert mended.delays == {"F1": "late"}


async def test_letters_are_picked_by_reason_group_and_time(kafka: Any, topic: str) -> None:
    strict = Tower(stream_of(topic, delay="number"))
    async with listening(kafka.bootstrap, topic, strict) as service:
        await sent(
            kafka.bootstrap, topic, departure(1, "late"), departure(2, 2) | {"departed_at": "2014-01-01T00:00:00Z"}
        )
        buried = service.metrics.dead_letters
        await until(lambda: buried.labels(topic, GROUP, "too_early")._value.get() == 1)

    assert [one["reason"] for one in await asked(kafka, "list", topic, "--reason", "too_early")] == ["too_early"]
    assert len(await asked(kafka, "list", dead_letter_topic(topic, GROUP))) == 2
    assert await asked(kafka, "list", topic, "--group", "radar") == []
    assert await asked(kafka, "list", topic, "--until", "2020-01-01") == []
    assert len(await asked(kafka, "list", topic, "--since", "2020-01-01")) == 2
    nobody = await asyncio.to_thread(dlq, kafka, "list", f"{topic}s")
    assert (nobody.returncode, f"no dead-letter topic for {topic}s" in nobody.stderr) == (1, True)


async def test_only_the_letters_of_a_group_and_a_time_are_sent_back(kafka: Any, topic: str) -> None:
    """Two groups refuse two flights each; the later one is sent back for one of them."""
    tower, radar = (Tower(stream_of(topic, delay="number")) for _ in range(2))
    async with (
        listening(kafka.bootstrap, topic, tower) as first,
        listening(kafka.bootstrap, topic, radar, group="radar") as other,
    ):
        for number in (1, 2):
            await sent(kafka.bootstrap, topic, departure(number, "late"))
            for service, group in ((first, GROUP), (other, "radar")):
                buried = service.metrics.dead_letters.labels(topic, group, "schema")._value
                await until(lambda buried=buried, number=number: buried.get() == number)  # type: ignore[misc]
            await asyncio.sleep(0.01)  # Kafka's clock has milliseconds

    letters = await asked(kafka, "show", topic, "--group", GROUP)
    assert [one["id"] for one in letters] == ["F1", "F2"]
    done = await asked(kafka, "replay", topic, "--group", GROUP, "--since", letters[1]["at"])
    assert done["topics"] == {f"{topic}-{GROUP}-dlq": {"sent": 1, "before": 0, "cut": 0}}

    mended = Tower(stream_of(topic, delay="string"))
    async with listening(kafka.bootstrap, topic, mended, group="mended"):
        await until(lambda: mended.heard == {"F1": 1, "F2": 2})
    shown = await asked(kafka, "show", topic)
    assert sorted((one["group"], one["id"]) for one in shown if one["replayed"]) == [(GROUP, "F2")]
    assert len(shown) == 4


async def test_a_drop_says_what_is_lost_and_deletes_only_when_told(kafka: Any, topic: str) -> None:
    strict = Tower(stream_of(topic, delay="number"))
    async with listening(kafka.bootstrap, topic, strict) as service:
        await sent(kafka.bootstrap, topic, departure(1, "late"), departure(2, "later"))
        buried = service.metrics.dead_letters.labels(topic, GROUP, "schema")._value
        await until(lambda: buried.get() == 2)

    kept = await asyncio.to_thread(dlq, kafka, "drop", topic)
    tried = await asked(kafka, "drop", topic, "--dry-run")
    assert (kept.returncode, "say --yes" in kept.stderr) == (1, True)
    assert "2 dead letters, 2 of them never replayed" in kept.stdout
    assert (tried["dropped"], tried["lost"][0]["letters"]) == (False, 2)
    assert len(await asked(kafka, "show", topic)) == 2

    gone = await asyncio.to_thread(dlq, kafka, "drop", topic, "--yes")

    assert (gone.returncode, gone.stdout.splitlines()[-1]) == (0, "deleted")
    assert await asked(kafka, "show", topic) == []
    assert (await asyncio.to_thread(dlq, kafka, "drop", topic, "--yes")).returncode == 0, "nothing left is no error"


async def test_a_drop_stops_at_the_first_letter_that_is_too_young(kafka: Any, topic: str) -> None:
    strict, name = Tower(stream_of(topic, delay="number")), dead_letter_topic(topic, GROUP)
    async with listening(kafka.bootstrap, topic, strict) as service:
        buried = service.metrics.dead_letters.labels(topic, GROUP, "schema")._value
        await sent(kafka.bootstrap, topic, departure(1, "late"))
        await until(lambda: buried.get() == 1)
        await asyncio.sleep(0.01)  # Kafka's clock counts milliseconds
        await sent(kafka.bootstrap, topic, departure(2, "later"))
        await until(lambda: buried.get() == 2)

    async with DeadLetterLog(kafka.bootstrap) as log:
        first, second = [letter async for letter in _letters(log, name)]
        assert first.buried_at < second.buried_at
        found = await loss(log, [name], second.buried_at, lambda count: None)
        assert (found.letters, found.upto) == (1, {TopicPartition(name, 0): 1})
        await drop(kafka.bootstrap, found.upto)
        assert [letter.id async for letter in _letters(log, name)] == ["F2"]


async def _letters(log: DeadLetterLog, name: str) -> AsyncIterator[Any]:
    async for record in log.records(name, await log.span(name)):
        if (letter := letter_of(record)) is not None:
            yield letter


async def test_without_a_kafka_the_command_ends_and_says_so(tmp_path: Any) -> None:
    command = [sys.executable, "-m", "millstream_cli.main", "dlq", "list"]
    away = await asyncio.to_thread(
        subprocess.run, [*command, "--kafka", "127.0.0.1:1"], capture_output=True, text=True, timeout=180
    )
    unnamed = await asyncio.to_thread(
        subprocess.run, [*command, "--data", str(tmp_path)], capture_output=True, text=True, timeout=180
    )
    assert (away.returncode, "Kafka at 127.0.0.1:1 does not answer" in away.stderr) == (1, True)
    assert (unnamed.returncode, "or name a Kafka elsewhere: --kafka" in unnamed.stderr) == (1, True)


class Lying:
    """A record that a stranger wrote."""

    topic, partition, offset, timestamp, key = "flights-tower-dlq", 0, 0, 0, None

    def __init__(self, value: bytes, *headers: tuple[str, bytes]) -> None:
        self.value, self.headers = value, list(headers)


def test_nobody_marks_another_letter_by_what_he_sends() -> None:
    """His record was refused; it is a letter, whatever headers it brought."""
    body = b'{"partition": 0, "offsets": [0, 1, 2]}'
    brought = [("millstream-dlq-replayed", b"1"), ("millstream-dlq-topic", b"payments")]
    why = [("reason", b"schema"), ("detail", b"no"), ("group", b"tower"), ("topic", b"flights")]
    why += [("partition", b"0"), ("offset", b"7"), ("timestamp", b"1")]
    record = Lying(body, *brought, ("ce_id", b"a"), *[(f"millstream-dlq-{name}", value) for name, value in why])

    assert mark_of(record) is None
    letter = letter_of(record)
    assert letter is not None
    assert (letter.topic, letter.id, letter.headers) == ("flights", "a", [("ce_id", b"a")])
    assert letter_of(Lying(b"nothing of ours")) is None
    assert mark_of(Lying(b"no json", ("millstream-dlq-replayed", b"1"))) is None


def test_the_longest_topic_that_fits_is_whose_letters_they_are() -> None:
    topics = ["flights", "flights-departed"]
    assert source_of("flights-departed-features-tiles-dlq", topics) == ("flights-departed", "features-tiles")
    assert source_of("flights-tower-dlq", topics) == ("flights", "tower")
    assert source_of("flights-dlq", topics) is None
    assert source_of("trains-tower-dlq", topics) is None
    assert source_of("flights-departed", topics) is None
