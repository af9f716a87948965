"""Two models on the same questions: the mean difference of their losses, and where its truth can be, at every look at once.

Asymptotic confidence sequence (Waudby-Smith, Arbour, Sinha, Kennedy, Ramdas: Time-uniform central limit theory and asymptotic
confidence sequences, Annals of Statistics 52(6), 2024, Theorem 2.2): after n differences with mean m and standard deviation s

    m ± s · sqrt((n r² + 1) / (n² r²) · ln((n r² + 1) / a²))

holds the true mean for all n together, but for a chance of `a`. One may look at every label and stop when it is clear; a test
of a fixed size, looked at so often, finds differences where there are none. `r` chooses where it is tightest: at n = T with
r² = x / T, x = ln(1 + x) - 2 ln a (the minimum over r). Where the mean moves, it holds for the mean so far.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import lru_cache

import msgspec

TIGHTEST = 500
"""Pairs at which the sequence is tightest: a difference that shows later than at some hundreds is too small to hurry for."""
MINIMUM = 300
"""Pairs before anything is decided. The sequence is asymptotic, and where one model is surer than the other the differences
are skewed: of such models with equal losses (`sure` in bench/loop/aa.py) 9% were told apart from 100 pairs on, 5% from 300."""
SURPRISES = 50
"""Pairs, of these, whose truth was not the older model's likeliest class. Where positives are rare, hundreds of pairs may hold
none, and the model that hopes for none looks better: of equal ones (`rare`) 37% were told apart without this, 16% with ten, 6%
with thirty, 3% with fifty."""
MOST_SLICES = 50
"""Slices of one comparison; the first that are seen. At a 51st of the error rate a slice needs twice the pairs: more of them
hide harm rather than find it."""

STRETCH = 500
"""Pairs of a stretch: what went well for long hides for as long what goes wrong since. The sequence is tightest at so many."""

Slice = tuple[str, str]
"""Column and value."""


class Running(msgspec.Struct, array_like=True, gc=False):
    """Mean and variance of numbers that come one by one, in one pass (Welford, Technometrics 4(3), 1962)."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0
    """Sum of squared distances from the mean."""

    def add(self, value: float) -> None:
        self.count += 1
        step = value - self.mean
        self.mean += step / self.count
        self.squares += step * (value - self.mean)

    def interval(self, error_rate: float) -> tuple[float, float]:
        """The confidence sequence of the mean at this look; (0, 0) before the first number."""
        if not self.count:
            return 0.0, 0.0
        n, spread = self.count, math.sqrt(self.squares / self.count)
        grown = n * _rho_squared(error_rate) + 1
        width = spread * math.sqrt(grown / (n * (grown - 1)) * math.log(grown / error_rate**2))
        return self.mean - width, self.mean + width


class Pairs(msgspec.Struct, array_like=True):
    """Losses of the newer minus losses of the older model, over questions of one kind."""

    differences: Running = msgspec.field(default_factory=Running)
    """Below 0 the newer is better."""
    surprises: int = 0

    def add(self, difference: float, surprise: bool) -> None:
        self.differences.add(difference)
        self.surprises += surprise

    @property
    def is_enough(self) -> bool:
        """Whether there are enough of them to decide anything."""
        return self.differences.count >= MINIMUM and self.surprises >= SURPRISES


class Newest(msgspec.Struct, array_like=True):
    """The pairs since the last round number of STRETCH: a sequence that begins anew with each stretch."""

    pairs: Pairs = msgspec.field(default_factory=Pairs)
    number: int = 1
    """Of the stretch, from 1."""

    def add(self, difference: float, surprise: bool) -> None:
        if self.pairs.differences.count >= STRETCH:
            self.pairs, self.number = Pairs(), self.number + 1
        self.pairs.add(difference, surprise)

    def rate(self, error_rate: float) -> float:
        """Error rate of this stretch's sequence; those of all stretches, however many, come to `error_rate` together."""
        return error_rate / (self.number * (self.number + 1))


class Comparison(msgspec.Struct, array_like=True):
    """The paired comparison of a newer model with an older one, on the whole and by slices."""

    whole: Pairs = msgspec.field(default_factory=Pairs)
    loss: Running = msgspec.field(default_factory=Running)
    """Of the older."""
    slices: dict[Slice, Pairs] = {}
    """In the order in which they were first seen."""

    def meet(self, slices: Iterable[Slice]) -> None:
        """The slices that a question is in: each new one divides the error rate of all."""
        for one in slices:
            if one not in self.slices and len(self.slices) < MOST_SLICES:
                self.slices[one] = Pairs()

    def add(self, newer: float, older: float, *, surprise: bool, slices: Iterable[Slice]) -> None:
        """One pair: both losses, whether the older model thought another class likelier than the truth, and the slices it is
        in. Of a regression each pair counts as a surprise."""
        self.whole.add(newer - older, surprise)
        self.loss.add(older)
        for one in slices:
            found = self.slices.get(one)
            if found is not None:
                found.add(newer - older, surprise)

    def slice_rate(self, error_rate: float) -> float:
        """Error rate of one slice's sequence. A trial ends on `low > 0` alone, which is half of what can go wrong on the whole
        and half of it in the slices together: so the whole keeps `error_rate`, and a harmless model ends with that chance."""
        return error_rate / (1 + len(self.slices))


@lru_cache(maxsize=256)
def _rho_squared(error_rate: float) -> float:
    """r² that makes the sequence tightest at TIGHTEST numbers."""
    goal = -2 * math.log(error_rate)
    x = goal
    for _ in range(100):
        x, before = math.log1p(x) + goal, x
        if abs(x - before) < 1e-12 * x:
            break
    return x / TIGHTEST
