"""The whole trainer on a real Kafka and a real MLflow: verdicts in, a promoted model out, and the same after a restart."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from millstream.contracts.envelope import Envelope
from millstream.contracts.events import (
    Cause,
    Event,
    Finding,
    ModelRef,
    ModelState,
    Outcome,
    RetrainDecided,
    RetrainRequested,
    RolloutMoved,
    Step,
    TrainingFinished,
    TrainingStarted,
    decode_event,
)
from millstream.contracts.times import from_datetime, now
from millstream.contracts.topics import MODELS, REPLICAS, RETRAIN, TRAINING, VERDICTS, dead_letter_topic
from millstream.runtime.publisher import Outgoing
from millstream.runtime.service import Service
from millstream.runtime.topic_admin import TopicSpec, ensure_topics, our_topics
from millstream_trainer.adapters.memory import MemoryEnds, MemoryExecutor
from millstream_trainer.app import create_app
from millstream_trainer.domain.rollout import entered
from millstream_trainer.domain.run import RunResult, RunSpec
from millstream_trainer.domain.state import LoopState
from millstream_trainer.ports import Executor
from millstream_trainer.settings import Settings
from millstream_trainer.subscribers import GROUP

from .test_trainer_rollout import STEPS
from .trainer_kit import judged, obeyed, ref

Until = Callable[..., Any]


def passes(spec: RunSpec) -> RunResult:
    model = ModelRef(version=spec.version, run=spec.run, uri="file:///m", sha256="0", at=spec.at)
    return RunResult(passed=True, reason="better", model=model, rows=1, metrics={}, gate=[], mlflow_run=None)


@pytest.fixture
async def settings(kafka: Any, harbour: Path, tmp_path: Path) -> Settings:
    """A trainer on topics emptied of other tests: each test has its own Kafka topics by deleting what was there."""
    from aiokafka.admin import AIOKafkaAdminClient

    ours = [TRAINING, MODELS, VERDICTS, RETRAIN, REPLICAS]
    dead = [dead_letter_topic(topic.name, GROUP) for topic in (VERDICTS, RETRAIN)]
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    try:
        there = set(await admin.list_topics()) & {topic.name for topic in ours}
        if there:
            await admin.delete_topics(sorted(there))
            async with asyncio.timeout(30):
                while there & set(await admin.list_topics()):  # noqa: ASYNC110  deletion is asynchronous in Kafka
                    await asyncio.sleep(0.05)
    finally:
        await admin.close()
    specs = [*our_topics(ours), *(TopicSpec(name=name, partitions=1, retention=None) for name in dead)]
    await ensure_topics(kafka.bootstrap, specs)
    return Settings(
        kafka=kafka.bootstrap,
        project=harbour,
        lake=str(tmp_path / "lake"),
        packages=str(tmp_path / "packages"),
        data=tmp_path / "data",
        train_threads=1,
        lake_patience=5,
        warm=False,
        session_timeout_ms=6000,
    )


@asynccontextmanager
async def running(settings: Settings, executor: Executor | None) -> AsyncIterator[Service]:
    service = create_app(settings, executor=executor, ends=MemoryEnds())
    async with service.app.router.lifespan_context(service.app):
        yield service


async def say(service: Service, topic: str, event: Event) -> None:
    id = str(getattr(event, "id"))  # noqa: B009
    await service.publisher.publish([service.publisher.outgoing(topic, event, id=id, key="tides")])


async def said(settings: Settings, *topics: str) -> list[Event]:
    """Everything that lies in `topics`, in order."""
    from aiokafka import AIOKafkaConsumer, TopicPartition

    consumer = AIOKafkaConsumer(bootstrap_servers=settings.kafka, enable_auto_commit=False)
    await consumer.start()
    try:
        found: list[Event] = []
        for topic in topics:
            partition = TopicPartition(topic, 0)
            consumer.assign([partition])
            await consumer.seek_to_beginning(partition)
            end = (await consumer.end_offsets([partition]))[partition]
            while await consumer.position(partition) < end:
                for record in (await consumer.getmany(timeout_ms=100)).get(partition, []):
                    headers = {name: value.decode() for name, value in record.headers}
                    event = decode_event(headers["ce_type"], record.value)
                    assert event is not None
                    found.append(event)
        return found
    finally:
        await consumer.stop()


async def finished(settings: Settings, runs: int, within: float = 90.0) -> list[TrainingFinished]:
    async with asyncio.timeout(within):
        while True:
            ended = [e for e in await said(settings, TRAINING.name) if isinstance(e, TrainingFinished)]
            if len(ended) >= runs:
                return ended
            await asyncio.sleep(0.2)


async def revision(settings: Settings, revision: int) -> ModelState:
    """The model state of that revision, once it is published."""
    async with asyncio.timeout(30):
        while True:
            for state in await said(settings, MODELS.name):
                if isinstance(state, ModelState) and state.revision == revision:
                    return state
            await asyncio.sleep(0.1)


async def ready(service: Service, until: Until) -> None:
    await until(lambda: not service.health.not_ready())


async def shows(service: Service, wanted: Callable[[dict[str, Any]], bool]) -> None:
    """Once the trainer itself says so of its loop: it goes by what it has said a moment after anybody may read it."""
    trainer = httpx.AsyncClient(transport=httpx.ASGITransport(service.app), base_url="http://trainer")
    async with trainer as client, asyncio.timeout(30):
        while not wanted((await client.get("/v1/loops")).json()["loops"][0]):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def evening(service: Service, tides: Any) -> None:
    """Day 20 is heard of, so that a request of that night looks up to no time that has not come."""
    await say(service, VERDICTS.name, tides.judged(20.8, Finding.HEALTHY))
    await shows(service, lambda loop: datetime.fromisoformat(loop["stream_time"]) == tides.day(20.8))


async def rests(service: Service, settings: Settings, runs: int) -> list[TrainingFinished]:
    """All runs, once there are so many and none is under way: whoever asks then joins none of them."""
    ended = await finished(settings, runs)
    await shows(service, lambda loop: loop["running"] is None)
    return ended


async def test_a_verdict_becomes_a_decision_a_run_and_a_champion_and_a_restart_repeats_none(
    settings: Settings, tides: Any, until: Until
) -> None:
    executor = MemoryExecutor(passes)
    executor.gate.clear()
    async with running(settings, executor) as service:
        await ready(service, until)
        await say(service, VERDICTS.name, tides.matured(10))
        await say(service, VERDICTS.name, tides.judged(20))  # joins the run, which is held until then
        await shows(service, lambda loop: (loop["last_decision"] or {}).get("request") == "detected-20")
        executor.gate.set()
        await finished(settings, 1)
    executor = MemoryExecutor(passes)
    async with running(settings, executor) as service:
        await ready(service, until)
        await say(service, VERDICTS.name, tides.judged(30, version="1", id="new"))
        await until(lambda: executor.specs != [])
        await finished(settings, 2)
    journal = await said(settings, TRAINING.name)
    decided = [event for event in journal if isinstance(event, RetrainDecided)]
    assert [event.request for event in decided] == ["labels-10", "detected-20", "new"]
    assert len([event for event in journal if isinstance(event, TrainingStarted)]) == 2
    states = [event for event in await said(settings, MODELS.name) if isinstance(event, ModelState)]
    assert [state.revision for state in states] == [1, 2]


async def test_a_trainer_that_ends_in_the_middle_of_a_run_takes_it_up_again(
    settings: Settings, tides: Any, until: Until
) -> None:
    stuck = MemoryExecutor(passes)
    stuck.gate.clear()
    async with running(settings, stuck) as service:
        await ready(service, until)
        await say(service, VERDICTS.name, tides.matured(10))
        await until(lambda: stuck.under_way == 1)
    async with running(settings, MemoryExecutor(passes)) as service:
        await ready(service, until)
        (ended,) = await finished(settings, 1)
    assert (ended.outcome, ended.attempt, ended.version) == (Outcome.PROMOTED, 2, "1")


async def test_a_trial_on_kafka_goes_on_after_a_restart_and_a_person_and_a_replica_end_it(
    settings: Settings, tides: Any, until: Until
) -> None:
    async with running(settings, MemoryExecutor(passes)) as service:
        await ready(service, until)
        await say(service, VERDICTS.name, tides.matured(10))
        await rests(service, settings, 1)
        await say(service, VERDICTS.name, tides.judged(20))
        _, ended = await finished(settings, 2)
        assert ended.outcome is Outcome.ON_TRIAL
        await say(service, VERDICTS.name, judged(tides.day(22), "2", "1", pairs=1000))
        await revision(settings, 3)
    async with running(settings, MemoryExecutor(passes)) as service:
        await ready(service, until)
        await say(service, VERDICTS.name, judged(tides.day(23), "2", "1", pairs=1500))
        assert (await revision(settings, 4)).share == 0.5
        async with httpx.AsyncClient(transport=httpx.ASGITransport(service.app), base_url="http://trainer") as client:
            wish = {"by": "Ada", "reason": "the harbour said so"}
            assert (await client.post("/v1/loops/tides/freeze", json=wish)).status_code == 202
            assert (await revision(settings, 5)).frozen == "Ada: the harbour said so"
            await shows(service, lambda loop: bool(loop["frozen"]))
            assert (await client.post("/v1/loops/tides/unfreeze", json=wish)).status_code == 202
            await revision(settings, 6)
        await say(service, REPLICAS.name, obeyed(5, refused=6, at=now()))
        taken_back = await revision(settings, 7)
    assert (taken_back.step, taken_back.challenger) == (Step.REJECTED, None)
    moved = [event for event in await said(settings, TRAINING.name) if isinstance(event, RolloutMoved)]
    assert [one.revision for one in moved] == [1, 2, 3, 4, 5, 6, 7]


async def test_a_promotion_that_waits_for_a_replica_is_ended_by_its_word_after_a_restart(
    settings: Settings, tides: Any, until: Until
) -> None:
    async with running(settings, MemoryExecutor(passes)) as service:
        await ready(service, until)
        await say(service, REPLICAS.name, obeyed(0, at=now()))
        live = ("millstream_replicas_live", {"loop": "tides"})
        await until(lambda: service.registry.get_sample_value(*live) == 1)
        await say(service, VERDICTS.name, tides.matured(10))
        await finished(settings, 1)
        assert (await revision(settings, 1)).promoting == 1
    async with running(settings, MemoryExecutor(passes)) as service:
        await ready(service, until)
        await say(service, REPLICAS.name, obeyed(1, at=now()))
        assert (await revision(settings, 2)).promoting == 0
    moved = [event for event in await said(settings, TRAINING.name) if isinstance(event, RolloutMoved)]
    assert [one.reason for one in moved] == ["better", "1 of 1 replicas obey it"]


async def test_a_state_that_the_journal_announced_is_there_after_a_restart(
    settings: Settings, tides: Any, until: Until
) -> None:
    """As if the trainer had been killed between the step and its state."""
    moved = entered(LoopState(loop="tides"), ref("1"), STEPS, at=from_datetime(tides.day(10)), reason="better")
    assert moved is not None
    async with running(settings, MemoryExecutor(passes)) as service:
        await ready(service, until)
        await say(service, TRAINING.name, moved)
    async with running(settings, MemoryExecutor(passes)) as service:
        await ready(service, until)
        assert await revision(settings, 1) == moved.led_to


async def test_a_request_that_waits_survives_a_restart_and_is_decided_once(
    settings: Settings, tides: Any, until: Until, harbour: Path, tmp_path: Path
) -> None:
    """An alert at night, a restart, the morning."""
    quiet = tmp_path / "quiet"
    shutil.copytree(harbour, quiet)
    loop = quiet / "loops" / "tides.yaml"
    loop.write_text(loop.read_text() + "retrain: {quiet: ['22:00-06:00']}\n")
    settings = settings.model_copy(update={"project": quiet})
    alert = RetrainRequested(
        id="alert", loop="tides", cause=Cause.ALERT, by="Alertmanager", reason="TidesOff", at=tides.day(20.95)
    )
    async with running(settings, MemoryExecutor(passes)) as service:
        await ready(service, until)
        await say(service, VERDICTS.name, tides.matured(10))
        await say(service, VERDICTS.name, tides.judged(10.4, Finding.HEALTHY))
        await rests(service, settings, 1)
        await evening(service, tides)
        await say(service, RETRAIN.name, alert)
        await shows(service, lambda loop: loop["waiting"] is not None)
    async with running(settings, MemoryExecutor(passes)) as service:
        await ready(service, until)
        await say(service, VERDICTS.name, tides.judged(21.5, Finding.HEALTHY))
        await finished(settings, 2)
    decided = [event for event in await said(settings, TRAINING.name) if isinstance(event, RetrainDecided)]
    assert [(one.request, one.at) for one in decided][1:] == [("alert", tides.day(21.5))]


async def test_what_came_to_another_dispatcher_and_led_to_no_word_is_heard_by_who_takes_over(
    settings: Settings, tides: Any, until: Until, harbour: Path, tmp_path: Path
) -> None:
    """The first holds the requests' partition, hears an alert at night, commits it, and stops."""
    quiet = tmp_path / "quiet"
    shutil.copytree(harbour, quiet)
    loop = quiet / "loops" / "tides.yaml"
    loop.write_text(loop.read_text() + "retrain: {quiet: ['22:00-06:00']}\n")
    settings = settings.model_copy(update={"project": quiet, "instance": "a"})
    alert = RetrainRequested(
        id="alert", loop="tides", cause=Cause.ALERT, by="Alertmanager", reason="TidesOff", at=tides.day(20.95)
    )

    def waits(service: Service) -> bool:
        return service.registry.get_sample_value("millstream_retrains_waiting", {"loop": "tides"}) == 1

    async with running(settings, MemoryExecutor(passes)) as first:
        await ready(first, until)
        await say(first, VERDICTS.name, tides.matured(10))
        await say(first, VERDICTS.name, tides.judged(10.4, Finding.HEALTHY))
        await rests(first, settings, 1)
        await evening(first, tides)
        other = settings.model_copy(update={"instance": "b"})
        async with running(other, MemoryExecutor(passes)) as second:
            await ready(second, until)
            await say(first, RETRAIN.name, alert)
            await until(lambda: waits(first))
            assert not waits(second)
            await first._broker.stop()  # type: ignore[union-attr]  # leaves the group, as a process that ends
            await until(lambda: waits(second))


async def test_strangers_records_go_to_the_dead_letters_and_the_rest_is_heard(
    settings: Settings, tides: Any, until: Until
) -> None:
    async with running(settings, MemoryExecutor(passes)) as service:
        await ready(service, until)
        headers = Envelope(id="x", type="millstream.window.judged.v1", source="stranger").headers()
        await service.publisher.publish([Outgoing(VERDICTS.name, b"tides", b"{not json", headers)])
        await say(service, VERDICTS.name, tides.matured(10))
        (ended,) = await finished(settings, 1)
    assert ended.outcome is Outcome.PROMOTED
    reasons = service.metrics.dead_letters.labels(VERDICTS.name, GROUP, "invalid_event")
    assert reasons._value.get() >= 1


@pytest.mark.timeout(400)  # MLflow's start, and a run that imports Feast
async def test_a_real_run_is_tracked_registered_and_promoted(
    settings: Settings, tides: Any, until: Until, mlflow_server: Any, harbour: Path, ships: Any, fill_lake: Any
) -> None:
    from mlflow.tracking import MlflowClient

    fill_lake(settings.lake, harbour, ships)
    tracked = settings.model_copy(update={"mlflow": mlflow_server.url})
    async with running(tracked, None) as service:
        await ready(service, until)
        await say(service, VERDICTS.name, tides.matured(61, matured=2790))
        (ended,) = await finished(settings, 1, within=240)
        assert ended.outcome is Outcome.PROMOTED, ended.reason
        assert ended.rows > 2000
        assert ended.mlflow_run is not None
        client = MlflowClient(tracking_uri=mlflow_server.url, registry_uri=mlflow_server.url)
        await until(lambda: client.get_run(ended.mlflow_run).info.status == "FINISHED")
    champion = client.get_model_version_by_alias("tides", "champion")
    assert champion.tags["millstream.run"] == ended.run
    run = client.get_run(ended.mlflow_run)
    assert run.data.metrics["auc"] == pytest.approx(ended.metrics["auc"])
    assert run.data.params["rounds"] == "40"
    names = {artifact.path for artifact in client.list_artifacts(ended.mlflow_run, "package")}
    assert names == {f"package/{file}" for file in ("gate.json", "manifest.json", "model.onnx", "reference.json")}
    charts = {artifact.path for artifact in client.list_artifacts(ended.mlflow_run, "charts")}
    assert charts == {f"charts/{name}.png" for name in ("calibration", "importance", "roc")}
    (rows,) = run.inputs.dataset_inputs
    assert run.data.tags["millstream.content_sha256"].startswith(rows.dataset.digest)
