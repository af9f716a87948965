"""The embedded Kafka is a real one: it keeps what it acknowledged through kill -9, and can be frozen and thawed."""

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import MessageSizeTooLargeError

from millstream.testing.errors import PortTaken, ServerDidNotStart
from millstream.testing.jvm import ClassArchive
from millstream.testing.kafka import BrokerPorts, EmbeddedKafka
from millstream.testing.kafka_probe import brokers_in_metadata
from millstream.testing.ports import HOST
from millstream.testing.waiting import wait_until

pytestmark = pytest.mark.connected


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedKafka]:
    """A broker of our own: these tests kill it."""
    with EmbeddedKafka(tmp_path_factory.mktemp("broker")).running() as kafka:
        yield kafka


async def create(bootstrap: str, topic: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, num_partitions=1, replication_factor=1)])
    finally:
        await admin.close()


async def send(bootstrap: str, topic: str, value: bytes) -> None:
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", enable_idempotence=True) as producer:
        await asyncio.wait_for(producer.send_and_wait(topic, value), timeout=20)


async def first_value(bootstrap: str, topic: str) -> bytes | None:
    async with AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest") as consumer:
        consumer.assign([TopicPartition(topic, 0)])
        record = await asyncio.wait_for(consumer.getone(), timeout=20)
        value: bytes | None = record.value
        return value


def port_of(kafka: EmbeddedKafka) -> int:
    return int(kafka.bootstrap.rpartition(":")[2])


async def test_a_landing_outlives_kill_9_and_the_broker_keeps_its_address(broker: EmbeddedKafka) -> None:
    before = broker.bootstrap
    await create(before, "flights-landed")
    await send(before, "flights-landed", b"N14228 on time")

    await asyncio.to_thread(broker.kill9)
    assert brokers_in_metadata(port_of(broker)) == 0
    await asyncio.to_thread(broker.start)

    assert broker.bootstrap == before
    assert await first_value(before, "flights-landed") == b"N14228 on time"


async def test_a_frozen_broker_answers_again_when_thawed(broker: EmbeddedKafka) -> None:
    broker.pause()
    assert await asyncio.to_thread(brokers_in_metadata, port_of(broker)) == 0
    with socket.create_connection((HOST, port_of(broker)), timeout=2):
        pass  # the kernel still takes the connection: that is what tells a frozen server from a dead one
    broker.resume()
    # Its own controller may have given it up meanwhile (broker.session.timeout.ms): it comes back by itself.
    await asyncio.to_thread(
        wait_until, lambda: brokers_in_metadata(port_of(broker)) == 1, within=30, what="the broker to serve again"
    )


async def test_an_orderly_restart_keeps_topics(broker: EmbeddedKafka) -> None:
    await create(broker.bootstrap, "flights-departed")
    await asyncio.to_thread(broker.restart)
    await send(broker.bootstrap, "flights-departed", b"N24211 left")
    assert await first_value(broker.bootstrap, "flights-departed") == b"N24211 left"


async def test_a_record_of_two_mebibytes_is_refused_by_the_broker_itself(broker: EmbeddedKafka) -> None:
    """So no service ever reads one, whatever a producer of its own is set to."""
    await create(broker.bootstrap, "flights-diverted")
    producer = AIOKafkaProducer(bootstrap_servers=broker.bootstrap, max_request_size=8 * 1024 * 1024)
    await producer.start()
    try:
        with pytest.raises(MessageSizeTooLargeError):
            await producer.send_and_wait("flights-diverted", b"x" * 2 * 1024 * 1024)
        await producer.send_and_wait("flights-diverted", b"N14228 turned back")
    finally:
        await producer.stop()
    assert await first_value(broker.bootstrap, "flights-diverted") == b"N14228 turned back"


async def test_no_topic_appears_by_itself(broker: EmbeddedKafka) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap)
    await admin.start()
    try:
        (answer,) = await admin.describe_topics(["flights-misspelt"])
        assert answer["error_code"] == 3  # UNKNOWN_TOPIC_OR_PARTITION
        assert "flights-misspelt" not in await admin.list_topics()
    finally:
        await admin.close()


async def test_a_broker_of_tests_never_looks_for_what_is_too_old(broker: EmbeddedKafka, tmp_path: Path) -> None:
    assert await age_checks(broker.bootstrap) > 30 * 365 * 24 * 3600 * 1000
    with EmbeddedKafka(tmp_path, forgets=True).running() as production:
        assert await age_checks(production.bootstrap) == 5 * 60 * 1000


async def age_checks(bootstrap: str) -> int:
    """Milliseconds between two of them, as the broker says."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        (answer,) = await admin.describe_configs([ConfigResource(ConfigResourceType.BROKER, "0")])
    finally:
        await admin.close()
    return int({entry[0]: entry[1] for entry in answer.resources[0][4]}["log.retention.check.interval.ms"])


def test_it_listens_on_loopback_only(broker: EmbeddedKafka) -> None:
    (usage,) = broker.usage()
    assert usage is None or usage.peak_rss_bytes < 700_000_000
    assert broker.bootstrap.startswith("127.0.0.1:")
    assert not listens_everywhere(port_of(broker))


def listens_everywhere(port: int) -> bool:
    """Whether 0.0.0.0 or :: holds the port."""
    listeners = Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text()
    return f" 00000000:{port:04X} " in listeners or f" {'0' * 32}:{port:04X} " in listeners


def test_a_taken_port_is_refused_before_anything_starts(broker: EmbeddedKafka, tmp_path: Path) -> None:
    second = EmbeddedKafka(tmp_path, ports=[BrokerPorts(clients=port_of(broker))])
    with pytest.raises(PortTaken, match="Kafka's port"):
        second.start()
    assert second.processes == []


def test_a_broker_that_cannot_start_says_why(tmp_path: Path) -> None:
    kafka = EmbeddedKafka(tmp_path, heap="1m")  # no JVM can run Kafka in that
    with pytest.raises(ServerDidNotStart, match=r"kafka did not start: it ended with status 1(?s:.*)last lines"):
        kafka.start()
    assert not any(process.alive() for process in kafka.processes)


def test_as_many_ports_as_brokers(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="3 brokers need as many pairs of ports, got 1"):
        EmbeddedKafka(tmp_path, ports=[BrokerPorts()], brokers=3)


def test_a_class_archive_is_published_only_by_an_orderly_end(tmp_path: Path) -> None:
    archive = ClassArchive(tmp_path / "classes.jsa")
    (write, *_) = archive.flags("half")
    assert write == f"-XX:ArchiveClassesAtExit={tmp_path / 'classes.half'}"
    (tmp_path / "classes.half").write_bytes(b"torn")
    archive.keep(orderly=False)
    assert list(tmp_path.iterdir()) == []

    archive.flags("whole")
    (tmp_path / "classes.whole").write_bytes(b"classes")
    archive.keep(orderly=True)
    assert archive.flags("unused")[0] == f"-XX:SharedArchiveFile={tmp_path / 'classes.jsa'}"
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"classes"]
