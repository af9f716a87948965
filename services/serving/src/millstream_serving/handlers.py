"""What serving does: questions in, answers out, by one read and one run; and a new model in, whole or not at all."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from millstream.contracts.events import ModelRef, ModelState, PredictionServed, QuestionUnanswered
from millstream.contracts.package import MODEL_FILE, BadPackage, Manifest
from millstream.errors import RejectEvent, RetryLater
from millstream.project.loop import Loop
from millstream.project.stream import Stream
from millstream.runtime.health import Health
from millstream_serving.domain.answer import recorded, unanswered
from millstream_serving.domain.columns import Columns, columns_of, empty_columns, entities_of
from millstream_serving.domain.freshness import Outages
from millstream_serving.domain.question import Question, Transport
from millstream_serving.domain.roster import Roster
from millstream_serving.errors import FeaturesBehind, ModelFailed, ModelRefused, StaleFeatures
from millstream_serving.metrics import ServingMetrics
from millstream_serving.ports import Features, FeatureStore, Freshness, Model, ModelRuntime, Packages

log = logging.getLogger(__name__)

MOST_ROWS = 500
"""Questions of one read and run. Bounds how long the online store's one thread and a model run are held (about 15 ms each)."""
INLINE_ROWS = 128
"""A run up to here stays on the event loop: 2 ms at most, while a hop to a thread and back costs 0.1 ms and more."""

PATIENCE = 30.0
"""Seconds that questions wait for features in one outage, then they are answered and flagged: a features process that was
killed is back after 12 s, and what takes longer may take hours, in which a marked answer is worth more than none."""
HTTP_PATIENCE = 2.0
"""Seconds of it that one HTTP request is held: callers give up after five or ten."""
HTTP_LOOK = 0.05
"""Seconds between two looks of a request that waits."""

Answer = PredictionServed | QuestionUnanswered | RejectEvent
"""A RejectEvent where the asking event cannot be a question to this model."""


@dataclass(frozen=True, kw_only=True)
class Champion:
    """A loaded model, with everything that it needs to answer."""

    ref: ModelRef
    manifest: Manifest
    model: Model
    features: Features


def ask(
    loop: Loop, event: Mapping[str, Any], *, asked_at: int, transport: Transport, cause: str | None = None
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
    )


class Predictor:
    """The one predict path of both doorways. Safe for concurrent use."""

    def __init__(
        self,
        *,
        roster: Roster[Champion],
        loops: Mapping[str, Loop],
        freshness: Freshness,
        metrics: ServingMetrics,
        stopwatch: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._roster = roster
        self._loops = loops
        self._freshness = freshness
        self._outages = Outages(PATIENCE)
        self._metrics = metrics
        self._stopwatch = stopwatch

    async def predict(self, questions: Sequence[Question]) -> list[Answer]:
        """One answer a question, in order; all of one transport.

        Raises FeaturesUnavailable, FeaturesBehind: ask all of them again; and over HTTP StaleFeatures.
        """
        answers: dict[int, Answer] = {}
        by_loop: dict[str, list[int]] = {}
        for position, question in enumerate(questions):
            by_loop.setdefault(question.loop, []).append(position)
        for loop, positions in by_loop.items():
            # Taken once: a swap in the middle of a batch changes nothing for the questions that are under way.
            standing = self._roster.standing(loop)
            champion, silence = standing.champion, "model_failed" if standing.refusal else "no_model"
            for start in range(0, len(positions), MOST_ROWS):
                some = positions[start : start + MOST_ROWS]
                asked = [questions[position] for position in some]
                found: Sequence[Answer]
                if champion is None:
                    found = [unanswered(question, silence) for question in asked]
                else:
                    found = await self._ask(champion, asked)
                answers.update(zip(some, found, strict=True))
        done = [answers[position] for position in range(len(questions))]
        self._count(questions, done)
        return done

    async def _ask(self, champion: Champion, questions: Sequence[Question]) -> Sequence[Answer]:
        began = self._stopwatch()
        stale, refusing = await self._staleness(champion, questions)
        events = [question.event for question in questions]
        entities = entities_of(champion.features.join_keys, events)
        as_of = np.array([question.asked_at for question in questions], dtype=np.int64)
        features = await champion.features.read(entities, as_of)
        read = self._stopwatch()
        columns, misfits = columns_of(champion.manifest.inputs, events, features)
        probabilities = await _probabilities(champion.model, columns, len(questions))
        ran = self._stopwatch()
        self._metrics.stage_seconds.labels("features").observe(read - began)
        self._metrics.stage_seconds.labels("model").observe(ran - read)
        share = 1000.0 / len(questions)
        timings = {"features": (read - began) * share, "model": (ran - read) * share, "total": (ran - began) * share}
        answers: list[Answer] = [
            *recorded(
                questions,
                probabilities,
                version=champion.ref.version,
                inputs=[column.name for column in champion.manifest.inputs if column.source == "input"],
                entities=entities,
                features=features,
                stale=stale,
                timings_ms=timings,
            )
        ]
        for row, question in enumerate(questions):
            if refusing and stale[row]:
                answers[row] = unanswered(question, "stale_features")
        for misfit in misfits:
            answers[misfit.row] = RejectEvent("bad_input", f"/{misfit.field}: {misfit.detail}")
        return answers

    async def _staleness(
        self, champion: Champion, questions: Sequence[Question]
    ) -> tuple[Sequence[dict[str, float]], bool]:
        """For each question the views that lag beyond its loop's bound, and whether the loop refuses to answer then.

        Raises FeaturesBehind where the loop waits over Kafka, StaleFeatures where it refuses over HTTP.
        """
        loop, transport = questions[0].loop, questions[0].transport
        rule = self._loops[loop].predict.freshness
        what = rule.when_stale or ("wait" if transport == "kafka" else "flag")
        asked_at = [question.asked_at for question in questions]
        began = self._stopwatch()
        while True:
            stale = await self._freshness.stale(champion.features, asked_at, rule.bound)
            worst = {view: max(one.get(view, 0.0) for one in stale) for view in champion.features.streams}
            for view, seconds in worst.items():
                self._metrics.view_lag.labels(loop, view).set(seconds)
            lagging = sum(map(bool, stale))
            if not lagging:
                self._outages.over(loop)
                return stale, False
            waits = what == "wait" and self._outages.patient(loop, self._stopwatch())
            if not waits or (transport == "http" and self._stopwatch() - began > HTTP_PATIENCE):
                break
            self._metrics.stale.labels(loop, "waited", transport).inc(lagging)
            if transport == "kafka":
                raise FeaturesBehind(_behind(loop, worst))
            await asyncio.sleep(HTTP_LOOK)
        refusing = what == "refuse"
        self._metrics.stale.labels(loop, "refused" if refusing else "flagged", transport).inc(lagging)
        if refusing and transport == "http":
            raise StaleFeatures(_behind(loop, worst))
        return stale, refusing

    def _count(self, questions: Sequence[Question], answers: Sequence[Answer]) -> None:
        counts: dict[tuple[str, str, str, str], int] = {}
        for question, answer in zip(questions, answers, strict=True):
            match answer:
                case PredictionServed():
                    kind = ("served", question.loop, answer.variant, question.transport)
                case QuestionUnanswered():
                    kind = ("unanswered", question.loop, answer.reason, question.transport)
                case _:
                    continue  # the doorway counts what it refuses
            counts[kind] = counts.get(kind, 0) + 1
        for (metric, *labels), count in counts.items():
            counter = self._metrics.served if metric == "served" else self._metrics.unanswered
            counter.labels(*labels).inc(count)


def _behind(loop: str, lags: Mapping[str, float]) -> str:
    said = ", ".join(f"{view} by {seconds:.1f} s" for view, seconds in sorted(lags.items()) if seconds)
    return f"{loop}: features have not kept up with the question: {said}; see the lag of the features service"


async def _probabilities(model: Model, columns: Columns, rows: int) -> list[float | None]:
    """One probability a row; None where the model has no honest one.

    When a run fails as a whole each row runs alone, so that one question that the graph cannot bear costs no neighbour.
    """
    try:
        return await _run(model, columns, rows)
    except ModelFailed:
        if rows == 1:
            return [None]
    alone: list[float | None] = []
    for row in range(rows):
        try:
            alone += await _run(model, {name: values[row : row + 1] for name, values in columns.items()}, 1)
        except ModelFailed:
            alone.append(None)
    return alone


async def _run(model: Model, columns: Columns, rows: int) -> list[float | None]:
    found = await asyncio.to_thread(model.run, columns) if rows > INLINE_ROWS else model.run(columns)
    if found.shape != (rows,):
        raise ModelFailed(f"{rows} rows in, shape {found.shape} out")
    # NaN fails both comparisons.
    return [value if 0.0 <= value <= 1.0 else None for value in found.tolist()]


class ModelKeeper:
    """Keeps the roster at the newest model state: loads it, checks it, warms it up, and only then swaps."""

    def __init__(
        self,
        *,
        roster: Roster[Champion],
        loops: Mapping[str, Loop],
        streams: Mapping[str, Stream],
        packages: Packages,
        runtime: ModelRuntime,
        store: FeatureStore,
        health: Health,
        metrics: ServingMetrics,
        stopwatch: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._roster = roster
        self._loops = loops
        self._streams = streams
        self._packages = packages
        self._runtime = runtime
        self._store = store
        self._health = health
        self._metrics = metrics
        self._stopwatch = stopwatch
        self._waiting: dict[str, ModelState] = {}
        """Newest state of each loop that has not been tried yet."""
        self._news = asyncio.Event()
        self.known = asyncio.Event()
        """Set for good once everything that the topic held at the start was obeyed or refused."""
        self.idle = asyncio.Event()
        """Set while nothing that was heard waits to be obeyed."""
        health.waiting_for("models", "millstream-models has not been read to its end yet")

    def hear(self, state: ModelState) -> None:
        """A record of the topic. Only the newest of a loop counts; loops that the project does not have do not."""
        if state.loop not in self._roster:
            log.info("a model for a loop that this project does not have", extra={"loop": state.loop})
            return
        waiting = self._waiting.get(state.loop)
        if self._roster.is_news(state) and (waiting is None or state.revision > waiting.revision):
            self._waiting[state.loop] = state
            self.idle.clear()
            self._news.set()

    async def run(self, caught_up: asyncio.Event) -> None:
        """Obey until cancelled. Begins at the end of the topic, so that no outdated model is loaded on the way there."""
        await caught_up.wait()
        attempt = 0
        while True:
            self._news.clear()
            away = await self._obey_all()
            if away is None:
                attempt = 0
                self._health.met("models")
                self.known.set()
                if not self._waiting:
                    self.idle.set()
                await self._news.wait()
                continue
            if not self.known.is_set():
                self._health.waiting_for("models", str(away))
            log.warning("a model cannot be read yet: %s", away)
            await asyncio.sleep(min(5.0, 0.2 * 2.0 ** min(attempt, 10)) * random.uniform(0.5, 1.0))
            attempt += 1

    async def _obey_all(self) -> RetryLater | None:
        """Try every state that waits; what made one wait on, if any does."""
        away: RetryLater | None = None
        for loop, state in list(self._waiting.items()):
            try:
                await self._obey(state)
            except RetryLater as error:
                away = error
                continue
            if self._waiting[loop] is state:
                del self._waiting[loop]
        return away

    async def _obey(self, state: ModelState) -> None:
        began = self._stopwatch()
        before = self._roster.standing(state.loop).champion
        try:
            champion = await self._champion(state, before)
        except ModelRefused as error:
            self._refuse(state, error)
            return
        except RetryLater:
            raise
        except Exception as error:  # whatever a package can make a library do, the model before goes on answering
            log.error("a model could not be loaded", exc_info=error, extra={"loop": state.loop})
            self._refuse(state, ModelRefused("unexpected", f"{type(error).__name__}: {error}"))
            return
        self._roster.obey(state, champion)
        self._health.met(f"model of {state.loop}")
        self._metrics.revision.labels(state.loop).set(state.revision)
        self._metrics.load_seconds.labels(state.loop).observe(self._stopwatch() - began)
        version = champion.ref.version if champion else None
        log.info("obeying", extra={"loop": state.loop, "revision": state.revision, "version": version})

    def _refuse(self, state: ModelState, error: ModelRefused) -> None:
        self._roster.refuse(state, str(error))
        self._metrics.refused.labels(state.loop, error.reason).inc()
        log.error("model refused: %s", error, extra={"loop": state.loop, "revision": state.revision})
        if self._roster.standing(state.loop).champion is None:
            # With a good model still answering the replica stays ready: else one broken package would stop them all.
            self._health.waiting_for(f"model of {state.loop}", f"revision {state.revision} was refused: {error}")

    async def _champion(self, state: ModelState, before: Champion | None) -> Champion | None:
        """Who answers in `state`, ready to. Raises ModelRefused, RetryLater."""
        ref = state.champion
        if ref is None:
            return None
        if before is not None and before.ref == ref:
            return before
        try:
            manifest = await asyncio.to_thread(self._packages.manifest, ref)
            raw = await asyncio.to_thread(self._packages.file, ref, manifest, MODEL_FILE)
        except BadPackage as error:
            raise ModelRefused("package", str(error)) from error
        if (manifest.loop, manifest.version) != (state.loop, ref.version):
            raise ModelRefused("package", f"the package is of {manifest.loop} {manifest.version}, not of {ref.version}")
        features = await self._store.open(manifest.feature_service)
        self._check_inputs(manifest, features)
        model = await asyncio.to_thread(self._runtime.load, raw, manifest.inputs, manifest.output)
        await self._warm_up(model, manifest)
        return Champion(ref=ref, manifest=manifest, model=model, features=features)

    def _check_inputs(self, manifest: Manifest, features: Features) -> None:
        """Every input has to mean here what it meant in training. Raises ModelRefused("features")."""
        asked = self._streams[self._loops[manifest.loop].predict.on]
        for column in manifest.inputs:
            if column.source == "feature" and (column.name not in features.names or column.type != "number"):
                raise ModelRefused("features", f"{manifest.feature_service} has no numeric feature {column.name}")
            if column.source == "input" and not asked.types_of(column.name):
                raise ModelRefused("features", f"stream {asked.name} has no field {column.name}")
        for view, trained_on in manifest.views.items():
            here = features.views.get(view)
            if here != trained_on:
                now = f"is {here[:12]}… now" if here else "is gone"
                raise ModelRefused(
                    "features",
                    f"view {view} was {trained_on[:12]}… in training and {now}; "
                    "change a view by adding a new version of it beside the old one",
                )

    async def _warm_up(self, model: Model, manifest: Manifest) -> None:
        try:
            found = await asyncio.to_thread(model.run, empty_columns(manifest.inputs))
        except ModelFailed as error:
            raise ModelRefused("warm_up", f"the graph failed on two rows of nulls and zeros: {error}") from error
        if found.shape != (2,) or not bool(np.all((found >= 0.0) & (found <= 1.0))):
            raise ModelRefused("warm_up", f"two rows of nulls and zeros gave {found.tolist()}, not two probabilities")
