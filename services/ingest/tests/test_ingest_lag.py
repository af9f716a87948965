"""429 while features does not keep up: asked for by a setting, per stream, and never because nobody knows."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping
from datetime import timedelta

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from millstream.contracts.topics import TILES_GROUP
from millstream.errors import Refusal, RetryLater
from millstream.runtime.topic_admin import TopicSpec, ensure_topics
from millstream.testing.kafka import EmbeddedKafka
from millstream.testing.ports import free_port
from millstream_ingest.adapters import kafka_backlog
from millstream_ingest.adapters.kafka_backlog import KafkaBacklog
from millstream_ingest.handlers import LagWatch

from .conftest import Airport
from .test_ingest_kafka import departures, ingest, ready, send
from .test_ingest_tokens import _metrics


class Known:
    """A backlog that is told what to say."""

    def __init__(self) -> None:
        self.said: Mapping[str, int] | None = {}

    async def behind(self, longest: float) -> Mapping[str, int]:
        if self.said is None:
            raise RetryLater("Kafka is away")
        return self.said


async def test_a_stream_that_is_behind_is_refused_and_the_others_are_not() -> None:
    backlog, metrics = Known(), _metrics()
    watch = LagWatch(backlog, 30.0, metrics)
    backlog.said = {"flights-departed": 512}
    await watch.look()

    with pytest.raises(
        Refusal, match=r"features is over 30 s behind with flights-departed .512 events wait."
    ) as refused:
        watch.check("flights-departed")
    assert (refused.value.code, refused.value.more) == ("downstream_lag", {"retry_after": 5})
    watch.check("flights-landed")
    assert metrics.behind.labels("flights-departed")._value.get() == 1

    backlog.said = {}
    await watch.look()
    watch.check("flights-departed")
    assert metrics.behind.labels("flights-departed")._value.get() == 0


async def test_what_nobody_knows_refuses_nothing(caplog: pytest.LogCaptureFixture) -> None:
    backlog, metrics = Known(), _metrics()
    watch = LagWatch(backlog, 30.0, metrics)
    backlog.said = {"flights-departed": 512}
    await watch.look()
    backlog.said = None
    await watch.look()

    watch.check("flights-departed")
    assert metrics.lag_unknown._value.get() == 1
    assert "so everything is accepted: Kafka is away" in caplog.text


async def test_nobody_watches_unless_asked() -> None:
    assert "watching features" not in {what for what, _ in Airport().service._loops}
    assert "watching features" in {what for what, _ in Airport(max_downstream_lag=60).service._loops}


@pytest.mark.connected
async def test_features_pauses_and_producers_are_told_and_resumes_and_they_are_taken(kafka: EmbeddedKafka) -> None:
    stream = departures()
    await ensure_topics(kafka.bootstrap, [TopicSpec(name=stream.name, partitions=1, retention=timedelta(days=1))])
    partition = TopicPartition(stream.name, 0)
    features = AIOKafkaConsumer(
        bootstrap_servers=kafka.bootstrap, group_id=TILES_GROUP, enable_auto_commit=False, auto_offset_reset="earliest"
    )
    await features.start()
    features.assign([partition])
    try:
        async with ingest(kafka.bootstrap, stream, max_downstream_lag=1.0) as client:
            await ready(client)
            assert (await send(client, stream, "a")).status_code == 202
            await asyncio.sleep(2.5)
            assert (await send(client, stream, "b")).status_code == 202, "a group that never committed reads nothing"
            await features.commit({partition: 1})  # it has read a, and pauses

            async with asyncio.timeout(20):
                while (refused := await send(client, stream, uuid.uuid4().hex)).status_code != 429:  # noqa: ASYNC110 - another task's state
                    await asyncio.sleep(0.1)
            assert refused.json()["error"] == "downstream_lag"
            assert (refused.headers["retry-after"], refused.json()["outcome"]) == ("5", "not_accepted")

            end = (await features.end_offsets([partition]))[partition]
            await features.commit({partition: end})
            async with asyncio.timeout(20):
                while (await send(client, stream, "c")).status_code != 202:  # noqa: ASYNC110 - another task's state
                    await asyncio.sleep(0.1)
    finally:
        await features.stop()


@pytest.mark.connected
async def test_where_features_is_is_told_by_the_age_of_what_it_left_unread(
    kafka: EmbeddedKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two partitions: on one everything is read, on the other an event is left, and only seconds make it late."""
    monkeypatch.setattr(kafka_backlog, "WITHIN", 60.0)  # one look in vain is no answer, and here there is no next one
    name = f"flights-{uuid.uuid4().hex[:8]}"
    await ensure_topics(kafka.bootstrap, [TopicSpec(name=name, partitions=2, retention=timedelta(days=1))])
    from aiokafka import AIOKafkaProducer

    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap)
    await producer.start()
    for number in (0, 0, 1, 1):
        await producer.send_and_wait(name, b"{}", partition=number)
    await producer.stop()
    features = AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap, group_id=TILES_GROUP, enable_auto_commit=False)
    await features.start()
    partitions = [TopicPartition(name, 0), TopicPartition(name, 1)]
    features.assign(partitions)
    await features.commit({partitions[0]: 2, partitions[1]: 1})
    await features.stop()
    backlog, other = KafkaBacklog(kafka.bootstrap, [name]), KafkaBacklog(kafka.bootstrap, ["another"])
    try:
        assert await backlog.behind(600.0) == {}
        await asyncio.sleep(0.5)
        assert await backlog.behind(0.3) == {name: 1}
        assert await other.behind(0.3) == {}
    finally:
        await backlog.close()
        await other.close()


async def test_a_kafka_that_is_away_is_no_answer() -> None:
    backlog = KafkaBacklog(f"127.0.0.1:{free_port()}", ["flights-departed"])
    with pytest.raises(RetryLater, match="does not say how far features-tiles is"):
        await backlog.behind(1.0)
    await backlog.close()
