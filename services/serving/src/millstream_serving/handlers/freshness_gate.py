"""What happens to questions whose features have not kept up: they wait, are flagged, or are refused, as their loop says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from millstream.project.loop import Loop
from millstream_serving.domain.freshness import Outages
from millstream_serving.domain.question import Question
from millstream_serving.errors import FeaturesBehind, StaleFeatures
from millstream_serving.metrics import ServingMetrics
from millstream_serving.ports import Features, Freshness

PATIENCE = 30.0
"""Seconds that questions wait for features in one outage, then they are answered and flagged: a features process that was
killed is back after 12 s, and what takes longer may take hours, in which a marked answer is worth more than none."""
HTTP_PATIENCE = 2.0
"""Seconds of it that one HTTP request is held: callers give up after five or ten."""
HTTP_LOOK = 0.05
"""Seconds between two looks of a request that waits."""
OWN_PATIENCE = 2.0
"""Seconds that questions wait for their own events in one outage, where their loop does not wait for features otherwise."""
OWN_LOOKS = (0.002, 0.02)
"""Seconds between two looks for them, at first and in the end: features has them after some milliseconds, or is not there."""


class FreshnessGate:
    """The gate of all loops."""

    def __init__(
        self,
        *,
        loops: Mapping[str, Loop],
        freshness: Freshness,
        metrics: ServingMetrics,
        stopwatch: Callable[[], float],
    ) -> None:
        self._loops = loops
        self._freshness = freshness
        self._outages = Outages()
        self._metrics = metrics
        self._stopwatch = stopwatch

    async def current(self, features: Sequence[Features], questions: Sequence[Question]) -> bool:
        """Whether nothing lags beyond the loop's bound, for all of `questions`."""
        bound = self._loops[questions[0].loop].predict.freshness.bound
        return not any(await self._stale(features, [question.asked_at for question in questions], bound))

    async def staleness(
        self, features: Sequence[Features], questions: Sequence[Question]
    ) -> tuple[Sequence[dict[str, float]], bool]:
        """For each question the views that lag beyond its loop's bound, and whether the loop refuses to answer then.

        `features` are those of every model that is asked: no stale answer goes unseen, whoever gives it.
        Raises FeaturesBehind where the loop waits over Kafka, StaleFeatures where it refuses over HTTP.
        """
        loop, transport = questions[0].loop, questions[0].transport
        rule = self._loops[loop].predict.freshness
        what = rule.when_stale or ("wait" if transport == "kafka" else "flag")
        asked_at = [question.asked_at for question in questions]
        began = self._stopwatch()
        own = await self._own_events(features, questions, PATIENCE if what == "wait" else OWN_PATIENCE)
        while True:
            stale = await self._stale(features, asked_at, rule.bound)
            if own:
                stale = [own | one for one in stale]
            if not any(stale):
                for view in {view for one in features for view in one.streams}:
                    self._metrics.view_lag.labels(loop, view).set(0.0)
                self._outages.over(loop)
                return stale, False
            views = {view for one in features for view in one.streams}
            worst = {view: max(one.get(view, 0.0) for one in stale) for view in views}
            for view, seconds in worst.items():
                self._metrics.view_lag.labels(loop, view).set(seconds)
            lagging = sum(map(bool, stale))
            waits = what == "wait" and self._outages.lasts(loop, self._stopwatch()) < PATIENCE
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

    async def _own_events(
        self, features: Sequence[Features], questions: Sequence[Question], patience: float
    ) -> dict[str, float]:
        """Waits until views over the very stream that asks have the asking events: offline each question counts itself.

        View → seconds waited, for those that had them not in the end. Raises FeaturesBehind after a second of it, so that
        whoever holds the batch gets a turn.
        """
        loop = questions[0].loop
        asking = self._loops[loop].predict.on
        own = [one for one in features if asking in one.streams.values()]
        if not own:
            return {}
        last: dict[int, int] = {}
        for question in questions:
            if question.place is not None:
                partition, offset = question.place
                last[partition] = max(offset, last.get(partition, offset))
        began, pause = self._stopwatch(), OWN_LOOKS[0]
        for one in own if last else ():
            while not await _has(one, asking, last):
                now = self._stopwatch()
                if (lasts := self._outages.lasts(loop, now)) >= patience:
                    return {view: lasts for each in own for view, stream in each.streams.items() if stream == asking}
                if now - began > 1.0:
                    raise FeaturesBehind(f"{loop}: features have not applied the questions' own events in {asking} yet")
                await asyncio.sleep(pause)
                pause = min(2 * pause, OWN_LOOKS[1])
        return {}

    async def _stale(
        self, features: Sequence[Features], asked_at: Sequence[int], bound: int
    ) -> Sequence[dict[str, float]]:
        if not features:
            return [{} for _ in asked_at]
        first, *others = [await self._freshness.stale(one, asked_at, bound) for one in features]
        if not others:
            return first
        return [{view: lag for one in row for view, lag in one.items()} for row in zip(first, *others, strict=True)]


async def _has(features: Features, stream: str, last: Mapping[int, int]) -> bool:
    """Whether the online store has applied `stream` up to and with these offsets, by partition."""
    applied = (await features.applied()).get(stream, {})
    return all(applied.get(partition, (-1, 0))[0] >= offset for partition, offset in last.items())


def _behind(loop: str, lags: Mapping[str, float]) -> str:
    said = ", ".join(f"{view} by {seconds:.1f} s" for view, seconds in sorted(lags.items()) if seconds)
    return f"{loop}: features have not kept up with the question: {said}; see the lag of the features service"
