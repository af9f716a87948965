"""Do online and offline features still agree? The predictions checked last, and when their differences are a verdict."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from millstream.contracts.envelope import derived_id
from millstream.contracts.events import Finding, SkewedValue, SkewJudged, ViewSkew
from millstream.contracts.times import to_datetime

WINDOW = 200
"""Checked predictions that a verdict looks at: a few minutes of the usual sample, and enough to see a share of 1%."""
WORST = 5
"""Differences that a verdict names. `millstream skew` shows more."""


@dataclass(frozen=True, kw_only=True)
class Differing:
    """One feature that is another number offline."""

    view: str
    value: SkewedValue

    @property
    def apart(self) -> float:
        """Absolute difference; infinite where one side has no value."""
        online, offline = self.value.online, self.value.offline
        return math.inf if online is None or offline is None else abs(online - offline)


@dataclass(frozen=True, kw_only=True)
class CheckedRead:
    """What came of one prediction that was checked."""

    prediction: str
    asked_at: int
    values: Mapping[str, int]
    """View -> how many of its features were compared."""
    differing: tuple[Differing, ...]


class SkewWindow:
    """The last `WINDOW` checked predictions of one loop. In memory alone: a restart begins anew, and may repeat a verdict."""

    def __init__(self, loop: str, bound: float) -> None:
        self.loop = loop
        self._bound = bound
        self._reads: deque[CheckedRead] = deque(maxlen=WINDOW)
        self._over = False

    @property
    def differing(self) -> int:
        """Predictions in the window with at least one difference."""
        return sum(bool(read.differing) for read in self._reads)

    @property
    def share(self) -> float:
        return self.differing / len(self._reads) if self._reads else 0.0

    def views(self) -> list[ViewSkew]:
        """What the window says of each view, by name."""
        checked: Counter[str] = Counter()
        differing: Counter[str] = Counter()
        largest: dict[str, float] = {}
        for read in self._reads:
            checked.update(read.values)
            for one in read.differing:
                differing[one.view] += 1
                largest[one.view] = max(one.apart, largest.get(one.view, 0.0))
        return [
            ViewSkew(view=v, checked=checked[v], differing=differing[v], largest=_finite(largest.get(v, 0.0)))
            for v in sorted(checked)
        ]

    def add(self, reads: Sequence[CheckedRead]) -> SkewJudged | None:
        """Look at some more; the verdict when the bound was just passed, or kept again after it had been passed.

        The bound is a share of a whole window, so that it is passed as soon as no further prediction could mend it. It is
        kept again at half of it: a share that moves about the bound is one verdict, not many.
        """
        self._reads += reads
        if not self._reads:
            return None
        allowed = self._bound * WINDOW
        before, self._over = self._over, self.differing > (allowed / 2 if self._over else allowed)
        if self._over == before:
            return None
        return self._verdict(Finding.DETECTED if self._over else Finding.CLEARED)

    def _verdict(self, finding: Finding) -> SkewJudged:
        times = [read.asked_at for read in self._reads]
        found = sorted((one for read in self._reads for one in read.differing), key=lambda one: -one.apart)
        reason = f"{self.differing} of {len(self._reads)} checked predictions differ, {self._bound:.2%} of {WINDOW} may"
        if found:
            worst = found[0].value
            reason += f"; largest: {worst.feature} of {worst.question}, online {worst.online}, offline {worst.offline}"
        newest = self._reads[-1].prediction
        return SkewJudged(
            id=derived_id(self.loop, "skew", finding, newest),
            loop=self.loop,
            finding=finding,
            reason=reason,
            at=to_datetime(max(times)),
            start=to_datetime(min(times)),
            end=to_datetime(max(times)),
            checked=len(self._reads),
            differing=self.differing,
            bound=self._bound,
            views=self.views(),
            worst=[one.value for one in found[:WORST]],
        )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
