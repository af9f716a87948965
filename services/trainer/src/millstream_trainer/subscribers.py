"""Kafka doorway of the trainer: its own journal first, then what was said so far, then verdicts, requests and replicas."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from millstream.contracts.events import (
    Cause,
    ChallengerJudged,
    Event,
    LabelsMatured,
    ReplicaObeyed,
    RetrainRequested,
    RolloutRequested,
    RunApproved,
    WindowJudged,
    decode_event,
)
from millstream.contracts.topics import MODELS, REPLICAS, RETRAIN, TRAINING, VERDICTS, Topic
from millstream.errors import RejectEvent
from millstream.runtime.causes import Causes
from millstream.runtime.delivery import Batch, Record, Rejected, envelope
from millstream.runtime.service import Service
from millstream.runtime.table import TopicReader
from millstream.runtime.traced_batch import traceparent_of, within
from millstream_trainer.domain.replicas import LIVE
from millstream_trainer.errors import UnknownLoop
from millstream_trainer.handlers import Trainer

GROUP = "trainer"

ASKED = frozenset({Cause.ALERT, Cause.SYSTEM, Cause.MANUAL})
"""Causes of requests. The others are the trainer's own reading of verdicts and counts, whose rules they would pass."""

Listener = Callable[[Event], Awaitable[None]]


def event_in(record: Record) -> Event | None:
    """Our event in a record; None for a type that this release does not know. Raises RejectEvent."""
    found = envelope(record)
    if not found.type:
        raise RejectEvent("bad_headers", "no header ce_type says what this is, like millstream.retrain.requested.v1")
    try:
        event = decode_event(found.type, record.value or b"")
    except ValueError as error:
        raise RejectEvent("invalid_event", f"{found.type}: {error}") from error
    if isinstance(event, RetrainRequested) and event.cause not in ASKED:
        may = ", ".join(sorted(ASKED))
        raise RejectEvent(
            "invalid_event", f"{found.type}: cause {event.cause.value} is not asked for; write one of {may}"
        )
    return event


def hear(service: Service, trainer: Trainer, causes: Causes) -> None:
    """Wire the doorways. `causes` learns in which trace each event was said.

    The journal is read whole, and then the verdicts from their beginning, in their order: they carry what the journal does not
    (stream time, counts of labels, broken data, requests that wait), they are few (about 1,000 a year and loop), and what was
    decided stays decided. After them the requests that nobody has answered: those that were waiting. Where the group goes on
    reading, some are heard twice.
    """

    gained = False

    async def remember(event: Event) -> None:
        trainer.remember(event)

    async def verdict(event: Event) -> None:
        if isinstance(event, LabelsMatured | WindowJudged | ChallengerJudged) and event.loop in trainer.states:
            await trainer.hear(event)

    async def request(event: Event) -> None:
        # Only these may wait. Whatever else a person asked for was answered before its record was committed, or is heard below.
        if isinstance(event, RetrainRequested) and event.loop in trainer.states:
            await trainer.hear(event)

    async def obeyed(event: Event) -> None:
        if isinstance(event, ReplicaObeyed):
            await trainer.hear_replica(event)

    async def remember_journal() -> None:
        await _read_whole(service, [TRAINING, MODELS], remember, causes)
        await trainer.resume()

    async def know_replicas() -> None:
        # Before a verdict or a run promotes anything: a promotion waits for those that are known to live.
        reading = await _until_read(_reader(service, [REPLICAS], obeyed, causes, since=lambda: trainer.clock() - LIVE))

        async def stop() -> None:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

        service.keeps("replicas", lambda: reading)
        service.at_stop(stop)

    async def hear_again() -> None:
        await _read_whole(service, [VERDICTS], verdict, causes)
        await _read_whole(service, [RETRAIN], request, causes)

    async def assigned(partitions: Sequence[tuple[str, int]]) -> dict[tuple[str, int], int]:
        # What came to another dispatcher meanwhile, and led it to no word, is committed and in no journal.
        nonlocal gained
        if gained:
            await hear_again()
        gained = True
        return {}

    async def batch(found: Batch) -> Sequence[Rejected]:
        return await hear_batch(trainer, found, causes)

    service.before_hearing("training journal", remember_journal)
    service.before_hearing("replicas", know_replicas)
    service.before_hearing("verdicts so far", hear_again)
    service.keeps("training runs", trainer.work)
    service.keeps("promotions", trainer.promote)
    service.hears([VERDICTS.name, RETRAIN.name], group=GROUP, handler=batch, assigned=assigned)


def _reader(
    service: Service,
    topics: Sequence[Topic],
    listener: Listener,
    causes: Causes,
    since: Callable[[], int] = lambda: 0,
) -> TopicReader:
    """What is older than `since()`, in microseconds by Kafka's time, is passed over."""

    async def apply(record: Record) -> None:
        if record.timestamp * 1000 < since():
            return
        try:
            event = event_in(record)
        except RejectEvent:
            return  # a stranger's record decides nothing; where it was to be heard, the group has buried it
        if event is not None:
            causes.learn(envelope(record).id, traceparent_of(record.headers))
            await listener(event)

    return TopicReader(bootstrap=service.kafka, topics=[topic.name for topic in topics], apply=apply)


async def _read_whole(service: Service, topics: Sequence[Topic], listener: Listener, causes: Causes) -> None:
    """Everything that lies in `topics` now. Raises what `listener` raises."""
    reading = await _until_read(_reader(service, topics, listener, causes))
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)


async def _until_read(reader: TopicReader) -> asyncio.Task[None]:
    """The task that reads on, once the end is reached. Raises what ended it before."""
    reading = asyncio.create_task(reader.run())
    caught_up = asyncio.create_task(reader.caught_up.wait())
    try:
        await asyncio.wait({reading, caught_up}, return_when=asyncio.FIRST_COMPLETED)
        if reading.done():
            await reading
        return reading
    except BaseException:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        raise
    finally:
        caught_up.cancel()


async def hear_batch(trainer: Trainer, batch: Batch, causes: Causes) -> list[Rejected]:
    """Hear the records of one batch in order, each in its own trace; those that are no event of ours, or of no loop of ours,
    are rejected."""
    rejected = []
    heard = LabelsMatured | WindowJudged | ChallengerJudged | RetrainRequested | RunApproved | RolloutRequested
    for record in batch.records:
        try:
            event = event_in(record)
            if isinstance(event, heard):
                causes.learn(event.id, traceparent_of(record.headers))
                with within(record.headers):
                    await trainer.hear(event)
        except UnknownLoop as error:
            rejected.append(Rejected(record, RejectEvent("unknown_loop", str(error))))
        except RejectEvent as error:
            rejected.append(Rejected(record, error))
    return rejected
