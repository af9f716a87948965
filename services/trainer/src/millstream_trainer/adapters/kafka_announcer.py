"""Speaks on Kafka: each event goes to the topic that its business card names."""

from __future__ import annotations

from opentelemetry.trace import SpanKind

from millstream.contracts.events import Event
from millstream.contracts.topics import MODELS, RETRAIN, TRAINING
from millstream.runtime.causes import Causes
from millstream.runtime.publisher import Publisher
from millstream.runtime.sole_writer import SoleWriter
from millstream.runtime.tracing import current_traceparent, span

WRITER = "millstream-trainer"
"""Transactional id of the dispatcher: one per Kafka, as the topics are."""

_TOPIC_OF = {event: topic.name for topic in (TRAINING, MODELS, RETRAIN) for event in topic.events}


class KafkaAnnouncer:
    """See `ports.Announcer`. The journal and the model states are written by the one dispatcher that started last; requests
    are anyone's."""

    def __init__(self, publisher: Publisher, writer: SoleWriter, causes: Causes) -> None:
        """`causes`: in which traces the events were said that were heard or said so far."""
        self._publisher = publisher
        self._writer = writer
        self._causes = causes

    async def announce(self, event: Event, *, caused_by: str) -> None:
        id, loop = str(getattr(event, "id")), str(getattr(event, "loop"))  # noqa: B009  (every event of ours has both)
        topic = _TOPIC_OF[type(event)]
        about = {"millstream.loop": loop, "millstream.event": id, "millstream.caused_by": caused_by}
        with span(f"say {event.type_name}", links=[self._causes.of(caused_by)], kind=SpanKind.PRODUCER, about=about):
            record = self._publisher.outgoing(topic, event, id=id, key=loop, caused_by=caused_by)
            await (self._publisher if topic == RETRAIN.name else self._writer).publish([record])
            self._causes.learn(id, current_traceparent())
