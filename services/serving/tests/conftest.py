"""Two airlines, two airports, one loop: the smallest project that asks something, and helpers to answer it in memory."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from prometheus_client import CollectorRegistry

from millstream.contracts.events import Cause, ModelRef, ModelState, Step
from millstream.contracts.package import MANIFEST_FILE, MODEL_FILE, InputColumn, Lineage, Manifest
from millstream.contracts.times import DAY, from_rfc3339, to_datetime
from millstream.project import Loop, Project, load_project
from millstream.project.predict import Freshness
from millstream.runtime.health import Health
from millstream.runtime.http import FrontedApp, http_app
from millstream.runtime.packages import PackageStore
from millstream.runtime.probes import Probes
from millstream.runtime.room import Room
from millstream_serving.adapters.memory import (
    MemoryFeatures,
    MemoryFeatureStore,
    MemoryFreshness,
    MemoryLog,
    MemoryPublisher,
    MemoryRuntime,
    Score,
)
from millstream_serving.api import MOST_HELD, Doorway, InferenceDoorway
from millstream_serving.domain.roster import Roster
from millstream_serving.handlers import (
    Explainer,
    Inference,
    Loaded,
    ModelKeeper,
    Online,
    Predictor,
    Recorder,
    Residents,
)
from millstream_serving.metrics import ServingMetrics

NOON = from_rfc3339("2013-06-01T12:00:00Z")

STREAM = """
stream: {stream}
description: The question.
key: flight_id
id: flight_id
time: announced_at
partitions: 1
schema:
  type: object
  required: [flight_id, announced_at, origin, carrier, distance]
  properties:
    flight_id: {{ type: string }}
    announced_at: {{ type: string, format: date-time }}
    origin: {{ type: [string, "null"] }}
    carrier: {{ type: string }}
    distance: {{ type: [number, string, "null"] }}
"""
LANDED = """
stream: flights-landed
description: The answer.
key: flight_id
id: flight_id
time: landed_at
schema:
  type: object
  required: [flight_id, landed_at]
  properties:
    flight_id: { type: string }
    landed_at: { type: string, format: date-time }
    arr_delay: { type: number }
"""
LOOP = """
loop: {loop}
predict: {{ on: {stream}, features: delay_v1, inputs: [distance, carrier] }}
label: {{ from: flights-landed, by: flight_id, value: "arr_delay >= 15", within: 24h }}
rollout: {{ guards: {{ deadline: 60000 }} }}
"""
"""A model on trial is late where a test is about that, and nowhere because a core was busy for a tenth of a second."""

INPUTS = [
    InputColumn(name="distance", source="input", type="number"),
    InputColumn(name="carrier", source="input", type="category"),
    InputColumn(name="origin_delays__mean", source="feature", type="number"),
]


def write_project(root: Path, *, loop: str = "flight-delay", stream: str = "flights-scheduled") -> Path:
    for file, text in {
        "streams/question.yaml": STREAM.format(stream=stream),
        "streams/landed.yaml": LANDED,
        "loops/loop.yaml": LOOP.format(loop=loop, stream=stream),
        "features/feature_store.yaml": "project: flights\n",
    }.items():
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text(text)
    return root


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return load_project(write_project(tmp_path / "project"))


def flight(number: int = 23, **changes: Any) -> dict[str, Any]:
    """A B6 flight from JFK, announced at ten."""
    return {
        "flight_id": f"B6-{number}",
        "announced_at": "2013-06-01T10:00:00Z",
        "origin": "JFK",
        "carrier": "B6",
        "distance": 2475,
    } | changes


@pytest.fixture(name="flight")
def _flight() -> Callable[..., dict[str, Any]]:
    return flight


@dataclass
class Stage:
    """Everything that serving needs, in memory, with a trainer's hand to put models on it."""

    project: Project
    root: Path
    runtime: MemoryRuntime = field(default_factory=MemoryRuntime)
    publisher: MemoryPublisher = field(default_factory=MemoryPublisher)
    health: Health = field(default_factory=lambda: Health(60.0))
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    caught_up: asyncio.Event = field(default_factory=asyncio.Event)
    freshness: MemoryFreshness = field(default_factory=MemoryFreshness)
    listeners: list[Callable[[str], None]] = field(default_factory=list)
    """Are told the loop of each state that was obeyed or refused."""
    seconds: float = 0.0
    """What the predictor's stopwatch shows."""
    budget: int | None = None
    """Bytes of all models together."""

    def __post_init__(self) -> None:
        self.probes = Probes(self.health, self.registry, None)
        self.room = Room(MOST_HELD)
        self.loops: dict[str, Loop] = dict(self.project.loops)
        self.features = MemoryFeatures(join_keys=["origin"], views={"origin_delays": "v1"})
        self.features.values["origin", "JFK"] = 12.1
        self.packages = PackageStore(str(self.root / "packages"))
        self.store = MemoryFeatureStore({"delay_v1": self.features})
        self.roster: Roster[Loaded] = Roster(self.project.loops)
        metrics = self.metrics = ServingMetrics(self.registry)
        self.residents = Residents(
            self.roster, metrics, budget=self.budget, patience=10.0, stopwatch=lambda: self.seconds
        )
        self.predictor = Predictor(
            roster=self.roster,
            residents=self.residents,
            loops=self.loops,
            streams=self.project.streams,
            freshness=self.freshness,
            metrics=metrics,
            stopwatch=lambda: self.seconds,
        )
        self.online = Online(self.predictor, MemoryLog(self.publisher), Recorder(self.publisher.source))
        self.explainer = Explainer(roster=self.roster, packages=self.packages, metrics=metrics, within=60.0)
        self.keeper = ModelKeeper(
            roster=self.roster,
            residents=self.residents,
            loops=self.project.loops,
            streams=self.project.streams,
            packages=self.packages,
            runtime=self.runtime,
            store=self.store,
            health=self.health,
            metrics=metrics,
            changed=lambda loop: [tell(loop) for tell in self.listeners],
        )

    def inference(self) -> Inference:
        """What the doors of the Open Inference Protocol ask."""
        return Inference(
            loops=self.loops,
            streams=self.project.streams,
            roster=self.roster,
            residents=self.residents,
            online=self.online,
            explainer=self.explainer,
            known=self.keeper.known,
            clock=lambda: NOON,
        )

    def app(self, *, hot: bool = False, now: int = NOON, trusts_known_at: bool = False) -> FrontedApp:
        """All doors over HTTP, as create_app has them. `hot`: those that go past the frame too."""
        app = http_app(title="serving")
        doorway = Doorway(
            loops=self.loops,
            streams=self.project.streams,
            roster=self.roster,
            residents=self.residents,
            online=self.online,
            explainer=self.explainer,
            known=self.keeper.known,
            clock=lambda: now,
            room=self.room,
            trusts_known_at=trusts_known_at,
        )
        protocol = InferenceDoorway(
            self.inference(), self.probes, room=self.room, version="1.2", trusts_known_at=trusts_known_at
        )
        app.include_router(doorway.router)
        app.include_router(protocol.router)
        if hot:
            app.doors |= doorway.doors | protocol.doors
        return app

    def package(self, version: str, score: Score, **manifest: Any) -> ModelRef:
        return save_package(self.packages, self.runtime, version, score, **manifest)

    def rule(self, **freshness: Any) -> None:
        """Give the loop another `predict.freshness`."""
        loop = self.loops["flight-delay"]
        predict = loop.predict.model_copy(update={"freshness": Freshness.model_validate(freshness)})
        self.loops["flight-delay"] = loop.model_copy(update={"predict": predict})

    def promote(self, revision: int, champion: ModelRef | None) -> None:
        """The record that trainer would write."""
        self.keeper.hear(state_of(revision, champion))

    async def obey(self, champion: ModelRef | None, **said: Any) -> None:
        """The next record of trainer, obeyed: a step of a rollout."""
        revision = self.roster.standing("flight-delay").heard + 1
        self.keeper.hear(state_of(revision, champion, **said))
        await self.heard(revision)
        assert self.roster.standing("flight-delay").refusal is None

    async def heard(self, revision: int) -> None:
        """Until `revision` was obeyed or refused."""
        async with asyncio.timeout(30):
            await self.keeper.idle.wait()
        assert self.roster.standing("flight-delay").heard == revision

    def metric(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0


def save_package(
    packages: PackageStore, runtime: MemoryRuntime, version: str, score: Score, **manifest: Any
) -> ModelRef:
    """A package as trainer writes it; its graph is a Python function."""
    graph = f"graph of {version}".encode()
    runtime.graphs[graph] = score
    said = msgspec.structs.replace(_manifest(version, {MODEL_FILE: hashlib.sha256(graph).hexdigest()}), **manifest)
    files = {MODEL_FILE: graph, MANIFEST_FILE: msgspec.json.encode(said)}
    uri, sha256 = packages.save(f"flight-delay/{version}", files)
    return ModelRef(version=version, run=f"run-{version}", uri=uri, sha256=sha256, at=to_datetime(NOON))


def state_of(
    revision: int, champion: ModelRef | None, *, loop: str = "flight-delay", watched: bool = False, **said: Any
) -> ModelState:
    """A champion, on trial a `challenger` with a `share`, on watch (`watched`) a `previous` one beside it."""
    challenger, share = said.get("challenger"), said.get("share", 0.0)
    step = Step.CHAMPION if challenger is None else Step.CANARY if share else Step.SHADOW
    state = ModelState(
        id=f"state-{loop}-{revision}",
        loop=loop,
        revision=revision,
        step=step,
        champion=champion,
        challenger=None,
        previous=None,
        reason="passed the gate",
        at=to_datetime(NOON),
        watch_until=to_datetime(NOON + 2 * DAY) if watched else None,
    )
    return msgspec.structs.replace(state, **said)


def _manifest(version: str, files: Mapping[str, str]) -> Manifest:
    return Manifest(
        format=1,
        loop="flight-delay",
        version=version,
        run=f"run-{version}",
        task="binary",
        inputs=INPUTS,
        output="probability",
        feature_service="delay_v1",
        views={"origin_delays": "v1"},
        label="arr_delay >= 15",
        metrics={"log_loss": 0.47},
        lineage=Lineage(
            cause=Cause.FIRST_MODEL,
            request="labels-1",
            at=to_datetime(NOON),
            positions={},
            train_rows=20_000,
            holdout_rows=5_000,
            content_sha256="0" * 64,
            code_version="test",
            libraries={},
        ),
        files=dict(files),
    )


@pytest.fixture
async def stage(project: Project, tmp_path: Path) -> AsyncIterator[Stage]:
    stage = Stage(project=project, root=tmp_path)
    stage.caught_up.set()
    keeping = asyncio.create_task(stage.keeper.run(stage.caught_up))
    yield stage
    keeping.cancel()
    with suppress(asyncio.CancelledError):
        await keeping


@pytest.fixture
def trusts_known_at() -> bool:
    return False


@pytest.fixture
async def http(stage: Stage, trusts_known_at: bool) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the stage, once its models are known."""
    await stage.keeper.known.wait()
    async with asking(stage.app(trusts_known_at=trusts_known_at)) as client:
        yield client


def asking(app: FrontedApp) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://serving")
