"""The prediction log: off the answer's way, bounded, and honest about what it could not keep."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from millstream.contracts.topics import PREDICTIONS
from millstream.errors import DeliveryUnknown, NotSent, RejectEvent
from millstream.runtime.publisher import Outgoing
from millstream.testing.ports import free_port
from millstream.testing.process import ManagedProcess
from millstream_serving.adapters import kafka_log
from millstream_serving.adapters.kafka_log import OVERDUE, KafkaLog
from millstream_serving.adapters.memory import MemoryPublisher

from .conftest import Stage, flight
from .test_serving_connected import Town, eventually, town  # noqa: F401

LOOP = "flight-delay"


class Broker(MemoryPublisher):
    """Confirms when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.let = asyncio.Event()
        self.let.set()

    async def publish_fitting(self, records: Sequence[Outgoing]) -> None:
        await self.let.wait()
        await super().publish_fitting(records)


async def confirmed(broker: Broker, count: int) -> None:
    async with asyncio.timeout(30):
        while len(broker.sent) < count:  # noqa: ASYNC110  (a list has no event)
            await asyncio.sleep(0)


def record(number: int, size: int = 10) -> Outgoing:
    return Outgoing(PREDICTIONS.name, b"k", b"%010d" % number + b"x" * (size - 10), [])


def log_of(stage: Stage, broker: MemoryPublisher, *, most: int = 1000) -> KafkaLog:
    return KafkaLog(
        broker,
        loops=stage.loops,
        metrics=stage.metrics,
        most_bytes=most,
        linger=0.0,
        clock=lambda: stage.seconds,
    )


def answering(stage: Stage) -> None:
    loop = stage.loops[LOOP]
    predict = loop.predict.model_copy(update={"unlogged": "answer"})
    stage.loops[LOOP] = loop.model_copy(update={"predict": predict})


async def test_an_answer_waits_for_nobody_and_is_on_record_in_order(stage: Stage) -> None:
    broker = Broker()
    log = log_of(stage, broker)
    broker.let.clear()
    running = asyncio.create_task(log.run())
    for number in range(3):
        log.put(LOOP, [record(number)])
        await asyncio.sleep(0)
    assert broker.sent == []
    assert stage.metric("millstream_prediction_log_bytes") == 30
    broker.let.set()
    await confirmed(broker, 3)
    assert [int(one.value) for one in broker.sent] == [0, 1, 2]
    assert stage.metric("millstream_prediction_log_bytes") == 0
    running.cancel()


async def test_a_loop_that_refuses_answers_nobody_once_kafka_is_late_or_the_buffer_full(stage: Stage) -> None:
    broker = Broker()
    log = log_of(stage, broker)
    broker.let.clear()
    running = asyncio.create_task(log.run())
    log.put(LOOP, [record(1)])
    for _ in range(3):
        await asyncio.sleep(0)
    stage.seconds = OVERDUE
    log.put(LOOP, [record(2, 900)])
    with pytest.raises(NotSent, match="910 bytes"):
        log.put(LOOP, [record(3, 100)])
    stage.seconds = OVERDUE + 0.01
    with pytest.raises(NotSent, match="confirmed nothing"):
        log.put(LOOP, [record(4)])
    broker.let.set()
    await confirmed(broker, 2)
    log.put(LOOP, [record(5)])
    assert stage.metric("millstream_predictions_unlogged_total", loop=LOOP) == 0
    running.cancel()


async def test_a_loop_that_answers_anyway_fills_the_buffer_and_counts_the_rest(stage: Stage) -> None:
    answering(stage)
    broker = Broker()
    log = log_of(stage, broker)
    broker.let.clear()
    running = asyncio.create_task(log.run())
    for number in range(12):
        log.put(LOOP, [record(number, 100)])
        await asyncio.sleep(0)
        stage.seconds += 1.0
    assert stage.metric("millstream_predictions_unlogged_total", loop=LOOP) == 2
    broker.let.set()
    await confirmed(broker, 10)
    running.cancel()


async def test_what_kafka_did_not_confirm_goes_again(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_log, "AGAIN", 0.0)
    broker, tries = Broker(), 0
    publish = broker.publish_fitting

    async def third(records: Sequence[Outgoing]) -> None:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise DeliveryUnknown("no word")
        await publish(records)

    monkeypatch.setattr(broker, "publish_fitting", third)
    log = log_of(stage, broker)
    running = asyncio.create_task(log.run())
    log.put(LOOP, [record(1)])
    await confirmed(broker, 1)
    assert (tries, len(broker.sent)) == (3, 1)
    running.cancel()


async def test_a_partition_that_fails_costs_the_others_nothing(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is confirmed does not go again, and what comes meanwhile does not wait for the partition that is away."""
    monkeypatch.setattr(kafka_log, "AGAIN", 0.0)
    broker = Broker()
    flights: list[list[int]] = []
    back = asyncio.Event()

    async def odd_ones_fail(records: Sequence[Outgoing]) -> None:
        flights.append([int(one.value) for one in records])
        good = [place for place, number in enumerate(flights[-1]) if number % 2 == 0 or back.is_set()]
        broker.sent += [records[place] for place in good]
        await asyncio.sleep(0)
        if len(good) < len(records):
            raise DeliveryUnknown("no leader", confirmed=frozenset(good))

    monkeypatch.setattr(broker, "publish_fitting", odd_ones_fail)
    log = log_of(stage, broker)
    log.put(LOOP, [record(0), record(1), record(2)])
    log.put(LOOP, [record(3)])
    log.put(LOOP, [record(4)])
    running = asyncio.create_task(log.run())
    await confirmed(broker, 3)
    log.put(LOOP, [record(6)])
    await confirmed(broker, 4)
    assert flights[0] == [0, 1, 2, 3, 4]
    assert flights[1][:2] == [1, 3]
    assert [1, 3, 6] in flights
    async with asyncio.timeout(30):
        while stage.metric("millstream_prediction_log_bytes") != 20:  # noqa: ASYNC110
            await asyncio.sleep(0)
    back.set()
    await confirmed(broker, 6)
    assert sorted(int(one.value) for one in broker.sent) == [0, 1, 2, 3, 4, 6], "each once"
    async with asyncio.timeout(30):
        while stage.metric("millstream_prediction_log_bytes"):  # noqa: ASYNC110
            await asyncio.sleep(0)
    running.cancel()


async def test_a_broker_that_takes_less_costs_its_records_and_no_more(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = Broker()
    publish = broker.publish_fitting

    async def picky(records: Sequence[Outgoing]) -> None:
        if len(records[0].value) > 50:
            raise RejectEvent("too_large", "one record of 60 bytes")
        await publish(records)

    monkeypatch.setattr(broker, "publish_fitting", picky)
    log = log_of(stage, broker)
    log.put(LOOP, [record(1, 60)])
    await log.drain()
    log.put(LOOP, [record(2)])
    await log.drain()
    assert len(broker.sent) == 1
    assert stage.metric("millstream_predictions_unlogged_total", loop=LOOP) == 1
    assert stage.metric("millstream_prediction_log_bytes") == 0


async def test_at_a_stop_all_of_it_goes_or_is_counted(stage: Stage) -> None:
    broker = Broker()
    log = log_of(stage, broker)
    broker.let.clear()
    running = asyncio.create_task(log.run())
    log.put(LOOP, [record(1)])
    await asyncio.sleep(0)
    log.put(LOOP, [record(2)])
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    broker.let.set()
    await log.drain()
    assert [int(one.value) for one in broker.sent] == [1, 2]
    broker.away = True
    log.put(LOOP, [record(3), record(4)])
    await log.drain()
    assert stage.metric("millstream_predictions_unlogged_total", loop=LOOP) == 2


def process(town: Town, port: int, log: Path) -> ManagedProcess:  # noqa: F811
    script = str(Path(__file__).with_name("serving_process.py"))
    return ManagedProcess(
        "serving",
        [sys.executable, "-c", f"import runpy; runpy.run_path({script!r}, run_name='__main__')"],
        log=log,
        env={
            "MILLSTREAM_KAFKA": town.bootstrap,
            "MILLSTREAM_PROJECT": str(town.settings.project),
            "MILLSTREAM_PACKAGES": town.settings.packages,
            "MILLSTREAM_PORT": str(port),
            "MILLSTREAM_SESSION_TIMEOUT_MS": "6000",
            "MILLSTREAM_REQUEST_TIMEOUT": "60",
        },
    )


async def on_record(town: Town) -> set[str]:  # noqa: F811
    """Ids of all answers of the loop that are in the topic now."""
    consumer = AIOKafkaConsumer(bootstrap_servers=town.bootstrap)
    await consumer.start()
    try:
        known = await consumer._client.fetch_all_metadata() and consumer.partitions_for_topic(PREDICTIONS.name)
        places = [TopicPartition(PREDICTIONS.name, number) for number in known or [0]]
        ends = await consumer.end_offsets(places)
        consumer.assign(places)
        await consumer.seek_to_beginning(*places)
        found: set[str] = set()
        while any([await consumer.position(place) < end for place, end in ends.items()]):
            for records in (await consumer.getmany(timeout_ms=200)).values():
                said = [json.loads(one.value) for one in records]
                found |= {one["id"] for one in said if one["loop"] == town.loop}
        return found
    finally:
        await consumer.stop()


@pytest.mark.connected
@pytest.mark.timeout(300)  # a process starts
@pytest.mark.parametrize("killed", [True, False], ids=["killed", "stopped"])
async def test_what_is_lost_with_a_replica_is_of_its_last_moment_and_nothing_at_a_stop(
    town: Town,  # noqa: F811
    tmp_path: Path,
    killed: bool,
) -> None:
    """Asked on and on, then killed (or stopped) between two answers."""
    file = town.settings.project / "loops/loop.yaml"
    file.write_text(file.read_text().replace("unlogged: answer", "unlogged: refuse"))
    await town.promote(1, town.package("1"))
    port = free_port()
    serving = process(town, port, tmp_path / "serving.log")
    serving.launch()
    answered: list[tuple[float, float, str]] = []
    """When it was asked, when it was answered, and the answer's id."""
    clock = asyncio.get_running_loop().time
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:

        async def ready() -> bool:
            try:
                return (await http.get("/readyz")).status_code == 200
            except httpx.TransportError:
                return False

        await eventually(ready)
        until = clock() + 4 * OVERDUE
        while clock() < until or not answered:
            asked = clock()
            reply = await http.post(f"/v1/loops/{town.loop}/predict", json={"event": flight(len(answered))})
            if reply.status_code == 503:  # Kafka is slow just now, as it may be
                assert reply.json()["error"] == "not_logged", reply.text
                continue
            assert reply.status_code == 200
            answered.append((asked, clock(), reply.json()["prediction_id"]))
        if killed:
            serving.kill9()
        else:
            serving.terminate(60)
    found = await on_record(town)
    lost = [at for _, at, id in answered if id not in found]
    if killed:
        last = answered[-1][0]
        assert all(last - at <= OVERDUE for at in lost), (
            "older answers were confirmed, or their loop would have refused the last"
        )
        assert len(lost) < len(answered) / 2
    else:
        assert lost == []
