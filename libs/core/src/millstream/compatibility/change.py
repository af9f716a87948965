"""What a change of a schema breaks, and for whom."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

from millstream.compatibility.json_schema import refusals
from millstream.project.stream import Stream

if TYPE_CHECKING:
    from millstream.codecs.avro_schema import AvroSchema
    from millstream.codecs.proto_schema import ProtoSchema

Direction = Literal["backward", "forward"]
DIRECTIONS: dict[str, tuple[Direction, ...]] = {
    "backward": ("backward",),
    "forward": ("forward",),
    "full": ("backward", "forward"),
    "none": (),
}
"""`compatibility` of a stream → what is looked at."""
_WHO = {
    "backward": "events that were written before are refused now",
    "forward": "events that are written now are refused by who still has the schema of before",
}


@dataclass(frozen=True, kw_only=True)
class Break:
    """One field that a change breaks."""

    direction: Direction
    pointer: str
    message: str
    remedy: str

    @property
    def where(self) -> str:
        """What breaks, in which direction, and what that means."""
        return f"{self.pointer or 'the event'}: {self.message}; not {self.direction} compatible: {_WHO[self.direction]}"


def breaks(old: Stream, new: Stream) -> Iterator[Break]:
    """What the step from `old` to `new` breaks of what `new` promises in `compatibility`."""
    for direction in DIRECTIONS[new.compatibility]:
        writer, reader = (old, new) if direction == "backward" else (new, old)
        for pointer, message, remedy in _refusals(writer, reader):
            yield Break(direction=direction, pointer=pointer, message=message, remedy=remedy)


def _refusals(writer: Stream, reader: Stream) -> Iterator[tuple[str, str, str]]:
    if writer.format != reader.format:
        said = f"written in {writer.format}, read in {reader.format}"
        yield "", said, "give the other format a stream, and so a topic, of its own"
    elif writer.format == "avro":
        from millstream.compatibility.avro import unread  # the libraries of a format are for who has such a stream

        yield from unread(cast("AvroSchema", writer.wire).parsed, cast("AvroSchema", reader.wire).parsed)
    elif writer.format == "protobuf":
        from millstream.compatibility.protobuf import misread

        yield from misread(
            cast("ProtoSchema", writer.wire).descriptor(),
            cast("ProtoSchema", reader.wire).descriptor(),
            frozenset(filter(None, (reader.key, reader.id, reader.time))),
        )
    else:
        yield from refusals(writer.event_schema, reader.event_schema)
