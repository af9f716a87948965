"""Records of Kafka become questions and labels; what cannot be used is rejected with its reason."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TypeVar

import msgspec

from millstream.codecs.codec import Codec
from millstream.contracts.content import Content, cut, packed
from millstream.contracts.events import Event, LabelTold, QuestionUnanswered, decode_event
from millstream.contracts.tasks import Task, Truth, class_name, is_answer
from millstream.contracts.times import HOUR, from_datetime, to_rfc3339
from millstream.contracts.topics import LABELS, PREDICTIONS
from millstream.errors import RejectEvent, RetryLater
from millstream.project import Loop, Stream
from millstream.runtime.delivery import Record
from millstream.runtime.records import envelope, known_at
from millstream.runtime.user_events import UserEvent, read_event
from millstream_drift.adapters.served import TYPE, Served, decode_served
from millstream_drift.domain.baseline import category
from millstream_drift.domain.events import Contents, Heard, Label, Other, Question, by_prediction
from millstream_drift.errors import BAD_EVENT, BAD_JSON, INVALID_LABEL, KNOWN_IN_FUTURE, NO_ANSWER, NOT_OURS
from millstream_drift.metrics import DriftMetrics
from millstream_drift.ports import Models

T = TypeVar("T")

AHEAD = HOUR
"""How far a known-at may be ahead of Kafka's own time: generous for clocks, and still no stream time from next year."""


class KafkaEvents:
    """The port `Reader` for `millstream-predictions`, `millstream-labels` and label streams, with the eyes of a share's loops.

    Of a record that nobody can read each share would write a dead letter: that share writes it which has the first loop, by
    name, that hears its topic.
    """

    def __init__(
        self,
        *,
        loops: Mapping[str, Loop],
        streams: Mapping[str, Stream],
        codecs: Mapping[str, Codec],
        models: Models,
        metrics: DriftMetrics,
        clock: Callable[[], float],
        patience: float,
        mine: Collection[str] | None = None,
    ) -> None:
        """`loops`: all of the project; `mine`: those that are judged here, None where it is all of them."""
        self._known = frozenset(loops)
        self._loops = loops if mine is None else {name: loops[name] for name in mine}
        self._streams = streams
        self._codecs = codecs
        self._models = models
        self._metrics = metrics
        self._clock = clock
        self._patience = patience
        self._tasks = {name: Task(loop.model.task) for name, loop in loops.items()}
        self._labelled: dict[str, list[Loop]] = {}
        first = {PREDICTIONS.name: min(loops, default=""), LABELS.name: min(loops, default="")}
        for name, loop in sorted(loops.items()):
            first.setdefault(loop.label.stream, name)
            if name in self._loops:
                self._labelled.setdefault(loop.label.stream, []).append(loop)
        self._buries = {topic for topic, name in first.items() if name in self._loops}
        """Topics whose unreadable records are this share's to reject."""
        self._waiting: dict[tuple[str, str], float] = {}
        """Versions that nobody announced, and since when we wait for them."""

    @property
    def topics(self) -> Sequence[str]:
        return [PREDICTIONS.name, LABELS.name, *sorted(self._labelled)]

    def read(self, record: Record) -> list[tuple[str, Heard]]:
        if record.topic == PREDICTIONS.name:
            return self._prediction(record)
        if record.topic == LABELS.name:
            return self._told(record)
        return self._labels(record)

    def _prediction(self, record: Record) -> list[tuple[str, Heard]]:
        event = self._together(self._decode, record)
        if not isinstance(event, Served | QuestionUnanswered):
            self._strange(event, record)
            return []
        if event.loop not in self._loops:
            self._stranger(event.loop, record)
            return []
        if event.asked_at.tzinfo is None:
            raise RejectEvent(BAD_EVENT, "asked_at has no UTC offset")
        asked_at = self._possible(from_datetime(event.asked_at), record)
        if isinstance(event, QuestionUnanswered):
            return [(event.loop, Question(asked_at, event.id, event.key, None, {}, ()))]
        loop = self._loops[event.loop]
        task = self._tasks[loop.name]
        if not is_answer(task, event.output):
            raise RejectEvent(NO_ANSWER, f"output is {str(event.output)[:200]}, which is no answer of task {task}")
        other = event.other
        if other is not None and not other.failure and not is_answer(task, other.output):
            said = str(other.output)[:200]
            raise RejectEvent(NO_ANSWER, f"other.output is {said}, which is no answer of task {task}")
        if event.store_away:
            # Nulls that nobody read are no broken inputs, and a guess without them is no verdict on the model.
            return [(event.loop, Question(asked_at, event.id, event.key, None, event.output, ()))]
        baseline = None if self._is_lost(event, asked_at) else self._models.baseline(event.loop, event.version)
        if baseline is None:
            self._metrics.unjudged.labels(event.loop).inc()
            return [(event.loop, Question(asked_at, event.id, event.key, None, event.output, ()))]
        question = Question(
            asked_at,
            event.id,
            event.key,
            event.version,
            event.output,
            baseline.row(event.inputs, event.features),
            producer=event.producer,
            slices=tuple(category(event.inputs.get(name)) for name in loop.gate.slices),
            ms=event.timings_ms.model,
            other=None if other is None else Other(other.version, other.role, other.output, other.failure, other.ms),
            fallback=event.fallback,
            contents=_contents(event.content, loop.drift.content),
        )
        return [(event.loop, question)]

    def _together(self, read: Callable[[Record], T], record: Record) -> T | None:
        """What all shares read alike; None where it cannot be read, and another share says so."""
        try:
            return read(record)
        except RejectEvent:
            if record.topic in self._buries:
                raise
            return None

    def _strange(self, event: Event | Served | None, record: Record) -> None:
        if record.topic in self._buries:
            self._metrics.unknown_type.inc()

    def _stranger(self, loop: str, record: Record) -> None:
        if loop not in self._known and record.topic in self._buries:
            self._metrics.unknown_loop.inc()

    def _decode(self, record: Record) -> Event | Served | None:
        kind = next((value for name, value in record.headers if name == "ce_type"), None)
        if kind is None:
            raise RejectEvent(NOT_OURS, f"no header ce_type; {record.topic} is the services' own")
        try:
            if kind == TYPE:
                return decode_served(record.value or b"")
            return decode_event(kind.decode("ascii", "replace"), record.value or b"")
        except msgspec.ValidationError as error:
            raise RejectEvent(BAD_EVENT, str(error)) from error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise RejectEvent(BAD_JSON, str(error) or "nested too deeply") from error

    def _is_lost(self, event: Served, asked_at: int) -> bool:
        """Whether nobody can judge this version. Raises RetryLater while its announcement may be on its way."""
        name = event.loop, event.version
        if self._models.baseline(*name) is not None:
            self._waiting.pop(name, None)
            return False
        if self._models.is_lost(*name, asked_at):
            return True
        # Models and predictions are two topics: a prediction may be read first. But an answer by a version that was
        # never announced must not stop everybody for ever.
        since = self._waiting.setdefault(name, self._clock())
        if self._clock() - since > self._patience:
            return True
        raise RetryLater(f"version {event.version} of {event.loop} answered, but is not announced yet")

    def _labels(self, record: Record) -> list[tuple[str, Heard]]:
        stream, known = self._streams[record.topic], self._together(self._event, record)
        if known is None:
            return []
        found, time = known
        id = found.envelope.id or stream.id_of(found.event) or f"{record.topic}/{record.partition}/{record.offset}"
        labels: list[tuple[str, Heard]] = []
        for loop in self._labelled[record.topic]:
            value = loop.label.value(found.event)
            key = loop.label.key_of(found.event)
            labels.append((loop.name, Label(time, id, key, _truth(self._tasks[loop.name], value))))
        return labels

    def _event(self, record: Record) -> tuple[UserEvent, int]:
        found = read_event(self._streams[record.topic], record, self._codecs[record.topic])
        return found, self._possible(found.known_at, record)

    def _told(self, record: Record) -> list[tuple[str, Heard]]:
        event = self._together(self._decode, record)
        if not isinstance(event, LabelTold):
            self._strange(event, record)
            return []
        if event.loop not in self._loops:
            self._stranger(event.loop, record)
            return []
        if event.told_at.tzinfo is None:
            raise RejectEvent(BAD_EVENT, "told_at has no UTC offset")
        known = self._possible(known_at(record, envelope(record)), record)
        time = self._possible(max(known, from_datetime(event.told_at)), record)
        truth = _truth(self._tasks[event.loop], event.value)
        return [(event.loop, Label(time, event.id, by_prediction(event.prediction_id), truth))]

    def _possible(self, time: int, record: Record) -> int:
        if time > record.timestamp * 1000 + AHEAD:
            kafka = to_rfc3339(record.timestamp * 1000)
            raise RejectEvent(KNOWN_IN_FUTURE, f"known at {to_rfc3339(time)}, but Kafka got it at {kafka}")
        return time


def _contents(said: Mapping[str, Content], names: Sequence[str]) -> Contents:
    """What is watched of a question's content, vectors packed: a window holds some hundreds."""
    return {
        name: found.encode("utf-8", "replace") if isinstance(found, str) else packed(found)
        for name in names
        if (found := cut(said.get(name))) is not None
    }


def _truth(task: Task, value: Truth | None) -> Truth | None:
    """The label as its task compares it. Raises RejectEvent where it is no number and the task needs one."""
    if value is None:
        return None
    if task is Task.BINARY:
        return bool(value)
    if task is Task.MULTICLASS:
        return class_name(value)
    try:
        number = math.nan if isinstance(value, str) else float(value)
    except OverflowError:  # JSON's whole numbers have no end
        number = math.inf
    if not math.isfinite(number):
        raise RejectEvent(INVALID_LABEL, f"the label is {str(value)[:200]!r}, task regression needs a finite number")
    return number
