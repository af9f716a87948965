"""What the services tell each other. Facts in past tense; each type is one JSON value on one topic."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar

import msgspec

Scalar = str | int | float | bool | None


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Base of our events. `type_name` is the CloudEvents type; a breaking change needs a new one."""

    type_name: ClassVar[str]

    def encode(self) -> bytes:
        return msgspec.json.encode(self)


class PredictionServed(Event, frozen=True, kw_only=True, omit_defaults=True):
    """A model answered a question: everything needed to judge the answer later, or to compute it again."""

    type_name: ClassVar[str] = "millstream.prediction.served.v1"

    id: str
    """Same question, same id, however often it is delivered."""
    loop: str
    question: str
    """Event id of the question."""
    key: str
    """Value of the loop's `label.by` field: the label finds its prediction by it."""
    asked_at: datetime
    """Known-at of the question: features are read as of this time."""
    version: str
    """Model version that answered."""
    variant: str
    """`champion` (later also `challenger`)."""
    transport: str
    """`kafka` or `http`."""
    entities: dict[str, Scalar]
    inputs: dict[str, Scalar]
    features: dict[str, float | int | None]
    """Online features as read, `view__feature`."""
    output: dict[str, float]
    """Binary: `probability` of the positive class."""
    timings_ms: dict[str, float]
    stale_views: dict[str, float] = {}
    """View → seconds that it lagged behind the question, where that was more than the loop's bound. Left out when none did."""


class QuestionUnanswered(Event, frozen=True, kw_only=True):
    """A question that no model could answer. It is not lost: labels still mature for it."""

    type_name: ClassVar[str] = "millstream.prediction.unanswered.v1"

    id: str
    loop: str
    question: str
    key: str
    asked_at: datetime
    reason: str
    """`no_model`, `model_failed`, `stale_features`."""
    transport: str


class LabelsMatured(Event, frozen=True, kw_only=True):
    """A day of stream time passed for a loop: how many questions have their labels now. It is the trainer's clock."""

    type_name: ClassVar[str] = "millstream.labels.matured.v1"

    id: str
    loop: str
    at: datetime
    """Stream time: the boundary that was passed."""
    matured: int
    """Questions with a label known before `at`, since the stream began."""
    pending: int
    """Questions still inside `label.within`."""
    expired: int
    """Questions whose label never came in time (cancelled, diverted, lost)."""
    late: int
    """Labels that came after `label.within`."""
    orphaned: int
    """Labels without a question."""
    duplicated: int


class Finding(StrEnum):
    """What drift says about one window."""

    HEALTHY = "healthy"
    SUSPECTED = "suspected"
    DETECTED = "detected"
    BROKEN_DATA = "broken_data"
    PERFORMANCE_DROP = "performance_drop"
    CLEARED = "cleared"


class WindowKind(StrEnum):
    INPUTS = "inputs"
    PERFORMANCE = "performance"


class ColumnDrift(msgspec.Struct, frozen=True, kw_only=True):
    """How far one column of a window is from the model's reference."""

    column: str
    psi: float
    """Population stability index; 0.1 is small, 0.25 large."""
    missing: float
    """Share of nulls in the window."""
    reference_missing: float
    importance: float
    """Share of the model's total gain; columns count by it."""


class WindowJudged(Event, frozen=True, kw_only=True):
    """The verdict on one window of predictions or of matured labels."""

    type_name: ClassVar[str] = "millstream.window.judged.v1"

    id: str
    loop: str
    version: str
    kind: WindowKind
    index: int
    """Windows of one version and kind are numbered from 0."""
    finding: Finding
    reason: str
    """The finding in words, with the numbers that led to it."""
    at: datetime
    """Stream time when the window closed."""
    start: datetime
    end: datetime
    rows: int
    effect: float
    """Size of the effect: importance-weighted PSI, or relative loss increase over the holdout."""
    columns: list[ColumnDrift] = []
    metrics: dict[str, float] = {}
    report: str | None = None
    """Id of the Evidently report, served by drift at /v1/reports/{id}."""


class SkewedValue(msgspec.Struct, frozen=True, kw_only=True):
    """One feature of one prediction that is another number offline than the model was given."""

    prediction: str
    question: str
    asked_at: datetime
    feature: str
    """`view__feature`."""
    online: float | None
    offline: float | None


class ViewSkew(msgspec.Struct, frozen=True, kw_only=True):
    """What a window of checked predictions says of one view."""

    view: str
    checked: int
    """Values compared."""
    differing: int
    largest: float | None
    """Largest absolute difference; null where one side has no value and the other has."""


class SkewJudged(Event, frozen=True, kw_only=True):
    """Features that models were given differ from what the offline store says, more often than the loop allows (`detected`),
    or no longer (`cleared`). For people: no service acts on it."""

    type_name: ClassVar[str] = "millstream.skew.judged.v1"

    id: str
    loop: str
    finding: Finding
    reason: str
    at: datetime
    """Known-at of the newest question that was checked."""
    start: datetime
    end: datetime
    """Known-at of the oldest and the newest question in the window."""
    checked: int
    """Predictions in the window, which is a sample."""
    differing: int
    """Predictions with at least one feature further apart than the loop's tolerance."""
    bound: float
    """Share of them that the loop allows."""
    views: list[ViewSkew] = []
    worst: list[SkewedValue] = []
    """A few of the differences, the largest first."""


class Cause(StrEnum):
    """Why a retrain was asked for."""

    FIRST_MODEL = "first_model"
    DRIFT = "drift"
    PERFORMANCE = "performance"
    SCHEDULE = "schedule"
    MANUAL = "manual"


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


class Decision(StrEnum):
    ACCEPTED = "accepted"
    COALESCED = "coalesced"
    DECLINED = "declined"


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


class Outcome(StrEnum):
    PROMOTED = "promoted"
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
    """A run ended: the challenger was promoted, rejected by the gate, or the run failed."""

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


class Step(StrEnum):
    """Steps of a rollout; `millstream_trainer.domain.rollout` holds the allowed moves."""

    REGISTERED = "registered"
    SHADOW = "shadow"
    CANARY = "canary"
    CHAMPION = "champion"
    REJECTED = "rejected"
    ROLLED_BACK = "rolled_back"


class ModelRef(msgspec.Struct, frozen=True, kw_only=True):
    """Where a model package is and how to know that it is the right one."""

    version: str
    run: str
    uri: str
    """Folder of the package: model.onnx, manifest.json, reference.json."""
    sha256: str
    """Of manifest.json, which in turn names the hashes of the other files."""
    at: datetime
    """Stream time up to which the model has seen data."""


class ModelState(Event, frozen=True, kw_only=True):
    """The whole rollout state of one loop; the last record of the compacted topic holds."""

    type_name: ClassVar[str] = "millstream.model.state.v1"

    id: str
    loop: str
    revision: int
    """Grows by one with each record; a replica ignores what is older than it has."""
    step: Step
    champion: ModelRef | None
    challenger: ModelRef | None
    previous: ModelRef | None
    """The champion before this one: what a rollback goes back to."""
    reason: str
    at: datetime


EVENTS: tuple[type[Event], ...] = (
    PredictionServed,
    QuestionUnanswered,
    LabelsMatured,
    WindowJudged,
    SkewJudged,
    RetrainRequested,
    RetrainDecided,
    TrainingStarted,
    TrainingFinished,
    ModelState,
)
_BY_NAME = {event.type_name: event for event in EVENTS}
_DECODERS = {event.type_name: msgspec.json.Decoder(event) for event in EVENTS}


def decode_event(type_name: str, value: bytes) -> Event | None:
    """Decode one of our own events; None for a type we do not know (a newer release may send it).

    Raises ValueError where the value is no JSON or does not fit the type (msgspec.ValidationError).
    """
    decoder: msgspec.json.Decoder[Any] | None = _DECODERS.get(type_name)
    if decoder is None:
        return None
    event: Event = decoder.decode(value)
    return event
