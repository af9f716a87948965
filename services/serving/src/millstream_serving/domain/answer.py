"""An answer as it goes on record: everything needed to judge it later, or to compute it again."""

from __future__ import annotations

from millstream.contracts.events import PredictionServed, QuestionUnanswered, Scalar
from millstream.contracts.times import to_datetime
from millstream_serving.domain.question import Question


def served(
    question: Question,
    *,
    version: str,
    entities: dict[str, Scalar],
    inputs: dict[str, Scalar],
    features: dict[str, float | int | None],
    probability: float,
    timings_ms: dict[str, float],
) -> PredictionServed:
    """The record of an answer. Timings are this question's share of its batch's wall time."""
    return PredictionServed(
        id=question.prediction_id,
        loop=question.loop,
        question=question.id,
        key=question.key,
        asked_at=to_datetime(question.asked_at),
        version=version,
        variant="champion",
        transport=question.transport,
        entities=entities,
        inputs=inputs,
        features=features,
        output={"probability": probability},
        timings_ms=timings_ms,
    )


def unanswered(question: Question, reason: str) -> QuestionUnanswered:
    """The record of a question that nobody could answer: `no_model` or `model_failed`."""
    return QuestionUnanswered(
        id=question.prediction_id,
        loop=question.loop,
        question=question.id,
        key=question.key,
        asked_at=to_datetime(question.asked_at),
        reason=reason,
        transport=question.transport,
    )
