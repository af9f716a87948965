"""Questions of callers who wait, over HTTP and gRPC: answered together, and handed to the prediction log before the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from millstream.contracts.events import PredictionServed, QuestionUnanswered
from millstream.errors import MillstreamError, RejectEvent, RetryLater
from millstream_serving.domain.columns import FeatureValues, Table
from millstream_serving.domain.question import Question
from millstream_serving.domain.roster import Standing
from millstream_serving.errors import StaleFeatures
from millstream_serving.handlers.loaded import Loaded
from millstream_serving.handlers.predict import MOST_ROWS, Answer, Predictor
from millstream_serving.handlers.record import Recorded, Recorder, fits
from millstream_serving.handlers.together import Together
from millstream_serving.ports import AnswerLog


class Given(NamedTuple):
    """One request with its features: some rows for the models of one standing."""

    standing: Standing[Loaded]
    questions: Sequence[Question]
    features: FeatureValues | Table
    pinned: bool


class Online:
    """Safe for concurrent use. Whoever asks the same loop in the same moment is answered by one read and one run."""

    def __init__(self, predictor: Predictor, log: AnswerLog, recorder: Recorder) -> None:
        self._predictor = predictor
        self._log = log
        self._recorder = recorder
        self._asked: dict[str, Together[Question, Recorded]] = {}
        self._given: dict[str, Together[Given, Sequence[Answer]]] = {}

    async def predict(self, question: Question) -> Recorded:
        """The answer; one by a model is in the log.

        Raises RejectEvent for what is no question, FeaturesUnavailable, FeaturesBehind, StaleFeatures, NotSent.
        """
        together = self._asked.get(question.loop)
        if together is None:
            together = self._asked[question.loop] = Together(self._predict)
        return await together.ask(question)

    async def infer(
        self,
        standing: Standing[Loaded],
        questions: Sequence[Question],
        features: FeatureValues | Table,
        *,
        pinned: bool,
    ) -> Sequence[Answer]:
        """One answer a question, all in the log but those of what is no question: see `Predictor.infer`. Raises NotSent."""
        loop = questions[0].loop
        together = self._given.get(loop)
        if together is None:
            together = self._given[loop] = Together(self._infer)
        return await together.ask(Given(standing, questions, features, pinned))

    async def _predict(self, questions: Sequence[Question]) -> list[Recorded | Exception]:
        if len(questions) > 1 and not await self._predictor.current(questions):
            # Each has its own time, and its loop may let it wait, or refuse it: not because of its neighbours.
            alone = [self._predict([question]) for question in questions]
            found = await asyncio.gather(*alone, return_exceptions=True)
            said: list[Recorded | Exception] = []
            for one in found:
                if isinstance(one, list):
                    said += one
                elif isinstance(one, Exception):
                    said.append(one)
                else:
                    raise one  # a cancellation, which is for all of them
            return said
        try:
            answers = await self._predictor.predict(questions)
            # What nobody answered is told to the caller, who asks again: it is no record of a question that is lost.
            return [*self._logged(questions, answers, unanswered=False)]
        except (RetryLater, StaleFeatures) as error:
            self._predictor.refused(questions, error)
            raise

    async def _infer(self, asked: Sequence[Given]) -> Sequence[Sequence[Answer] | Exception]:
        alike: dict[tuple[object, ...], list[int]] = {}
        for position, one in enumerate(asked):
            kind = (id(one.standing), one.pinned, _kind(one.features), *one.questions[0].event)
            alike.setdefault(kind, []).append(position)
        found: dict[int, Sequence[Answer] | Exception] = {}
        for positions in alike.values():
            for some in _runs(positions, asked):
                found.update(zip(some, await self._infer_alike([asked[place] for place in some]), strict=True))
        return [found[position] for position in range(len(asked))]

    async def _infer_alike(self, some: Sequence[Given]) -> Sequence[Sequence[Answer] | Exception]:
        first = some[0]
        questions = [question for one in some for question in one.questions]
        features = _joined([one.features for one in some])
        try:
            answers = await self._predictor.infer(first.standing, questions, features, pinned=first.pinned)
            logged = self._logged(questions, answers, unanswered=True)
        except MillstreamError as error:
            self._predictor.refused(questions, error)
            return [error] * len(some)
        found, at = [], 0
        for one in some:
            found.append(logged[at : at + len(one.questions)])
            at += len(one.questions)
        return found

    def _logged(self, questions: Sequence[Question], answers: Sequence[Answer], *, unanswered: bool) -> list[Answer]:
        """The answers, handed to the log; one whose record no topic takes becomes a RejectEvent."""
        kinds = (PredictionServed, QuestionUnanswered) if unanswered else (PredictionServed,)
        said = list(answers)
        places = [place for place, one in enumerate(answers) if isinstance(one, kinds)]
        if not places:
            return said
        pairs = [(questions[place], answers[place]) for place in places]
        records = self._recorder.records(pairs)  # type: ignore[arg-type]  # of these kinds
        for place, record in zip(places, records, strict=True):
            if not fits(record):
                size = f"its answer has {len(record.value)} bytes, more than Kafka takes"
                said[place] = RejectEvent("too_large", size)
        self._log.put(questions[0].loop, [record for record in records if fits(record)])
        return said


def _runs(positions: Sequence[int], asked: Sequence[Given]) -> list[list[int]]:
    """Requests that are scored together: MOST_ROWS rows, or one that has more."""
    runs: list[list[int]] = []
    rows = MOST_ROWS
    for position in positions:
        more = len(asked[position].questions)
        if rows + more > MOST_ROWS:
            runs.append([])
            rows = 0
        runs[-1].append(position)
        rows += more
    return runs


def _kind(features: FeatureValues | Table) -> object:
    """Equal for features that can be joined."""
    if isinstance(features, Table):
        return features.names, features.values.dtype
    return tuple((name, values.dtype) for name, values in features.items())  # 2^53 + 1 is itself in company too


def _joined(some: Sequence[FeatureValues | Table]) -> FeatureValues:
    """The features of several requests, which are of one kind."""
    first = some[0]
    if isinstance(first, Table):
        return Table(first.names, np.concatenate([one.values for one in some if isinstance(one, Table)])).columns()
    if len(some) == 1:
        return first
    return {name: np.concatenate([one[name] for one in some if not isinstance(one, Table)]) for name in first}
