"""A person's word to the trainer of a mill, and what came of it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from getpass import getuser
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from millstream.contracts.events import Decision, RetrainDecided, RolloutMoved
from millstream.contracts.topics import TRAINING
from millstream_cli.errors import CommandFailed, Stuck
from millstream_cli.journal import Told, row_of, told_of
from millstream_cli.mill import MillState
from millstream_cli.telling import moved

ANSWERED_WITHIN = 15.0
"""Seconds for the trainer's 202: it waits for Kafka's acks, which may take 12 while a broker goes away."""
GRACE = 1.0
"""Seconds after a step for another of the same request: a rollback ends a trial that stands in its way first."""


@dataclass(frozen=True, kw_only=True)
class Office:
    """Where a person's word goes, and where the answer is read."""

    trainer: str
    kafka: str | None
    """None: nobody waits for an answer."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came of a request."""

    request: str
    decided: tuple[Told, ...]
    """A decision, or steps of the rollout; none: nobody waited, or it is not decided yet."""

    @property
    def refused(self) -> bool:
        """Whether the policy said no."""
        no = (Decision.DECLINED, Decision.EXPIRED)
        return any(isinstance(one.event, RetrainDecided) and one.event.decision in no for one in self.decided)

    @property
    def words(self) -> str:
        """In a line for each."""
        return "\n".join(map(_words, self.decided)) or f"request {self.request} was taken"

    def as_json(self) -> dict[str, Any]:
        """For scripts."""
        return {"request": self.request, "refused": self.refused, "decided": [row_of(one) for one in self.decided]}


def _words(told: Told) -> str:
    event = told.event
    if isinstance(event, RetrainDecided):
        run = f", run {event.run}" if event.run is not None else ""
        return f"{event.decision.value}{run}: {event.reason}"
    assert isinstance(event, RolloutMoved), "nothing else is heard"
    state = event.led_to
    said = [moved(event)]
    if state is not None and state.champion is not None and state.champion.version != event.version:
        said.append(f"version {state.champion.version} answers")
    if state is not None:
        said += [f"frozen by {state.frozen}"] if state.frozen else []
        said += [f"pinned to version {state.pinned}"] if state.pinned else []
    return f"{', '.join(said)} ({event.reason})"


def office_of(root: Path, *, trainer: str | None, kafka: str | None, wait: bool) -> Office:
    """The mill that is named, else the one that runs in `root`. Raises CommandFailed."""
    if trainer is not None:
        if wait and kafka is None:
            raise CommandFailed("the answer is read from Kafka: name it with --kafka, or do not wait for it: --no-wait")
        return Office(trainer=trainer.rstrip("/"), kafka=kafka if wait else None)
    try:
        state = MillState.load(root)
    except CommandFailed as error:
        raise CommandFailed(f"{error}; or name a mill elsewhere: --trainer and --kafka") from error
    return Office(trainer=state.services["trainer"], kafka=(kafka or state.kafka) if wait else None)


def me() -> str:
    """The login name, for who says nothing else. Raises CommandFailed where the machine knows none."""
    try:
        return getuser()
    except (OSError, KeyError) as error:  # KeyError before Python 3.13
        raise CommandFailed("this machine does not say who you are; write it: --by NAME") from error


async def ask(office: Office, loop: str, path: str, body: Mapping[str, Any], within: float) -> Answer:
    """Send a word and wait for what comes of it, up to `within` seconds. Raises CommandFailed for a refusal, Stuck."""
    consumer = None if office.kafka is None else await _listen(office.kafka)
    try:
        request = await _post(f"{office.trainer}/v1/loops/{quote(loop, safe='')}/{path}", body)
        decided = () if consumer is None else await _hear(consumer, request, within)
    finally:
        if consumer is not None:
            await consumer.stop()
    return Answer(request=request, decided=decided)


async def _listen(kafka: str) -> AIOKafkaConsumer:
    """Stands at the end of the trainer's journal before anything is asked, so that no answer is missed."""
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka, enable_auto_commit=False)
    try:
        await consumer.start()
        there = await consumer.topics()
        if TRAINING.name not in there:
            raise Stuck(f"Kafka at {kafka} has no topic {TRAINING.name}: it is no mill's; nothing was asked")
        partitions = [TopicPartition(TRAINING.name, n) for n in consumer.partitions_for_topic(TRAINING.name) or {0}]
        consumer.assign(partitions)
        for partition, end in (await consumer.end_offsets(partitions)).items():
            consumer.seek(partition, end)
    except KafkaError as error:
        await consumer.stop()
        raise Stuck(f"Kafka at {kafka} does not answer: {error}; nothing was asked") from error
    except BaseException:
        await consumer.stop()
        raise
    return consumer


async def give(office: Office, loop: str, graph: bytes) -> str:
    """Send a graph that was made elsewhere; its sha256. Raises CommandFailed."""
    return await _send("PUT", f"{office.trainer}/v1/loops/{quote(loop, safe='')}/given", "model", content=graph)


async def _post(url: str, body: Mapping[str, Any]) -> str:
    return await _send("POST", url, "request", json=dict(body))


async def _send(method: str, url: str, wanted: str, **what: Any) -> str:
    headers = {"content-type": "application/octet-stream"} if "content" in what else None
    try:
        async with httpx.AsyncClient(timeout=ANSWERED_WITHIN) as http:
            response = await http.request(method, url, headers=headers, **what)
    except httpx.HTTPError as error:
        said = str(error) or type(error).__name__
        raise CommandFailed(f"the trainer does not answer at {url} ({said}); look with: millstream status") from error
    try:
        said = response.json()
        if response.is_success:
            return str(said[wanted])
        message = f"{said['message']}"
    except (ValueError, KeyError, TypeError):
        message = response.text[:500] or "without a word"
    raise CommandFailed(f"the trainer refused ({response.status_code}): {message}")


async def _hear(consumer: AIOKafkaConsumer, request: str, within: float) -> tuple[Told, ...]:
    """The decision, or the steps, that name `request` as their cause."""
    clock = asyncio.get_running_loop().time
    until = clock() + within
    steps: dict[str, Told] = {}
    while clock() < until:
        try:
            polled = await consumer.getmany(timeout_ms=100)
        except KafkaError as error:
            raise Stuck(f"request {request} was taken, but its answer cannot be read: {error!r}") from error
        for told in (told_of(record.headers, record.value) for records in polled.values() for record in records):
            if told is None or request not in (told.caused_by, getattr(told.event, "request", None)):
                continue
            if isinstance(told.event, RetrainDecided):
                return (told,)
            if isinstance(told.event, RolloutMoved):
                if not steps:
                    until = clock() + GRACE
                steps.setdefault(told.id, told)
    return tuple(steps.values())
