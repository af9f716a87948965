"""Why a loop learns again, who says so, and what came of a run."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import ClassVar

import msgspec

from millstream.contracts.event import Event


class Cause(StrEnum):
    """Why a retrain was asked for."""

    FIRST_MODEL = "first_model"
    DRIFT = "drift"
    PERFORMANCE = "performance"
    ESTIMATE = "estimate"
    """Performance as estimated before the labels."""
    SCHEDULE = "schedule"
    LABELS = "labels"
    """So many new labels."""
    ALERT = "alert"
    """Prometheus, through Alertmanager's webhook."""
    SYSTEM = "system"
    """Another system, through `millstream-retrain`."""
    MANUAL = "manual"
    """A person."""


class GivenModel(msgspec.Struct, frozen=True, kw_only=True):
    """An ONNX graph that was made elsewhere: what a person says of it, because the graph does not."""

    sha256: str
    """Of the graph, which lies in the packages as `given/<sha256>.onnx`; empty where the model is remote."""
    remote: str = ""
    """Where the model runs, as `https://host/v2/models/NAME`; empty: it is the graph."""
    learned_until: datetime
    """When the newest row that it has learned was asked: nothing up to then may judge it."""
    inputs: list[str] = []
    """Columns of the loop that its one matrix input has, in their order; empty: its inputs are named as the columns are."""
    output: str = ""
    """Name of its output; empty: the only one that holds numbers."""
    classes: list[str] = []
    """Task multiclass: what the columns of its output stand for. Else empty."""


class RetrainRequested(Event, frozen=True, kw_only=True):
    """A person or another system asks for a retrain."""

    type_name: ClassVar[str] = "millstream.retrain.requested.v1"

    id: str
    loop: str
    cause: Cause
    by: str
    reason: str
    at: datetime | None = None
    """Stream time to train at; None: the trainer's own stream time."""
    given: GivenModel | None = None
    """The model that the run judges instead of fitting one; None: it fits."""


class Decision(StrEnum):
    ACCEPTED = "accepted"
    COALESCED = "coalesced"
    DECLINED = "declined"
    SUGGESTED = "suggested"
    """The loop only suggests: nothing runs."""
    PENDING = "pending"
    """Waits for a person's word until `expires`."""
    EXPIRED = "expired"
    """Nobody gave it."""


class RetrainDecided(Event, frozen=True, kw_only=True):
    """The policy's answer to one request or verdict, always with its reason."""

    type_name: ClassVar[str] = "millstream.retrain.decided.v1"

    id: str
    loop: str
    request: str
    """Id of the verdict or request that is answered; each is answered once."""
    cause: Cause
    decision: Decision
    reason: str
    at: datetime
    run: str | None = None
    """Name of the run, when accepted: a hash of (loop, cause), so starting it twice is one run."""
    numbers: dict[str, float] = {}
    """What the decision was based on: days since the last run, runs in the budget's period, matured labels."""
    expires: datetime | None = None
    """Stream time until which a pending run may be approved."""
    changed_at: datetime | None = None
    """Start of the first window that showed what the verdict is about: what changed has changed by its end. None: no window
    led to it."""
    given: GivenModel | None = None
    """The model that the run judges instead of fitting one; None: it fits."""


class RunApproved(Event, frozen=True, kw_only=True):
    """A person says go to a pending run."""

    type_name: ClassVar[str] = "millstream.run.approved.v1"

    id: str
    loop: str
    run: str
    by: str
    reason: str = ""


class RunOffered(Event, frozen=True, kw_only=True):
    """A run waits for a pod that takes it, where KEDA starts them and the trainer may make no Jobs."""

    type_name: ClassVar[str] = "millstream.run.offered.v1"

    id: str
    """The same for the same run, however often it is offered; also names what the run says beside the packages."""
    loop: str
    run: str
    spec: str
    """What the run is told, as JSON of the trainer's own, which writes and reads it in one release."""


class Outcome(StrEnum):
    PROMOTED = "promoted"
    """It answers: a first model, or one without a trial."""
    ON_TRIAL = "on_trial"
    """It passed the gate; the rollout says what comes of it."""
    REJECTED = "rejected"
    FAILED = "failed"


class GateCheck(msgspec.Struct, frozen=True, kw_only=True):
    """One named check of the gate, with its numbers."""

    name: str
    passed: bool
    champion: float | None
    challenger: float
    detail: str


class TrainingStarted(Event, frozen=True, kw_only=True):
    type_name: ClassVar[str] = "millstream.training.started.v1"

    id: str
    loop: str
    run: str
    attempt: int
    at: datetime
    """Stream time up to which the run may look."""


class TrainingFinished(Event, frozen=True, kw_only=True):
    """A run ended: its model answers, is on trial, was rejected by the gate, or the run failed."""

    type_name: ClassVar[str] = "millstream.training.finished.v1"

    id: str
    loop: str
    run: str
    attempt: int
    outcome: Outcome
    reason: str
    at: datetime
    version: str | None
    rows: int
    seconds: float
    metrics: dict[str, float]
    gate: list[GateCheck]
    mlflow_run: str | None
