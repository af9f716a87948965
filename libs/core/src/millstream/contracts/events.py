"""What the services tell each other. Facts in past tense; each type is one JSON value on one topic."""

from __future__ import annotations

from typing import Any

import msgspec

from millstream.contracts.event import Event, Scalar
from millstream.contracts.key_events import KeyAction, KeyChanged, KeyState
from millstream.contracts.label_events import LabelTold
from millstream.contracts.prediction_events import OtherAnswer, PredictionServed, QuestionUnanswered
from millstream.contracts.rollout_events import (
    ModelRef,
    ModelState,
    ReplicaObeyed,
    RolloutAction,
    RolloutMoved,
    RolloutRequested,
    Step,
)
from millstream.contracts.skew_events import SkewedValue, SkewJudged, ViewSkew
from millstream.contracts.training_events import (
    Cause,
    Decision,
    GateCheck,
    GivenModel,
    Outcome,
    RetrainDecided,
    RetrainRequested,
    RunApproved,
    RunOffered,
    TrainingFinished,
    TrainingStarted,
)
from millstream.contracts.verdict_events import (
    LEARNED,
    BrokenField,
    ChallengerJudged,
    ColumnDrift,
    Finding,
    LabelsMatured,
    SlicePerformance,
    TrialCheck,
    TrialFinding,
    WindowCorrected,
    WindowJudged,
    WindowKind,
    WindowSkipped,
)

__all__ = [
    "EVENTS",
    "LEARNED",
    "BrokenField",
    "Cause",
    "ChallengerJudged",
    "ColumnDrift",
    "Decision",
    "Event",
    "Finding",
    "GateCheck",
    "GivenModel",
    "KeyAction",
    "KeyChanged",
    "KeyState",
    "LabelTold",
    "LabelsMatured",
    "ModelRef",
    "ModelState",
    "OtherAnswer",
    "Outcome",
    "PredictionServed",
    "QuestionUnanswered",
    "ReplicaObeyed",
    "RetrainDecided",
    "RetrainRequested",
    "RolloutAction",
    "RolloutMoved",
    "RolloutRequested",
    "RunApproved",
    "RunOffered",
    "Scalar",
    "SkewJudged",
    "SkewedValue",
    "SlicePerformance",
    "Step",
    "TrainingFinished",
    "TrainingStarted",
    "TrialCheck",
    "TrialFinding",
    "ViewSkew",
    "WindowCorrected",
    "WindowJudged",
    "WindowKind",
    "WindowSkipped",
    "decode_event",
]

EVENTS: tuple[type[Event], ...] = (
    PredictionServed,
    QuestionUnanswered,
    LabelTold,
    LabelsMatured,
    WindowCorrected,
    WindowJudged,
    WindowSkipped,
    ChallengerJudged,
    SkewJudged,
    RetrainRequested,
    RunApproved,
    RunOffered,
    RolloutRequested,
    RetrainDecided,
    TrainingStarted,
    TrainingFinished,
    RolloutMoved,
    ModelState,
    ReplicaObeyed,
    KeyState,
    KeyChanged,
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
