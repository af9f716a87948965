"""One value of an answer that can be counted: what is compared where whole answers are too many numbers."""

from __future__ import annotations

from collections.abc import Mapping

from millstream.contracts.tasks import PROBABILITY, VALUE, Task
from millstream_drift.domain.events import Cell


def cell_of(task: Task, output: Mapping[str, float]) -> Cell:
    """Probability, value, or the most likely class; of two equal ones the first by name.

    Raises KeyError for an output of another task.
    """
    if task is Task.BINARY:
        return output[PROBABILITY]
    if task is Task.REGRESSION:
        return output[VALUE]
    return min(output, key=lambda name: (-output[name], name))
