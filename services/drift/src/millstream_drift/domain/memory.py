"""What judging remembers of a loop from one window to the next."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from millstream.contracts.events import Finding, WindowKind
from millstream_drift.domain.corrections import LAST
from millstream_drift.domain.estimate import Calibration
from millstream_drift.domain.hysteresis import Hysteresis
from millstream_drift.domain.spells import Spells
from millstream_drift.domain.tally import Summary
from millstream_drift.domain.windows import ASKED, Row

VERSIONS = 8
"""Versions whose calibration is remembered, as many as have open windows."""


class Judged(msgspec.Struct, array_like=True):
    """A performance window as it was judged, or corrected since."""

    index: int
    id: str
    """Of its verdict."""
    finding: Finding
    summary: Summary
    start: int
    over: bool
    """Whether it showed a drop, by itself."""
    weighed: bool
    """Whether it had a say in the hysteresis."""
    late: int = 0
    """Labels that have corrected it."""


class Memory(msgspec.Struct, array_like=True):
    """One loop's incidents by kind of window, and how its versions' answers were borne out."""

    inputs: Hysteresis = msgspec.field(default_factory=Hysteresis)
    performance: Hysteresis = msgspec.field(default_factory=Hysteresis)
    estimated: Hysteresis = msgspec.field(default_factory=Hysteresis)
    calibrations: dict[str, Calibration] = {}
    content: Hysteresis = msgspec.field(default_factory=Hysteresis)
    judged: dict[str, list[Judged]] = {}
    """The last performance windows of each version, oldest first: those that a late label may correct."""
    broken: Spells = msgspec.field(default_factory=Spells)

    def of(self, kind: WindowKind) -> Hysteresis:
        match kind:
            case WindowKind.INPUTS:
                return self.inputs
            case WindowKind.PERFORMANCE:
                return self.performance
            case WindowKind.ESTIMATED:
                return self.estimated
            case WindowKind.CONTENT:
                return self.content

    def whole(self, version: str, rows: Sequence[Row]) -> list[Row]:
        """Rows of labels whose question was asked of whole inputs, as far as is known."""
        return [row for row in rows if not self.broken.hold(version, row[ASKED])]

    def calibrated(self, version: str, calibration: Calibration) -> None:
        """The newest one of a version replaces its last."""
        self.calibrations.pop(version, None)
        self.calibrations[version] = calibration
        while len(self.calibrations) > VERSIONS:
            del self.calibrations[next(iter(self.calibrations))]

    def remember(self, version: str, judged: Judged) -> None:
        mine = self.judged.pop(version, [])
        self.judged[version] = [*mine, judged][-LAST:]
        while len(self.judged) > VERSIONS:
            del self.judged[next(iter(self.judged))]

    def judged_as(self, version: str, index: int) -> Judged | None:
        """A window among the last ones; None where it is forgotten."""
        return next((one for one in self.judged.get(version, ()) if one.index == index), None)

    def corrected(self, version: str, judged: Judged, over: bool) -> None:
        """What a window shows now counts with the next one, where `drift.confirm` still looks at it."""
        judged.over = over
        if judged.weighed:
            since = sum(one.weighed and one.index > judged.index for one in self.judged.get(version, ()))
            self.performance.correct(version, since, over, judged.start)
