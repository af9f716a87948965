"""KEDA on the lag of a real Kafka: features from one replica to its partitions and back, drift to its shares, the scorer from
none and back; and by the clock.

Consumers are played here (no container runs), as KEDA sees them: by the offsets that their group commits.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.structs import OffsetAndMetadata

from millstream.testing.kafka import EmbeddedKafka
from millstream.testing.kafka_guard import GuardedKafka
from millstream.testing.waiting import wait_until

from .kubectl import Helm, Kubectl, Said
from .test_releases import CLAIM, ready

pytestmark = [pytest.mark.usefixtures("keda"), pytest.mark.timeout(400)]

PARTITIONS = 4
SAID_PARTITIONS = 6
"""What the values claim: more than there are, so that it is KEDA that keeps to the partitions."""
QUICK = {
    "scaleUp": {"stabilizationWindowSeconds": 0},
    "scaleDown": {
        "stabilizationWindowSeconds": 0,
        "policies": [{"type": "Percent", "value": 100, "periodSeconds": 1}],
    },
}


class Group:
    """A consumer group as KEDA sees it, and who writes what it reads."""

    def __init__(self, topic: str, producer: AIOKafkaProducer, consumer: AIOKafkaConsumer) -> None:
        self._topic = topic
        self._producer = producer
        self._consumer = consumer
        self._partitions = [TopicPartition(topic, number) for number in range(PARTITIONS)]
        consumer.assign(self._partitions)

    async def writes(self, each: int) -> None:
        """So many records into each partition."""
        sent = [
            await self._producer.send(self._topic, b"x", partition=part.partition)
            for part in self._partitions
            for _ in range(each)
        ]
        await asyncio.gather(*sent)

    async def commits(self, offsets: dict[TopicPartition, int]) -> None:
        await self._consumer.commit({part: OffsetAndMetadata(offset, "") for part, offset in offsets.items()})

    async def caught_up(self) -> None:
        await self.commits(await self._consumer.end_offsets(self._partitions))

    @asynccontextmanager
    async def working(self, every: float = 0.1) -> AsyncIterator[None]:
        """Inside, it commits a record more every so many seconds: KEDA leaves out lag that does not move."""

        async def work() -> None:
            at = 0
            while True:
                at += 1
                await self.commits(dict.fromkeys(self._partitions, at))
                await asyncio.sleep(every)

        task = asyncio.create_task(work())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def group(kafka: EmbeddedKafka | GuardedKafka, name: str, topic: str) -> AsyncIterator[Group]:
    """The first of a new topic."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, PARTITIONS, 1)])
    finally:
        await admin.close()
    async with another(kafka, name, topic) as made:
        yield made


@asynccontextmanager
async def another(kafka: EmbeddedKafka | GuardedKafka, name: str, topic: str) -> AsyncIterator[Group]:
    """One more of a topic that is there."""
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap)
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap, group_id=name, enable_auto_commit=False)
    try:
        await producer.start()
        await consumer.start()
        yield Group(topic, producer, consumer)
    finally:
        await asyncio.gather(consumer.stop(), producer.stop())


def values(at: str, topic: str, bootstrap: str, **more: Any) -> list[str]:
    """Of a scaler at `at` (keda, or scorer.keda): a replica for each ten records of lag, and two looks a second apart."""
    keda = {"enabled": True, "pollingInterval": 1, "recordsPerSecond": 1, "drainSeconds": 10}
    keda |= {"topics": [{"name": topic, "partitions": SAID_PARTITIONS}], **more}
    return ["--set", f"kafka.bootstrap={bootstrap}", "--set-json", f"{at}={json.dumps(keda)}"]


def replicas(kubectl: Kubectl, name: str) -> tuple[int, int]:
    """Wanted and ready."""
    found = kubectl.get("deployment", name)
    return found["spec"]["replicas"], ready(found)


async def comes_to(kubectl: Kubectl, name: str, wanted: int, within: float = 120) -> list[int]:
    """The replicas on the way there. Raises AssertionError."""
    seen: list[int] = []
    clock = asyncio.get_running_loop().time
    began = clock()
    while clock() - began < within:
        now = await asyncio.to_thread(replicas, kubectl, name)
        if not seen or seen[-1] != now[0]:
            seen.append(now[0])
        if now == (wanted, wanted):
            return seen
        await asyncio.sleep(0.5)
    said = await asyncio.to_thread(kubectl, "describe", f"scaledobject/{name}", f"hpa/keda-hpa-{name}")
    raise AssertionError(f"{name} went {seen} and is not at {wanted} after {within} s:\n{said[-3000:]}")


def condition(kubectl: Kubectl, name: str, kind: str) -> dict[str, Any]:
    found = kubectl.get("scaledobject", name)["status"].get("conditions", [])
    return next((one for one in found if one["type"] == kind), {"status": "Unknown", "message": ""})


def hurry(kubectl: Kubectl, name: str) -> None:
    """The chart waits ten minutes before a replica goes, and two between each; nobody has that long here."""
    hpa = kubectl.get("hpa", f"keda-hpa-{name}")["spec"]["behavior"]
    assert hpa["scaleUp"]["stabilizationWindowSeconds"] == 30
    assert hpa["scaleDown"]["stabilizationWindowSeconds"] == 600
    patch = {"spec": {"advanced": {"horizontalPodAutoscalerConfig": {"behavior": QUICK}}}}
    kubectl("patch", "scaledobject", name, "--type=merge", "-p", json.dumps(patch))
    wait_until(
        lambda: (
            kubectl.get("hpa", f"keda-hpa-{name}")["spec"]["behavior"]["scaleDown"]["stabilizationWindowSeconds"] == 0
        ),
        within=30,
        what="KEDA to tell its HPA",
        every=0.5,
    )


async def test_features_goes_from_one_to_its_partitions_and_back(
    releases: Helm, kubectl: Kubectl, kafka: EmbeddedKafka, unique_name: Callable[[str], str]
) -> None:
    topic = unique_name("parcels-sent")
    async with group(kafka, "features-tiles", topic) as tiles:
        await tiles.caught_up()
        kubectl("apply", "-f", "-", given=CLAIM.format(namespace=kubectl.namespace, name="millstream-shared"))
        scaled = values("keda", topic, kafka.bootstrap, minReplicas=1, maxReplicas=6, pollingInterval=5)
        releases.install("features", "minimal-values.yaml", "--set", "part=tiles", *scaled)
        await comes_to(kubectl, "features", 1)
        wait_until(lambda: condition(kubectl, "features", "Ready")["status"] == "True", within=60, what="a scaler")

        await tiles.writes(3_000)
        # Between two looks of KEDA; were Kafka asked at each of the HPA's, some would see lag that stands still.
        async with tiles.working(every=2.5):
            # 1,200 replicas' worth of lag, six allowed, four partitions.
            assert await comes_to(kubectl, "features", PARTITIONS) == [1, PARTITIONS]
            assert kubectl.get("hpa", "keda-hpa-features")["status"]["desiredReplicas"] == PARTITIONS

        await asyncio.to_thread(hurry, kubectl, "features")
        await tiles.caught_up()
        assert (await comes_to(kubectl, "features", 1))[-1] == 1


async def test_the_scorer_goes_from_none_to_its_partitions_and_back_to_none(
    releases: Helm, kubectl: Kubectl, kafka: EmbeddedKafka, unique_name: Callable[[str], str]
) -> None:
    topic = unique_name("parcels-asked")
    async with group(kafka, "serving", topic) as scorer:
        kubectl("apply", "-f", "-", given=CLAIM.format(namespace=kubectl.namespace, name="millstream-shared"))
        scaled = values("scorer.keda", topic, kafka.bootstrap, minReplicas=0, maxReplicas=6, cooldownPeriod=5)
        releases.install("serving", "minimal-values.yaml", "--set", "scorer.enabled=true", *scaled)
        # A group that never committed, and nothing in its topic.
        await comes_to(kubectl, "serving-scorer", 0)

        await scorer.writes(3_000)
        await comes_to(kubectl, "serving-scorer", 1)
        async with scorer.working():
            await comes_to(kubectl, "serving-scorer", PARTITIONS)

        await asyncio.to_thread(hurry, kubectl, "serving-scorer")
        await scorer.caught_up()
        assert (await comes_to(kubectl, "serving-scorer", 0))[-2:] == [1, 0], "the last one goes after the cooldown"


async def test_drift_goes_from_one_to_its_shares_and_back(
    releases: Helm, kubectl: Kubectl, kafka: EmbeddedKafka, unique_name: Callable[[str], str]
) -> None:
    """Each share is a group that reads everything: the lag of one brings the others' replicas, and never more than shares."""
    topic = unique_name("parcels-answered")
    async with group(kafka, "drift-1", topic) as first, another(kafka, "drift-2", topic) as second:
        for share in (first, second):
            await share.caught_up()
        kubectl("apply", "-f", "-", given=CLAIM.format(namespace=kubectl.namespace, name="millstream-shared"))
        scaled = values("keda", topic, kafka.bootstrap, minReplicas=1, maxReplicas=2)
        releases.install("drift", "minimal-values.yaml", "--set", "shares=2", *scaled)
        await comes_to(kubectl, "drift", 1)
        wait_until(lambda: condition(kubectl, "drift", "Ready")["status"] == "True", within=60, what="a scaler")

        await first.writes(3_000)
        async with second.working():
            assert await comes_to(kubectl, "drift", 2) == [1, 2]

        await asyncio.to_thread(hurry, kubectl, "drift")
        for share in (first, second):
            await share.caught_up()
        assert (await comes_to(kubectl, "drift", 1))[-1] == 1


async def test_keda_shows_kafka_the_password_of_the_pods_within_tls(
    releases: Helm, kubectl: Kubectl, guarded_kafka: GuardedKafka, unique_name: Callable[[str], str]
) -> None:
    """At a port that lets nobody in without; whoever writes and commits here comes by another."""
    topic, guard = unique_name("parcels-sent"), guarded_kafka.guard
    kubectl("create", "secret", "generic", "kafka-user", f"--from-literal=password={guard.password}")
    kubectl("create", "secret", "generic", "kafka-ca", f"--from-file=ca.crt={guard.ca}")
    entry = f"security=sasl_ssl,kafka.user={guard.user},kafka.secretName=kafka-user,kafka.caSecretName=kafka-ca"
    async with group(guarded_kafka, "features-tiles", topic) as tiles:
        await tiles.caught_up()
        kubectl("apply", "-f", "-", given=CLAIM.format(namespace=kubectl.namespace, name="millstream-shared"))
        scaled = values("keda", topic, guarded_kafka.at("sasl_ssl"), minReplicas=1, maxReplicas=6)
        releases.install("features", "minimal-values.yaml", "--set", f"part=tiles,kafka.{entry}", *scaled)
        wait_until(lambda: condition(kubectl, "features", "Ready")["status"] == "True", within=60, what="a scaler")

        await tiles.writes(3_000)
        async with tiles.working():
            await comes_to(kubectl, "features", PARTITIONS)


def hours(first: int, last: int) -> list[dict[str, Any]]:
    """Three replicas each day, from so many hours after now to so many."""
    now = datetime.now(UTC)
    start, end = (f"{now.minute} {(now.hour + ahead) % 24} * * *" for ahead in (first, last))
    return [{"timezone": "UTC", "start": start, "end": end, "replicas": 3}]


async def test_at_certain_hours_there_are_more_and_afterwards_they_go(
    releases: Helm, kubectl: Kubectl, kafka: EmbeddedKafka, unique_name: Callable[[str], str]
) -> None:
    topic = unique_name("parcels-sent")

    def scaled(schedule: list[dict[str, Any]]) -> list[str]:
        keda = values("keda", topic, kafka.bootstrap, minReplicas=1, maxReplicas=6, schedule=schedule)
        return ["--set", "part=tiles", *keda]

    async with group(kafka, "features-tiles", topic) as tiles:
        await tiles.caught_up()
        kubectl("apply", "-f", "-", given=CLAIM.format(namespace=kubectl.namespace, name="millstream-shared"))
        releases.install("features", "minimal-values.yaml", *scaled(hours(1, 2)))
        wait_until(lambda: condition(kubectl, "features", "Ready")["status"] == "True", within=60, what="a scaler")
        await comes_to(kubectl, "features", 1)
        wait_until(lambda: condition(kubectl, "features", "Active")["status"] == "False", within=60, what="KEDA's look")

        releases.upgrade("features", "minimal-values.yaml", *scaled(hours(-1, 1)))
        assert await comes_to(kubectl, "features", 3) == [1, 3]
        await asyncio.to_thread(active, kubectl, "features")

        releases.upgrade("features", "minimal-values.yaml", *scaled(hours(1, 2)))
        await asyncio.to_thread(hurry, kubectl, "features")
        assert (await comes_to(kubectl, "features", 1))[-1] == 1


async def test_lag_that_nobody_works_off_brings_no_replica(
    releases: Helm, kubectl: Kubectl, kafka: EmbeddedKafka, unique_name: Callable[[str], str]
) -> None:
    """A record that stops its consumer stops six of them too."""
    topic = unique_name("parcels-sent")
    async with group(kafka, "features-skew", topic) as skew:
        await skew.writes(1)
        await skew.caught_up()
        kubectl("apply", "-f", "-", given=CLAIM.format(namespace=kubectl.namespace, name="millstream-shared"))
        scaled = values("keda", topic, kafka.bootstrap, minReplicas=1, maxReplicas=6)
        releases.install("features", "minimal-values.yaml", "--set", "part=skew", *scaled)
        await comes_to(kubectl, "features", 1)
        wait_until(lambda: condition(kubectl, "features", "Ready")["status"] == "True", within=60, what="a scaler")

        await skew.writes(3_000)
        await asyncio.to_thread(active, kubectl, "features")

        for _ in range(20):
            assert (await asyncio.to_thread(replicas, kubectl, "features"))[0] == 1
            await asyncio.sleep(0.5)


def active(kubectl: Kubectl, name: str) -> None:
    """Until KEDA has seen the lag."""
    wait_until(
        lambda: condition(kubectl, name, "Active")["status"] == "True", within=60, what="KEDA to see lag", every=0.5
    )


async def test_a_kafka_that_is_away_is_named_and_the_scaler_begins_when_it_is_there(
    releases: Helm, kubectl: Kubectl, kafka: EmbeddedKafka, unique_name: Callable[[str], str]
) -> None:
    topic = unique_name("parcels-sent")
    kubectl("apply", "-f", "-", given=CLAIM.format(namespace=kubectl.namespace, name="millstream-shared"))
    scaled = values("keda", topic, kafka.bootstrap, minReplicas=1, maxReplicas=6)
    async with group(kafka, "features-tiles", topic) as tiles:
        await tiles.caught_up()
    kafka.stop()
    try:
        with pytest.raises(
            Said, match=rf"ScaledObject/\S+ not ready.*dial tcp {kafka.bootstrap}: connect: connection refused"
        ):
            releases.install("features", "minimal-values.yaml", "--set", "part=tiles", *scaled, wait=5)
        await comes_to(kubectl, "features", 1)
    finally:
        kafka.start()

    wait_until(lambda: condition(kubectl, "features", "Ready")["status"] == "True", within=90, what="KEDA to try again")
    releases.upgrade("features", "minimal-values.yaml", "--set", "part=tiles", *scaled)
