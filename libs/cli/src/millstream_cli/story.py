"""What the loops decided and did, read from their own topics: verdict → decision → run → model."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aiokafka import TopicPartition

from millstream.contracts.events import (
    ChallengerJudged,
    Decision,
    LabelsMatured,
    ModelState,
    RetrainDecided,
    RolloutMoved,
    TrainingFinished,
    WindowCorrected,
    WindowJudged,
    WindowKind,
    WindowSkipped,
)
from millstream.contracts.topics import MODELS, RETRAIN, TRAINING, VERDICTS
from millstream.runtime.kafka_clients import Consumer
from millstream.runtime.kafka_security import Bootstrap
from millstream_cli.errors import Stuck
from millstream_cli.journal import Told, in_order, row_of, told_of

READ_WITHIN = 120.0
"""Seconds to read what is in the topics: thousands of records a year, and Kafka may be away for a while."""
RUN_WITHIN = 7200.0
"""Seconds that a run may take; the trainer gives up each of its attempts after half an hour."""

COMPARED_WITHIN = 300.0
"""Seconds without a word on any content that waits. Drift gives up a comparison after two minutes, and may be restarted."""

TOPICS = tuple(topic.name for topic in (VERDICTS, RETRAIN, TRAINING, MODELS))
VERDICT = WindowJudged | WindowCorrected | WindowSkipped | LabelsMatured | ChallengerJudged
"""Said again and again, whether anything comes of it or not."""


@dataclass
class Story:
    """Follows the control topics. A repeated id is told once."""

    bootstrap: Bootstrap
    on_event: Callable[[Told], None] = lambda told: None
    told: list[Told] = field(default_factory=list)
    open_runs: dict[str, RetrainDecided] = field(default_factory=dict)
    """Accepted and not finished, by run name."""
    open_contents: dict[tuple[str, str, int], WindowJudged] = field(default_factory=dict)
    """Windows whose texts and embeddings are still compared, by loop, version and index: the verdict on their inputs."""
    models: dict[str, ModelState] = field(default_factory=dict)
    matured: dict[str, LabelsMatured] = field(default_factory=dict)
    _seen: set[str] = field(default_factory=set)

    async def start(self) -> None:
        self._consumer = Consumer(self.bootstrap, enable_auto_commit=False, auto_offset_reset="earliest")
        await self._consumer.start()
        self._partitions = []
        for topic in TOPICS:
            await self._consumer._client.add_topic(topic)
            numbers = self._consumer.partitions_for_topic(topic) or {0}
            self._partitions += [TopicPartition(topic, n) for n in sorted(numbers)]
        self._consumer.assign(self._partitions)
        await self._consumer.seek_to_beginning(*self._partitions)

    async def stop(self) -> None:
        await self._consumer.stop()

    async def catch_up(self, ends: dict[TopicPartition, int]) -> None:
        """Read up to `ends` (partitions of other topics are ignored). Raises Stuck."""
        mine = {p: end for p, end in ends.items() if p in self._partitions}
        deadline = time.monotonic() + READ_WITHIN
        while any([await self._consumer.position(p) < end for p, end in mine.items()]):
            if time.monotonic() > deadline:
                raise Stuck(f"{', '.join(TOPICS)} could not be read to their ends within {READ_WITHIN:.0f} s")
            await self.read(timeout=0.2)

    async def read(self, timeout: float) -> None:
        """Read what comes within `timeout` seconds, or at once what is there."""
        polled = await self._consumer.getmany(timeout_ms=int(timeout * 1000))
        for record in in_order(polled.get(partition, []) for partition in self._partitions):
            self._tell(record)

    async def until_runs_are_done(self) -> None:
        """Raises Stuck for a run that neither ends nor is given up."""
        deadline = time.monotonic() + RUN_WITHIN
        while self.open_runs:
            if time.monotonic() > deadline:
                raise Stuck(f"run {', '.join(self.open_runs)} did not end within {RUN_WITHIN / 60:.0f} minutes")
            await self.read(timeout=0.5)
            await asyncio.sleep(0)

    async def until_contents_are_compared(self) -> list[WindowJudged]:
        """Those of which no word came: drift has lost them (the loop's file, or the package, is another one by now)."""
        left, deadline = len(self.open_contents), time.monotonic() + COMPARED_WITHIN
        while self.open_contents and time.monotonic() < deadline:
            await self.read(timeout=0.5)
            if len(self.open_contents) != left:
                left, deadline = len(self.open_contents), time.monotonic() + COMPARED_WITHIN
        lost = list(self.open_contents.values())
        self.open_contents.clear()
        return lost

    def _tell(self, record: Any) -> None:
        told = told_of(record.headers, record.value)
        if told is None or told.id in self._seen:
            return
        self._seen.add(told.id)
        event = told.event
        if isinstance(event, RetrainDecided):
            if event.decision is Decision.ACCEPTED and event.run is not None:
                self.open_runs[event.run] = event
        elif isinstance(event, TrainingFinished):
            self.open_runs.pop(event.run, None)
        elif isinstance(event, WindowJudged | WindowSkipped):
            self._compares(event)
        elif isinstance(event, ModelState):
            self.models[event.loop] = event
        elif isinstance(event, LabelsMatured):
            self.matured[event.loop] = event
        self.told.append(told)
        self.on_event(told)

    def _compares(self, event: WindowJudged | WindowSkipped) -> None:
        window = event.loop, event.version, event.index
        if isinstance(event, WindowJudged) and event.content_follows:
            self.open_contents[window] = event
        elif event.kind is WindowKind.CONTENT:
            self.open_contents.pop(window, None)

    def timeline(self) -> list[dict[str, Any]]:
        """Verdicts that led to something, decisions, runs, steps and models, with their ids and causes; in stream time."""
        causes = {t.event.request for t in self.told if isinstance(t.event, RetrainDecided)}
        causes |= {t.caused_by for t in self.told if isinstance(t.event, RolloutMoved) and t.caused_by}
        rows = [row_of(t) for t in self.told if not isinstance(t.event, VERDICT) or t.id in causes]
        return sorted(rows, key=lambda row: str(row.get("at", "")))
