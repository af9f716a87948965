"""Explains answers that were given, beside those that are given: one at a time, a short queue, an end to it."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Mapping

import msgspec
import numpy as np

from millstream.contracts.events import PredictionServed
from millstream.contracts.package import REFERENCE_FILE, BadPackage, Reference
from millstream.errors import MillstreamError, RetryLater
from millstream_serving.domain import shapley
from millstream_serving.domain.columns import Columns, columns_of
from millstream_serving.domain.roster import Roster
from millstream_serving.domain.shapley import Explanation
from millstream_serving.errors import ModelFailed
from millstream_serving.handlers.guard import Guard, give_way
from millstream_serving.handlers.loaded import Loaded
from millstream_serving.metrics import ServingMetrics
from millstream_serving.ports import Packages

log = logging.getLogger(__name__)

WITHIN = 2.0
"""Seconds from asking on, waiting included; about a hundred times what 18 columns of 200 trees take."""
MOST_WAITING = 16
"""Beyond that an answer comes without its explanation, at once: who waited that long would be told the same, later."""
ROOM = 0.1
"""Seconds of it that are left for the last run and the sums: where time is short fewer training rows are compared with."""
SAMPLES = 64
"""Training rows that a question is compared with, the same for all questions to a version: `base` is the version's own."""
FEWEST_SAMPLES = 8
"""With fewer there is no explanation, but a guess."""
RUN_ROWS = 512
"""Rows of one run of the model: about 5 ms, and then whoever answers questions has the core."""
MOST_KEPT = 8
"""Versions whose training rows are kept: those on duty, and the few before."""


class Unexplained(MillstreamError):
    """The answer stands without an explanation; the message says why."""

    def __init__(self, outcome: str, message: str) -> None:
        super().__init__(message)
        self.outcome = outcome
        """`busy`, `late` or `failed`, for metrics."""


class Explainer:
    """Needs nothing but the record of an answer, so every doorway may ask it. Safe for concurrent use."""

    def __init__(
        self, *, roster: Roster[Loaded], packages: Packages, metrics: ServingMetrics, within: float = WITHIN
    ) -> None:
        self._roster = roster
        self._packages = packages
        self._metrics = metrics
        self._within = within
        self._guard = Guard()
        self._asked = 0
        """Explanations under way and waiting."""
        self._backgrounds: dict[str, Columns] = {}
        """By the hash of a package. One explanation at a time looks at it."""

    async def explain(self, served: PredictionServed) -> Mapping[str, object]:
        """What is added to the answer: `explanation`, and where that is null `unexplained` says why. Raises nothing of ours."""
        try:
            found = await self._explain(served)
        except Unexplained as error:
            self._metrics.explanations.labels(served.loop, error.outcome).inc()
            return {"explanation": None, "unexplained": str(error)}
        self._metrics.explanations.labels(served.loop, "given").inc()
        return {"explanation": _said(found)}

    async def _explain(self, served: PredictionServed) -> Explanation:
        standing = self._roster.standing(served.loop)
        model = next((one for one in standing.models.values() if one.ref.version == served.version), None)
        if model is None:
            raise Unexplained("late", f"version {served.version} has just left; ask again")
        if standing.unloaded:
            raise Unexplained("late", f"version {served.version} was unloaded just now; ask again")
        if self._asked > MOST_WAITING:
            raise Unexplained("busy", f"{MOST_WAITING} explanations wait already; ask again in a moment")
        self._asked += 1
        until = time.monotonic() + self._within
        try:
            found = await self._guard.call(lambda: self._one(model, served, until), self._within)
        except Unexplained:
            raise
        except Exception as error:  # whatever a package can make a library do, the answer itself is there
            log.error("an answer could not be explained", exc_info=error, extra={"loop": served.loop})
            raise Unexplained("failed", f"{type(error).__name__}: {error}") from error
        finally:
            self._asked -= 1
        if found is None:
            raise _late(self._within)
        return found

    def _one(self, model: Loaded, served: PredictionServed, until: float) -> Explanation:
        """Blocks, on a thread of its own. `until`: `time.monotonic()` at which nobody waits any more."""
        give_way(threading.current_thread())
        inputs, columns = model.manifest.inputs, len(model.manifest.inputs)
        others = self._background(model)
        question, _ = columns_of(
            inputs, [served.inputs], {name: _read(value) for name, value in served.features.items()}
        )
        samples = len(next(iter(others.values()), ()))
        if samples < FEWEST_SAMPLES:
            raise Unexplained("failed", f"the package of version {served.version} keeps no sample of its training rows")
        # The same question is explained alike, however often.
        seed = int.from_bytes(hashlib.sha256(served.id.encode()).digest()[:8], "big")
        places = shapley.ranks(np.random.default_rng(seed), samples, columns)
        label = shapley.likeliest(model.task, served.output)
        step = max(1, RUN_ROWS // (2 * columns))
        found: list[np.ndarray[tuple[int, ...], np.dtype[np.float64]]] = []
        walks = 0
        # In an order of chance too: where time runs out those compared with are from all over the training's time.
        order = np.random.default_rng(samples).permutation(samples)
        while walks < samples and time.monotonic() < until - ROOM:
            some = {name: values[order[walks : walks + step]] for name, values in others.items()}
            try:
                answers = model.model.run(shapley.walked(question, some, places[walks : walks + step]))
            except ModelFailed as error:
                raise Unexplained(
                    "failed", f"the model has no answer to a mixture with training rows: {error}"
                ) from error
            scores = shapley.score_of(model.task, model.manifest.classes, label, answers)
            found.append(scores.reshape(-1, 2 * columns))
            walks += len(found[-1])
        if walks < FEWEST_SAMPLES:
            raise _late(self._within)
        scores = np.concatenate(found)
        parts = shapley.shares(scores, places[:walks])
        if not np.isfinite(parts).all():
            raise Unexplained("failed", "the model's answer to a mixture with training rows is no number")
        return shapley.explained(model.task, label, question, scores, parts)

    def _background(self, model: Loaded) -> Columns:
        kept = self._backgrounds.get(model.ref.sha256)
        if kept is not None:
            return kept
        try:
            raw = self._packages.file(model.ref, model.manifest, REFERENCE_FILE)
            sample = msgspec.json.decode(raw, type=Reference).sample
            found = shapley.background(model.manifest.inputs, sample, SAMPLES)
        except (BadPackage, RetryLater, msgspec.MsgspecError, KeyError, ValueError) as error:
            why = f"the training rows of version {model.ref.version} cannot be read: {type(error).__name__}: {error}"
            raise Unexplained("failed", why) from error
        while len(self._backgrounds) >= MOST_KEPT:
            del self._backgrounds[next(iter(self._backgrounds))]
        self._backgrounds[model.ref.sha256] = found
        return found


def _read(value: float | None) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return np.array([np.nan if value is None else value])


def _late(within: float) -> Unexplained:
    return Unexplained(
        "late", f"it took more than {within:g} s, and answers come first; ask again when there is less to do"
    )


def _said(found: Explanation) -> dict[str, object]:
    named = {"class": found.label} if found.label else {}
    return {
        "of": found.of,
        **named,
        "base": round(found.base, 6),
        "score": round(found.score, 6),
        "contributions": {name: round(value, 6) for name, value in found.contributions.items()},
        "errors": {name: round(value, 6) for name, value in found.errors.items()},
        "missing": list(found.missing),
        "samples": found.samples,
    }
