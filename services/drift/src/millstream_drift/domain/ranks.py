"""An AUC that goes on: exact for a window's own rows, and for later ones up to an error that it knows."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from millstream_drift.domain.auc import midranks

BINS = 100
"""Of equally many rows each. A late score and an earlier one of the other class are in one bin for one pair in a hundred."""

Counts = npt.NDArray[np.int64]


class Ranks(msgspec.Struct, array_like=True, frozen=True):
    """Scores of both classes, counted by bins, and the pairs that were in order when all were known."""

    edges: list[float]
    """Upper ends of all bins but the last."""
    positives: list[int]
    negatives: list[int]
    """Rows of either class by bin."""
    ordered: float
    """Pairs of a positive and a negative in which the positive scores above; ties and doubtful ones half."""
    doubt: float = 0.0
    """Half of the pairs of one bin, whose order nobody knows any more: by so much may `ordered` be wrong, at most."""

    @classmethod
    def of(cls, scores: Sequence[float], labels: Sequence[bool]) -> Ranks:
        values, truth = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=bool)
        edges = np.unique(np.quantile(values, np.arange(1, BINS) / BINS, method="inverted_cdf"))
        empty = cls(edges.tolist(), [], [], _ordered(values, truth))
        return cls(
            empty.edges, _listed(empty._binned(values[truth])), _listed(empty._binned(values[~truth])), empty.ordered
        )

    def with_(self, scores: Sequence[float], labels: Sequence[bool]) -> Ranks:
        """With later rows: in order among themselves exactly, and with earlier ones by their bins."""
        values, truth = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=bool)
        positives, negatives = np.asarray(self.positives), np.asarray(self.negatives)
        late_positives, late_negatives = self._binned(values[truth]), self._binned(values[~truth])
        negatives_below = np.cumsum(negatives) - negatives
        positives_above = positives.sum() - np.cumsum(positives)
        certain = late_positives @ negatives_below + late_negatives @ positives_above
        together = (late_positives @ negatives + late_negatives @ positives) / 2
        return Ranks(
            self.edges,
            _listed(positives + late_positives),
            _listed(negatives + late_negatives),
            self.ordered + float(certain) + float(together) + _ordered(values, truth),
            self.doubt + float(together),
        )

    @property
    def auc(self) -> float | None:
        """None where all are of one class."""
        return self.ordered / self._pairs if self._pairs else None

    @property
    def error(self) -> float:
        """By how much `auc` may be wrong, at most."""
        return self.doubt / self._pairs if self._pairs else 0.0

    @property
    def _pairs(self) -> int:
        return sum(self.positives) * sum(self.negatives)

    def _binned(self, values: npt.NDArray[np.float64]) -> Counts:
        return np.bincount(np.searchsorted(self.edges, values, side="left"), minlength=len(self.edges) + 1)


def _ordered(values: npt.NDArray[np.float64], truth: npt.NDArray[np.bool_]) -> float:
    """Pairs of a positive above a negative, ties half (Mann and Whitney 1947)."""
    positives = int(truth.sum())
    if not positives:
        return 0.0
    return float(midranks(values)[truth].sum() - positives * (positives + 1) / 2)


def _listed(counts: Counts) -> list[int]:
    found: list[int] = counts.tolist()
    return found
