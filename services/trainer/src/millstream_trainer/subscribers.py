"""Kafka doorway of the trainer: its own journal first, then verdicts and requests."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from millstream.contracts.events import Event, LabelsMatured, RetrainRequested, WindowJudged, decode_event
from millstream.contracts.topics import MODELS, RETRAIN, TRAINING, VERDICTS
from millstream.errors import RejectEvent
from millstream.runtime.delivery import Batch, Record, Rejected, envelope
from millstream.runtime.service import Service
from millstream.runtime.table import TopicReader
from millstream_trainer.errors import UnknownLoop
from millstream_trainer.handlers import Trainer

GROUP = "trainer"


def event_in(record: Record) -> Event | None:
    """Our event in a record; None for a type that this release does not know. Raises RejectEvent."""
    found = envelope(record)
    try:
        return decode_event(found.type, record.value or b"")
    except ValueError as error:
        raise RejectEvent("invalid_event", f"{found.type}: {error}") from error


def hear(service: Service, trainer: Trainer) -> None:
    """Wire both doorways. Verdicts are heard from their beginning each time: they carry what the journal does not
    (stream time, whether inputs are broken), they are few (about 500 a year and loop), and what was decided stays decided."""

    async def remember_everything() -> None:
        async def remember(record: Record) -> None:
            try:
                event = event_in(record)
            except RejectEvent:
                return  # only the trainer writes these topics; a stranger's record decides nothing
            if event is not None:
                trainer.remember(event)

        reader = TopicReader(bootstrap=service.settings.kafka, topics=[TRAINING.name, MODELS.name], apply=remember)
        reading = asyncio.create_task(reader.run())
        caught_up = asyncio.create_task(reader.caught_up.wait())
        try:
            await asyncio.wait({reading, caught_up}, return_when=asyncio.FIRST_COMPLETED)
            if reading.done():
                await reading
        finally:
            for task in (reading, caught_up):
                task.cancel()
            await asyncio.gather(reading, caught_up, return_exceptions=True)
        trainer.resume()

    async def batch(found: Batch) -> Sequence[Rejected]:
        return await hear_batch(trainer, found)

    async def from_the_beginning(partitions: Sequence[tuple[str, int]]) -> dict[tuple[str, int], int]:
        return {partition: 0 for partition in partitions if partition[0] == VERDICTS.name}

    service.before_hearing("training journal", remember_everything)
    service.keeps("training runs", trainer.work)
    service.hears([VERDICTS.name, RETRAIN.name], group=GROUP, handler=batch, assigned=from_the_beginning)


async def hear_batch(trainer: Trainer, batch: Batch) -> list[Rejected]:
    """Hear the records of one batch in order; those that are no event of ours, or of no loop of ours, are rejected."""
    rejected = []
    for record in batch.records:
        try:
            event = event_in(record)
            if isinstance(event, LabelsMatured | WindowJudged | RetrainRequested):
                await trainer.hear(event)
        except UnknownLoop as error:
            rejected.append(Rejected(record, RejectEvent("unknown_loop", str(error))))
        except RejectEvent as error:
            rejected.append(Rejected(record, error))
    return rejected
