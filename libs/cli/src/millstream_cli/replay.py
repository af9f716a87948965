"""The exact replay: a recording sent along a simulated clock, so that the same inputs give the same decisions.

Per tick: the questions, as known at its start, and a wait until they are answered; then the events, as known at its end,
and a wait until features and drift have applied them and the trainer has decided on every verdict. No tick begins while a
run is under way or serving has yet to learn of a new model. So no question knows what had not happened, at any speed.
Questions that a view over their own stream counts are asked in turns (`turns`).

Where a loop watches texts or embeddings, drift compares them beside the stream, in seconds: of the windows that the questions
closed before the events are sent, and of those that the events closed before the trainer decides. So that verdict too has the
same place among the others each time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import httpx
from aiokafka import TopicPartition

from millstream.contracts.topics import LABELS, PREDICTIONS, VERDICTS
from millstream.project import Project
from millstream.runtime.kafka_security import Bootstrap
from millstream_cli.errors import Stuck
from millstream_cli.ingest_client import IngestClient
from millstream_cli.offsets import Offsets
from millstream_cli.story import TOPICS, Story
from millstream_cli.ticks import Tick, Ticks

SERVING, TILES, DRIFT, TRAINER = "serving", "features-tiles", "drift", "trainer"


@dataclass(frozen=True, kw_only=True)
class Addresses:
    """Where a running mill is reached."""

    kafka: Bootstrap
    ingest: str
    serving: str


@dataclass
class Spent:
    """Seconds of the replay, by what was waited for."""

    seconds: dict[str, float] = field(default_factory=dict)

    def add(self, what: str, since: float) -> float:
        now = time.perf_counter()
        self.seconds[what] = self.seconds.get(what, 0.0) + now - since
        return now


class Replay:
    """One run of a recording through a running mill."""

    def __init__(
        self,
        *,
        project: Project,
        ticks: Ticks,
        addresses: Addresses,
        story: Story,
        on_tick: Callable[[Tick], None],
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        """`say` is told what the replay could not wait for."""
        self._project = project
        self._ticks = ticks
        self._addresses = addresses
        self._story = story
        self._on_tick = on_tick
        self._say = say
        self._watches_content = any(loop.drift.content for loop in project.loops.values())
        self._offsets = Offsets(addresses.kafka)
        self._ingest = IngestClient(addresses.ingest)
        self._http = httpx.AsyncClient(base_url=addresses.serving, timeout=10.0)
        self._tiles_streams: list[str] = []
        self._drift_topics = sorted(
            {PREDICTIONS.name, LABELS.name, *(loop.label.stream for loop in project.loops.values())}
        )
        self._drift = {DRIFT: self._drift_topics}
        """What drift hears of them, by consumer group: one for each of its shares."""
        self._known: dict[TopicPartition, int] = {}
        """Ends of the control topics when they were last read."""
        self._revisions: dict[str, int] = {}
        self.spent = Spent()

    async def run(self) -> None:
        """Send everything. Raises CommandFailed (a refused event), Stuck (a service that does not get on)."""
        await self._offsets.start()
        await self._ingest.start()
        try:
            self._tiles_streams = await self._offsets.heard(TILES)
            if (shares := await self._offsets.shares(DRIFT)) != [DRIFT]:
                heard_by = {group: await self._offsets.heard(group) for group in shares}
                self._drift = {g: [t for t in heard if t in self._drift_topics] for g, heard in heard_by.items()}
            if self._watches_content:
                await self._contents_are_compared()
            await self._settle_decisions()
            for tick in self._ticks:
                await self._step(tick)
                self._on_tick(tick)
        finally:
            await self._offsets.stop()
            await self._ingest.close()
            await self._http.aclose()

    async def _step(self, tick: Tick) -> None:
        at = time.perf_counter()
        for turn, questions in enumerate(tick.rounds if tick.questions else ()):
            await self._send(questions, tick.start + turn)
            at = self.spent.add("ingest", at)
            await self._offsets.reached(SERVING, await self._offsets.ends(list(questions)))
            at = self.spent.add("serving", at)
            if self._watches_content:
                await self._drift_reaches(await self._offsets.ends([PREDICTIONS.name]))
                at = self.spent.add("drift", at)
                await self._contents_are_compared()
                at = self.spent.add("contents", at)
        if tick.events:
            await self._send(tick.events, tick.end)
            at = self.spent.add("ingest", at)
        ends = await self._offsets.ends(sorted({*tick.events, *self._drift_topics}))
        if heard := {p: end for p, end in ends.items() if p.topic in self._tiles_streams and p.topic in tick.events}:
            await self._offsets.reached(TILES, heard)
        at = self.spent.add("features", at)
        await self._drift_reaches(ends)
        at = self.spent.add("drift", at)
        if self._watches_content:
            await self._contents_are_compared()
            at = self.spent.add("contents", at)
        await self._settle_decisions()
        self.spent.add("trainer", at)

    async def _drift_reaches(self, ends: dict[TopicPartition, int]) -> None:
        for group, topics in self._drift.items():
            await self._offsets.reached(group, {p: end for p, end in ends.items() if p.topic in topics})

    async def _contents_are_compared(self) -> None:
        """Drift says of each window that closes whether a verdict on its content follows, before it commits what closed it."""
        await self._story.catch_up(await self._offsets.ends([VERDICTS.name]))
        for lost in await self._story.until_contents_are_compared():
            self._say(
                f"drift says nothing of the texts and embeddings of {lost.loop}, version {lost.version}, window {lost.index}, "
                "which it was to compare: decisions may differ from those of another replay"
            )

    async def _send(self, found: dict[str, list[bytes]], known_at: int) -> None:
        await asyncio.gather(*(self._ingest.send(stream, lines, known_at) for stream, lines in found.items()))

    async def _settle_decisions(self) -> None:
        """Wait until every verdict has its decision, every run its end, and serving the model that came of it."""
        while True:
            ends = await self._offsets.ends(TOPICS)
            if ends == self._known:
                return
            asked = {p: end for p, end in ends.items() if p.topic in (VERDICTS.name, "millstream-retrain")}
            await self._offsets.reached(TRAINER, asked)
            ends = await self._offsets.ends(TOPICS)
            await self._story.catch_up(ends)
            await self._story.until_runs_are_done()
            await self._models_are_served()
            self._known = ends

    async def _models_are_served(self) -> None:
        for name, state in self._story.models.items():
            if self._revisions.get(name, 0) >= state.revision:
                continue
            await self._serves(name, state.revision)
            self._revisions[name] = state.revision

    async def _serves(self, loop: str, revision: int) -> None:
        deadline = time.monotonic() + 120
        seen = "nothing"
        while time.monotonic() < deadline:
            try:
                response = await self._http.get(f"/v1/loops/{loop}")
                seen = response.text[:200]
                if response.status_code == 200 and (response.json().get("revision") or 0) >= revision:
                    return
            except (httpx.TransportError, ValueError) as error:
                seen = repr(error)
            await asyncio.sleep(0.02)
        raise Stuck(f"serving did not take revision {revision} of {loop} within 120 s; it says: {seen}")
