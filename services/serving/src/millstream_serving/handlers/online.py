"""Questions of callers who wait, over HTTP and gRPC: answered together, and handed to the prediction log before the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Sequence

from millstream.contracts.events import PredictionServed, QuestionUnanswered
from millstream.errors import MillstreamError, RejectEvent, RetryLater
from millstream.runtime.publisher import Outgoing
from millstream_serving.domain.question import Question
from millstream_serving.errors import StaleFeatures
from millstream_serving.handlers.given import Given, GivenTable, joined
from millstream_serving.handlers.predict import MOST_ROWS, Answer, Predictor
from millstream_serving.handlers.record import Recorded, Recorder, fits
from millstream_serving.handlers.together import Together
from millstream_serving.ports import AnswerLog


class Online:
    """Safe for concurrent use. Whoever asks the same loop in the same moment is answered by one read and one run."""

    def __init__(self, predictor: Predictor, log: AnswerLog, recorder: Recorder) -> None:
        self._predictor = predictor
        self._log = log
        self._recorder = recorder
        self._asked: dict[str, Together[Question, Recorded]] = {}
        self._given: dict[str, Together[Given | GivenTable, Sequence[Answer]]] = {}

    async def predict(self, question: Question) -> Recorded:
        """The answer; one by a model is in the log.

        Raises RejectEvent for what is no question, FeaturesUnavailable, FeaturesBehind, StaleFeatures, NotSent.
        """
        together = self._asked.get(question.loop)
        if together is None:
            together = self._asked[question.loop] = Together(self._predict)
        return await together.ask(question)

    def infer(self, given: Given | GivenTable) -> asyncio.Future[Sequence[Answer]]:
        """One answer a row, all in the log but those of what is no question: see `Predictor.infer`. Raises NotSent."""
        together = self._given.get(given.loop)
        if together is None:
            together = self._given[given.loop] = Together(self._infer)
        return together.ask(given)

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

    async def _infer(self, asked: Sequence[Given | GivenTable]) -> Sequence[Sequence[Answer] | Exception]:
        alike: dict[Hashable, list[int]] = {}
        for position, one in enumerate(asked):
            alike.setdefault(one.kind(), []).append(position)
        found: dict[int, Sequence[Answer] | Exception] = {}
        for positions in alike.values():
            for some in _runs(positions, asked):
                found.update(zip(some, await self._infer_alike([asked[place] for place in some]), strict=True))
        return [found[position] for position in range(len(asked))]

    async def _infer_alike(self, some: Sequence[Given | GivenTable]) -> Sequence[Sequence[Answer] | Exception]:
        questions, features = joined(some)
        try:
            answers = await self._predictor.infer(some[0].standing, questions, features, pinned=some[0].pinned)
            logged = self._logged(questions, answers, unanswered=True)
        except MillstreamError as error:
            self._predictor.refused(questions, error)
            return [error] * len(some)
        found, at = [], 0
        for one in some:
            found.append(logged[at : at + one.rows])
            at += one.rows
        return found

    def _logged(self, questions: Sequence[Question], answers: Sequence[Answer], *, unanswered: bool) -> list[Answer]:
        """The answers, handed to the log; one whose record no topic takes becomes a RejectEvent."""
        kinds = (PredictionServed, QuestionUnanswered) if unanswered else (PredictionServed,)
        said = list(answers)
        places = [place for place, one in enumerate(answers) if isinstance(one, kinds)]
        if not places:
            return said
        pairs = [(questions[place], answers[place]) for place in places]
        fitting: list[Outgoing] = []
        for place, record in zip(places, self._recorder.records(pairs), strict=True):  # type: ignore[arg-type]  # of these kinds
            if fits(record):
                fitting.append(record)
            else:
                size = f"its answer has {len(record.value)} bytes, more than Kafka takes"
                said[place] = RejectEvent("too_large", size)
        self._log.put(questions[0].loop, fitting)
        return said


def _runs(positions: Sequence[int], asked: Sequence[Given | GivenTable]) -> list[list[int]]:
    """Requests that are scored together: MOST_ROWS rows, or one that has more."""
    runs: list[list[int]] = []
    rows = MOST_ROWS
    for position in positions:
        more = asked[position].rows
        if rows + more > MOST_ROWS:
            runs.append([])
            rows = 0
        runs[-1].append(position)
        rows += more
    return runs
