"""Health: /livez is about progress, /readyz about dependencies. Neither asks the broker whether it is alive."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

Clock = Callable[[], float]


@dataclass
class Progress:
    """How one subscriber gets on. Lag with nothing consumed for too long means stuck, whatever the broker says."""

    name: str
    clock: Clock = time.monotonic
    lag: dict[tuple[str, int], int] = field(default_factory=dict)
    moved_at: float = 0.0

    def __post_init__(self) -> None:
        self.moved_at = self.clock()

    def saw(self, topic: str, partition: int, lag: int) -> None:
        """A batch of this partition was handled; `lag` records are left."""
        self.lag[topic, partition] = lag
        self.moved_at = self.clock()

    def held(self, topic: str, partition: int) -> None:
        """This partition waits for a person: a restart would not help it, so its lag is no reason for one."""
        self.lag.pop((topic, partition), None)

    def revoked(self) -> None:
        """Partitions moved away: their lag is no longer ours to answer for."""
        self.lag.clear()
        self.moved_at = self.clock()

    def stalled(self, after: float) -> str | None:
        total = sum(self.lag.values())
        idle = self.clock() - self.moved_at
        if total > 0 and idle > after:
            return f"{self.name}: {total} records wait and nothing was handled for {idle:.0f} s"
        return None


class Health:
    """What the probes read. Services name their conditions; each is either met or says what is missing."""

    def __init__(self, stall_after: float) -> None:
        self._stall_after = stall_after
        self._missing: dict[str, str] = {}
        self._progress: list[Progress] = []
        self.fatal: BaseException | None = None
        """Set when a subscriber met an error it does not know: the process must end, loudly."""

    def waiting_for(self, condition: str, detail: str) -> None:
        """Not ready until `met(condition)`; `detail` says what to do."""
        self._missing[condition] = detail

    def met(self, condition: str) -> None:
        self._missing.pop(condition, None)

    def watch(self, progress: Progress) -> None:
        self._progress.append(progress)

    def not_ready(self) -> dict[str, str]:
        return dict(self._missing)

    def not_alive(self) -> list[str]:
        reasons = [reason for p in self._progress if (reason := p.stalled(self._stall_after))]
        if self.fatal is not None:
            reasons.append(f"{type(self.fatal).__name__}: {self.fatal}")
        return reasons
