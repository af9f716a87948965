"""How far features lag behind a question: by the first event that they have not applied, not by the age of the last one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """How far one partition of a stream has been applied, as it was looked up. Times are microseconds."""

    stream: str
    stream_time: int
    """The newest known-at that has been applied; 0: nothing."""
    waits_since: int | None = None
    """Known-at of the first record that has not been applied; None: none waits, the stream is quiet."""
    asked: bool = True
    """Whether Kafka was asked what waits. Not for one whose stream time was new enough for the question at hand."""

    def lag(self, asked_at: int, bound: int) -> int:
        """By how much the features lag behind a question of `asked_at`; 0 where that is within `bound`.

        A stream time that is new enough shows that all older events are in, for a partition is applied in order. An old one
        shows nothing: perhaps nothing happened. Then the first record that waits decides.
        """
        oldest = asked_at - bound
        if self.stream_time >= oldest or self.waits_since is None or self.waits_since >= oldest:
            return 0
        return asked_at - self.waits_since


@dataclass(frozen=True, kw_only=True)
class Look:
    """The partitions of all streams that a FeatureService reads, at one moment."""

    wall: int
    """When it was taken (the wall clock)."""
    places: Sequence[Place]

    def holds_for(self, asked_at: int, bound: int) -> bool:
        """Whether a question may be judged by this look, which was taken before it came.

        That no record waited then says nothing about a question of another time, in a replay say: what became known since
        cannot be told by the wall clock.
        """
        if all(place.stream_time >= asked_at - bound for place in self.places):
            return True
        live = abs(asked_at - self.wall) <= bound
        return live and all(place.asked or place.stream_time >= asked_at - bound for place in self.places)

    def stale(self, streams: Mapping[str, str], asked_at: int, bound: int) -> dict[str, float]:
        """View → seconds that it lags behind the question, for those beyond `bound`. `streams`: view → its stream."""
        lags: dict[str, int] = {}
        for place in self.places:
            lags[place.stream] = max(lags.get(place.stream, 0), place.lag(asked_at, bound))
        return {view: lags[stream] / 1e6 for view, stream in streams.items() if lags.get(stream)}


class Outages:
    """Since when each loop has found its features stale: patience is with an outage, not with each question of it."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}

    def over(self, loop: str) -> None:
        """Its features are current again."""
        self._since.pop(loop, None)

    def lasts(self, loop: str, now: float) -> float:
        """Seconds for which `loop`, whose features are stale, has found them so; `now` is of any clock that never goes back."""
        return now - self._since.setdefault(loop, now)
