"""The one predict path of all doorways: features are read once, or given; every model on duty scores them, one answers."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from millstream.contracts.events import PredictionServed, QuestionUnanswered
from millstream.errors import MillstreamError, RejectEvent, RetryLater
from millstream.project.fields import text_of
from millstream.project.loop import Loop
from millstream.project.stream import Stream
from millstream_serving.domain import turn
from millstream_serving.domain.answer import Reading, recorded, unanswered
from millstream_serving.domain.columns import Columns, FeatureValues, Misfit, Table, columns_of, entities_of, unread
from millstream_serving.domain.question import Question, Transport
from millstream_serving.domain.roster import Roster, Standing
from millstream_serving.domain.scores import RAISED, Scores
from millstream_serving.domain.turn import CHALLENGER, CHAMPION, Side
from millstream_serving.errors import RemoteAway, StaleFeatures
from millstream_serving.handlers.freshness_gate import FreshnessGate
from millstream_serving.handlers.loaded import Loaded
from millstream_serving.handlers.residents import Residents
from millstream_serving.handlers.store_gate import StoreGate
from millstream_serving.metrics import ServingMetrics
from millstream_serving.ports import Features, Freshness

MOST_ROWS = 500
"""Questions of one read and run. Bounds how long the online store's one thread and a model run are held (about 15 ms each)."""

PATIENCE = 30.0
"""Seconds that a batch over Kafka waits for a model that runs elsewhere, as for features that are behind."""
MOST_SILENT = 1_000
"""Batches that wait at a time: one a partition and loop. The oldest of more waits anew."""

Answer = PredictionServed | QuestionUnanswered | RejectEvent
"""A RejectEvent where the asking event cannot be a question to this model."""


def ask(
    loop: Loop,
    event: Mapping[str, Any],
    *,
    asked_at: int,
    transport: Transport,
    cause: str | None = None,
    producer: str = "",
    trace: str | None = None,
    place: tuple[int, int] | None = None,
) -> Question:
    """The question that `event` puts to `loop`. Raises RejectEvent(`missing_field`)."""
    id = loop.predict.id_of(event)
    return Question(
        loop=loop.name,
        id=id,
        key=loop.label.key_of(event),
        asked_at=asked_at,
        transport=transport,
        event=event,
        cause=cause or id,
        producer=producer,
        trace=trace,
        place=place,
    )


def entity_of(loop: Loop, stream: Stream, question: Question) -> str:
    """Whom the question is about, for the canary: `rollout.by`, else the record key, else the question itself."""
    for name in (loop.rollout.by, stream.key):
        try:
            if name is not None:
                return text_of(question.event, name)
        except RejectEvent:
            continue
    return question.id


class Predictor:
    """Safe for concurrent use."""

    def __init__(
        self,
        *,
        roster: Roster[Loaded],
        residents: Residents | None = None,
        loops: Mapping[str, Loop],
        streams: Mapping[str, Stream],
        freshness: Freshness,
        metrics: ServingMetrics,
        stopwatch: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._residents = residents or Residents(roster, metrics)
        self._loops = loops
        self._streams = streams
        self._gate = FreshnessGate(loops=loops, freshness=freshness, metrics=metrics, stopwatch=stopwatch)
        self._store = StoreGate(loops=loops, metrics=metrics, stopwatch=stopwatch)
        self._metrics = metrics
        self._stopwatch = stopwatch
        self._silent: dict[tuple[str, str], float] = {}
        """Since when a batch waits, by loop and its first question: others that are answered meanwhile do not prolong it."""

    async def predict(self, questions: Sequence[Question]) -> list[Answer]:
        """One answer a question, in order; all of one transport.

        Raises FeaturesUnavailable, FeaturesBehind, RemoteAway, ModelUnloaded: ask all of them again. Over HTTP StaleFeatures
        too.
        """
        answers: dict[int, Answer] = {}
        by_loop: dict[str, list[int]] = {}
        for position, question in enumerate(questions):
            by_loop.setdefault(question.loop, []).append(position)
        for loop, positions in by_loop.items():
            # Taken once: a swap in the middle of a batch changes nothing for the questions that are under way.
            standing = await self._residents.standing(loop)
            silence = "model_failed" if standing.refusal or standing.unloaded else "no_model"
            first = questions[positions[0]].id
            for start in range(0, len(positions), MOST_ROWS):
                some = positions[start : start + MOST_ROWS]
                asked = [questions[position] for position in some]
                found: Sequence[Answer]
                if standing.champion is None or standing.unloaded:
                    found = [unanswered(question, silence) for question in asked]
                else:
                    found = await self._ask(standing, asked, first)
                answers.update(zip(some, found, strict=True))
        for loop, positions in by_loop.items():
            self._silent.pop((loop, questions[positions[0]].id), None)
        done = [answers[position] for position in range(len(questions))]
        self._count(questions, done)
        return done

    async def current(self, questions: Sequence[Question]) -> bool:
        """Whether no feature lags behind any of `questions`, all of one loop: then they are alike to `predict`."""
        standing = await self._residents.standing(questions[0].loop)
        if standing.champion is None or standing.unloaded:
            return True
        services = self._store.watched(questions[0].loop, _services(standing))
        found = await self._store.ask(questions[0], 0, lambda: self._gate.current(services, questions))
        return found is None or found

    async def infer(
        self,
        standing: Standing[Loaded],
        questions: Sequence[Question],
        features: FeatureValues | Table,
        *,
        pinned: bool,
    ) -> list[Answer]:
        """One answer a question, all of one loop, from features that came with the questions: nothing is read, so nothing
        can be stale. `standing` has a champion, and `features` what its manifest wants; a model beside it is asked where
        that is enough for it too. `pinned`: the champion answers or nobody; not the challenger in its canary, nor the
        predecessor where a champion on watch fails.
        """
        began = self._stopwatch()
        reading = Reading({}, features, len(questions))
        here = {"input": questions[0].event.keys(), "feature": reading.features.keys()}
        if standing.other is not None and any(
            one.name not in here[one.source] for one in standing.other.manifest.inputs
        ):
            standing = replace(standing, other=None)
        stale: list[dict[str, float]] = [{} for _ in questions]
        readings = dict.fromkeys(standing.models, reading)
        done = await self._answered(standing, questions, readings, stale, began, given=True, pinned=pinned)
        if pinned:
            for row, one in enumerate(done):
                if isinstance(one, PredictionServed) and one.variant != CHAMPION:
                    done[row] = unanswered(questions[row], "model_failed")
        self._count(questions, done)
        return done

    async def _ask(self, standing: Standing[Loaded], questions: Sequence[Question], first: str) -> Sequence[Answer]:
        began = self._stopwatch()
        models, events = standing.models, [question.event for question in questions]
        services = _services(standing)
        stale: Sequence[dict[str, float]] = [{} for _ in questions]
        refusing, away = False, False
        values: list[FeatureValues] = []
        if services:
            watched = self._store.watched(questions[0].loop, services)
            looked_up = await self._store.ask(questions[0], len(questions), lambda: self._look_up(watched, questions))
            away = looked_up is None
            if looked_up is None:
                values = [unread(features.names, len(questions)) for features in services]
            else:
                stale, refusing, values = looked_up
        found: dict[int, Reading] = {}
        for features, one in zip(services, values, strict=True):
            found[id(features)] = Reading(entities_of(features.join_keys, events), one, len(questions))
        for model in models.values():
            if id(model.features) not in found:  # its question brings all that it reads
                found[id(model.features)] = Reading(entities_of(model.features.join_keys, events), {}, len(questions))
        readings = {role: found[id(model.features)] for role, model in models.items()}
        answers = await self._answered(standing, questions, readings, stale, began, store_away=away, first=first)
        for row, question in enumerate(questions):
            # What the model cannot take is no question at all, fresh or not.
            if refusing and stale[row] and not isinstance(answers[row], RejectEvent):
                answers[row] = unanswered(question, "stale_features")
        return answers

    async def _look_up(
        self, services: Sequence[Features], questions: Sequence[Question]
    ) -> tuple[Sequence[dict[str, float]], bool, list[FeatureValues]]:
        """How stale the features are, whether that is refused, and what `services` have. Raises FeaturesUnavailable."""
        stale, refusing = await self._gate.staleness(services, questions)
        events = [question.event for question in questions]
        as_of = np.array([question.asked_at for question in questions], dtype=np.int64)
        return stale, refusing, [await one.read(entities_of(one.join_keys, events), as_of) for one in services]

    async def _answered(
        self,
        standing: Standing[Loaded],
        questions: Sequence[Question],
        readings: Mapping[str, Reading],
        stale: Sequence[dict[str, float]],
        began: float,
        *,
        given: bool = False,
        pinned: bool = False,
        store_away: bool = False,
        first: str = "",
    ) -> list[Answer]:
        models, read = standing.models, self._stopwatch()
        sides, misfits = await self._score(standing, readings, questions)
        ran = self._stopwatch()
        if not given:
            self._metrics.stage_seconds.labels("features").observe(read - began)
        self._metrics.stage_seconds.labels("model").observe(ran - read)
        share = 1000.0 / len(questions)
        loop = self._loops[questions[0].loop]
        stream = self._streams[loop.predict.on]
        turns = standing.turns(lambda: [entity_of(loop, stream, one) for one in questions], len(questions))
        if pinned and standing.role == CHALLENGER:
            turns = [False] * len(questions)
        answers: list[Answer] = [
            *recorded(
                questions,
                turn.given(sides[standing.trusted], sides.get(standing.guarded), turns),
                inputs={role: model.inputs for role, model in models.items()},
                readings=readings,
                stale=stale,
                timings_ms={"features": (read - began) * share, "total": (ran - began) * share},
                content=loop.drift.content,
                given=given,
                store_away=store_away,
            )
        ]
        silent = any(isinstance(one, QuestionUnanswered) for one in answers)
        away = silent and sides[standing.trusted].scores.away
        if away and questions[0].transport == "kafka" and self._waits(loop.name, first):
            raise RemoteAway(f"{loop.name}: the model runs elsewhere and does not answer")
        for misfit in misfits:
            answers[misfit.row] = RejectEvent("bad_input", f"/{misfit.field}: {misfit.detail}")
        return answers

    def _waits(self, loop: str, first: str) -> bool:
        """Whether the batch that begins with `first` has waited for less than `PATIENCE`."""
        if (loop, first) not in self._silent and len(self._silent) >= MOST_SILENT:
            del self._silent[next(iter(self._silent))]
        now = self._stopwatch()
        return now - self._silent.setdefault((loop, first), now) < PATIENCE

    async def _score(
        self, standing: Standing[Loaded], readings: Mapping[str, Reading], questions: Sequence[Question]
    ) -> tuple[Mapping[str, Side], Sequence[Misfit]]:
        """What each model says, by role; and the inputs that the champion's columns cannot hold."""
        models, loop, rows = standing.models, questions[0].loop, len(questions)
        columns, misfits = _columns(models, readings, questions)
        trusted, guarded = standing.trusted, standing.guarded
        scores: dict[str, Scores] = {}
        if not guarded:
            scores[trusted] = await models[trusted].score(columns[trusted], rows)
        else:
            deadline = self._loops[loop].rollout.guards.deadline / 1000.0
            # The guarded one first: it has its own thread, the other may run on this one meanwhile.
            scores[guarded], scores[trusted] = await asyncio.gather(
                models[guarded].score_within(deadline, columns[guarded], rows),
                models[trusted].score(columns[trusted], rows),
            )
        for role, odd in misfits.items():
            # What one model's columns cannot hold is no question to it, though it may be one to the other.
            scores[role] = scores[role].without((misfit.row for misfit in odd), RAISED)
        if guarded:
            for role, one in scores.items():
                self._count_trial(loop, role, one)
        return {
            role: Side(role=role, version=models[role].ref.version, scores=one) for role, one in scores.items()
        }, misfits[CHAMPION]

    def _count_trial(self, loop: str, role: str, scores: Scores) -> None:
        if scores.ms:
            self._metrics.trial_seconds.labels(loop, role).observe(scores.ms * len(scores.failures) / 1000.0)
        for failure, count in Counter(failure for failure in scores.failures if failure).items():
            self._metrics.trial_failures.labels(loop, role, failure).inc(count)

    def refused(self, questions: Sequence[Question], error: MillstreamError) -> None:
        """Callers who wait hear `error` instead of an answer. What is no question of theirs, or of no model, is not ours."""
        reason = "stale_features" if isinstance(error, StaleFeatures) else "unavailable"
        if isinstance(error, (StaleFeatures, RetryLater)):
            for question in questions:
                self._metrics.unanswered.labels(question.loop, reason, question.transport).inc()

    def _count(self, questions: Sequence[Question], answers: Sequence[Answer]) -> None:
        counts: dict[tuple[str, str, str, str], int] = {}
        for question, answer in zip(questions, answers, strict=True):
            match answer:
                case PredictionServed():
                    kind = ("served", question.loop, answer.variant, question.transport)
                case QuestionUnanswered():
                    kind = ("unanswered", question.loop, answer.reason, question.transport)
                case _:
                    continue  # no question at all
            counts[kind] = counts.get(kind, 0) + 1
        for (metric, *labels), count in counts.items():
            counter = self._metrics.served if metric == "served" else self._metrics.unanswered
            counter.labels(*labels).inc(count)


def _services(standing: Standing[Loaded]) -> list[Features]:
    """One read for each FeatureService: two models nearly always share theirs. None for a model that reads no feature."""
    reading = [model for model in standing.models.values() if model.reads]
    return list({id(model.features): model.features for model in reading}.values())


def _columns(
    models: Mapping[str, Loaded], readings: Mapping[str, Reading], questions: Sequence[Question]
) -> tuple[dict[str, Columns], dict[str, list[Misfit]]]:
    """Columns and misfits of each model, by role; made once where both want the same."""
    events = [question.event for question in questions]
    columns: dict[str, Columns] = {}
    misfits: dict[str, list[Misfit]] = {}
    champion = models[CHAMPION]
    for role, model in models.items():
        alike = readings[role] is readings[CHAMPION] and model.manifest.inputs == champion.manifest.inputs
        if alike and role != CHAMPION:
            columns[role], misfits[role] = columns[CHAMPION], misfits[CHAMPION]
        else:
            columns[role], misfits[role] = columns_of(model.manifest.inputs, events, readings[role].features)
    return columns, misfits
