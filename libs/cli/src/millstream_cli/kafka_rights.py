"""What each service may do in Kafka, from the contracts and a project: its topics and groups, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from millstream.contracts.topics import (
    KEYS,
    LABELS,
    MODELS,
    PREDICTIONS,
    REPLICAS,
    RETRAIN,
    SKEW,
    TILES_GROUP,
    TRAINING,
    TRAINING_JOBS,
    TRAINING_JOBS_GROUP,
    VERDICTS,
    dead_letter_topic,
    late_topic,
)
from millstream.project import Project
from millstream_cli.topics import topics_of

LAKE_GROUP, SKEW_GROUP, SERVING_GROUP, DRIFT_GROUP, TRAINER_GROUP = (
    "features-lake",
    "features-skew",
    "serving",
    "drift",
    "trainer",
)
TRAINER_WRITER = "millstream-trainer"
"""Transactional id of the only writer of the rollout state."""


@dataclass(frozen=True, kw_only=True)
class Rights:
    """Of one service."""

    service: str
    reads: frozenset[str]
    """Topics. Where a group commits it wants these too."""
    writes: frozenset[str]
    describes: frozenset[str] = frozenset()
    """Topics of which it asks how far they are, and reads nothing."""
    groups: frozenset[str] = frozenset()
    """Consumer groups that it is a member of."""
    looks_at: frozenset[str] = frozenset()
    """Consumer groups of others whose positions it asks for."""
    transactional: frozenset[str] = frozenset()
    """Transactional ids."""


def rights_of(project: Project) -> list[Rights]:
    """One for each service, in the order of the loop."""
    there = {spec.name for spec in topics_of(project)}
    streams = frozenset(project.streams)
    asked = frozenset(loop.predict.on for loop in project.loops.values())
    labelled = frozenset(loop.label.stream for loop in project.loops.values())

    def dead(topics: Iterable[str], *groups: str) -> frozenset[str]:
        named = frozenset(dead_letter_topic(topic, group) for topic in topics for group in groups)
        return named & there

    # As many as there are loops, at most; a single one is called as the service is.
    shares = {f"{DRIFT_GROUP}-{turn + 1}" for turn in range(len(project.loops))} if len(project.loops) > 1 else set()
    drift_hears = {PREDICTIONS.name, LABELS.name, *labelled}
    every_group = (TILES_GROUP, LAKE_GROUP, SERVING_GROUP, DRIFT_GROUP)
    return [
        Rights(
            service="ingest",
            # It counts the dead letters of what it took, for whoever sent it.
            reads=frozenset({KEYS.name}) | dead({*streams, LABELS.name}, *every_group),
            writes=streams | {LABELS.name},
            looks_at=frozenset({TILES_GROUP}),
        ),
        Rights(
            service="features",
            reads=streams | {PREDICTIONS.name, LABELS.name},
            writes=frozenset(map(late_topic, streams))
            | dead({*streams, LABELS.name}, TILES_GROUP, LAKE_GROUP)
            | {SKEW.name},
            groups=frozenset({TILES_GROUP, LAKE_GROUP, SKEW_GROUP}),
        ),
        Rights(
            service="serving",
            reads=asked | {MODELS.name},
            writes=dead(asked, SERVING_GROUP) | {PREDICTIONS.name, REPLICAS.name},
            groups=frozenset({SERVING_GROUP}),
        ),
        Rights(
            service="drift",
            reads=frozenset(drift_hears) | {MODELS.name},
            writes=dead(drift_hears, DRIFT_GROUP) | {VERDICTS.name},
            groups=frozenset({DRIFT_GROUP} | shares),
        ),
        Rights(
            service="trainer",
            # Of the offers only with `training.executor: keda`, where the pods of its runs are the same user.
            reads=frozenset(
                {VERDICTS.name, RETRAIN.name, TRAINING.name, MODELS.name, REPLICAS.name, TRAINING_JOBS.name}
            ),
            writes=dead({VERDICTS.name, RETRAIN.name}, TRAINER_GROUP)
            | {RETRAIN.name, TRAINING.name, MODELS.name, TRAINING_JOBS.name},
            describes=streams | {LABELS.name},
            groups=frozenset({TRAINER_GROUP, TRAINING_JOBS_GROUP}),
            transactional=frozenset({TRAINER_WRITER}),
        ),
    ]
