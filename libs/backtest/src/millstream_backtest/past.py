"""All that was asked, what a model would have read for it, and what turned out to be true."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from millstream.contracts.envelope import derived_id
from millstream.contracts.times import from_datetime
from millstream.project import Loop
from millstream_drift.domain.events import Label
from millstream_trainer.domain.broken import BROKEN_LABELS
from millstream_trainer.domain.dataset import Dataset
from millstream_trainer.domain.run import RunSpec
from millstream_trainer.errors import RunFailed

NEVER = np.iinfo(np.int64).max
"""Known-at of a label that did not come in time."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Past:
    """Questions stand by (known-at, id), and so does every column."""

    loop: str
    dataset: Dataset
    """Every question; where `label_known_at` is NEVER its label means nothing."""
    keys: list[str]
    entities: list[str]
    """Whom each question is about, for the canary."""
    inputs: Mapping[str, list[Any]]
    features: Mapping[str, NDArray[np.float64]]
    label_known_at: NDArray[np.int64]
    labels: list[Label]
    """Every event of the label stream, and every label by prediction id, by time: what drift hears."""

    @property
    def known_at(self) -> NDArray[np.int64]:
        return self.dataset.table.known_at

    @cached_property
    def ids(self) -> list[str]:
        """Ids of the predictions, as serving derives them."""
        return [derived_id(self.loop, question) for question in self.dataset.table.questions]

    def __len__(self) -> int:
        return len(self.dataset.table)


class PastHistory:
    """`ports.History` of the trainer: the rows of a run, out of the past that was read once."""

    def __init__(self, past: Past, loop: Loop) -> None:
        self._past = past
        self._history = loop.train.longest

    def read(self, spec: RunSpec) -> Dataset:
        past, at = self._past, from_datetime(spec.at)
        asked = past.known_at <= at
        if self._history is not None:
            asked &= past.known_at >= at - self._history
        labelled = asked & (past.label_known_at <= at)
        if not labelled.any():
            raise RunFailed(f"none of {int(asked.sum())} questions has its label by {spec.at:%Y-%m-%d %H:%M}")
        left_out = {"without_label": int(asked.sum() - labelled.sum())}
        whole = labelled.copy()
        for start, end in spec.broken_labels:
            whole &= (past.label_known_at < from_datetime(start)) | (past.label_known_at > from_datetime(end))
        if whole.sum() < labelled.sum():
            left_out[BROKEN_LABELS] = int(labelled.sum() - whole.sum())
        return replace(past.dataset, table=past.dataset.table.take(whole), left_out=left_out)
