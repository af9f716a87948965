"""One odd window is weather: a suspicion becomes a detection when enough windows agree, and stays until one is fine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from millstream.contracts.events import Finding

VERSIONS = 16
"""Versions whose last windows are remembered; twice what has open windows."""


@dataclass(frozen=True, kw_only=True)
class Weighed:
    """What one more window makes of the memory."""

    finding: Finding
    """SUSPECTED, DETECTED, CLEARED, NOT_CLEARED or HEALTHY."""
    agreeing: int
    of: int
    """So many of how many last windows are over the threshold."""
    about: str | None = None
    """Id of the verdict that began the incident of which CLEARED or NOT_CLEARED speaks."""
    since: int = 0
    """DETECTED: where the first window began that showed it (microseconds); 0: nobody remembers."""
    normal: float = 0.0
    """What was normal before the incident of which this window was to have a say; 0: it has none, or nobody knows."""
    blind: float = 0.0
    """What knowing nothing but the labels' shares cost at that time; 0: nobody knows."""


class Past(msgspec.Struct, array_like=True):
    """What is remembered of one version."""

    born: int
    """Versions are numbered as their first windows come: the higher one is the newer model."""
    recent: list[bool] = []
    """Whether its last windows were over the threshold, oldest first."""
    incident: str = ""
    """Id of the verdict that began its incident; empty when it is well."""
    spoken: str = ""
    """Incident of an older version on which it has given its word. It gives it once, however long both answer."""
    since: int = 0
    """Where the first window began that is part of its incident or suspicion (microseconds)."""
    short: bool = False
    """Its word on `spoken` was that it is fine by what it expects of itself, and worse than what was normal before."""


class Hysteresis(msgspec.Struct, array_like=True):
    """The memory of one loop and kind of window."""

    past: dict[str, Past] = {}
    """Per version, the one with the latest window last."""
    born: int = 0
    incident: str = ""
    """Id of the verdict that began the last incident which no newer version and no better window has ended."""
    of: int = 0
    """The version, as it was born, that shows it."""
    reported: bool = False
    """A report was asked for since the first suspicion."""
    reported_at: int = 0
    """Stream time of the last window with a report (microseconds)."""
    since: int = 0
    """Where the first window of `incident` began (microseconds)."""
    normal: float = 0.0
    """What the version expected of itself that was well before `incident`; 0: unknown."""
    blind: float = 0.0
    """What knowing nothing but the labels' shares cost where it expected that; 0: unknown."""

    def weigh(
        self,
        version: str,
        id: str,
        over: bool,
        agree: int,
        windows: int,
        *,
        start: int,
        normal: float = 0.0,
        blind: float = 0.0,
        worse_than: Callable[[float, float], bool] = lambda normal, blind: False,
    ) -> Weighed:
        """Add a window that began at `start`; `id` is its verdict's.

        The first fine window of a newer version clears the incident of an older one: that is how a retrain is seen to cure. It
        is not cleared when that version shows it too, in as many windows of its own. Nor is it when that version is fine by
        what it expects of itself (`normal`, where knowing nothing costs `blind`) and `worse_than` what was normal before the
        incident: one that has learned in the middle of a change expects little. That is its one word on it. After it the
        incident goes on, SUSPECTED at most, until a window is no worse; where a newer version shows it too, it is for that one
        to end. What confirms a drop is its own measure alone.
        """
        past = self._past(version)
        inherited = self.incident if self.of < past.born and past.spoken != self.incident else ""
        unended = self.incident if past.short and past.spoken == self.incident else ""
        before = self.normal if inherited or unended else 0.0
        short = not over and before > 0 and worse_than(before, self.blind)
        past.recent = [*past.recent, over or (short and not unended)][-windows:]
        agreeing, of = sum(past.recent), len(past.recent)
        if over and agreeing == 1 and not past.incident:
            past.since = start
        if short:
            if unended or agreeing < agree:
                return Weighed(finding=Finding.SUSPECTED, agreeing=agreeing, of=of, normal=before, blind=self.blind)
            past.spoken, past.short, past.recent = inherited, True, []
            return Weighed(
                finding=Finding.NOT_CLEARED,
                agreeing=agreeing,
                of=of,
                about=inherited,
                normal=before,
                blind=self.blind,
            )
        if over:
            if agreeing < agree:
                return Weighed(finding=Finding.SUSPECTED, agreeing=agreeing, of=of)
            if inherited and not past.incident:
                past.spoken = past.incident = inherited
                past.short = False
                past.since = self.since or past.since
                self.of = past.born
                return Weighed(finding=Finding.NOT_CLEARED, agreeing=agreeing, of=of, about=inherited)
            past.incident = past.incident or id
            if not self.incident:
                self.normal, self.blind = normal, blind
            if not self.incident or past.born >= self.of:
                self.incident, self.of, self.since = past.incident, past.born, past.since
            return Weighed(finding=Finding.DETECTED, agreeing=agreeing, of=of, since=past.since)
        ended = past.incident or inherited or (unended if self.of < past.born else "")
        if not ended:
            return Weighed(finding=Finding.HEALTHY, agreeing=agreeing, of=of)
        past.spoken, past.incident, past.short = ended, "", False
        past.recent = past.recent if unended else []  # they are of its own measure, and the incident was not
        if self.incident == ended:
            self.incident, self.of = "", 0
        return Weighed(finding=Finding.CLEARED, agreeing=agreeing, of=of, about=ended, normal=before, blind=self.blind)

    def doubt(self, version: str) -> None:
        """A window was broken: what was seen before it may have been how that began, so it confirms nothing after it.

        An incident goes on, and is told again when as many whole windows agree.
        """
        past = self.past.get(version)
        if past is not None:
            past.recent = []

    def correct(self, version: str, since: int, over: bool, start: int) -> None:
        """The window that began at `start`, `since` windows before the last, shows something else with late labels."""
        past = self.past.get(version)
        if past is None or since >= len(past.recent):
            return  # forgotten, or before the incident ended
        past.recent[-1 - since] = over
        if over and not past.incident:
            past.since = min(start, past.since) if any(past.recent[: -1 - since]) else start

    def wants_report(self, now: int, suspicious: bool, every: int | None) -> bool:
        """Whether a report is due: at the first suspicion since all was well, and on schedule. It counts as asked for now."""
        first = suspicious and not self.reported
        self.reported = suspicious
        due = first or (every is not None and now - self.reported_at >= every)
        if due:
            self.reported_at = now
        return due

    def _past(self, version: str) -> Past:
        past = self.past.pop(version, None)
        if past is None:
            self.born += 1
            past = Past(self.born)
        self.past[version] = past
        while len(self.past) > VERSIONS:
            del self.past[next(iter(self.past))]
        return past
