"""State and position as one value in bytes: neither is ever kept without the other."""

from __future__ import annotations

import msgspec

from millstream.contracts.events import ModelRef, WindowJudged
from millstream_drift.domain.fold import FoldState

FORMAT = b"drift2"
"""First bytes of a snapshot. A release that changes the state's shape changes it, and then begins from the topics."""


class Snapshot(msgspec.Struct, kw_only=True):
    """What a restart needs to go on as if nothing had happened."""

    fold: FoldState
    models: list[tuple[str, ModelRef]]
    """(loop, model) for every version with rows that wait: the models topic may have forgotten it by the next start."""
    recent: dict[str, list[WindowJudged]]
    """Last verdicts per loop, oldest first, for whoever asks over HTTP."""


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Snapshot)


def encode_snapshot(snapshot: Snapshot) -> bytes:
    return FORMAT + _ENCODER.encode(snapshot)


def decode_snapshot(raw: bytes) -> Snapshot:
    """Raises ValueError for what another release wrote, or nobody."""
    if not raw.startswith(FORMAT):
        raise ValueError(f"it begins with {raw[:6]!r}, this release reads {FORMAT!r}")
    return _DECODER.decode(memoryview(raw)[len(FORMAT) :])
