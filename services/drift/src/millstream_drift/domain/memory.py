"""What judging remembers of a loop from one window to the next."""

from __future__ import annotations

import msgspec

from millstream.contracts.events import WindowKind
from millstream_drift.domain.estimate import Calibration
from millstream_drift.domain.hysteresis import Hysteresis

VERSIONS = 8
"""Versions whose calibration is remembered, as many as have open windows."""


class Memory(msgspec.Struct, array_like=True):
    """One loop's incidents by kind of window, and how its versions' answers were borne out."""

    inputs: Hysteresis = msgspec.field(default_factory=Hysteresis)
    performance: Hysteresis = msgspec.field(default_factory=Hysteresis)
    estimated: Hysteresis = msgspec.field(default_factory=Hysteresis)
    calibrations: dict[str, Calibration] = {}
    content: Hysteresis = msgspec.field(default_factory=Hysteresis)

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

    def calibrated(self, version: str, calibration: Calibration) -> None:
        """The newest one of a version replaces its last."""
        self.calibrations.pop(version, None)
        self.calibrations[version] = calibration
        while len(self.calibrations) > VERSIONS:
            del self.calibrations[next(iter(self.calibrations))]
