"""Each service's KafkaUser may do the service's work in Kafka and nothing else, by Kafka's own authorizer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from millstream.contracts.topics import TRAINING_JOBS_GROUP
from millstream.project import Project, load_project
from millstream.runtime.kafka_security import Bootstrap, KafkaSecurity
from millstream.runtime.topic_admin import ensure_topics
from millstream.testing.certificates import Authority
from millstream.testing.kafka import EmbeddedKafka
from millstream.testing.kafka_guard import Door, Guard, GuardedKafka
from millstream_cli.kafka_rights import Rights, rights_of
from millstream_cli.topics import topics_of
from millstream_drift import subscribers as drift
from millstream_features import subscribers as features
from millstream_serving import subscribers as serving
from millstream_trainer import subscribers as trainer
from millstream_trainer.adapters.kafka_announcer import WRITER

from .kafka_users import as_user, asker, grant, name_of, password_of
from .test_kafka_asks_who_is_there import answer_with, service

ROOT = Path(__file__).parents[2]
SERVICES = ("ingest", "features", "serving", "drift", "trainer")
GROUPS = (
    "features-tiles",
    "features-lake",
    "features-skew",
    "serving",
    "drift",
    "trainer",
    TRAINING_JOBS_GROUP,
    "another",
)
DOOR: Door = "sasl_plaintext"

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def project() -> Project:
    return load_project(ROOT / "examples" / "flights")


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory, project: Project) -> Iterator[GuardedKafka]:
    """With the topics of the flights, and the rights of the five."""
    folder = tmp_path_factory.mktemp("authorized")
    authority = Authority(folder / "certificates")
    certificate, key = authority.certificate("broker")
    others = {name_of(one): password_of(one) for one in (*SERVICES, "stranger")}
    guard = Guard(user="mill", password="weir", ca=authority.ca, certificate=certificate, key=key, others=others)
    with EmbeddedKafka(folder / "kafka", guard=guard).running() as server:
        found = GuardedKafka(ports=server.guarded[0], bootstrap=server.bootstrap, guard=guard, authority=authority)
        asyncio.run(ensure_topics(found.bootstrap, topics_of(project, partitions=1)))
        asyncio.run(grant(found, rights_of(project)))
        yield found


def at(kafka: GuardedKafka, who: str) -> Bootstrap:
    return KafkaSecurity(**as_user(kafka, who).settings(DOOR)).at(kafka.at(DOOR))  # type: ignore[arg-type]


def of(project: Project, name: str) -> Rights:
    return next(one for one in rights_of(project) if one.service == name)


def test_the_names_are_those_of_the_services(project: Project) -> None:
    assert of(project, "features").groups == {features.TILES, features.LAKE, features.SKEW}
    assert of(project, "serving").groups == {serving.GROUP}
    assert of(project, "drift").groups == {drift.GROUP}
    assert of(project, "trainer").groups == {trainer.GROUP, TRAINING_JOBS_GROUP}
    assert of(project, "trainer").transactional == {WRITER}


def test_every_topic_has_who_writes_it_and_one_owner_of_the_rollout(project: Project) -> None:
    found = rights_of(project)
    written = {name for one in found for name in one.writes}
    people = {"millstream-keys", "millstream-audit"}
    assert {spec.name for spec in topics_of(project)} - written == people
    assert [one.service for one in found if "millstream-models" in one.writes] == ["trainer"]


@pytest.mark.parametrize("name", SERVICES)
async def test_a_user_may_do_what_its_service_does_and_nothing_else(
    kafka: GuardedKafka, project: Project, name: str
) -> None:
    rights = of(project, name)
    topics = [spec.name for spec in topics_of(project)]
    async with asker(at(kafka, name)) as user:
        assert await user.writes(topics) == rights.writes
        assert await user.reads(topics) == rights.reads
        assert await user.describes(topics) == rights.writes | rights.reads | rights.describes
        assert await user.joins(GROUPS) == rights.groups
        assert await user.looks_at(GROUPS) == rights.groups | rights.looks_at
        assert await user.transacts(WRITER) == (WRITER in rights.transactional)


async def test_a_stranger_may_do_nothing(kafka: GuardedKafka, project: Project) -> None:
    topics = [spec.name for spec in topics_of(project)]
    async with asker(at(kafka, "stranger")) as user:
        assert not await user.writes(topics) | await user.reads(topics) | await user.describes(topics)
        assert not await user.joins(GROUPS) | await user.looks_at(GROUPS)
        assert not await user.transacts(WRITER)


@pytest.mark.timeout(900)  # five processes that import Feast, on a machine that may be busy
async def test_the_five_services_work_each_as_its_own_user(
    kafka: GuardedKafka, valkey_url: str, project: Project, tmp_path: Path
) -> None:
    shared = {
        "MILLSTREAM_PROJECT": str(project.path),
        "MILLSTREAM_VALKEY": valkey_url,
        "MILLSTREAM_LAKE": str(tmp_path / "lake"),
        "MILLSTREAM_PACKAGES": str(tmp_path / "packages"),
        "MILLSTREAM_WARM": "false",
    }
    async with AsyncExitStack() as running:
        there = {}
        for name in SERVICES:
            env = shared | as_user(kafka, name).environment(DOOR) | {"MILLSTREAM_DATA": str(tmp_path / name)}
            there[name] = await running.enter_async_context(service(name, env))
        for name in SERVICES:
            await answer_with(there[name], 200, within=400)
        asked = {"by": "Ada", "reason": "a new runway"}
        said = await there["trainer"].post("/v1/loops/flight-delay/retrain", json=asked)
        assert said.status_code == 202, said.text
        # The request went to Kafka and came back, and the answer is in the journal, written in a transaction.
        await until_decided(there["trainer"])


async def until_decided(trainer: Any) -> None:
    begun = time.monotonic()
    while (await trainer.get("/v1/loops")).json()["loops"][0]["last_decision"] is None:
        assert time.monotonic() - begun < 120
        await asyncio.sleep(0.1)
