"""What a pod does that KEDA started: it takes one run that waits, does it, and tells KEDA through the group what is left.

python -m millstream_trainer.adapters.taking_job, with the trainer's settings in the environment. It is no member of the group
and reads from its offsets: a partition of its own would hold what lies behind a long run. Where nothing waits it ends at once.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
from collections.abc import Mapping

import msgspec
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError
from pydantic import ValidationError

from millstream.contracts.envelope import envelope_of
from millstream.contracts.events import RunOffered, decode_event
from millstream.contracts.topics import TRAINING_JOBS, TRAINING_JOBS_GROUP
from millstream.errors import BadSetup, RetryLater
from millstream.runtime.kafka_clients import Consumer
from millstream.runtime.kafka_security import Bootstrap
from millstream.runtime.logs import configure_logs
from millstream_trainer.adapters.claims import BEAT, Claims, note_of
from millstream_trainer.adapters.run_notes import RunNotes
from millstream_trainer.adapters.training_job import FAILED, UNUSABLE, do_run
from millstream_trainer.adapters.training_process import Said
from millstream_trainer.adapters.workplace import workplace_of
from millstream_trainer.domain.run import RunSpec
from millstream_trainer.settings import Settings

log = logging.getLogger(__name__)

WITHIN = 60.0
"""Seconds to read what waits: a week of runs is a few hundred records."""

OVERTAKEN = 4
"""Another pod has the run, or the trainer called it off. Also: Kafka or the folder is away. Another pod may fare better."""

Offers = dict[TopicPartition, list[tuple[int, RunOffered | None]]]
"""Of every partition, in their order: offset and run, None where the record is none of ours, or where the partition ends."""


def main() -> int:
    """Exit code: 0 for a model, or where nothing waited."""
    try:
        settings = Settings()
        kafka = settings.at(settings.kafka)
    except (ValidationError, BadSetup) as error:
        print(f"training job: it wants the trainer's settings: {error}", file=sys.stderr)
        return UNUSABLE
    configure_logs("trainer", settings.log_level)
    notes = RunNotes(settings.packages)
    claims = Claims(notes)
    try:
        offers = asyncio.run(read(kafka))
        code = _take(settings, [one for some in offers.values() for _, one in some if one is not None], claims, notes)
        asyncio.run(commit(kafka, offers, claims))
    except (RetryLater, KafkaError, TimeoutError, OSError) as error:
        log.error("the run waits for another pod: %s", str(error) or "timeout")
        return OVERTAKEN
    return code


async def read(kafka: Bootstrap) -> Offers:
    """What was offered and has not ended, as far as the group knows. Raises KafkaError, TimeoutError."""
    offers: Offers = {}
    consumer = Consumer(kafka, group_id=TRAINING_JOBS_GROUP, enable_auto_commit=False, auto_offset_reset="earliest")
    async with asyncio.timeout(WITHIN):
        await consumer.start()
        try:
            await (
                consumer._client.force_metadata_update()
            )  # of a topic that it is not subscribed to it knows nothing else
            known = consumer.partitions_for_topic(TRAINING_JOBS.name) or ()
            parts = [TopicPartition(TRAINING_JOBS.name, part) for part in sorted(known)]
            consumer.assign(parts)
            ends = await consumer.end_offsets(parts)
            while any([await consumer.position(part) < ends[part] for part in parts]):
                for part, records in (await consumer.getmany(timeout_ms=500)).items():
                    offers.setdefault(part, []).extend(
                        (one.offset, _offered(one.headers, one.value)) for one in records
                    )
            for part in parts:
                offers.setdefault(part, []).append((await consumer.position(part), None))
        finally:
            await consumer.stop()
    return offers


async def commit(kafka: Bootstrap, offers: Offers, claims: Claims) -> None:
    """The first that has not ended, in each partition: KEDA takes it and what follows for lag. Raises KafkaError, TimeoutError.

    Of each, also where nothing was left: Kafka forgets the offsets of a group without members after a week, as the topic its
    records, and for a partition without an offset KEDA takes all that was ever written for lag."""
    waits: dict[TopicPartition, int] = {}
    for part, records in offers.items():
        left = (offset for offset, offered in records if offered is not None and claims.ended(offered.id) is None)
        waits[part] = next(left, records[-1][0])
    if not waits:
        return
    consumer = Consumer(kafka, group_id=TRAINING_JOBS_GROUP, enable_auto_commit=False)
    async with asyncio.timeout(WITHIN):
        await consumer.start()
        try:
            consumer.assign(list(waits))
            await consumer.commit(_forward(waits, {part: await consumer.committed(part) or 0 for part in waits}))
        finally:
            await consumer.stop()


def _forward(waits: Mapping[TopicPartition, int], before: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
    """Another pod may have come further meanwhile."""
    return {part: max(offset, before[part]) for part, offset in waits.items()}


def _offered(headers: tuple[tuple[str, bytes], ...], value: bytes | None) -> RunOffered | None:
    try:
        event = decode_event(envelope_of(headers).type, value or b"")
    except (ValueError, msgspec.DecodeError) as error:
        log.error("a record of %s cannot be read and is left out: %s", TRAINING_JOBS.name, error)
        return None
    return event if isinstance(event, RunOffered) else None


def _take(settings: Settings, offered: list[RunOffered], claims: Claims, notes: RunNotes) -> int:
    """Does the first that nobody does."""
    for one in offered:
        if claims.ended(one.id) is not None:
            continue
        before = claims.token(one.id)
        token = claims.take(one.id)
        if token is None:
            continue
        known = note_of(one.id, token)
        # It may have had its last word between our look and our claim, and is believed.
        word = notes.read(note_of(one.id, before)) if before else None
        if word is not None and word.last:
            notes.say(known, word)
        elif token > settings.job_tries:
            tries = f"{token - 1} pods ended without a word, of memory for example"
            notes.say(known, word := Said(failed=f"run {one.id}: {tries}; MILLSTREAM_JOB_TRIES is how many may"))
        else:
            log.info("run taken", extra={"loop": one.loop, "job": one.id, "token": token})
            threading.Thread(target=_stay, args=(one.id, token, claims), daemon=True).start()
            word = do_run(known, msgspec.json.decode(one.spec, type=RunSpec), workplace_of(settings), notes)
        return FAILED if word.result is None else 0
    log.info("no run waits")
    return 0


def _stay(run: str, token: int, claims: Claims, beat: float = BEAT) -> None:
    """Says that the pod is alive, and ends it when the run is another's."""
    stop = threading.Event()
    while not stop.wait(beat):
        try:
            if claims.beat(run, token):
                continue
        except RetryLater as error:
            log.warning("no sign of life: %s", error)
            continue
        log.error("another pod has taken the run, or the trainer called it off", extra={"job": run})
        os._exit(OVERTAKEN)


if __name__ == "__main__":
    sys.exit(main())
