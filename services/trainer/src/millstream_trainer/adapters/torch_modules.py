"""PyTorch around a user's module or ours: raw columns in, what the task answers out. All of it goes into the graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from millstream.contracts.tasks import Task
from millstream_trainer.domain.encoding import Matrix

FARTHEST = 10.0
"""Standard deviations from the mean, where a value is held: one reading a thousand away would outweigh its batch."""


class Prepared(nn.Module):
    """(rows, columns), NaN is missing → (rows, columns + gaps), standardized: a missing value stands at the mean, and a column
    of 0 and 1 for each of `gaps` tells it."""

    mean: Tensor
    scale: Tensor
    gaps: Tensor

    def __init__(self, mean: NDArray[Any], scale: NDArray[Any], gaps: NDArray[Any]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.as_tensor(mean, dtype=torch.float32))
        self.register_buffer("scale", torch.as_tensor(scale, dtype=torch.float32))
        self.register_buffer("gaps", torch.as_tensor(gaps, dtype=torch.int64))

    @property
    def width(self) -> int:
        return len(self.mean) + len(self.gaps)

    def forward(self, columns: Tensor) -> Tensor:
        missing = torch.isnan(columns)
        known = torch.where(missing, self.mean, columns)
        standard = torch.clamp((known - self.mean) / self.scale, -FARTHEST, FARTHEST)
        if len(self.gaps) == 0:
            return standard
        return torch.cat([standard, torch.index_select(missing.to(torch.float32), 1, self.gaps)], dim=1)


def prepared(matrix: Matrix, flags: Sequence[int]) -> Prepared:
    """By these rows. `flags` are columns of 0 and 1 that stay as they are; one without any value is 0."""
    missing = np.isnan(matrix)
    counts = np.maximum((~missing).sum(axis=0), 1)
    filled = np.where(missing, 0.0, matrix.astype(np.float64))
    mean = filled.sum(axis=0) / counts
    spread = np.sqrt((np.where(missing, 0.0, filled - mean) ** 2).sum(axis=0) / counts)
    # One value alone, up to what float32 can tell apart: nothing to standardize.
    scale = np.where(spread > 1e-6 * np.maximum(1.0, np.abs(mean)), spread, 1.0)
    mean[list(flags)], scale[list(flags)] = 0.0, 1.0
    some = missing.any(axis=0) & ~missing.all(axis=0)
    return Prepared(mean, scale, np.flatnonzero(some))


class Network(nn.Module):
    """Raw columns to probabilities (rows, classes), or the mean (rows,)."""

    center: Tensor
    spread: Tensor

    def __init__(self, prepare: Prepared, module: nn.Module, task: Task, *, center: float, spread: float) -> None:
        """`center`, `spread`: of a regression's labels, which the module learns standardized; 0 and 1 of other tasks."""
        super().__init__()
        self.prepare = prepare
        self.module = module
        self.task = task
        self.register_buffer("center", torch.tensor(center, dtype=torch.float32))
        self.register_buffer("spread", torch.tensor(spread, dtype=torch.float32))

    def losses(self, columns: Tensor, target: Tensor) -> Tensor:
        """Of each row: log loss, or the squared error in variances of the label."""
        scores = self.module(self.prepare(columns))
        if self.task is Task.BINARY:
            return nn.functional.binary_cross_entropy_with_logits(
                scores[:, 0], target.to(torch.float32), reduction="none"
            )
        if self.task is Task.MULTICLASS:
            return nn.functional.cross_entropy(scores, target, reduction="none")
        return (scores[:, 0] - (target.to(torch.float32) - self.center) / self.spread) ** 2

    def forward(self, columns: Tensor) -> Tensor:
        scores = self.module(self.prepare(columns))
        if self.task is Task.BINARY:
            return torch.cat([torch.sigmoid(-scores), torch.sigmoid(scores)], dim=1)
        if self.task is Task.MULTICLASS:
            return torch.softmax(scores, dim=1)
        found: Tensor = scores[:, 0] * self.spread + self.center
        return found


def perceptron(inputs: int, outputs: int, hidden: Sequence[int], dropout: float) -> nn.Module:
    """Layers of `hidden` units with ReLU and dropout between the columns and the scores."""
    layers: list[nn.Module] = []
    for units in hidden:
        layers += [nn.Linear(inputs, units), nn.ReLU(), nn.Dropout(dropout)]
        inputs = units
    return nn.Sequential(*layers, nn.Linear(inputs, outputs))
