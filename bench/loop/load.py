"""Steady questions over HTTP and over Kafka, and what is heard of them: every answer, and what replicas say they obey."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from aiokafka import AIOKafkaConsumer
from mill import LOOP, STREAM, Mill

from millstream.contracts.envelope import Envelope, envelope_of
from millstream.contracts.events import PredictionServed, ReplicaObeyed, decode_event
from millstream.contracts.topics import PREDICTIONS, REPLICAS

TIMEOUT = 5.0
"""Seconds that a caller waits for its answer: then the request has failed."""
LONGEST = 60.0
"""Seconds in which what was asked has to be on record, and what was published obeyed."""
LOOK = 0.01
AIRCRAFT = 4_000


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What became of one request."""

    asked: float
    at: float
    """When it was answered, or given up; both in seconds of one clock that only grows."""
    status: int
    """0: no answer in time."""
    version: str


@dataclass(kw_only=True)
class Heard:
    """All that came back; one list a kind, in the order in which it was seen."""

    replies: list[Reply] = field(default_factory=list)
    answers: list[tuple[float, PredictionServed]] = field(default_factory=list)
    """As they are on record, of both doorways."""
    obeyed: list[tuple[float, ReplicaObeyed]] = field(default_factory=list)
    sent: list[tuple[float, str]] = field(default_factory=list)
    """Questions that Kafka has."""
    behind: list[tuple[float, float]] = field(default_factory=list)
    """Seconds by which the load itself woke too late: where cores are short, callers measure that too."""


class Load:
    """Open loop: a question is asked when it is due, whether the ones before it were answered or not."""

    def __init__(
        self, mill: Mill, http: httpx.AsyncClient, consumer: AIOKafkaConsumer, tasks: asyncio.TaskGroup
    ) -> None:
        """What goes wrong in the load itself ends `tasks`, and with them the measurement."""
        self.heard = Heard()
        self._mill = mill
        self._http = http
        self._consumer = consumer
        self._tasks = tasks
        self._rng = random.Random(1)
        self._numbers = itertools.count(1)
        self._urls = itertools.cycle(mill.urls)
        self._asking: set[asyncio.Task[None]] = set()
        self._stopped = asyncio.Event()

    async def ask(self, rate: float) -> None:
        """So many requests a second over all replicas in turn."""
        await self._steadily(rate, lambda: self._request(next(self._urls)))

    async def send(self, rate: float) -> None:
        """So many questions a second over Kafka."""
        await self._steadily(rate, self._send)

    async def listen(self) -> None:
        async for record in self._consumer:
            found = decode_event(envelope_of(record.headers).type, record.value)
            if isinstance(found, PredictionServed):
                self.heard.answers.append((time.perf_counter(), found))
            elif isinstance(found, ReplicaObeyed):
                self.heard.obeyed.append((time.perf_counter(), found))

    async def obeyed(self, revision: int) -> float:
        """When the last replica was heard to obey `revision`. Raises TimeoutError, RuntimeError where one refuses it."""
        async with asyncio.timeout(LONGEST):
            while True:
                first: dict[str, float] = {}
                for at, said in self.heard.obeyed:
                    if said.revision == revision:
                        first.setdefault(said.instance, at)
                    elif said.refused == revision:
                        raise RuntimeError(f"{said.instance} refuses revision {revision}: {said.reason}")
                if first.keys() >= set(self._mill.instances):
                    return max(first.values())
                await asyncio.sleep(LOOK)

    async def settled(self) -> None:
        """Until everything that was asked so far is answered or given up; what is lost over Kafka is not waited for."""
        if waiting := set(self._asking):
            await asyncio.wait(waiting)
        asked = {question for _, question in self.heard.sent}
        deadline = time.perf_counter() + LONGEST
        while time.perf_counter() < deadline:
            if asked <= {one.question for _, one in self.heard.answers if one.transport == "kafka"}:
                return
            await asyncio.sleep(10 * LOOK)

    def stop(self) -> None:
        self._stopped.set()

    async def _steadily(self, rate: float, ask: Callable[[], Coroutine[Any, Any, None]]) -> None:
        began, done = time.perf_counter(), 0
        while not self._stopped.is_set():
            for _ in range(int((time.perf_counter() - began) * rate) - done):
                task = self._tasks.create_task(ask())
                self._asking.add(task)
                task.add_done_callback(self._asking.discard)
                done += 1
            asleep = time.perf_counter()
            await asyncio.sleep(LOOK)
            awake = time.perf_counter()
            self.heard.behind.append((awake, awake - asleep - LOOK))
        await self.settled()

    async def _request(self, url: str) -> None:
        asked = time.perf_counter()
        status, version = 0, ""
        try:
            async with asyncio.timeout(TIMEOUT):
                response = await self._http.post(f"{url}/v1/loops/{LOOP}/predict", json={"event": self._flight()})
            status = response.status_code
            version = response.json()["version"] if status == 200 else ""
        except (httpx.TransportError, TimeoutError):
            pass  # status 0 says so
        self.heard.replies.append(Reply(asked=asked, at=time.perf_counter(), status=status, version=version))

    async def _send(self) -> None:
        flight = self._flight()
        question = str(flight["flight_id"])
        asked = time.perf_counter()
        headers = Envelope(id=question, type=STREAM, source="bench").headers()
        await self._mill.producer.send_and_wait(
            STREAM, json.dumps(flight).encode(), key=question.encode(), headers=headers
        )
        self.heard.sent.append((asked, question))

    def _flight(self) -> dict[str, object]:
        now = datetime.now(UTC)
        return {
            "flight_id": f"flight-{next(self._numbers)}",
            "announced_at": now.isoformat(),
            "scheduled_at": (now + timedelta(hours=2)).isoformat(),
            "origin": self._rng.choice(["JFK", "LGA", "EWR"]),
            "dest": self._rng.choice(["LAX", "BOS", "ATL", "ORD"]),
            "carrier": self._rng.choice(["B6", "UA", "DL", "AA"]),
            "tailnum": f"N{self._rng.randrange(AIRCRAFT)}",
            "distance": self._rng.randrange(100, 3_000),
            "scheduled_minute": self._rng.randrange(1_440),
            "weekday": self._rng.randrange(7),
        }


@asynccontextmanager
async def under_load(mill: Mill, http_rate: float, kafka_rate: float) -> AsyncIterator[Load]:
    """Questions are asked while the block lasts, from when all replicas obey the newest state; all of them come to an end."""
    consumer = AIOKafkaConsumer(
        PREDICTIONS.name, REPLICAS.name, bootstrap_servers=mill.kafka, auto_offset_reset="earliest"
    )
    await consumer.start()
    try:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=100)
        async with httpx.AsyncClient(limits=limits, timeout=TIMEOUT) as http, asyncio.TaskGroup() as tasks:
            load = Load(mill, http, consumer, tasks)
            listening = tasks.create_task(load.listen())
            await load.obeyed(mill.revision)
            asking = [tasks.create_task(load.ask(http_rate)), tasks.create_task(load.send(kafka_rate))]
            yield load
            load.stop()
            await asyncio.gather(*asking)
            listening.cancel()
    finally:
        await consumer.stop()
