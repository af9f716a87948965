"""Kafka and Valkey on the load's core, features in the store, models in packages, and serving as it is shipped."""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import numpy as np
from aiokafka import AIOKafkaProducer
from door import LOAD_CORE, Door, opened, pin
from model import Fitted, fitted
from workload import AIRPORTS, COLUMNS, ENTITY, EVENTS, GIVEN, INPUT, LOOP, SERVICE, project

from millstream.contracts.envelope import Envelope
from millstream.contracts.events import ModelRef, ModelState, Step
from millstream.contracts.package import MANIFEST_FILE, MODEL_FILE, InputColumn
from millstream.contracts.times import now, to_datetime
from millstream.contracts.topics import MODELS, TILES_GROUP
from millstream.project import load_project
from millstream.runtime.packages import PackageStore
from millstream.runtime.topic_admin import ensure_topics
from millstream.testing import models
from millstream.testing.kafka import EmbeddedKafka
from millstream.testing.ports import free_port
from millstream.testing.valkey import EmbeddedValkey
from millstream_cli.topics import topics_of
from millstream_tiles import EventBatch, TileWriter, ValkeyTileStore, open_store
from millstream_tiles.definition import View
from millstream_tiles.digest import digest
from millstream_tiles.feature_reader import FeatureReader

FILL = 100_000
"""Departures of the last four hours."""


@dataclass(kw_only=True)
class Mill:
    root: Path
    kafka: str
    valkey: str
    project: Path
    model: Fitted
    runs: int = 0

    @contextmanager
    def serving(self, **settings: str) -> Iterator[Door]:
        """serving with one model for each loop, ready."""
        self.runs += 1
        port = free_port()
        env = {
            "MILLSTREAM_KAFKA": self.kafka,
            "MILLSTREAM_VALKEY": self.valkey,
            "MILLSTREAM_PROJECT": str(self.project),
            "MILLSTREAM_PACKAGES": str(self.root / "packages"),
            "MILLSTREAM_DATA": str(self.root / "serving"),
            "MILLSTREAM_PORT": str(port),
            "MILLSTREAM_INSTANCE": f"bench-{self.runs}",
        }
        args = [sys.executable, "-m", "millstream_serving"]
        with opened("serving", args, port=port, env=env | settings, log=self.root / f"serving-{self.runs}.log") as door:
            yield door


@asynccontextmanager
async def running() -> AsyncIterator[Mill]:
    with TemporaryDirectory(prefix="millstream-bench-") as name, ExitStack() as stack:
        root = Path(name)
        kafka = EmbeddedKafka(root / "kafka", log_dir=root / "logs")
        valkey = EmbeddedValkey(root / "valkey", None, log_dir=root / "logs")
        for one in (kafka, valkey):
            stack.enter_context(one.running())
            pin([process.pid or 0 for process in one.processes], LOAD_CORE)
        mill = Mill(
            root=root,
            kafka=kafka.bootstrap,
            valkey=valkey.url,
            project=project(root / "project"),
            model=fitted(COLUMNS),
        )
        await ensure_topics(kafka.bootstrap, topics_of(load_project(mill.project)))
        reader = FeatureReader(open_store(mill.project / "features", online={"url": valkey.url}), SERVICE)
        await _fill(valkey.url, reader.views)
        views = {name: digest(view) for name, view in reader.views.items()}
        await reader.aclose()
        producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap)
        await producer.start()
        for loop in (LOOP, GIVEN):
            await _champion(mill, producer, loop, views)
        await producer.stop()
        yield mill


async def _champion(mill: Mill, producer: AIOKafkaProducer, loop: str, views: dict[str, str]) -> None:
    """A package, and the record that trainer would write."""
    asked = (INPUT,) if loop == LOOP else COLUMNS
    inputs = [InputColumn(name=name, source="input" if name in asked else "feature", type="number") for name in COLUMNS]
    graph = mill.model.named
    manifest = models.manifest(
        loop,
        inputs,
        at=now(),
        feature_service=SERVICE,
        views=views,
        files={MODEL_FILE: hashlib.sha256(graph).hexdigest()},
    )
    files = {MODEL_FILE: graph, MANIFEST_FILE: msgspec.json.encode(manifest)}
    uri, sha256 = PackageStore(str(mill.root / "packages")).save(f"{loop}/1", files)
    state = ModelState(
        id=f"state-{loop}",
        loop=loop,
        revision=1,
        step=Step.CHAMPION,
        champion=ModelRef(version="1", run=manifest.run, uri=uri, sha256=sha256, at=to_datetime(now())),
        challenger=None,
        previous=None,
        reason="bench",
        at=to_datetime(now()),
    )
    headers = Envelope(id=state.id, type=state.type_name, source="trainer").headers()
    await producer.send_and_wait(MODELS.name, state.encode(), key=loop.encode(), headers=headers)


async def _fill(url: str, views: dict[str, View]) -> None:
    rng = np.random.default_rng(1)
    until = round(time.time() * 1e6)
    at = until - np.sort(rng.integers(0, 4 * 3_600_000_000, FILL))[::-1]
    airports = [f"A{n}" for n in rng.integers(0, AIRPORTS, FILL)]
    delays = rng.normal(10, 30, FILL).tolist()
    writer = TileWriter(ValkeyTileStore(url, "millstream"), views.values(), TILES_GROUP)
    for first in range(0, FILL, 5_000):
        part = slice(first, first + 5_000)
        await writer.write(
            EventBatch(
                stream=EVENTS,
                partition=0,
                start=first,
                end=first + 4_999,
                offsets=np.arange(first, first + 5_000),
                event_time=at[part],
                known_at=at[part],
                ids=None,
                columns={ENTITY: airports[part], "delay": delays[part]},
            )
        )
