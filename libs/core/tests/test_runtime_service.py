"""The frame of a service: it starts un-ready without Kafka, says what is missing, and ends cleanly or loudly."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from millstream.errors import MillstreamError, RetryLater
from millstream.runtime.service import Service, main, serve
from millstream.runtime.settings import ServiceSettings
from millstream.runtime.topic_admin import TopicSpec, ensure_topics
from millstream.testing.kafka import BrokerPorts, EmbeddedKafka
from millstream.testing.ports import free_port

from .runtime_kit import Ledger, committed, flight, new_topic, produce, running, service, until

connected = pytest.mark.connected
TOWER = Path(__file__).with_name("tower_service.py")


async def get(made: Service, path: str) -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(made.app), base_url="http://service") as client:
        return await client.get(path)


@connected
async def test_a_service_waits_for_kafka_and_says_so(tmp_path: Path) -> None:
    port = free_port()
    kafka = EmbeddedKafka(tmp_path, ports=[BrokerPorts(clients=port)])
    made, ledger = service(f"127.0.0.1:{port}"), Ledger()
    made.hears(["flights-first"], group="tower", handler=ledger)
    async with running(made):
        await until(lambda: "Unable" in made.health.not_ready()["kafka"] or "Error" in made.health.not_ready()["kafka"])
        ready = await get(made, "/readyz")
        assert ready.status_code == 503
        assert set(ready.json()["missing"]) == {"kafka", "partitions of flights-first"}
        assert (await get(made, "/livez")).status_code == 200, "waiting is no reason to be restarted"

        await asyncio.to_thread(kafka.start)
        try:
            await until(lambda: "kafka" not in made.health.not_ready())
            await ensure_topics(kafka.bootstrap, [TopicSpec(name="flights-first", partitions=1, retention=None)])
            await produce(kafka.bootstrap, "flights-first", flight(1))
            await until(lambda: ledger.records)
            assert (await get(made, "/readyz")).json() == {"ready": True, "missing": {}}
        finally:
            await asyncio.to_thread(kafka.stop)


async def test_a_service_that_never_saw_kafka_stops_at_once() -> None:
    made = service(f"127.0.0.1:{free_port()}")
    made.hears(["flights"], group="tower", handler=Ledger())
    async with asyncio.timeout(15), running(made):
        await until(lambda: "check MILLSTREAM_KAFKA" not in made.health.not_ready()["kafka"])


@connected
async def test_work_before_the_first_record_is_tried_until_it_is_done(kafka: EmbeddedKafka) -> None:
    topic, ledger, tries = await new_topic(kafka.bootstrap, "tower"), Ledger(), []

    async def fill_the_shelves() -> None:
        assert ledger.records == []
        tries.append(1)
        if len(tries) < 3:
            raise RetryLater("the warehouse is closed")

    made = service(kafka.bootstrap)
    made.before_hearing("shelves", fill_the_shelves)
    made.hears([topic], group="tower", handler=ledger)
    assert made.health.not_ready()["shelves"] == "shelves is not done yet"
    await produce(kafka.bootstrap, topic, flight(1))
    async with running(made):
        await until(lambda: ledger.records)

    assert len(tries) == 3


@connected
async def test_side_work_that_fails_ends_the_process(kafka: EmbeddedKafka) -> None:
    stopped, made = asyncio.Event(), service(kafka.bootstrap)
    made.on_fatal = stopped.set

    async def bug() -> None:
        raise ZeroDivisionError("a bug")

    made.keeps("the books", bug)
    async with running(made):
        await until(stopped.is_set)
        alive = await get(made, "/livez")
    assert (alive.status_code, alive.json()["reasons"]) == (503, ["ZeroDivisionError: a bug"])


@connected
async def test_the_last_work_is_done_while_kafka_is_still_there(kafka: EmbeddedKafka) -> None:
    made, was = service(kafka.bootstrap), []

    async def flush() -> None:
        was.append(made.publisher.started)

    async def fails() -> None:
        raise OSError("disk full")

    made.at_stop(fails)
    made.at_stop(flush)
    async with running(made):
        await until(lambda: made.publisher.started)

    assert was == [True], "one piece of last work that fails does not hinder the others"


@connected
async def test_metrics_name_topic_and_group(kafka: EmbeddedKafka) -> None:
    topic, ledger, made = await new_topic(kafka.bootstrap, "tower"), Ledger(), service(kafka.bootstrap)
    made.hears([topic], group="tower", handler=ledger)
    async with running(made):
        await produce(kafka.bootstrap, topic, flight(1), flight(2))
        lag = {"topic": topic, "partition": "0", "group": "tower"}
        await until(lambda: made.registry.get_sample_value("millstream_consumer_lag_records", lag) == 0)
        text = (await get(made, "/metrics")).text

    assert f'millstream_records_consumed_total{{group="tower",topic="{topic}"}}' in text
    assert f'millstream_consumer_lag_records{{group="tower",partition="0",topic="{topic}"}} 0.0' in text
    assert "process_resident_memory_bytes" in text


@connected
async def test_the_lag_of_a_partition_that_moved_away_is_nobodys(kafka: EmbeddedKafka) -> None:
    """What its old owner last saw would stand for ever, and an alert beside it."""
    topic = await new_topic(kafka.bootstrap, "tower", partitions=2)
    made, other = service(kafka.bootstrap), service(kafka.bootstrap, instance="south")
    for one in (made, other):
        one.hears([topic], group="tower", handler=Ledger())

    def told(partition: int) -> float:
        return made.metrics.lag.labels(topic, str(partition), "tower")._value.get()

    async with running(made):
        await until(lambda: not made.health.not_ready())
        for partition in (0, 1):
            made.metrics.lag.labels(topic, str(partition), "tower").set(7)  # as if much were left
        async with running(other):
            await until(lambda: len(made._subscriptions[0]._subscriber.consumer.assignment()) == 1)
            assert (told(0), told(1)) == (0, 0)


def test_a_port_that_is_taken_is_named_with_a_way_out(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        settings = ServiceSettings(port=holder.getsockname()[1])

        assert serve(lambda: pytest.fail("nothing is created on a port that is taken"), settings) == 2

    said = capsys.readouterr().err
    assert f"port {settings.port} on 127.0.0.1 is taken" in said
    assert "MILLSTREAM_PORT" in said


def test_a_service_that_cannot_be_configured_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    def create() -> Service:
        raise MillstreamError("loops/flight-delay.yaml:7: predict.features: no FeatureService 'delay_v1'")

    assert serve(create, ServiceSettings()) == 2
    assert "flight-delay.yaml:7" in capsys.readouterr().err


def test_a_setting_that_cannot_be_read_is_named_without_its_value(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["millstream_tower"])
    monkeypatch.setenv("MILLSTREAM_PORT", "70000")
    monkeypatch.setenv("MILLSTREAM_FETCH_MAX_RECORDS", "s3cret")

    assert main("tower", "watches", lambda settings: pytest.fail("nothing is created"), ServiceSettings) == 2

    said = capsys.readouterr().err
    assert "MILLSTREAM_PORT: Input should be less than or equal to 65535" in said
    assert "MILLSTREAM_FETCH_MAX_RECORDS: Input should be a valid integer" in said
    assert "s3cret" not in said


@contextmanager
def tower(kafka: EmbeddedKafka, topic: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """The service in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, str(TOWER), topic, str(folder)],
        env=os.environ | {"MILLSTREAM_KAFKA": kafka.bootstrap, "MILLSTREAM_SESSION_TIMEOUT_MS": "6000"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@connected
@pytest.mark.parametrize("asked", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_in_the_middle_of_a_batch_finishes_it(
    kafka: EmbeddedKafka, tmp_path: Path, asked: signal.Signals
) -> None:
    topic = await new_topic(kafka.bootstrap, "tower")
    await produce(kafka.bootstrap, topic, flight(1), flight(2))
    with tower(kafka, topic, tmp_path) as process:
        await until((tmp_path / "begun").exists)
        process.send_signal(asked)
        (tmp_path / "finish").touch()
        output, log = await asyncio.to_thread(process.communicate, timeout=60)

    assert process.returncode == 0, log
    assert not output
    assert all(json.loads(line)["service"] == "tower" for line in log.splitlines()), "every line is ours, and JSON"
    assert (tmp_path / "handled").read_bytes() == b'{"flight": 1}\n{"flight": 2}\n'
    assert await committed(kafka.bootstrap, "tower", topic) == 2


@connected
async def test_a_bug_ends_the_process_with_1_and_the_record_stays(kafka: EmbeddedKafka, tmp_path: Path) -> None:
    topic = await new_topic(kafka.bootstrap, "tower")
    await produce(kafka.bootstrap, topic, (None, b"bug", []))
    (tmp_path / "finish").touch()
    with tower(kafka, topic, tmp_path) as process:
        _, log = await asyncio.to_thread(process.communicate, timeout=60)

    assert process.returncode == 1
    assert '"level": "CRITICAL"' in log
    assert "ZeroDivisionError" in log
    assert await committed(kafka.bootstrap, "tower", topic) == 0


@connected
async def test_a_record_in_hand_at_a_kill_is_delivered_again(kafka: EmbeddedKafka, tmp_path: Path) -> None:
    topic = await new_topic(kafka.bootstrap, "tower")
    await produce(kafka.bootstrap, topic, flight(1))
    with tower(kafka, topic, tmp_path) as process:
        await until((tmp_path / "begun").exists)
        process.kill()
        process.wait()
    (tmp_path / "finish").touch()
    handled = tmp_path / "handled"
    with tower(kafka, topic, tmp_path):
        await until(lambda: handled.exists() and handled.stat().st_size > 0)

    assert handled.read_bytes() == b'{"flight": 1}\n'
