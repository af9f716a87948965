"""What is done to the probabilities of a fit before they are answers: class weights divided out, calibration.

All of it works on one column per class, (n, classes), and is the same arithmetic that the graph holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from millstream.contracts.tasks import SMALLEST

Floats = NDArray[np.float64]


class Correction(Protocol):
    def apply(self, chances: Floats) -> Floats:
        """Probabilities (n, classes), rows sum to 1, as such again."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Unweighted:
    """A fit whose rows weighed by their class believes in weighted shares: divide by the weight (Elkan 2001, theorem 2)."""

    weights: Floats
    """(classes,)"""

    def apply(self, chances: Floats) -> Floats:
        return _to_one(chances / self.weights)


@dataclass(frozen=True, kw_only=True, eq=False)
class Sigmoid:
    """`sigmoid(slope · logit(p) + offset)` of each class (Platt 1999, on the logit as Kull et al. 2017), then summing to 1."""

    slopes: Floats
    offsets: Floats

    def apply(self, chances: Floats) -> Floats:
        return _to_one(1 / (1 + np.exp(-(logit(chances) * self.slopes + self.offsets))))


@dataclass(frozen=True, kw_only=True, eq=False)
class Isotonic:
    """A line through rising points, for each class (Zadrozny and Elkan 2002), then summing to 1.

    As a sum of ramps, `first + Σ rise · clip((p - start) / width, 0, 1)`: what a graph can say in six nodes.
    """

    first: Floats
    """(classes,)"""
    starts: Floats
    """(classes, ramps), as `widths` and `rises`; a class with fewer ramps has some of rise 0."""
    widths: Floats
    rises: Floats

    def apply(self, chances: Floats) -> Floats:
        ramps = np.clip((chances[:, :, None] - self.starts) / self.widths, 0, 1)
        return _to_one(np.clip(self.first + (ramps * self.rises).sum(axis=2), SMALLEST, 1))


def logit(chances: NDArray[Any]) -> Floats:
    p = np.clip(np.asarray(chances, dtype=np.float64), SMALLEST, 1 - SMALLEST)
    found: Floats = np.log(p / (1 - p))
    return found


def _to_one(chances: Floats) -> Floats:
    found: Floats = chances / chances.sum(axis=1, keepdims=True)
    return found
