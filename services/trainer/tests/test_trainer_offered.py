"""Runs offered to pods that KEDA starts: on a real Kafka, with the pods' own program. KEDA is played, which counts what the
group has left; the real one is in tests/deploy/test_scaled_jobs.py.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from millstream.contracts.events import RunOffered
from millstream.contracts.topics import TRAINING_JOBS, TRAINING_JOBS_GROUP
from millstream.runtime.metrics import RuntimeMetrics
from millstream.runtime.publisher import Publisher
from millstream.runtime.topic_admin import ensure_topics, our_topics
from millstream.testing.kafka import EmbeddedKafka
from millstream_trainer.adapters import taking_job
from millstream_trainer.adapters.claims import Claims, note_of
from millstream_trainer.adapters.offered_runs import OfferedRuns, name_of
from millstream_trainer.adapters.run_notes import RunNotes
from millstream_trainer.adapters.training_process import Said
from millstream_trainer.domain.run import RunSpec
from millstream_trainer.errors import RunFailed
from millstream_trainer.settings import Settings

from .job_manifest import SPEC
from .trainer_kit import passes

Until = Callable[..., Any]

pytestmark = [pytest.mark.connected, pytest.mark.timeout(400)]
"""A pod imports Feast and trains: nearly two minutes were seen on busy cores."""


@pytest.fixture
async def settings(kafka: EmbeddedKafka, harbour: Path, tmp_path: Path) -> Settings:
    await ensure_topics(kafka.bootstrap, our_topics([TRAINING_JOBS]))
    return Settings(
        kafka=kafka.bootstrap,
        project=harbour,
        lake=str(tmp_path / "lake"),
        packages=str(tmp_path / "packages"),
        data=tmp_path / "data",
        train_threads=1,
        lake_patience=0.2,
        mlflow_patience=1,
        executor="keda",
        log_level="WARNING",
    )


@pytest.fixture
def notes(settings: Settings) -> RunNotes:
    return RunNotes(settings.packages)


@pytest.fixture
def claims(notes: RunNotes) -> Claims:
    return Claims(notes)


@asynccontextmanager
async def dispatcher(settings: Settings, **more: Any) -> AsyncIterator[OfferedRuns]:
    publisher = Publisher(
        bootstrap=settings.kafka, source="test", timeout=15, metrics=RuntimeMetrics(CollectorRegistry())
    )
    await publisher.start()
    notes = RunNotes(settings.packages)
    try:
        yield OfferedRuns(
            publisher=publisher,
            notes=notes,
            claims=Claims(notes),
            **{"deadline": 300, "patience": 300, "look": 0.1} | more,
            untracked=pytest.fail,
        )
    finally:
        await publisher.stop()


async def pod(settings: Settings) -> int:
    """The exit code of what KEDA's Job would run."""
    told = settings.model_dump(exclude_none=True, exclude={"host", "port", "instance"})
    environment = {f"MILLSTREAM_{name.upper()}": str(value) for name, value in told.items()}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "millstream_trainer.adapters.taking_job"), env=os.environ | environment
    )
    try:
        return await process.wait()
    finally:
        with suppress(ProcessLookupError):
            process.kill()


async def left(settings: Settings, group: str = TRAINING_JOBS_GROUP) -> int:
    """What KEDA takes for lag: of a partition without an offset all that was ever written."""
    from aiokafka import AIOKafkaConsumer, TopicPartition

    consumer = AIOKafkaConsumer(bootstrap_servers=settings.kafka, group_id=group, enable_auto_commit=False)
    await consumer.start()
    try:
        await consumer._client.force_metadata_update()
        known = consumer.partitions_for_topic(TRAINING_JOBS.name) or ()
        parts = [TopicPartition(TRAINING_JOBS.name, part) for part in known]
        ends = await consumer.end_offsets(parts)
        return sum([ends[part] - (await consumer.committed(part) or 0) for part in parts])
    finally:
        await consumer.stop()


@pytest.fixture
def spec(settings: Settings, first_run: Callable[[str], RunSpec], unique_name: Callable[[str], str]) -> RunSpec:
    return msgspec.structs.replace(first_run(settings.lake), run=unique_name("run"))


async def test_a_run_is_offered_done_once_by_pods_that_race_and_counted_off(
    settings: Settings, spec: RunSpec, claims: Claims, until: Until
) -> None:
    async with dispatcher(settings) as first, dispatcher(settings) as second:
        running = [asyncio.create_task(one.run(spec)) for one in (first, second)]
        await _waits(settings, 2)
        codes = await asyncio.gather(pod(settings), pod(settings))
        results = await asyncio.gather(*running)
    assert codes == [0, 0]
    assert results[0].passed, results[0].reason
    assert results[0] == results[1]
    assert claims.token(name_of(spec)) == 1, "both pods began it"
    # The one that found it taken may have looked before it ended; the next look is KEDA's.
    assert await pod(settings) == 0
    assert await left(settings) == 0
    async with dispatcher(settings) as later:
        assert await later.run(spec) == results[0]
    assert await left(settings) == 0, "what has ended is not offered again"


async def _waits(settings: Settings, count: int, group: str = TRAINING_JOBS_GROUP) -> None:
    async with asyncio.timeout(30):
        while await left(settings, group) < count:  # noqa: ASYNC110  Kafka tells nobody
            await asyncio.sleep(0.2)


async def test_a_run_that_says_why_it_failed_is_counted_off_too(settings: Settings, spec: RunSpec) -> None:
    ahead = msgspec.structs.replace(spec, positions={"ships-arrived": {0: 99_999}})
    async with dispatcher(settings) as office:
        running = asyncio.create_task(office.run(ahead))
        await _waits(settings, 1)
        assert await pod(settings) == 3
        with pytest.raises(RunFailed, match=r"ships-arrived.*99999"):
            await running
    assert await left(settings) == 0


async def test_pods_that_end_without_a_word_are_counted(
    settings: Settings, spec: RunSpec, claims: Claims, until: Until
) -> None:
    name = name_of(spec)
    async with dispatcher(settings) as office:
        running = asyncio.create_task(office.run(spec))
        await _waits(settings, 1)
        for _ in range(settings.job_tries):
            claims.seize(name)
        file = claims._file(name, settings.job_tries)
        os.utime(file, (file.stat().st_mtime - 61,) * 2)
        assert await pod(settings) == 3
        with pytest.raises(RunFailed, match="3 pods ended without a word, of memory for example; MILLSTREAM_JOB_TRIES"):
            await running


async def test_a_record_that_nobody_can_read_holds_nothing_up(settings: Settings, spec: RunSpec, kafka: Any) -> None:
    from aiokafka import AIOKafkaProducer

    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap)
    await producer.start()
    try:
        await producer.send_and_wait(TRAINING_JOBS.name, b"\xff{", key=b"x", headers=[("ce_type", b"\xff")])
        await producer.send_and_wait(TRAINING_JOBS.name, b"{}", key=b"y")
    finally:
        await producer.stop()
    assert await pod(settings) == 0
    assert await left(settings) == 0


async def test_where_kafka_forgot_the_offsets_one_pod_says_them_again(
    settings: Settings,
    notes: RunNotes,
    claims: Claims,
    unique_name: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A week after the last run Kafka has neither the group's offsets nor the records: KEDA would start pods for ever."""
    from aiokafka import AIOKafkaProducer, TopicPartition
    from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

    group = unique_name("forgotten")
    monkeypatch.setattr(taking_job, "TRAINING_JOBS_GROUP", group)
    parts = range(TRAINING_JOBS.partitions)
    producer, admin = (kind(bootstrap_servers=settings.kafka) for kind in (AIOKafkaProducer, AIOKafkaAdminClient))
    await asyncio.gather(producer.start(), admin.start())
    try:
        for part in parts:
            await producer.send_and_wait(TRAINING_JOBS.name, b"{}", partition=part)
        await admin.delete_records({TopicPartition(TRAINING_JOBS.name, part): RecordsToDelete(-1) for part in parts})
    finally:
        await asyncio.gather(producer.stop(), admin.close())
    assert await left(settings, group) >= TRAINING_JOBS.partitions

    await taking_job.commit(settings.kafka, await taking_job.read(settings.kafka), claims)

    assert await left(settings, group) == 0
    async with dispatcher(settings) as office:
        spec = msgspec.structs.replace(SPEC, run=unique_name("run"))
        running = asyncio.create_task(office.run(spec))
        await _waits(settings, 1, group)  # for the pods' own group the records from above wait still
        await taking_job.commit(settings.kafka, await taking_job.read(settings.kafka), claims)
        assert await left(settings, group) == 1, "what waits stays"
        claims.take(name_of(spec))
        notes.say(note_of(name_of(spec), 1), Said(result=passes(spec)))
        assert (await running).passed
    assert await pod(settings) == 0


async def test_a_run_that_no_pod_takes_is_called_off_and_begun_by_none_that_comes_late(
    settings: Settings, unique_name: Callable[[str], str], claims: Claims
) -> None:
    spec = msgspec.structs.replace(SPEC, run=unique_name("run"))
    async with dispatcher(settings, patience=0.5) as office:
        with pytest.raises(
            RunFailed, match=r"no pod took it within 0 s, .* is KEDA there, and is its ScaledJob Ready\?"
        ):
            await office.run(spec)
    assert claims.ended(name_of(spec)) is not None
    assert await pod(settings) == 0
    assert claims.token(name_of(spec)) == 1, "a pod began what was called off"


async def test_the_word_of_who_was_quicker_than_the_call_off_is_believed(
    settings: Settings,
    notes: RunNotes,
    claims: Claims,
    unique_name: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec = msgspec.structs.replace(SPEC, run=unique_name("run"))
    done = Said(result=passes(spec))
    name = name_of(spec)

    def quicker(self: Claims, run: str) -> None:
        assert claims.take(run) == 1
        notes.say(note_of(run, 1), done)

    monkeypatch.setattr(Claims, "seize", quicker)
    async with dispatcher(settings, patience=0.2) as office:
        assert await office.run(spec) == done.result
    assert claims.ended(name) == done


def test_what_is_offered_says_the_run_and_no_secret(settings: Settings) -> None:
    offered = RunOffered(id=name_of(SPEC), loop=SPEC.loop, run=SPEC.run, spec=msgspec.json.encode(SPEC).decode())
    assert msgspec.json.decode(msgspec.json.decode(offered.encode(), type=RunOffered).spec, type=RunSpec) == SPEC
