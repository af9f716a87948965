"""What a run learns from: the table, and where its features come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from millstream.contracts.content import Content
from millstream.contracts.package import Origin
from millstream_trainer.domain.table import Table

CONTRADICTING = "label_contradicting"
"""Reason of labels left out: the first of the same question, or key, says something else."""
WITHOUT_QUESTION = "label_without_question"
"""Reason of labels left out: they name a prediction, and no question of the stream in the run's history has that id."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """Rows for training and holdout together."""

    table: Table
    views: Mapping[str, str]
    """Feature view → hash of its definition: a model is pinned to what it was trained on."""
    left_out: Mapping[str, int]
    """Rows that were not learned from, by reason."""
    origins: Mapping[str, Origin] = field(default_factory=dict)
    """Column → the field that it is made of, as far as that is known."""
    lake: str = ""
    """Where the rows are read again, without what it takes to be let in."""
    content: Mapping[str, Mapping[str, Content | None]] = field(default_factory=dict)
    """Field that drift watches as it is (`drift.text`, `drift.embedding`) → question → its text or vector, for a sample."""
