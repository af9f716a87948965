"""Reads a batch for tiles and lake alike: what both keep, and what neither can."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from millstream.codecs.codec import JSON, Codec
from millstream.errors import RejectEvent
from millstream.project.stream import Stream
from millstream.runtime.delivery import Batch, Rejected
from millstream.runtime.user_events import UserEvent, read_batch
from millstream_features.ports import Slice
from millstream_tiles.event_names import LONGEST_NAME, EventNames

log = logging.getLogger(__name__)


def read_events(
    stream: Stream, names: EventNames, batch: Batch, codec: Codec = JSON
) -> tuple[list[UserEvent], list[Rejected]]:
    """The events of a batch that tiles and lake can keep, and the records that cannot be used: the same for both."""
    events, rejected = read_batch(stream, batch, codec)
    said = [event.event for event in events]
    suspects = events
    if not names.numeric and codec is JSON and not names.empty(said):
        # Nearly every event is too short for a name that is too long; to see that costs a hundredth of reading it.
        suspects = [event for event in events if len(event.record.value or b"") > LONGEST_NAME]
    odd = {
        (record := events[place].record).offset: Rejected(record, RejectEvent("bad_number", fault))
        for place, fault in names.beyond(said).items()
    }
    for event in suspects:
        if (fault := names.fault(event.event)) is not None:
            odd[event.record.offset] = Rejected(event.record, RejectEvent("bad_key", fault))
    if odd:
        events = [event for event in events if event.record.offset not in odd]
        rejected = sorted([*rejected, *odd.values()], key=lambda one: one.record.offset)
    return events, rejected


def slice_of(batch: Batch, events: Sequence[UserEvent]) -> Slice:
    return Slice(stream=batch.topic, partition=batch.partition, start=batch.start, end=batch.end, events=events)
