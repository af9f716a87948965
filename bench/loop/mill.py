"""Replicas of serving for a bench: real processes on one Kafka and one Valkey, models in packages, and trainer's hand."""

from __future__ import annotations

import hashlib
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import msgspec
from aiokafka import AIOKafkaProducer
from graphs import RANGES

from millstream.contracts.envelope import Envelope
from millstream.contracts.events import ModelRef, ModelState, Step
from millstream.contracts.package import MANIFEST_FILE, MODEL_FILE, InputColumn
from millstream.contracts.times import now, to_datetime
from millstream.contracts.topics import MODELS
from millstream.project import load_project
from millstream.runtime.packages import PackageStore
from millstream.runtime.topic_admin import ensure_topics
from millstream.testing import models
from millstream.testing.kafka import EmbeddedKafka
from millstream.testing.ports import free_port
from millstream.testing.process import ManagedProcess
from millstream.testing.valkey import EmbeddedValkey
from millstream_cli.topics import topics_of
from millstream_tiles import open_store
from millstream_tiles.digest import digest
from millstream_tiles.feature_reader import FeatureReader

FLIGHTS = Path(__file__).parents[2] / "examples" / "flights"
LOOP, STREAM, SERVICE = "flight-delay", "flights-scheduled", "delay_v1"
READY_WITHIN = 120.0
"""Seconds until a replica is ready: 4 on quiet cores, most of it Feast's import; the rest is for a busy machine."""


@dataclass(kw_only=True)
class Mill:
    """What runs, and the folder of its trainer."""

    kafka: str
    urls: list[str]
    instances: list[str]
    packages: PackageStore
    inputs: list[InputColumn]
    views: dict[str, str]
    producer: AIOKafkaProducer
    revision: int = 0

    def package(self, version: str, graph: bytes) -> ModelRef:
        """A model of this version."""
        manifest = models.manifest(
            LOOP,
            self.inputs,
            version=version,
            at=now(),
            feature_service=SERVICE,
            views=self.views,
            files={MODEL_FILE: hashlib.sha256(graph).hexdigest()},
        )
        files = {MODEL_FILE: graph, MANIFEST_FILE: msgspec.json.encode(manifest)}
        uri, sha256 = self.packages.save(f"{LOOP}/{version}", files)
        return ModelRef(version=version, run=manifest.run, uri=uri, sha256=sha256, at=to_datetime(now()))

    async def state(self, champion: ModelRef, step: Step = Step.CHAMPION, **said: Any) -> int:
        """The record that trainer would write, confirmed by Kafka; its revision."""
        self.revision += 1
        state = ModelState(
            id=f"state-{self.revision}",
            loop=LOOP,
            revision=self.revision,
            step=step,
            champion=champion,
            challenger=None,
            previous=None,
            reason="bench",
            at=to_datetime(now()),
        )
        state = msgspec.structs.replace(state, **said)
        headers = Envelope(id=state.id, type=state.type_name, source="trainer").headers()
        await self.producer.send_and_wait(MODELS.name, state.encode(), key=LOOP.encode(), headers=headers)
        return self.revision


def _asked_by_callers(root: Path) -> Path:
    """The flights with the guards that a loop has by itself: theirs are for a replay, where nobody waits."""
    project = root / "project"
    if not project.exists():
        shutil.copytree(FLIGHTS, project)
        file = project / "loops" / "flight-delay.yaml"
        theirs = file.read_text("utf-8")
        ours = theirs.replace("guards: { deadline: 10000, slower: 1000 }", "guards: {}")
        if ours == theirs:
            raise RuntimeError(f"{file} has no such guards any more")
        file.write_text(ours, "utf-8")
    return project


@asynccontextmanager
async def running(replicas: int) -> AsyncIterator[Mill]:
    """Kafka, Valkey and so many ready replicas; the asked stream has a partition for each.

    The online store is empty: every feature is null, read over the wire as any other.
    """
    with TemporaryDirectory(prefix="millstream-bench-") as name, ExitStack() as stack:
        root = Path(name)
        kafka = stack.enter_context(EmbeddedKafka(root / "kafka", log_dir=root / "logs").running())
        valkey = stack.enter_context(EmbeddedValkey(root / "valkey", None, log_dir=root / "logs").running())
        topics = topics_of(load_project(FLIGHTS))
        await ensure_topics(
            kafka.bootstrap, [replace(one, partitions=replicas) if one.name == STREAM else one for one in topics]
        )
        packages = root / "packages"
        processes = [_replica(root, number, kafka.bootstrap, valkey.url, packages) for number in range(replicas)]
        for _, process in processes:
            stack.callback(process.terminate)
            process.launch()
        for _, process in processes:
            process.wait_ready()
        reader = FeatureReader(open_store(FLIGHTS / "features", online={"url": valkey.url}), SERVICE)
        producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap)
        await producer.start()
        try:
            yield Mill(
                kafka=kafka.bootstrap,
                urls=[url for url, _ in processes],
                instances=[process.name for _, process in processes],
                packages=PackageStore(str(packages)),
                inputs=[
                    *(InputColumn(name=name, source="input", type="number") for name in RANGES),
                    *(InputColumn(name=name, source="feature", type="number") for name in reader.names),
                ],
                views={name: digest(view) for name, view in reader.views.items()},
                producer=producer,
            )
        finally:
            await producer.stop()
            await reader.aclose()


def _replica(root: Path, number: int, kafka: str, valkey: str, packages: Path) -> tuple[str, ManagedProcess]:
    """Its address, and the process, not yet started."""
    name, port = f"serving-{number}", free_port()
    url = f"http://127.0.0.1:{port}"

    def ready() -> bool:
        try:
            return httpx.get(f"{url}/readyz").status_code == 200
        except httpx.TransportError:
            return False

    process = ManagedProcess(
        name,
        [sys.executable, "-m", "millstream_serving"],
        log=root / "logs" / f"{name}.log",
        env={
            "MILLSTREAM_KAFKA": kafka,
            "MILLSTREAM_VALKEY": valkey,
            "MILLSTREAM_PROJECT": str(_asked_by_callers(root)),
            "MILLSTREAM_PACKAGES": str(packages),
            "MILLSTREAM_DATA": str(root / name),
            "MILLSTREAM_PORT": str(port),
            "MILLSTREAM_INSTANCE": name,
        },
        ready=ready,
        ready_within=READY_WITHIN,
    )
    return url, process
