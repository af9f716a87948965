"""What every format does: bytes to event and back, and what it knows of the schemas that events were written with."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from millstream.codecs.errors import UnfitSchema
from millstream.codecs.wire import HEAD, framed, schema_id
from millstream.contracts.json_text import read_json
from millstream.errors import Refusal, RejectEvent, RetryLater

W = TypeVar("W")

MOST_WRITERS = 50_000
"""Schema ids of one stream that are remembered, unknown ones too: more than the largest poll can name at once. A registry has
a few of a stream; the others are of broken producers, 200 bytes each."""
ASK_AGAIN = 30.0
"""Seconds until the registry is asked again about an id that it did not know: somebody may have restored it."""


class Codec(Protocol):
    """One stream's format."""

    def decode(self, raw: bytes | None) -> Any:
        """The event as JSON would have carried it: times RFC 3339, decimals numbers, bytes base64, absent as it was.

        Raises RejectEvent; RetryLater where the schema it was written with is not known yet (see `Codecs.prepare`).
        """

    def encode(self, event: Mapping[str, Any]) -> bytes:
        """The value of a record. `event` fits the stream's JSON Schema. Raises RejectEvent(`schema`) where that is not enough;
        RetryLater before the stream's schema has its id."""


@dataclass(frozen=True, kw_only=True)
class Registered:
    """A schema as a registry has it."""

    kind: str
    """AVRO, PROTOBUF or JSON."""
    text: str
    references: tuple[tuple[str, Registered], ...] = ()
    """The schemas it refers to, by the name it calls them, each before whoever needs it."""


class JsonCodec:
    """JSON text; also behind the five bytes of a registry's JSON serializer: the stream's own schema is the check anyway."""

    def decode(self, raw: bytes | None) -> Any:
        """Raises RejectEvent: bad_json, invalid_utf8, too_deep."""
        if raw is None:
            raw = b""
        try:
            return read_json(raw[HEAD:] if raw[:1] == b"\x00" else raw)
        except Refusal as error:
            raise RejectEvent(error.code, str(error)) from error

    def encode(self, event: Mapping[str, Any]) -> bytes:
        return _encode_json(event)


JSON = JsonCodec()
_encode_json = msgspec.json.Encoder().encode


@dataclass(frozen=True, kw_only=True)
class _Refused:
    """Why nothing that names this id can be read."""

    reason: str
    detail: str
    ask_again: float | None = None


class RegistryCodec(ABC, Generic[W]):
    """A format whose values name a schema of a registry. `W` is what is made of a writer's schema."""

    kind: str
    """As the registry calls it."""

    def __init__(self, text: str, *, prefix: bytes = b"") -> None:
        """`text`: the stream's own schema, which `encode` writes with; `prefix` stands between its id and the message."""
        self.text = text
        self._prefix = prefix
        self._writers: dict[int, W | _Refused] = {}
        self._id: int | None = None

    @property
    def registered(self) -> bool:
        return self._id is not None

    def write_as(self, id: int) -> None:
        """From now on `encode` says that its values have this schema."""
        self._id = id

    def unknown(self, values: Iterable[bytes | None]) -> set[int]:
        """The ids among `values` about which the registry has to be asked."""
        ids = {int.from_bytes(raw[1:HEAD], "big") for raw in values if raw and len(raw) >= HEAD and raw[0] == 0}
        return {id for id in ids if self._is_open(id)}

    def _is_open(self, id: int) -> bool:
        known = self._writers.get(id)
        if isinstance(known, _Refused):
            return known.ask_again is not None and time.monotonic() > known.ask_again
        return known is None

    def is_news(self, id: int) -> bool:
        """Nobody has waited for this id yet."""
        return id not in self._writers

    def learn(self, id: int, schema: Registered) -> None:
        """What `id` stands for."""
        if schema.kind != self.kind:
            known: W | _Refused = _Refused(
                reason="wrong_schema", detail=f"schema {id} is {schema.kind}, the stream is {self.kind}"
            )
        else:
            try:
                known = self.writer(id, schema)
            except UnfitSchema as error:
                known = _Refused(reason="wrong_schema", detail=f"schema {id}: {error}")
        self._remember(id, known)

    def give_up(self, ids: Collection[int], where: str) -> None:
        """The registry does not know these ids."""
        for id in ids:
            detail = f"schema {id} is not in the registry at {where}"
            self._remember(id, _Refused(reason="unknown_schema", detail=detail, ask_again=time.monotonic() + ASK_AGAIN))

    def _remember(self, id: int, known: W | _Refused) -> None:
        self._writers.pop(id, None)
        if len(self._writers) >= MOST_WRITERS:
            del self._writers[next(iter(self._writers))]
        self._writers[id] = known

    def decode(self, raw: bytes | None) -> Any:
        """Raises RejectEvent: bad_frame, unknown_schema, wrong_schema, bad_value, too_deep."""
        id = schema_id(raw)
        known = self._writers.get(id)
        if known is None:
            raise RetryLater(f"schema {id} has not come from the registry yet")
        if isinstance(known, _Refused):
            raise RejectEvent(known.reason, known.detail)
        assert raw is not None
        return self.read(id, known, raw)

    def encode(self, event: Mapping[str, Any]) -> bytes:
        if self._id is None:
            raise RetryLater("the stream's schema has no id from the registry yet")
        return framed(self._id, self._prefix + self.write(event))

    @abstractmethod
    def writer(self, id: int, schema: Registered) -> W:
        """What is needed to read what was written with `schema`. Raises UnfitSchema."""

    @abstractmethod
    def read(self, id: int, writer: W, raw: bytes) -> dict[str, Any]:
        """The event in `raw`, the frame included. Raises RejectEvent."""

    @abstractmethod
    def write(self, event: Mapping[str, Any]) -> bytes:
        """The message alone. Raises RejectEvent(`schema`)."""
