"""Front door of serving: picks the adapters and wires the doorways to the one predict path."""

from __future__ import annotations

from collections.abc import Callable

from millstream.contracts.times import now
from millstream.project import load_project
from millstream.runtime.codecs import codecs_for
from millstream.runtime.packages import PackageStore
from millstream.runtime.room import Room
from millstream.runtime.service import Service
from millstream.runtime.waiting_records import WaitingRecords
from millstream_serving.adapters.feast_features import FeastStore
from millstream_serving.adapters.kafka_freshness import KafkaFreshness
from millstream_serving.adapters.kafka_log import KafkaLog
from millstream_serving.adapters.remote_model import RemoteModels
from millstream_serving.api import MOST_HELD, Doorway, Gate, InferenceDoorway
from millstream_serving.domain.roster import Roster
from millstream_serving.handlers import (
    MIB,
    Explainer,
    Inference,
    Loaded,
    ModelKeeper,
    Online,
    Predictor,
    Recorder,
    Replica,
    Residents,
)
from millstream_serving.metrics import ServingMetrics
from millstream_serving.ports import FeatureStore, Freshness, ModelRuntime, Packages
from millstream_serving.settings import Settings
from millstream_serving.subscribers import hear_models, hear_questions, say_what_is_obeyed


def create_app(
    settings: Settings,
    *,
    store: FeatureStore | None = None,
    runtime: ModelRuntime | None = None,
    packages: Packages | None = None,
    freshness: Freshness | None = None,
    clock: Callable[[], int] = now,
) -> Service:
    """The service, ready to run. Raises BadProject for a project that does not hold together, before anything starts."""
    project = load_project(settings.project)
    service = Service("serving", settings, title="Millstream serving")
    metrics = ServingMetrics(service.registry)
    roster: Roster[Loaded] = Roster(project.loops)
    store = store or FeastStore(
        repo=project.features_path,
        registry=settings.data / "registry.db",
        url=settings.valkey,
        namespace=settings.namespace,
        shards=settings.shards,
        project=settings.project,
    )
    residents = Residents(
        roster, metrics, budget=None if settings.model_memory is None else settings.model_memory * MIB
    )
    replica = Replica(instance=settings.instance, roster=roster, publisher=service.publisher)
    packages = packages or PackageStore(settings.packages)
    remotes = RemoteModels(settings, metrics)
    keeper = ModelKeeper(
        roster=roster,
        residents=residents,
        remotes=remotes,
        loops=project.loops,
        streams=project.streams,
        packages=packages,
        runtime=runtime or _onnx(settings),
        store=store,
        health=service.health,
        metrics=metrics,
        changed=replica.changed,
    )
    freshness = freshness or KafkaFreshness(WaitingRecords(service.kafka))
    predictor = Predictor(
        roster=roster,
        residents=residents,
        loops=project.loops,
        streams=project.streams,
        freshness=freshness,
        metrics=metrics,
    )
    log = KafkaLog(service.publisher, loops=project.loops, metrics=metrics)
    online = Online(predictor, log, Recorder(service.publisher.source))
    explainer = Explainer(roster=roster, packages=packages, metrics=metrics)
    inference = Inference(
        loops=project.loops,
        streams=project.streams,
        roster=roster,
        residents=residents,
        online=online,
        explainer=explainer,
        known=keeper.known,
        clock=clock,
    )
    if settings.doors != "kafka":
        _speak_grpc(service, settings, inference)
    service.before_hearing("features", store.prepare)
    service.before_hearing("valkey", store.check)
    hear_models(service, keeper)
    if settings.model_memory is not None:
        service.keeps("loading models again", lambda: residents.run(keeper.load))
    hear_questions(
        service,
        loops=project.loops if settings.doors != "http" else {},
        streams=project.streams,
        codecs=codecs_for(service, project.streams, settings),
        predictor=predictor,
        known=keeper.known,
        patience=settings.models_timeout,
    )
    say_what_is_obeyed(service, replica, keeper.known)
    service.keeps("putting answers on record", log.run)
    service.at_stop(log.drain)
    service.at_stop(store.close)
    service.at_stop(remotes.close)
    service.at_stop(freshness.close)
    room = Room(MOST_HELD)
    doorway = Doorway(
        loops=project.loops,
        streams=project.streams,
        roster=roster,
        residents=residents,
        online=online,
        explainer=explainer,
        known=keeper.known,
        clock=clock,
        room=room,
        trusts_known_at=settings.trust_known_at,
    )
    protocol = InferenceDoorway(
        inference, service.probes, room=room, version=service.app.version, trusts_known_at=settings.trust_known_at
    )
    if settings.doors != "kafka":
        service.app.include_router(doorway.router)
        service.app.include_router(protocol.router)
        service.app.gate = Gate(metrics, patience=settings.request_timeout)
        service.app.doors |= doorway.doors | protocol.doors
    return service


def _speak_grpc(service: Service, settings: Settings, inference: Inference) -> None:
    """Before anything is waited for, since its probes say so, and closed before what its calls need."""
    port = settings.grpc_port
    if port is None:
        return
    # Imported here: who speaks HTTP alone does without grpc's 10 MB.
    from millstream_serving.adapters.grpc_door import GrpcDoor

    door = GrpcDoor(
        inference,
        service.probes,
        version=service.app.version,
        trusts_known_at=settings.trust_known_at,
        patience=settings.request_timeout,
    )

    async def open_grpc() -> None:
        await door.open(settings.host, port, shared=settings.place is not None)

    service.before_hearing("grpc", open_grpc)
    service.at_stop(door.close)


def _onnx(settings: Settings) -> ModelRuntime:
    # Imported here: onnxruntime costs 0.3 s and 40 MB that a test of the doorways need not pay.
    from millstream_serving.adapters.onnx_model import OnnxRuntime

    return OnnxRuntime(settings.model_threads)
