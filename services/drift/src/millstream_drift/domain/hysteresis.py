"""One odd window is weather: a suspicion becomes a detection when enough windows agree, and stays until one is fine."""

from __future__ import annotations

import msgspec

from millstream.contracts.events import Finding

VERSIONS = 16
"""Versions whose last windows are remembered; twice what has open windows."""


class Hysteresis(msgspec.Struct, array_like=True):
    """The memory of one loop and kind of window."""

    recent: dict[str, list[bool]] = {}
    """Per version: whether its last windows were over the threshold, oldest first."""
    incident: str = ""
    """Version whose windows were detected and not cleared since; empty when all is well."""
    reported: bool = False
    """A report was asked for since the first suspicion."""

    def weigh(self, version: str, over: bool, agree: int, windows: int) -> tuple[Finding, int, int]:
        """Add a window: (SUSPECTED, DETECTED, CLEARED or HEALTHY; how many agree; of how many).

        A window of a newer version clears the incident of an older one: that is how a retrain is seen to cure.
        """
        recent = self.recent.pop(version, [])
        self.recent[version] = recent = [*recent, over][-windows:]
        while len(self.recent) > VERSIONS:
            del self.recent[next(iter(self.recent))]
        agreeing = sum(recent)
        if over:
            if agreeing < agree:
                return Finding.SUSPECTED, agreeing, len(recent)
            self.incident = version
            return Finding.DETECTED, agreeing, len(recent)
        self.reported = False
        if self.incident:
            self.incident = ""
            self.recent[version] = []
            return Finding.CLEARED, agreeing, len(recent)
        return Finding.HEALTHY, agreeing, len(recent)

    def first_suspicion(self) -> bool:
        """Whether nobody asked for a report since the last window that was fine; it counts as asked for now."""
        first = not self.reported
        self.reported = True
        return first
