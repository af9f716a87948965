"""Every topic of ours, declared once as a business card. User streams keep their own names and come from the project."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from millstream.contracts.events import (
    ChallengerJudged,
    Event,
    KeyChanged,
    KeyState,
    LabelsMatured,
    LabelTold,
    ModelState,
    PredictionServed,
    QuestionUnanswered,
    ReplicaObeyed,
    RetrainDecided,
    RetrainRequested,
    RolloutMoved,
    RolloutRequested,
    RunApproved,
    RunOffered,
    SkewJudged,
    TrainingFinished,
    TrainingStarted,
    WindowCorrected,
    WindowJudged,
    WindowSkipped,
)


@dataclass(frozen=True, kw_only=True)
class Topic:
    """A topic's business card."""

    name: str
    events: tuple[type[Event], ...]
    key: str
    owner: str
    """The one service that writes it."""
    partitions: int
    retention: timedelta | None
    """None: compacted, the last record of each key stays."""
    why: str

    @property
    def compacted(self) -> bool:
        return self.retention is None


PREDICTIONS = Topic(
    name="millstream-predictions",
    events=(PredictionServed, QuestionUnanswered),
    key="label key of the question",
    owner="serving",
    partitions=6,
    retention=timedelta(days=30),
    why="One event per answer: drift judges it, people explain it, training can be compared with it.",
)
LABELS = Topic(
    name="millstream-labels",
    events=(LabelTold,),
    key="prediction id",
    owner="ingest",
    partitions=1,
    retention=timedelta(days=30),
    why="Labels by prediction id, from who does not know the question's key: drift judges by them, and models learn.",
)
VERDICTS = Topic(
    name="millstream-verdicts",
    events=(WindowJudged, WindowCorrected, WindowSkipped, LabelsMatured, ChallengerJudged),
    key="loop",
    owner="drift",
    partitions=1,
    retention=timedelta(days=365),
    why="What drift thinks of each window and each trial, and the counts of matured labels that are the trainer's clock.",
)
SKEW = Topic(
    name="millstream-skew",
    events=(SkewJudged,),
    key="loop",
    owner="features",
    partitions=1,
    retention=timedelta(days=365),
    why="When online and offline features part, and when they meet again. For people: no service hears it.",
)
RETRAIN = Topic(
    name="millstream-retrain",
    events=(RetrainRequested, RunApproved, RolloutRequested),
    key="loop",
    owner="people and other systems",
    partitions=1,
    retention=timedelta(days=365),
    why="Anyone may ask for a retrain, approve one, or take a model back; trainer answers each request once.",
)
TRAINING = Topic(
    name="millstream-training",
    events=(RetrainDecided, TrainingStarted, TrainingFinished, RolloutMoved),
    key="loop",
    owner="trainer",
    partitions=1,
    retention=timedelta(days=3650),
    why="Trainer's journal: every decision and why, every run, every step of a rollout. Trainer rebuilds its state from it.",
)
TRAINING_JOBS = Topic(
    name="millstream-training-jobs",
    events=(RunOffered,),
    key="run offered",
    owner="trainer",
    partitions=6,
    retention=timedelta(days=7),
    why="Runs that wait for a pod, where KEDA starts those (executor: keda). A pod says beside the packages which one it took.",
)
MODELS = Topic(
    name="millstream-models",
    events=(ModelState,),
    key="loop",
    owner="trainer",
    partitions=1,
    retention=None,
    why="The whole rollout state: a fresh replica reads it from the start and knows what to serve.",
)
REPLICAS = Topic(
    name="millstream-replicas",
    events=(ReplicaObeyed,),
    key="loop",
    owner="serving",
    partitions=1,
    retention=timedelta(days=7),
    why="Each replica of serving says which model state it obeys: a promotion is done when all of them do.",
)

KEYS = Topic(
    name="millstream-keys",
    events=(KeyState,),
    key="key id",
    owner="people (`millstream keys`)",
    partitions=1,
    retention=None,
    why="Who may write which stream; every replica of ingest reads it from the start. Hashes only. Let admins alone write it.",
)
AUDIT = Topic(
    name="millstream-audit",
    events=(KeyChanged,),
    key="key id",
    owner="people (`millstream keys`)",
    partitions=1,
    retention=timedelta(days=3650),
    why="Who made and revoked which key, and when. For people: no service hears it.",
)

TOPICS: tuple[Topic, ...] = (
    PREDICTIONS,
    LABELS,
    VERDICTS,
    SKEW,
    RETRAIN,
    TRAINING,
    TRAINING_JOBS,
    MODELS,
    REPLICAS,
    KEYS,
    AUDIT,
)


TRAINING_JOBS_GROUP = "training-jobs"
"""Whose offsets say which of the offered runs have ended. It has no members: KEDA counts what is left by it."""

TILES_GROUP = "features-tiles"
"""The consumer group that keeps the online windows: its fences in the online store say how far features are applied."""


def dead_letter_topic(topic: str, group: str) -> str:
    """One dead-letter topic per (topic, consumer group). Dashes only: dots and underscores collide in metric names."""
    return f"{topic}-{group}-dlq"


def late_topic(stream: str) -> str:
    """Where features reports a stream's late events; they are counted and in the lake, but in no window."""
    return f"{stream}-late"
