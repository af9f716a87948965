"""Keeps the roster at the newest model state: every model of it loaded, checked and warm before it is obeyed."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from millstream.contracts.events import ModelRef, ModelState
from millstream.contracts.package import MODEL_FILE, REMOTE_FILE, BadPackage, Manifest
from millstream.contracts.tasks import Task
from millstream.errors import RetryLater
from millstream.project.loop import Loop
from millstream.project.stream import Stream
from millstream.runtime.health import Health
from millstream.runtime.tracing import span
from millstream_serving.domain.columns import empty_columns
from millstream_serving.domain.roster import Roster, other_of
from millstream_serving.domain.scores import outputs_of, shape_of
from millstream_serving.domain.turn import CHALLENGER
from millstream_serving.errors import ModelAway, ModelFailed, ModelRefused, RemoteAway
from millstream_serving.handlers.loaded import Loaded
from millstream_serving.handlers.residents import Residents
from millstream_serving.metrics import ServingMetrics
from millstream_serving.ports import Features, FeatureStore, Model, ModelRuntime, Packages, RemoteModel, RemoteRuntime

log = logging.getLogger(__name__)

WARM_UP = 10.0
"""Seconds for two rows, thousands of times what trees take: a model that hangs must not hold up the states that follow."""


class ModelKeeper:
    """The one writer of the roster. `changed` is told the loop of each state that was obeyed or refused."""

    def __init__(
        self,
        *,
        roster: Roster[Loaded],
        residents: Residents | None = None,
        loops: Mapping[str, Loop],
        streams: Mapping[str, Stream],
        packages: Packages,
        runtime: ModelRuntime,
        remotes: RemoteRuntime | None = None,
        store: FeatureStore,
        health: Health,
        metrics: ServingMetrics,
        changed: Callable[[str], None],
        stopwatch: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._roster = roster
        self._residents = residents or Residents(roster, metrics)
        self._loops = loops
        self._streams = streams
        self._packages = packages
        self._runtime = runtime
        self._remotes = remotes
        self._store = store
        self._health = health
        self._metrics = metrics
        self._changed = changed
        self._stopwatch = stopwatch
        self._waiting: dict[str, ModelState] = {}
        """Newest state of each loop that has not been tried yet."""
        self._traces: dict[str, str | None] = {}
        """In which trace it was said."""
        self._news = asyncio.Event()
        self._loading = asyncio.Lock()
        """One at a time: beside another nobody could say what a model takes."""
        self.known = asyncio.Event()
        """Set for good once everything that the topic held at the start was obeyed or refused."""
        self.idle = asyncio.Event()
        """Set while nothing that was heard waits to be obeyed."""
        health.waiting_for("models", "millstream-models has not been read to its end yet")

    async def load(self, loop: str, ref: ModelRef) -> Loaded:
        """A model by itself, checked and warm as one that answers would be. Raises ModelRefused, RetryLater."""
        return await self._loaded(loop, ref, {})

    def hear(self, state: ModelState, trace: str | None = None) -> None:
        """A record of the topic, and its traceparent. Only the newest of a loop counts; loops that the project does not have
        do not."""
        if state.loop not in self._roster:
            log.info("a model for a loop that this project does not have", extra={"loop": state.loop})
            return
        waiting = self._waiting.get(state.loop)
        if self._roster.is_news(state) and (waiting is None or state.revision > waiting.revision):
            self._waiting[state.loop], self._traces[state.loop] = state, trace
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
                if all(self._roster.standing(loop).champion is not None for loop in self._waiting):
                    self._health.met("models")
                    self.known.set()
                else:
                    self._health.waiting_for("models", str(away))
            log.warning("a model cannot be read yet: %s", away)
            await asyncio.sleep(min(5.0, 0.2 * 2.0 ** min(attempt, 10)) * random.uniform(0.5, 1.0))
            attempt += 1

    async def _obey_all(self) -> RetryLater | None:
        """Try every state that waits; what made one wait on, if any does."""
        away: RetryLater | None = None
        for loop, state in list(self._waiting.items()):
            about: dict[str, str | int] = {"millstream.loop": loop, "millstream.revision": state.revision}
            try:
                with span(f"obey {loop}", self._traces[loop], about=about):
                    await self._obey(state)
            except RetryLater as error:
                away = error
                continue
            if self._waiting[loop] is state:
                del self._waiting[loop]
        return away

    async def _obey(self, state: ModelState) -> None:
        began = self._stopwatch()
        before = self._roster.standing(state.loop)
        # A version that moves from challenger to champion, or back, is not loaded again.
        held = {model.ref: model for model in (before.champion, before.other) if model is not None and model.is_here}
        champion: Loaded | None = None
        try:
            if state.champion is not None:
                loaded = await self._loaded(state.loop, state.champion, held)
                self._residents.check(loaded)
                champion = loaded
            other, missing = await self._other(state, champion, held)
        except ModelRefused as error:
            self._refuse(state, error, stand_in=champion)
        except RemoteAway:
            if champion is not None and before.champion is None:
                # A challenger that is away keeps no replica from answering as it starts.
                self._roster.stand_in(state.loop, champion)
                self._residents.settle(state.loop)
                self._changed(state.loop)
            raise
        else:
            self._roster.obey(state, champion, other, missing)
            self._residents.settle(state.loop)
            self._health.met(f"model of {state.loop}")
            self._metrics.revision.labels(state.loop).set(state.revision)
            self._metrics.load_seconds.labels(state.loop).observe(self._stopwatch() - began)
            version = champion.ref.version if champion else None
            log.info("obeying", extra={"loop": state.loop, "revision": state.revision, "version": version})
        self._changed(state.loop)

    def _refuse(self, state: ModelState, error: ModelRefused, stand_in: Loaded | None) -> None:
        # Where the champion could be loaded it is the challenger that could not.
        refused = state.challenger if stand_in is not None else state.champion
        self._roster.refuse(state, refused.version if refused is not None else "", str(error), stand_in)
        self._residents.settle(state.loop)
        self._metrics.refused.labels(state.loop, error.reason).inc()
        log.error("model refused: %s", error, extra={"loop": state.loop, "revision": state.revision})
        condition = f"model of {state.loop}"
        if self._roster.standing(state.loop).champion is None:
            # With a good model still answering the replica stays ready: else one broken package would stop them all.
            self._health.waiting_for(condition, f"revision {state.revision} was refused: {error}")
        else:
            self._health.met(condition)

    async def _other(
        self, state: ModelState, champion: Loaded | None, held: Mapping[ModelRef, Loaded]
    ) -> tuple[Loaded | None, str]:
        """Who is scored beside the champion, ready to; and why nobody is although somebody should be.

        Raises ModelRefused and RemoteAway for a challenger. A predecessor that cannot be loaded, or does not answer, is done
        without: to refuse the state would bring it back as the champion.
        """
        found = other_of(state)
        if found is None or champion is None:
            return None, ""
        ref, role = found
        try:
            other = await self._loaded(state.loop, ref, held)
            self._residents.check(champion, other)
            if other.task is not champion.task:
                raise ModelRefused(
                    "package",
                    f"its task is {other.task}, the champion's is {champion.task}: their answers cannot be compared; "
                    "what asks something else is another loop",
                )
        except (ModelRefused, RemoteAway) as error:
            said = f"{role} {ref.version}: {error}"
            if role == CHALLENGER:
                if isinstance(error, RemoteAway):
                    raise
                raise ModelRefused(error.reason, said) from error
            log.error("nobody to fall back to: %s", said, extra={"loop": state.loop, "revision": state.revision})
            return None, said
        return other, ""

    async def _loaded(self, loop: str, ref: ModelRef, held: Mapping[ModelRef, Loaded]) -> Loaded:
        """The model of `ref`, ready to answer. Raises ModelRefused, RetryLater."""
        if ref in held:
            return held[ref]
        try:
            return await self._load(loop, ref)
        except (ModelRefused, RetryLater):
            raise
        except Exception as error:  # whatever a package can make a library do, the model before goes on answering
            log.error("a model could not be loaded", exc_info=error, extra={"loop": loop})
            raise ModelRefused("unexpected", f"{type(error).__name__}: {error}") from error

    async def _load(self, loop: str, ref: ModelRef) -> Loaded:
        try:
            manifest = await asyncio.to_thread(self._packages.manifest, ref)
            file = REMOTE_FILE if REMOTE_FILE in manifest.files and self._remotes is not None else MODEL_FILE
            raw = await asyncio.to_thread(self._packages.file, ref, manifest, file)
        except BadPackage as error:
            raise ModelRefused("package", str(error)) from error
        if (manifest.loop, manifest.version) != (loop, ref.version):
            raise ModelRefused("package", f"the package is of {manifest.loop} {manifest.version}, not of {ref.version}")
        task = _task_of(manifest)
        features = await self._store.open(manifest.feature_service)
        self._check_inputs(manifest, features)
        model: Model | RemoteModel
        if file == REMOTE_FILE:
            assert self._remotes is not None
            model = await self._remotes.open(raw, manifest)
        else:
            async with self._loading:
                model = await asyncio.to_thread(self._runtime.load, raw, manifest.inputs, manifest.output)
        loaded = Loaded(ref=ref, manifest=manifest, task=task, model=model, features=features)
        await self._warm_up(loaded)
        return loaded

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

    async def _warm_up(self, loaded: Loaded) -> None:
        task, manifest = loaded.task, loaded.manifest
        rows = empty_columns(manifest.inputs)
        try:
            found: NDArray[np.float32] | None
            if loaded.remote is not None:
                found = await loaded.remote.ask(rows)
            else:
                found = await loaded.guard.call(lambda: loaded.model.run(rows), WARM_UP)
        except ModelAway as error:
            # Not refused: it answered when it was judged, and will again. Until then whoever answered goes on.
            raise RemoteAway(f"version {loaded.ref.version} of {manifest.loop} is asked elsewhere: {error}") from error
        except ModelFailed as error:
            raise ModelRefused("warm_up", f"the graph failed on two rows of nulls and zeros: {error}") from error
        if found is None:
            raise ModelRefused("warm_up", f"two rows of nulls and zeros took it more than {WARM_UP:.0f} s")
        if found.shape != shape_of(task, manifest.classes, 2) or None in outputs_of(task, manifest.classes, found):
            shown = np.array2string(found, threshold=20)
            raise ModelRefused("warm_up", f"two rows of nulls and zeros gave {shown}, not two {_ANSWERS[task]}")


_ANSWERS = {
    Task.BINARY: "probabilities",
    Task.MULTICLASS: "rows of one probability a class",
    Task.REGRESSION: "finite numbers",
}


def _task_of(manifest: Manifest) -> Task:
    """Raises ModelRefused for a task that this release does not answer."""
    try:
        task = Task(manifest.task)
    except ValueError as error:
        raise ModelRefused("package", f"task {manifest.task!r} is none of {', '.join(Task)}") from error
    if task is Task.MULTICLASS and (len(manifest.classes) < 2 or len(set(manifest.classes)) < len(manifest.classes)):
        raise ModelRefused("package", f"multiclass takes at least two classes, each once, not {manifest.classes}"[:500])
    return task
