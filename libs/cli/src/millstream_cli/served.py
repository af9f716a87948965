"""A fair sample of the predictions of one loop, read from the topic in bounded memory."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from millstream.contracts.events import PredictionServed
from millstream.contracts.times import from_datetime
from millstream.runtime.kafka_security import Bootstrap
from millstream_cli.predictions import every_record, type_of
from millstream_tiles.reservoir import Reservoir


class _Asked(msgspec.Struct):
    """Enough of a prediction to know whether it is wanted."""

    id: str
    loop: str


async def sample_served(
    bootstrap: Bootstrap, loop: str, *, size: int, since: int | None, seen: Callable[[int], None]
) -> list[PredictionServed]:
    """`size` predictions of `loop` whose features were read, asked at `since` (microseconds) or later, the same on every run;
    oldest first.

    `seen` hears how many records were looked at since it was last called.
    """
    sample: Reservoir[PredictionServed] = Reservoir(size)
    decode_asked, decode = msgspec.json.Decoder(_Asked).decode, msgspec.json.Decoder(PredictionServed).decode
    async for records in every_record(bootstrap):
        for record in records:
            if type_of(record) != PredictionServed.type_name:
                continue
            try:
                asked = decode_asked(record.value)
                if asked.loop != loop or not sample.wants(asked.id):
                    continue
                served = decode(record.value)
            except (ValueError, RecursionError):
                continue  # somebody else's record in our topic: drift dead-letters it
            if served.given or served.store_away:
                continue  # its features came with the question or the store was away: there is no read of ours to check
            if since is None or from_datetime(served.asked_at) >= since:
                sample.offer(served.id, served)
        seen(len(records))
    return sorted(sample.drain(), key=lambda one: (one.asked_at, one.id))
