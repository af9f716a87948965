"""An answer as it goes on record: everything needed to judge it later, or to compute it again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from millstream.contracts.content import contents
from millstream.contracts.events import PredictionServed, QuestionUnanswered, Scalar
from millstream.contracts.times import to_datetime
from millstream_serving.domain.columns import FeatureValues, Table, inputs_of, nullable, rows_of
from millstream_serving.domain.question import Question
from millstream_serving.domain.turn import Given


class Reading:
    """One read of one FeatureService for some questions, also as one mapping a question."""

    def __init__(self, entities: Mapping[str, Sequence[Scalar]], features: FeatureValues | Table, rows: int) -> None:
        if isinstance(features, Table):
            self.features, self.read = features.columns(), features.rows()
        else:
            self.features, self.read = features, rows_of(nullable(features), rows)
        self.asked = rows_of(entities, rows)


def recorded(
    questions: Sequence[Question],
    answers: Sequence[Given | None],
    *,
    inputs: Mapping[str, Sequence[str]],
    readings: Mapping[str, Reading],
    stale: Sequence[dict[str, float]],
    timings_ms: Mapping[str, float],
    content: Sequence[str] = (),
    given: bool,
    store_away: bool = False,
) -> list[PredictionServed | QuestionUnanswered]:
    """The records of one run's questions, in order: each the answer's, with inputs and features as who answered had them.
    `inputs` and `readings` by role; `timings_ms`, without the model's, is a question's share of its run;
    `content` names the texts and embeddings that go on record; `given`: the features came with the questions;
    `store_away`: nobody could read them."""
    found: list[PredictionServed | QuestionUnanswered] = []
    events = [question.event for question in questions]
    taken = {role: inputs_of(names, events) for role, names in inputs.items()}
    timings: dict[float, dict[str, float]] = {}
    for row, (question, answer, lags) in enumerate(zip(questions, answers, stale, strict=True)):
        if answer is None:
            found.append(unanswered(question, "model_failed"))
            continue
        role, reading, ms = answer.role, readings[answer.role], answer.ms
        if (spent := timings.get(ms)) is None:
            spent = timings[ms] = {stage: round(one, 4) for stage, one in (*timings_ms.items(), ("model", ms))}
        found.append(
            PredictionServed(
                id=question.prediction_id,
                loop=question.loop,
                question=question.id,
                key=question.key,
                asked_at=to_datetime(question.asked_at),
                version=answer.version,
                variant=role,
                transport=question.transport,
                entities=reading.asked[row],
                inputs=taken[role][row],
                features=reading.read[row],
                output=answer.output,
                timings_ms=spent,
                stale_views=lags,
                given=given,
                store_away=store_away,
                other=answer.other,
                fallback=answer.fallback,
                producer=question.producer,
                content=contents(question.event, content) if content else {},
            )
        )
    return found


def empty_views(served: PredictionServed) -> list[str]:
    """Views that know nothing of the question's entity: each of their features is null, or a count of 0. So are those of an
    entity that nobody has ever heard of, that was silent for longer than the windows, or that the question does not name.

    Empty where nobody looked: features that came with the question, a store that was away.
    """
    if served.given or served.store_away:
        return []
    known, views = set[str](), dict[str, None]()
    for name, value in served.features.items():
        view = name.partition("__")[0]
        views[view] = None
        if value is not None and (value or type(value) is float):
            known.add(view)
    return [view for view in views if view not in known]


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
