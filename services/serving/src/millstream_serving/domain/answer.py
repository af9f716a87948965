"""An answer as it goes on record: everything needed to judge it later, or to compute it again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from millstream.contracts.events import PredictionServed, QuestionUnanswered, Scalar
from millstream.contracts.times import to_datetime
from millstream_serving.domain.columns import FeatureValues, nullable, scalar
from millstream_serving.domain.question import Question

V = TypeVar("V")


def served(
    question: Question,
    *,
    version: str,
    entities: dict[str, Scalar],
    inputs: dict[str, Scalar],
    features: dict[str, float | int | None],
    probability: float,
    timings_ms: dict[str, float],
    stale_views: dict[str, float],
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
        stale_views=stale_views,
    )


def recorded(
    questions: Sequence[Question],
    probabilities: Sequence[float | None],
    *,
    version: str,
    inputs: Sequence[str],
    entities: Mapping[str, Sequence[Scalar]],
    features: FeatureValues,
    stale: Sequence[dict[str, float]],
    timings_ms: Mapping[str, float],
) -> list[PredictionServed | QuestionUnanswered]:
    """The records of one run's questions, in order. All columns have one value a question; a probability may be None."""
    timings = {stage: round(ms, 4) for stage, ms in timings_ms.items()}
    asked = _rows(entities, len(questions))
    read = _rows({name: nullable(values) for name, values in features.items()}, len(questions))
    found: list[PredictionServed | QuestionUnanswered] = []
    for question, probability, named, values, late in zip(questions, probabilities, asked, read, stale, strict=True):
        if probability is None:
            found.append(unanswered(question, "model_failed"))
            continue
        found.append(
            served(
                question,
                version=version,
                entities=named,
                inputs={name: scalar(question.event.get(name)) for name in inputs},
                features=values,
                probability=probability,
                timings_ms=timings,
                stale_views=late,
            )
        )
    return found


def _rows(columns: Mapping[str, Sequence[V]], rows: int) -> list[dict[str, V]]:
    """Columns as one mapping a row."""
    names = list(columns)
    if not names:
        return [{} for _ in range(rows)]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def unanswered(question: Question, reason: str) -> QuestionUnanswered:
    """The record of a question that nobody could answer: `no_model`, `model_failed` or `stale_features`."""
    return QuestionUnanswered(
        id=question.prediction_id,
        loop=question.loop,
        question=question.id,
        key=question.key,
        asked_at=to_datetime(question.asked_at),
        reason=reason,
        transport=question.transport,
    )
