"""A training run from the outside: what it is told, and what it says at its end."""

from __future__ import annotations

from datetime import datetime

import msgspec

from millstream.contracts.events import Cause, GateCheck, GivenModel, ModelRef

Positions = dict[str, dict[int, int]]
"""Last offset per stream and partition, as `ports.StreamEnds` says it."""

PHASES = ("start", "dataset", "choice", "fit", "export", "score", "refit", "package", "mlflow")
"""Parts of a run, in their order."""


class RunSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that decides a run's result, together with the project and the lake."""

    loop: str
    run: str
    attempt: int
    version: str
    """The version that its model gets, if it makes one."""
    at: datetime
    """Stream time: the run knows nothing that became known later."""
    cause: Cause
    request: str
    positions: Positions
    """What the lake must hold before history is read."""
    champion: ModelRef | None
    changed_at: datetime | None = None
    """Where the first window began that showed what led to this run; None: nothing changed that anybody noticed."""
    broken: tuple[tuple[datetime, datetime], ...] = ()
    """From when to when (both included) inputs were judged broken: what was asked then is not learned."""
    broken_labels: tuple[tuple[datetime, datetime], ...] = ()
    """The same of labels: what became known then is not learned."""
    given: GivenModel | None = None
    """The model to judge; None: the run fits one."""
    traceparent: str | None = None
    """The trace that its phases belong to. Decides nothing."""


class RunResult(msgspec.Struct, frozen=True, kw_only=True):
    """A run that came to its end: a model was made and judged."""

    passed: bool
    """Whether every check of the gate passed."""
    reason: str
    model: ModelRef
    rows: int
    """Training rows, without the holdout."""
    metrics: dict[str, float]
    gate: list[GateCheck]
    mlflow_run: str | None
