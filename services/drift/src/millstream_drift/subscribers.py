"""Kafka doorway of drift: a share's predictions and labels in one subscription, so that one consumer has them all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from millstream.contracts.topics import MODELS
from millstream.runtime.codecs import Codecs
from millstream.runtime.service import Service
from millstream.runtime.table import Apply, TopicReader
from millstream.runtime.whole_group import Share
from millstream_drift.handlers import Judging

GROUP = "drift"


def shares(loops: Iterable[str], count: int) -> dict[str, list[str]]:
    """The loops of each share, by its consumer group; none is empty. A single one is called as the service is."""
    names = sorted(loops)
    count = max(1, min(count, len(names)))
    return {GROUP if count == 1 else f"{GROUP}-{turn + 1}": names[turn::count] for turn in range(count)}


def hear(
    service: Service, codecs: Codecs, *, judgings: Sequence[tuple[str, Sequence[str], Judging]], model: Apply
) -> None:
    """Hear the topics of each share as its group; follow the models from their beginning, without a group, as each must."""
    for turn, (group, topics, judging) in enumerate(judgings):
        judging.log = service.hears(
            topics,
            group=group,
            handler=codecs.preparing(judging),
            assigned=judging.assigned,
            share=Share(turn=turn, letters=GROUP),
        )
        service.keeps(f"settling {group} in silence", judging.keep_settling)
    models = TopicReader(bootstrap=service.kafka, topics=[MODELS.name], apply=model)
    service.keeps("following the models", models.run)
