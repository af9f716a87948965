"""Serving as it is shipped, nothing in memory: a graph in onnxruntime, windows in Valkey, and the clients that people have."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest
import tritonclient.http as triton_http
from aiokafka import AIOKafkaProducer
from feast.infra.registry.registry import Registry

from millstream.client import AsyncClient, Client
from millstream.contracts.envelope import Envelope
from millstream.contracts.events import ModelRef
from millstream.contracts.package import MANIFEST_FILE, MODEL_FILE, InputColumn
from millstream.contracts.times import to_rfc3339
from millstream.contracts.topics import MODELS, PREDICTIONS, REPLICAS
from millstream.project import load_project
from millstream.runtime.packages import PackageStore
from millstream.runtime.topic_admin import ensure_topics, our_topics, stream_topics
from millstream.testing.kafka import EmbeddedKafka
from millstream.testing.ports import free_port
from millstream_serving.adapters.feast_features import FeastFeatures, FeastStore
from millstream_serving.adapters.onnx_model import OnnxRuntime
from millstream_serving.app import create_app
from millstream_serving.settings import Settings

from .conftest import _manifest, state_of
from .test_serving_clients import Asker, grpc_asker, http_asker, listening, ready
from .test_serving_connected import eventually
from .test_serving_feast import NOON, departures
from .test_serving_store_away import FLIGHT, FLIGHTS
from .trees import boosted

AT_NOON = {"ce-knownat": to_rfc3339(NOON)}
EVENT = FLIGHT | {"announced_at": "2013-06-01T11:00:00Z", "scheduled_at": "2013-06-01T13:00:00Z"}
NUMBERS = {"distance", "scheduled_minute", "weekday"}


@dataclass(frozen=True, kw_only=True)
class Airport:
    """A serving that runs, over HTTP at `port` and gRPC at `door`, and the graph that answers there."""

    loop: str
    port: int
    door: int
    graph: bytes
    inputs: list[InputColumn]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def predict(self) -> dict[str, Any]:
        """Asked as our own users ask, as of noon."""
        with httpx.Client(headers=AT_NOON) as http, Client(self.url, serving=self.url, http=http) as client:
            return client.predict(self.loop, EVENT, patience=60.0)


def package(packages: PackageStore, loop: str, features: FeastFeatures) -> tuple[ModelRef, bytes, list[InputColumn]]:
    """Fifty trees over all that the loop knows."""
    asked = load_project(FLIGHTS).loops["flight-delay"].predict.inputs
    kinds = {name: "number" if name in NUMBERS else "category" for name in asked}
    inputs = [
        *(InputColumn(name=name, source="feature", type="number") for name in features.names),
        *(InputColumn(name=name, source="input", type=kind) for name, kind in kinds.items()),
    ]
    graph = boosted(inputs, trees=50)
    manifest = msgspec.structs.replace(
        _manifest("1", {MODEL_FILE: hashlib.sha256(graph).hexdigest()}),
        loop=loop,
        inputs=inputs,
        views=dict(features.views),
    )
    uri, sha256 = packages.save(f"{loop}/1", {MODEL_FILE: graph, MANIFEST_FILE: msgspec.json.encode(manifest)})
    return ModelRef(version="1", run="run-1", uri=uri, sha256=sha256, at=manifest.lineage.at), graph, inputs


@pytest.fixture
async def airport(
    kafka: EmbeddedKafka,
    valkey_url: str,
    tmp_path: Path,
    unique_name: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Airport]:
    monkeypatch.delattr(triton_http.InferenceServerClient, "__del__")  # see test_serving_clients
    loop, project = unique_name("flight-delay"), tmp_path / "project"
    shutil.copytree(FLIGHTS, project, ignore=shutil.ignore_patterns("data"))
    file = project / "loops" / "flight-delay.yaml"
    file.write_text(file.read_text().replace("loop: flight-delay", f"loop: {loop}"))
    store = FeastStore(
        repo=project / "features", registry=tmp_path / "registry.db", url=valkey_url, namespace="millstream"
    )
    await departures(store)
    ref, graph, inputs = package(PackageStore(str(tmp_path / "packages")), loop, await store.open("delay_v1"))
    await store.close()
    streams = load_project(project).streams
    topics = [topic for name in streams for topic in stream_topics(name, 1, timedelta(days=1), [])]
    await ensure_topics(kafka.bootstrap, [*our_topics([MODELS, PREDICTIONS, REPLICAS], partitions=1), *topics])
    state = state_of(1, ref, loop=loop)
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap) as producer:
        headers = Envelope(id=state.id, type=state.type_name, source="trainer").headers()
        await producer.send_and_wait(MODELS.name, state.encode(), key=loop.encode(), headers=headers)
    settings = Settings(
        kafka=kafka.bootstrap,
        valkey=valkey_url,
        project=project,
        packages=str(tmp_path / "packages"),
        data=tmp_path / "data",
        doors="http",
        grpc_port=free_port(),
        trust_known_at=True,
        request_timeout=30.0,
    )
    async with listening(create_app(settings)) as port:
        assert settings.grpc_port is not None
        one = Airport(loop=loop, port=port, door=settings.grpc_port, graph=graph, inputs=inputs)
        await eventually(lambda: asyncio.to_thread(ready, http_asker, one.port, one.loop))
        yield one


def infer(make: Callable[[int], Asker], port: int, loop: str, columns: dict[str, Any]) -> list[float]:
    """On one thread: gevent holds to its own. As bytes: Triton's JSON has no way to say that a value is missing."""
    asker = make(port)
    with asker.client as client:
        answer = client.infer(loop, asker.inputs(columns, **asker.ways[0]))
        return [float(one) for one in answer.as_numpy("probability")]


@pytest.mark.timeout(300)  # Feast is imported
async def test_a_question_is_answered_alike_whichever_client_asks_it(airport: Airport) -> None:
    """Our client has its features looked up; Triton's bring those that were found."""
    said = await asyncio.to_thread(airport.predict)
    assert said["features"]["origin_departures__mean_delay_1h"] == 15.0
    assert said["features"]["aircraft_departures__mean_delay_12h"] == 10.0
    async with (
        httpx.AsyncClient(headers=AT_NOON) as http,
        AsyncClient(airport.url, serving=airport.url, http=http) as client,
    ):
        again = await client.predict(airport.loop, EVENT, patience=60.0)
    assert [again[name] for name in ("prediction_id", "probability")] == [said["prediction_id"], said["probability"]]
    row = {**EVENT, **said["features"]}
    columns: dict[str, Any] = {}
    for column in airport.inputs:
        value = row[column.name]
        if column.type == "number":
            columns[column.name] = np.array([[np.nan if value is None else value]], np.float32)
        else:
            columns[column.name] = np.array([[value]], object)
    (answer,) = OnnxRuntime(1).load(airport.graph, airport.inputs, "probability").run(columns)
    assert said["probability"] == float(answer), "what the graph itself says to these features"
    for make, port in ((http_asker, airport.port), (grpc_asker, airport.door)):
        answers = await asyncio.to_thread(infer, make, port, airport.loop, columns)
        assert answers == [float(answer)]


@pytest.mark.timeout(300)
async def test_a_hundred_questions_read_no_registry_and_no_package(
    airport: Airport, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What a model needs is found out when it is loaded."""
    reads = Counter[str]()

    def counted(owner: type, name: str) -> None:
        real = getattr(owner, name)

        def read(*asked: Any, **said: Any) -> Any:
            reads[f"{owner.__name__}.{name}"] += 1
            return real(*asked, **said)

        monkeypatch.setattr(owner, name, read)

    for name in dir(Registry):
        if name.startswith(("get_", "list_", "refresh", "_get", "_refresh", "proto")):
            counted(Registry, name)
    for name in ("manifest", "file"):
        counted(PackageStore, name)
    counted(FeastStore, "_open")
    async with httpx.AsyncClient(base_url=airport.url, headers=AT_NOON, timeout=30) as http:
        for number in range(100):
            event = EVENT | {"flight_id": f"F{number}"}
            answer = await http.post(f"/v1/loops/{airport.loop}/predict", json={"event": event})
            assert answer.status_code == 200, answer.text
    assert not reads
    again = FeastStore(repo=FLIGHTS / "features", registry=tmp_path / "again.db", url="redis://none", namespace="none")
    await again.open("delay_v1")
    assert reads["FeastStore._open"] == 1
    assert reads.total() > 1, "who opens a service does read it"
    await again.close()
