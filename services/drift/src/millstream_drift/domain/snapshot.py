"""A loop's state and position as one value in bytes: neither is ever kept without the other."""

from __future__ import annotations

import msgspec

from millstream.contracts.events import ModelRef
from millstream_drift.domain.lately import Lately
from millstream_drift.domain.loop_fold import LoopState
from millstream_drift.domain.merge import Merge

FORMAT = b"drift6"
"""First bytes of a snapshot. A release that changes the state's shape changes it, and then begins from the topics."""


class Snapshot(msgspec.Struct, kw_only=True):
    """What a restart needs to go on with one loop as if nothing had happened."""

    merge: Merge
    """Where it was read up to. Loops are judged apart from each other at times, so each has its own."""
    loop: LoopState
    models: list[ModelRef]
    """Every version with rows that wait: the models topic may have forgotten it by the next start."""
    lately: Lately


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Snapshot)


def encode_snapshot(snapshot: Snapshot) -> bytes:
    return FORMAT + _ENCODER.encode(snapshot)


def decode_snapshot(raw: bytes) -> Snapshot:
    """Raises ValueError for what another release wrote, or nobody."""
    if not raw.startswith(FORMAT):
        raise ValueError(f"it begins with {raw[:6]!r}, this release reads {FORMAT!r}")
    return _DECODER.decode(memoryview(raw)[len(FORMAT) :])
