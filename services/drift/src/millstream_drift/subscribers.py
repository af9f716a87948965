"""Kafka doorway of drift: predictions and every loop's labels in one subscription, so that one consumer has them all."""

from __future__ import annotations

from collections.abc import Sequence

from millstream.contracts.topics import MODELS
from millstream.runtime.codecs import Codecs
from millstream.runtime.service import Service
from millstream.runtime.table import Apply, TopicReader
from millstream_drift.handlers import Judging

GROUP = "drift"


def hear(service: Service, codecs: Codecs, *, topics: Sequence[str], judging: Judging, model: Apply) -> None:
    """Hear `topics` as group `drift`; follow the models from their beginning, without a group, as each replica must."""
    judging.log = service.hears(topics, group=GROUP, handler=codecs.preparing(judging), assigned=judging.assigned)
    models = TopicReader(bootstrap=service.kafka, topics=[MODELS.name], apply=model)
    service.keeps("following the models", models.run)
    service.keeps("settling in silence", judging.keep_settling)
