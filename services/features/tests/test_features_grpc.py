"""Feast's gRPC service on a real port, asked with Feast's generated client: what the HTTP doorway says, it says too."""

from __future__ import annotations

import asyncio
import itertools
import random
import threading
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
from feast import __version__ as feast_version
from feast.feature_server_utils import convert_response_to_dict
from feast.protos.feast.serving.ServingService_pb2 import (
    FeatureList,
    GetFeastServingInfoRequest,
    GetOnlineFeaturesRequest,
    GetOnlineFeaturesResponse,
)
from feast.protos.feast.serving.ServingService_pb2_grpc import ServingServiceStub
from feast.protos.feast.types.Value_pb2 import RepeatedValue, Value
from feast.type_map import python_values_to_proto_values
from google.protobuf.message import DecodeError
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from millstream.errors import BadSetup
from millstream.runtime import grpc_server
from millstream.runtime.health import Health
from millstream.testing.kafka import EmbeddedKafka
from millstream.testing.ports import free_port
from millstream_features.adapters import grpc_door
from millstream_features.adapters.grpc_door import SERVICE, GrpcDoor
from millstream_features.errors import StoreUnavailable

from .features_airfield import Field, Sent, airfield

pytestmark = pytest.mark.connected

NOON = "2013-06-01T12:00:00Z"
FLIGHTS = [
    Sent({"flight_id": f"f{n}", "departed_at": "2013-06-01T11:50:00Z", "tailnum": "N1", "origin": o, "gate": 7} | more)
    for n, (o, more) in enumerate([("JFK", {"delay": 10.0}), ("JFK", {"delay": 20.0, "seats": 180}), ("LGA", {})])
]
ROWS = {"tailnum": ["N1", "N2"], "origin": ["JFK", "LGA"], "gate": [7, 8]}
AS_OF = (("as_of", NOON),)
NUMBERS = itertools.count()
"""Each test has a topic of its own."""


def asking(*features: str, service: str = "", entities: dict[str, list[Any]], **more: Any) -> GetOnlineFeaturesRequest:
    columns = {name: RepeatedValue(val=python_values_to_proto_values(values)) for name, values in entities.items()}
    if service:
        return GetOnlineFeaturesRequest(feature_service=service, entities=columns, **more)
    return GetOnlineFeaturesRequest(features=FeatureList(val=features), entities=columns, **more)


def by_name(answer: dict[str, Any]) -> dict[str, Any]:
    """Entities are a map in the request, which has no order."""
    names = answer["metadata"].pop("feature_names")
    return dict(zip(names, answer["results"], strict=True)) | answer["metadata"]


@dataclass(frozen=True)
class Tower:
    """The service as both kinds of clients see it."""

    field: Field
    channel: Any
    stub: Any

    async def ask(self, request: GetOnlineFeaturesRequest, metadata: Any = AS_OF) -> dict[str, Any]:
        answer: GetOnlineFeaturesResponse = await self.stub.GetOnlineFeatures(request, metadata=metadata, timeout=30)
        found: dict[str, Any] = convert_response_to_dict(answer)
        return found


@pytest.fixture
async def tower(kafka: EmbeddedKafka, valkey_url: str, tmp_path: Path) -> AsyncIterator[Tower]:
    port = free_port()
    async with airfield(kafka, valkey_url, tmp_path, f"departed-grpc-{next(NUMBERS)}", grpc_port=port) as field:
        await field.departs(*FLIGHTS)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield Tower(field, channel, ServingServiceStub(channel))


async def test_the_answer_is_that_of_the_http_doorway(tower: Tower) -> None:
    questions: list[dict[str, Any]] = [
        {"service": "everything", "full_feature_names": True},
        {"service": "everything", "full_feature_names": True, "include_feature_view_version_metadata": True},
        {"features": ["by_tail:max", "by_gate:sum"]},
        {"features": ["by_tail:count", "by_seats:count"], "full_feature_names": True},
    ]
    for question in questions:
        features, service = question.pop("features", []), question.pop("service", "")
        for moment in (NOON, "2013-05-01T00:00:00Z"):
            asked = {"features": features} if features else {"feature_service": service}
            http = await tower.field.http.post(
                "/get-online-features", json=asked | {"entities": ROWS, "as_of": moment} | question
            )
            request = asking(*features, service=service, entities=ROWS, **question)
            assert by_name(await tower.ask(request, (("as_of", moment),))) == by_name(http.json())


async def test_what_the_answer_says(tower: Tower) -> None:
    """Against a mistake that both doorways would share."""
    names = ["by_tail:count", "by_tail:sum", "by_tail:max", "by_route:last"]
    answer = await tower.ask(asking(*names, entities=ROWS, full_feature_names=True))

    found = by_name(answer)
    assert found["by_tail__count"]["values"] == [2, 0]
    assert found["by_tail__sum"]["values"] == [30.0, 0.0]
    assert found["by_tail__max"]["values"] == [20.0, None]
    assert found["by_route__last"]["values"] == [20.0, None]
    assert set(found["by_tail__max"]["statuses"]) == {"PRESENT"}
    assert set(found["by_tail__max"]["event_timestamps"]) == {NOON}
    past = await tower.ask(asking("by_tail:max", entities=ROWS), (("as_of", "2013-05-01T00:00:00Z"),))
    assert past["results"][-1]["values"] == [None, None]
    assert past["results"][-1]["statuses"] == ["OUTSIDE_MAX_AGE"] * 2
    before = datetime.now(UTC).replace(microsecond=0)
    now = await tower.ask(asking("by_tail:count", entities=ROWS), ())
    assert now["results"][-1]["values"] == [0, 0], "nobody left within the last hour"
    assert datetime.fromisoformat(now["results"][-1]["event_timestamps"][0]) >= before


async def test_a_key_may_come_in_any_type(tower: Tower) -> None:
    """Java's ints are int32, its longs int64."""
    for kind, key in (("int32_val", 7), ("int64_val", 7), ("double_val", 7.0), ("string_val", "7")):
        request = GetOnlineFeaturesRequest(features=FeatureList(val=["by_gate:count"]))
        request.entities["gate"].val.append(Value(**{kind: key}))
        answer = await tower.ask(request)
        assert answer["results"][-1]["values"] == [3], kind


NOT_FOUND, INVALID = grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT
REFUSED = [
    (asking("nothing:x", entities=ROWS), NOT_FOUND, "unknown_feature: "),
    (asking(service="nothing", entities=ROWS), NOT_FOUND, "unknown_feature: "),
    (asking("by_tail:nothing", entities=ROWS), INVALID, "bad_question: "),
    (asking("by_tail:count", entities={"origin": ["JFK"]}), INVALID, "bad_question: entities: tailnum is missing"),
    (asking("by_tail:count", entities={"tailnum": ["N1", None]}), INVALID, "bad_entities: /entities/tailnum/1 is null"),
    (asking(entities=ROWS), INVALID, "bad_body: give either features"),
    (asking("by_tail:count", entities={"tailnum": ["N1"] * 1_001}), INVALID, "1001 rows; ask for 1 to 1000"),
    (asking("by_tail:count", entities={}), INVALID, "bad_body: entities: 0 rows"),
    (asking("a:b", entities={"a": ["N" * 1_100_000]}), grpc.StatusCode.RESOURCE_EXHAUSTED, "larger than max"),
]


async def test_a_refusal_says_what_the_http_doorway_says(tower: Tower) -> None:
    for request, code, said in REFUSED:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await tower.ask(request)
        assert refused.value.code() == code, said
        assert said in str(refused.value.details())


async def test_a_time_that_is_none_is_refused(tower: Tower) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await tower.ask(asking("by_tail:count", entities=ROWS), (("as_of", "noon"),))

    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "as_of" in str(refused.value.details())


async def test_it_says_who_it_is_and_that_it_serves(tower: Tower) -> None:
    info = await tower.stub.GetFeastServingInfo(GetFeastServingInfoRequest(), timeout=30)
    assert info.version == feast_version
    for name in ("", SERVICE):
        await says(tower.channel, name, HealthCheckResponse.SERVING)


async def says(channel: Any, service: str, status: Any) -> None:
    watch = HealthStub(channel).Watch(HealthCheckRequest(service=service), timeout=30)
    while (await watch.read()).status != status:
        pass
    watch.cancel()


async def test_a_replica_that_is_not_ready_says_so_from_its_first_moment() -> None:
    health = Health(0.0)
    health.waiting_for("valkey", "away")
    door = GrpcDoor(Held(), health)
    port = await door.open("127.0.0.1", 0)
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            found = await HealthStub(channel).Check(HealthCheckRequest(service=SERVICE), timeout=30)
            assert found.status == HealthCheckResponse.NOT_SERVING
            health.met("valkey")
            await says(channel, SERVICE, HealthCheckResponse.SERVING)
    finally:
        await door.close()


async def test_no_bytes_make_it_fail(tower: Tower) -> None:
    """A good request with bytes exchanged, and cut; what is no message at all is told so by gRPC itself."""
    good = asking("by_tail:count", "by_tail:max", entities=ROWS).SerializeToString()
    send = tower.channel.unary_unary(f"/{SERVICE}/GetOnlineFeatures")
    chance, told = random.Random(7), Counter[grpc.StatusCode]()
    for _ in range(300):
        raw = bytearray(good)
        for _ in range(chance.randrange(6)):
            raw[chance.randrange(len(raw))] = chance.randrange(256)
        torn = bytes(raw[: chance.choice([len(raw), chance.randrange(len(raw))])])
        code, said = grpc.StatusCode.OK, ""
        try:
            await send(torn, metadata=AS_OF, timeout=30)
        except grpc.aio.AioRpcError as error:
            code, said = error.code(), str(error.details())
        told[code] += 1
        assert code in (grpc.StatusCode.OK, NOT_FOUND, INVALID) or not parses(torn), (torn, code, said)
    assert {grpc.StatusCode.OK, NOT_FOUND, INVALID} <= told.keys()


def parses(raw: bytes) -> bool:
    try:
        GetOnlineFeaturesRequest.FromString(raw)
    except DecodeError:
        return False
    return True


class Held:
    """A reader that answers when it is let, or not at all."""

    def __init__(self, error: Exception | None = None) -> None:
        self.let = threading.Event()
        self.began = threading.Event()
        self.error = error

    def ask(self, **asked: Any) -> GetOnlineFeaturesResponse:
        self.began.set()
        if self.error is not None:
            raise self.error
        assert self.let.wait(60)
        return GetOnlineFeaturesResponse()


FRESH = [("grpc.use_local_subchannel_pool", 1)]
"""Otherwise channels to one address share a connection, and who asks anew rides on that of a call under way."""


async def ask(port: int) -> GetOnlineFeaturesResponse:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=FRESH) as channel:
        stub: Any = ServingServiceStub(channel)
        answer: GetOnlineFeaturesResponse = await stub.GetOnlineFeatures(asking("v:f", entities=ROWS), timeout=30)
        return answer


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (StoreUnavailable("the online store did not answer"), grpc.StatusCode.UNAVAILABLE, "unavailable: the online"),
        (ZeroDivisionError("secret"), grpc.StatusCode.INTERNAL, "internal: this is a fault of the service"),
    ],
    ids=["away", "bug"],
)
async def test_what_goes_wrong_behind_it_is_told_by_its_status(
    error: Exception, code: grpc.StatusCode, said: str
) -> None:
    door = GrpcDoor(Held(error), Health(0.0))
    port = await door.open("127.0.0.1", 0)
    try:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await ask(port)
        assert refused.value.code() == code
        assert str(refused.value.details()).startswith(said)
    finally:
        await door.close()


async def test_a_call_under_way_ends_before_the_door_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc_server, "GRACE", 60.0)  # what is not let go within it is cut
    held = Held()
    door = GrpcDoor(held, Health(0.0))
    port = await door.open("127.0.0.1", 0)
    call = asyncio.ensure_future(ask(port))
    await asyncio.to_thread(held.began.wait, 30)
    closing = asyncio.ensure_future(door.close())
    while await _listens(port):
        pass
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await ask(port)
    assert refused.value.code() == grpc.StatusCode.UNAVAILABLE, "it takes no new ones"
    held.let.set()
    assert await call == GetOnlineFeaturesResponse()
    await closing
    await door.close()


async def test_more_calls_than_it_takes_are_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc_door, "MOST_AT_ONCE", 2)
    held = Held()
    door = GrpcDoor(held, Health(0.0))
    port = await door.open("127.0.0.1", 0)
    calls = [asyncio.ensure_future(ask(port)) for _ in range(6)]
    try:
        await asyncio.wait(calls, timeout=25, return_when=asyncio.FIRST_EXCEPTION)
        held.let.set()
        answers = await asyncio.gather(*calls, return_exceptions=True)
        refused = [one for one in answers if isinstance(one, grpc.aio.AioRpcError)]
        assert {one.code() for one in refused} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert len(answers) - len(refused) >= 2
    finally:
        held.let.set()
        await door.close()


async def test_a_port_that_is_taken_is_refused_with_what_to_do() -> None:
    first, second = GrpcDoor(Held(), Health(0.0)), GrpcDoor(Held(), Health(0.0))
    port = await first.open("127.0.0.1", 0)
    try:
        with pytest.raises(BadSetup, match=f"127.0.0.1:{port} for gRPC; set MILLSTREAM_GRPC_PORT"):
            await second.open("127.0.0.1", port)
    finally:
        await second.close()
        await first.close()
