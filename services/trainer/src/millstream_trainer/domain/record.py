"""What is written down of a run that made a model, for people."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from millstream.contracts.package import Lineage
from millstream_trainer.domain.run import RunResult


def _none() -> Mapping[str, bytes]:
    return {}


@dataclass(frozen=True, kw_only=True, eq=False)
class Record:
    """All of it; drawing is left to whoever keeps charts, since it takes longer than the rest."""

    result: RunResult
    answers_at_once: bool
    """Whether the model becomes champion without a trial, if it passed."""
    files: Mapping[str, bytes]
    """Of the package."""
    package: str
    """Where it lies."""
    lineage: Lineage
    """What the model was made of."""
    draw: Callable[[], Mapping[str, bytes]] = _none
    """The charts: file name → PNG. Blocks for a second."""
