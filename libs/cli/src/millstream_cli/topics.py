"""Every topic that a project needs, its own and ours, with a dead-letter topic for each group that hears it."""

from __future__ import annotations

from datetime import timedelta

from millstream.contracts.topics import LABELS, PREDICTIONS, RETRAIN, TOPICS, VERDICTS, dead_letter_topic
from millstream.project import Project
from millstream.runtime.topic_admin import TopicSpec, our_topics, stream_topics

_OURS = (
    (PREDICTIONS.name, "drift"),
    (LABELS.name, "drift"),
    (LABELS.name, "features-lake"),
    (VERDICTS.name, "trainer"),
    (RETRAIN.name, "trainer"),
)
_KEPT = timedelta(days=30)


def topics_of(project: Project, *, partitions: int | None = None) -> list[TopicSpec]:
    """What `millstream topics` creates. `partitions` caps our own topics (one is enough on a laptop)."""
    specs = our_topics(TOPICS, partitions)
    specs += [TopicSpec(name=dead_letter_topic(t, group), partitions=1, retention=_KEPT) for t, group in _OURS]
    for name, stream in project.streams.items():
        groups = ["features-tiles", "features-lake"]
        if any(loop.predict.on == name for loop in project.loops.values()):
            groups.append("serving")
        if any(loop.label.stream == name for loop in project.loops.values()):
            groups.append("drift")
        specs += stream_topics(name, stream.partitions, timedelta(microseconds=stream.retention), groups)
    return specs
