"""Makes events of labels: what turned out to be true, said by the fields that name the question."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from millstream.contracts.envelope import derived_id
from millstream.contracts.json_text import read_json
from millstream.contracts.times import to_rfc3339
from millstream.errors import Refusal
from millstream.project import Stream
from millstream.project.event_schema import required_of
from millstream.project.loop import Loop
from millstream_ingest.domain.cloudevents import Origin
from millstream_ingest.domain.reading import shown
from millstream_ingest.errors import BadEvent

_ENCODE = msgspec.json.Encoder(order="sorted").encode
_SAYS = ("key", "value", "at")


class Labeller:
    """Of one loop. A label says `{"key": {…}, "value": …, "at": …}`; the event has the key's fields, and the value in the one
    that the loop learns from."""

    def __init__(self, loop: Loop, stream: Stream, clock: Callable[[], int]) -> None:
        self._loop = loop.name
        self._stream = stream
        self._by = loop.label.by
        self._clock = clock
        value = loop.label.value
        self._computed = None if value.text in value.fields else value
        self._field = value.text
        self._required = set(required_of(stream.event_schema))

    def open(self, raw: bytes) -> tuple[bytes, Origin | None]:
        """The event that the label in `raw` is. Raises BadEvent; Refusal(`computed_label`) where no value alone makes one."""
        if self._computed is not None:
            needs = sorted({*self._required, *self._computed.fields})
            raise Refusal(
                "computed_label",
                f"what {self._loop} learns is computed: {self._computed}; send the event it is computed from to "
                f"/v1/streams/{self._stream.name}/events, with {', '.join(needs)}",
                stream=self._stream.name,
                needs=needs,
            )
        key, value, at = self._read(raw)
        event = dict(key)
        event[self._field] = value
        event.setdefault(self._stream.time, at if at is not None else to_rfc3339(self._clock()))
        name = self._stream.id
        if name is not None and name not in event and self._stream.types_of(name) == {"string"}:
            # The same label has the same id, whenever it is said.
            event[name] = derived_id(self._loop, _ENCODE([key, value]).decode())
        missing = sorted(self._required - event.keys())
        if missing:
            raise _bad(f"an event of {self._stream.name} also has {', '.join(missing)}; say them in key", "/key")
        return _ENCODE(event), None

    def _read(self, raw: bytes) -> tuple[dict[str, Any], Any, Any]:
        try:
            said: Any = read_json(raw)
        except Refusal as error:
            raise BadEvent(error.code, str(error), **error.more) from error
        like = f'{{"key": {{"{self._by}": …}}, "value": …}}'
        if type(said) is not dict:
            raise BadEvent("not_an_object", f"a label is like {like}", expected="object", got=shown(said))
        if "prediction_id" in said:
            raise _bad(f"labels of {self._loop} find their question by {self._by}; send {like}", "/prediction_id")
        for name in said.keys() - set(_SAYS):
            raise _bad(f"a label has no {name[:100]!r}; send {like}", f"/{name[:100]}")
        key = said.get("key")
        if type(key) is not dict or self._by not in key:
            raise _bad(f"key has the fields that name the question, {self._by} at least", "/key", shown(key))
        if not isinstance(said.get("value"), bool | int | float | str):
            raise _bad(
                "value is what turned out to be true: true, false, a number or a text",
                "/value",
                shown(said.get("value")),
            )
        for field, name in ((self._field, "value"), (self._stream.time, "at")):
            if field in key and name in said:
                raise _bad(f"{field} is said twice, in key and as {name}", f"/key/{field}")
        return key, said["value"], said.get("at")


def _bad(message: str, pointer: str, got: str | None = None) -> BadEvent:
    return BadEvent("bad_label", message, pointer=pointer, got=got)
