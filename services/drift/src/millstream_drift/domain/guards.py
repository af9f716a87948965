"""What ends a trial before any label comes: a model that fails, is slow, or answers something else altogether."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

import msgspec
import numpy as np

from millstream.contracts.events import TrialCheck
from millstream.contracts.times import SECOND
from millstream_drift.domain.events import Cell
from millstream_drift.domain.psi import psi

FAILURES = 10
"""Failures before their share counts: an accident is no model that fails. One that always raises is out after ten questions."""
MOMENTS = 3
"""Seconds of stream time with a failure before their share counts: a machine that stands still for a moment makes a whole batch
late, however many questions are in it."""
TIMED = 500
"""Questions before the times count: one pause of 100 ms in so many moves the mean of a tenth of a millisecond to three."""
NOTICED = 1.0
"""Milliseconds a question that the newer one may always take. Nobody waits for less, a busy machine makes five times of it, and
a replay's decisions must not hang on that."""
BINNED = 500
"""Answers of the older model that decide the bins. PSI's own noise is then (bins - 1) · 2 / 500 = 0.04 at most."""
BINS = 10
LOOKED = 100
"""Questions between two looks at the answers."""


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """The loop's `rollout.guards`."""

    failures: float
    """Share of questions."""
    slower: float
    """Times the older one's mean time."""
    psi: float


class Answers(msgspec.Struct, array_like=True):
    """What a newer and an older model answered to the same questions."""

    count: int = 0
    waiting: list[tuple[float, float]] = []
    """(older, newer) answers until there are enough to choose bins; classes are bins already."""
    edges: list[float] = []
    """Bin i holds edges[i-1] < x <= edges[i]."""
    bins: dict[int | str, tuple[int, int]] = {}
    """How many answers of (older, newer) are in each bin, or are of each class."""
    shift: float = 0.0
    """PSI between the answers at the last look."""

    def add(self, newer: Cell, older: Cell) -> None:
        """Both answered one question."""
        self.count += 1
        if isinstance(newer, float) and isinstance(older, float) and not self.edges:
            self.waiting.append((older, newer))
            if len(self.waiting) == BINNED:
                ranked = sorted(answer for answer, _ in self.waiting)
                self.edges = sorted({ranked[BINNED * part // BINS] for part in range(1, BINS)})
                for pair in self.waiting:
                    self._bin(*pair)
                self.waiting = []
        else:
            self._bin(older, newer)
        if self.count >= BINNED and self.count % LOOKED == 0:
            both = np.array(list(self.bins.values()), dtype=np.float64) / self.count
            self.shift = psi(both[:, 0], both[:, 1])

    def _bin(self, older: Cell, newer: Cell) -> None:
        for place, answer in enumerate((older, newer)):
            name = bisect_left(self.edges, answer) if isinstance(answer, float) else str(answer)
            counts = self.bins.get(name, (0, 0))
            self.bins[name] = (counts[0] + 1, counts[1]) if place == 0 else (counts[0], counts[1] + 1)


class Guards(msgspec.Struct, array_like=True):
    """What a newer and an older model did with the same questions, apart from being right."""

    asked: int = 0
    """Questions that the newer one was asked."""
    failed: dict[str, int] = {}
    """Of them failed, by how: `raised`, `late`, `not_finite`."""
    moments: int = 0
    """Seconds of stream time in which any did."""
    failed_at: int = -1
    """The last of these."""
    answered: int = 0
    """Questions that both answered."""
    newer_ms: float = 0.0
    older_ms: float = 0.0
    """Sums of their model times over these."""
    answers: Answers = msgspec.field(default_factory=Answers)
    """Of these the ones that were asked of whole inputs."""

    def fail(self, how: str, time: int) -> None:
        """The newer one gave no answer to a question of `time` (microseconds)."""
        self.asked += 1
        if time // SECOND != self.failed_at:
            self.moments, self.failed_at = self.moments + 1, time // SECOND
        self.failed[how] = self.failed.get(how, 0) + 1

    def answer(self, newer_ms: float, older_ms: float) -> None:
        """Both answered one question, in such times."""
        self.asked += 1
        self.answered += 1
        self.newer_ms += newer_ms
        self.older_ms += older_ms

    def checks(self, bounds: Bounds, excused: bool) -> list[TrialCheck]:
        """Every guard with its numbers. `excused`: it may answer something else."""
        failed = sum(self.failed.values())
        share = failed / self.asked if self.asked else 0.0
        few = failed < FAILURES or self.moments < MOMENTS
        hows = ", ".join(f"{how} {count}" for how, count in sorted(self.failed.items()))
        slower = self.newer_ms / self.older_ms if self.older_ms > 0 else 0.0
        newer, older = (total / max(self.answered, 1) for total in (self.newer_ms, self.older_ms))
        return [
            TrialCheck(
                name="failures",
                passed=few or share <= bounds.failures,
                value=share,
                bound=bounds.failures,
                detail=f"{failed} of {self.asked} questions failed" + (f": {hows}" if hows else ""),
            ),
            TrialCheck(
                name="slower",
                passed=not self._is_slow(bounds),
                value=slower,
                bound=bounds.slower,
                detail=f"{newer:.3g} ms a question beside {older:.3g} ms",
            ),
            TrialCheck(
                name="answers",
                passed=excused or self.answers.shift <= bounds.psi,
                value=self.answers.shift,
                bound=bounds.psi,
                detail=f"psi {self.answers.shift:.2f} between both models' answers to {self.answers.count} questions",
            ),
        ]

    def is_broken(self, bounds: Bounds, excused: bool) -> bool:
        """Whether any check fails; for every question, so without the words."""
        failed = sum(self.failed.values())
        return (
            (failed >= FAILURES and self.moments >= MOMENTS and failed > bounds.failures * self.asked)
            or self._is_slow(bounds)
            or (self.answers.shift > bounds.psi and not excused)
        )

    def _is_slow(self, bounds: Bounds) -> bool:
        noticed = self.answered >= TIMED and self.newer_ms > NOTICED * self.answered
        return noticed and self.newer_ms > bounds.slower * self.older_ms > 0
