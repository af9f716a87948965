"""Makes events of labels: what turned out to be true, said by the fields that name the question."""

from __future__ import annotations

import sys
from typing import Any

import msgspec

from millstream.contracts.envelope import derived_id
from millstream.contracts.json_text import read_json
from millstream.contracts.tasks import Task, class_name
from millstream.contracts.times import to_rfc3339
from millstream.errors import Refusal
from millstream.project.event_schema import required_of
from millstream.project.loop import Loop
from millstream_ingest.domain.cloudevents import Origin
from millstream_ingest.domain.reading import shown
from millstream_ingest.errors import BadEvent
from millstream_ingest.handlers.admission import Admission, Admitted, Arrival

_ENCODE = msgspec.json.Encoder(order="sorted").encode
_SAYS = ("key", "prediction_id", "value", "at")
LONGEST_ID = 200
"""Characters of a prediction id. Ours have 32."""


class Labeller:
    """Of one loop. A label says `{"key": {…}, "value": …, "at": …}`; the event has the key's fields, and the value in the one
    that the loop learns from. Or `{"prediction_id": …, "value": …}`: that is an event of ours, `TOLD`."""

    def __init__(self, loop: Loop, stream: Admission, told: Admission) -> None:
        """`stream` admits the loop's label events, `told` those of `TOLD`."""
        self._loop = loop.name
        self._task = Task(loop.model.task)
        self._events, self._told = stream, told
        self.stream = stream.stream
        self._by = loop.label.by
        value = loop.label.value
        self._computed = None if value.text in value.fields else value
        self._field = value.text
        self._required = set(required_of(self.stream.event_schema))

    def ready(self) -> None:
        """Raises LogAway."""
        self._events.ready()

    def admit(self, raw: bytes, arrival: Arrival, origin: Origin | None = None) -> Admitted:
        """The event that the label in `raw` is, and its record. Raises BadEvent; Refusal(`computed_label`) where no value alone
        makes an event of the stream."""
        said = self._said(raw)
        if "prediction_id" in said:
            return self._told.admit(self._about_prediction(said, arrival), arrival)
        return self._events.admit(self._about_key(said, arrival), arrival)

    def _about_prediction(self, said: dict[str, Any], arrival: Arrival) -> bytes:
        if "key" in said:
            raise _bad("a label names its question by key or by prediction_id, not by both", "/key")
        id: Any = said["prediction_id"]
        value: Any = said.get("value")
        if not isinstance(id, str) or not 0 < len(id) <= LONGEST_ID:
            raise _bad("prediction_id is that of the answer, a text like 9f3b6c0d…", "/prediction_id", shown(id))
        self._is_scalar(value)
        if wanted := _misfit(self._task, value):
            raise _bad(f"value of a label of {self._loop}, which is {self._task}, is {wanted}", "/value", shown(value))
        if self._task is Task.MULTICLASS:
            value = class_name(value)
        at = said["at"] if said.get("at") is not None else _now(arrival)
        event = {"loop": self._loop, "prediction_id": id, "value": value, "told_at": at}
        # The same label has the same id, whenever it is said.
        return _ENCODE(event | {"id": derived_id(self._loop, _ENCODE([id, value]).decode())})

    def _about_key(self, said: dict[str, Any], arrival: Arrival) -> bytes:
        if self._computed is not None:
            needs = sorted({*self._required, *self._computed.fields})
            raise Refusal(
                "computed_label",
                f"what {self._loop} learns is computed: {self._computed}; send the event it is computed from to "
                f"/v1/streams/{self.stream.name}/events, with {', '.join(needs)}; or the label itself with the prediction_id",
                stream=self.stream.name,
                needs=needs,
            )
        key, value, at = self._key(said)
        event = dict(key)
        event[self._field] = value
        event.setdefault(self.stream.time, at if at is not None else _now(arrival))
        name = self.stream.id
        if name is not None and name not in event and self.stream.types_of(name) == {"string"}:
            # The same label has the same id, whenever it is said.
            event[name] = derived_id(self._loop, _ENCODE([key, value]).decode())
        missing = sorted(self._required - event.keys())
        if missing:
            raise _bad(f"an event of {self.stream.name} also has {', '.join(missing)}; say them in key", "/key")
        return _ENCODE(event)

    def _said(self, raw: bytes) -> dict[str, Any]:
        try:
            said: Any = read_json(raw)
        except Refusal as error:
            raise BadEvent(error.code, str(error), **error.more) from error
        like = f'{{"key": {{"{self._by}": …}}, "value": …}} or {{"prediction_id": …, "value": …}}'
        if type(said) is not dict:
            raise BadEvent("not_an_object", f"a label is like {like}", expected="object", got=shown(said))
        for name in said.keys() - set(_SAYS):
            raise _bad(f"a label has no {name[:100]!r}; send {like}", f"/{name[:100]}")
        return said

    def _key(self, said: dict[str, Any]) -> tuple[dict[str, Any], Any, Any]:
        key = said.get("key")
        if type(key) is not dict or self._by not in key:
            raise _bad(f"key has the fields that name the question, {self._by} at least", "/key", shown(key))
        self._is_scalar(said.get("value"))
        for field, name in ((self._field, "value"), (self.stream.time, "at")):
            if field in key and name in said:
                raise _bad(f"{field} is said twice, in key and as {name}", f"/key/{field}")
        return key, said["value"], said.get("at")

    @staticmethod
    def _is_scalar(value: Any) -> None:
        if not isinstance(value, bool | int | float | str):
            said = "value is what turned out to be true: true, false, a number or a text"
            raise _bad(said, "/value", shown(value))


def _misfit(task: Task, value: Any) -> str | None:
    """What the task wants, where `value` is none of it."""
    if task is Task.BINARY and not (isinstance(value, bool) or (value in (0, 1) and not isinstance(value, str))):
        return "true or false"
    if task is Task.REGRESSION and (isinstance(value, bool | str) or abs(value) > sys.float_info.max):
        return "a number"
    return None


def _now(arrival: Arrival) -> str:
    return to_rfc3339(arrival.now if arrival.known_at is None else arrival.known_at)


def _bad(message: str, pointer: str, got: str | None = None) -> BadEvent:
    return BadEvent("bad_label", message, pointer=pointer, got=got)
