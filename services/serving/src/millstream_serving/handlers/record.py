"""Answers as they go to `millstream-predictions`: one record each, beside its label's key."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from millstream.contracts.envelope import Stamp
from millstream.contracts.events import PredictionServed, QuestionUnanswered
from millstream.contracts.times import now, to_rfc3339
from millstream.contracts.topics import PREDICTIONS
from millstream.runtime.publisher import MAX_RECORD_BYTES, Outgoing
from millstream_serving.domain.question import Question

Recorded = PredictionServed | QuestionUnanswered


class Recorder:
    """Writes records in the name of this process: what they share is encoded once."""

    def __init__(self, source: str) -> None:
        self._stamps = {kind: Stamp(kind.type_name, source) for kind in (PredictionServed, QuestionUnanswered)}
        self._encode = msgspec.json.Encoder().encode

    def records(self, answers: Sequence[tuple[Question, Recorded]]) -> list[Outgoing]:
        """One a question, in order; they may be larger than Kafka takes: `fits` says."""
        topic, encode, stamps = PREDICTIONS.name, self._encode, self._stamps
        time = to_rfc3339(now())
        return [
            Outgoing(
                topic,
                question.key.encode(),
                encode(one),
                stamps[type(one)].headers(one.id.encode(), time, None, question.trace, question.cause.encode()),
            )
            for question, one in answers
        ]


def fits(record: Outgoing) -> bool:
    """Whether Kafka takes it, headers and all: a long id is in the key, the value and two headers. What a broker refuses
    holds up whatever goes with it."""
    return record.size <= MAX_RECORD_BYTES
