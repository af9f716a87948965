"""What drift reads of an answer: the fields that it judges by, and no others, which is half the time of reading them all."""

from __future__ import annotations

from datetime import datetime

import msgspec

from millstream.contracts.events import OtherAnswer, PredictionServed, Scalar


class Timings(msgspec.Struct, frozen=True, gc=False):
    model: float = 0.0


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """`PredictionServed` without what nobody here asks for; `contracts` says what the fields mean."""

    id: str
    loop: str
    key: str
    asked_at: datetime
    version: str
    inputs: dict[str, Scalar]
    features: dict[str, float | int | None]
    output: dict[str, float]
    timings_ms: Timings
    store_away: bool = False
    other: OtherAnswer | None = None
    fallback: str = ""
    producer: str = ""
    content: dict[str, str | list[float]] = {}


TYPE = PredictionServed.type_name.encode()
decode_served = msgspec.json.Decoder(Served).decode
