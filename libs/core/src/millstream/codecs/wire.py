"""Confluent's wire format: a zero byte, the schema's id in the registry, and the value behind it.

https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/index.html#wire-format
"""

from __future__ import annotations

from collections.abc import Sequence

from millstream.errors import RejectEvent

HEAD = 5
"""Bytes of the zero and the id. No JSON text begins with a zero byte, so the two cannot be taken for each other."""
DEEPEST = 16
"""Message indexes: levels of one message inside another."""


def schema_id(raw: bytes | None) -> int:
    """The id that a value names. Raises RejectEvent(`bad_frame`)."""
    if raw is None or len(raw) < HEAD or raw[0] != 0:
        began = "nothing" if not raw else raw[:HEAD].hex(" ")
        raise RejectEvent(
            "bad_frame", f"begins with {began}; produce with a schema registry's serializer: 00, a schema id of 4 bytes"
        )
    return int.from_bytes(raw[1:HEAD], "big")


def framed(id: int, body: bytes) -> bytes:
    return b"\x00" + id.to_bytes(4, "big") + body


def message_indexes(raw: bytes) -> tuple[tuple[int, ...], int]:
    """Which message of its file a protobuf value is, outermost first, and where the message begins.

    Raises RejectEvent(`bad_frame`). They are zigzag varints, their count first; a lone zero stands for the first message.
    """
    count, at = _varint(raw, HEAD)
    if count == 0:
        return (0,), at
    if not 0 < count <= DEEPEST:
        raise RejectEvent("bad_frame", f"{count} message indexes; a message lies at most {DEEPEST} levels deep")
    indexes = []
    for _ in range(count):
        index, at = _varint(raw, at)
        indexes.append(index)
    return tuple(indexes), at


def index_bytes(indexes: Sequence[int]) -> bytes:
    if tuple(indexes) == (0,):
        return b"\x00"
    return b"".join(_zigzag(number) for number in (len(indexes), *indexes))


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while at < len(raw) and shift < 35:
        byte = raw[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (number >> 1) ^ -(number & 1), at
        shift += 7
    raise RejectEvent("bad_frame", "the message indexes are cut off")


def _zigzag(number: int) -> bytes:
    number <<= 1
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
