"""The Open Inference Protocol over gRPC on a real port: the same answers, the same refusals, and bytes that are no request."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from millstream.contracts.envelope import envelope_of
from millstream.contracts.events import PredictionServed, decode_event
from millstream_serving.adapters.grpc_door import LARGEST_MESSAGE, GrpcDoor
from millstream_serving.adapters.inference_messages import METHODS, SERVICE, message

from .conftest import Stage
from .test_serving_inference import MEAN, by_mean

INVALID, NOT_FOUND, UNAVAILABLE = (
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.UNAVAILABLE,
)


@dataclass(frozen=True)
class Line:
    """A client with a connection; requests are fields, or bytes as they are."""

    channel: Any

    async def call(self, method: str, /, metadata: Any = (), **fields: Any) -> Any:
        answer = await self.send(method, message(f"{method}Request")(**fields).SerializeToString(), metadata)
        return message(f"{method}Response").FromString(answer)

    async def send(self, method: str, raw: bytes, metadata: Any = ()) -> bytes:
        answer: bytes = await self.channel.unary_unary(f"/{SERVICE}/{method}")(raw, metadata=metadata, timeout=60)
        return answer


@pytest.fixture
async def line(stage: Stage) -> AsyncIterator[Line]:
    await stage.keeper.known.wait()
    stage.health.met("kafka")
    door = GrpcDoor(stage.inference(), stage.probes, version="1.2", trusts_known_at=False)
    port = await door.open("127.0.0.1", 0)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield Line(channel)
    await door.close()


def typed(name: str, datatype: str, **contents: Any) -> dict[str, Any]:
    (values,) = contents.values()
    return {"name": name, "datatype": datatype, "shape": [len(values), 1], "contents": contents}


def question(**changes: dict[str, Any]) -> dict[str, Any]:
    columns = {
        "distance": typed("distance", "INT64", int64_contents=[2475]),
        "carrier": typed("carrier", "BYTES", bytes_contents=[b"B6"]),
        MEAN: typed(MEAN, "FP32", fp32_contents=[12.5]),
    } | changes
    return {"model_name": "flight-delay", "inputs": list(columns.values())}


async def test_a_question_in_typed_contents(stage: Stage, line: Line) -> None:
    await stage.obey(stage.package("3", by_mean))
    said = await line.call("ModelInfer", id="42", **question())
    assert (said.model_name, said.model_version, said.id) == ("flight-delay", "3", "42")
    (output,) = said.outputs
    assert (output.name, output.datatype, list(output.shape)) == ("probability", "FP32", [1])
    assert list(output.contents.fp32_contents) == [0.125]
    (sent,) = stage.publisher.sent
    record = decode_event(envelope_of(sent.headers).type, sent.value)
    assert isinstance(record, PredictionServed)
    assert said.parameters["prediction_id"].string_param == record.id
    assert (record.transport, record.given, record.inputs) == ("grpc", True, {"distance": 2475, "carrier": "B6"})
    served = {"loop": "flight-delay", "variant": "champion", "transport": "grpc"}
    assert stage.metric("millstream_predictions_served_total", **served) == 1


async def test_a_question_in_raw_contents_is_answered_in_raw_contents(stage: Stage, line: Line) -> None:
    await stage.obey(stage.package("3", by_mean))
    names = (("distance", "FP32"), ("carrier", "BYTES"), (MEAN, "FP16"))
    said = await line.call(
        "ModelInfer",
        model_name="flight-delay",
        inputs=[{"name": name, "datatype": datatype, "shape": [2]} for name, datatype in names],
        outputs=[{"name": "probability"}, {"name": "variant"}],
        raw_input_contents=[
            np.array([2475, np.nan], "<f4").tobytes(),
            struct.pack("<I2sI", 2, b"B6", 0),
            np.array([12.5, 25.0], "<f2").tobytes(),
        ],
    )
    assert not said.outputs[0].HasField("contents")
    probabilities, variants = said.raw_output_contents
    assert np.frombuffer(probabilities, "<f4").tolist() == [0.125, 0.25]
    assert variants == (struct.pack("<I", 8) + b"champion") * 2


async def test_every_typed_field(stage: Stage, line: Line) -> None:
    rows: list[Mapping[str, Any]] = []
    await stage.obey(stage.package("3", lambda row: rows.append(row) or 0.5))  # type: ignore[func-returns-value]
    rows.clear()
    for datatype, field, value in (
        ("BOOL", "bool_contents", True),
        ("INT8", "int_contents", -3),
        ("UINT16", "uint_contents", 3),
        ("UINT64", "uint64_contents", 2**63),
        ("FP64", "fp64_contents", 0.5),
    ):
        await line.call("ModelInfer", **question(distance=typed("distance", datatype, **{field: [value]})))
        assert rows[-1]["distance"] == value


async def test_the_protocols_own_calls(stage: Stage, line: Line) -> None:
    assert (await line.call("ServerLive")).live
    assert (await line.call("ServerReady")).ready
    server = await line.call("ServerMetadata")
    assert (server.name, server.version) == ("millstream", "1.2")
    assert not (await line.call("ModelReady", name="flight-delay")).ready
    await stage.obey(stage.package("3", by_mean))
    assert (await line.call("ModelReady", name="flight-delay", version="3")).ready
    with pytest.raises(grpc.aio.AioRpcError, match="no version '9' of flight-delay is loaded"):
        await line.call("ModelReady", name="flight-delay", version="9")
    model = await line.call("ModelMetadata", name="flight-delay")
    assert (list(model.versions), model.platform) == (["3"], "onnx_onnxv1")
    assert [(one.name, one.datatype, list(one.shape)) for one in model.inputs] == [
        ("distance", "FP32", [-1, 1]),
        ("carrier", "BYTES", [-1, 1]),
        (MEAN, "FP32", [-1, 1]),
    ]
    assert [(one.name, list(one.shape)) for one in model.outputs] == [("probability", [-1])]
    stage.health.waiting_for("valkey", "away")
    assert not (await line.call("ServerReady")).ready


async def test_the_standard_health_says_whether_the_replica_is_ready(stage: Stage, line: Line) -> None:
    async def until(status: Any) -> None:
        for name in ("", SERVICE):
            watch = HealthStub(line.channel).Watch(HealthCheckRequest(service=name), timeout=60)
            while (await watch.read()).status != status:
                pass
            watch.cancel()

    await until(HealthCheckResponse.SERVING)
    stage.health.waiting_for("valkey", "away")
    await until(HealthCheckResponse.NOT_SERVING)
    stage.health.met("valkey")
    await until(HealthCheckResponse.SERVING)


async def test_a_replica_that_is_not_ready_yet_says_so_from_its_first_moment(stage: Stage) -> None:
    stage.health.waiting_for("kafka", "not connected yet")
    door = GrpcDoor(stage.inference(), stage.probes, version="1.2", trusts_known_at=False)
    port = await door.open("127.0.0.1", 0)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        found = await HealthStub(channel).Check(HealthCheckRequest(service=""), timeout=10)
    assert found.status == HealthCheckResponse.NOT_SERVING
    await door.close()


REFUSED: list[tuple[dict[str, Any], grpc.StatusCode, str]] = [
    (
        question() | {"model_name": "bikes"},
        NOT_FOUND,
        "no model 'bikes'; a model is a loop of the project: flight-delay",
    ),
    (question() | {"model_version": "9"}, NOT_FOUND, "no version '9' of flight-delay is loaded"),
    (question(speed=typed("speed", "FP32", fp32_contents=[1])), INVALID, "no input 'speed'; send one tensor for each"),
    (question() | {"inputs": []}, INVALID, "input 'distance' is missing"),
    (question(distance=typed("distance", "FP32", int_contents=[1])), INVALID, "FP32 has its values in fp32_contents"),
    (question(distance=typed("distance", "FP16", fp32_contents=[1])), INVALID, "'FP16' has no contents; send FP32"),
    (question(distance=typed("distance", "INT8", int_contents=[300])), INVALID, "too large for INT8"),
    (question(carrier=typed("carrier", "BYTES", bytes_contents=[b"\xff"])), INVALID, "not UTF-8"),
    (question(carrier={"name": "carrier", "datatype": "BYTES", "shape": [2**62]}), INVALID, "whole number from 0"),
    (question() | {"raw_input_contents": [b""]}, INVALID, "1 raw_input_contents for 3 inputs"),
    (question() | {"raw_input_contents": [b""] * 3}, INVALID, "contents and raw_input_contents; send one"),
    (question() | {"id": "x" * 300}, INVALID, "send a text of at most 256"),
    (question() | {"parameters": {"entity": {}}, "outputs": [{"name": "odds"}]}, INVALID, "no output 'odds'"),
]


async def test_a_wrong_request_is_told_what_to_send(stage: Stage, line: Line) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match="has no model that answers") as early:
        await line.call("ModelInfer", **question())
    assert early.value.code() == UNAVAILABLE
    await stage.obey(stage.package("3", by_mean))
    for fields, code, said in REFUSED:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await line.call("ModelInfer", **fields)
        assert (refused.value.code(), said in str(refused.value.details())) == (code, True), refused.value.details()
    with pytest.raises(grpc.aio.AioRpcError, match="ce-knownat is for replays"):
        await line.call("ModelInfer", metadata=(("ce-knownat", "2013-06-01T11:58:00Z"),), **question())
    with pytest.raises(grpc.aio.AioRpcError, match="larger than max"):
        await line.send("ModelInfer", b"\x0a" * (LARGEST_MESSAGE + 1))
    assert not stage.publisher.sent
    stage.publisher.away = True
    with pytest.raises(grpc.aio.AioRpcError) as away:
        await line.call("ModelInfer", **question())
    assert away.value.code() == UNAVAILABLE


async def test_a_bug_says_nothing_of_itself(
    stage: Stage, line: Line, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await stage.obey(stage.package("3", by_mean))

    async def broken(*asked: Any, **said: Any) -> Any:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(stage.predictor, "infer", broken)
    with pytest.raises(grpc.aio.AioRpcError) as fault:
        await line.call("ModelInfer", **question())
    assert fault.value.code() == grpc.StatusCode.INTERNAL
    assert "secret" not in str(fault.value.details())
    assert "secret" in caplog.text


async def test_a_call_under_way_ends_before_the_door_closes(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    await stage.obey(stage.package("3", by_mean))
    began, let, infer = asyncio.Event(), asyncio.Event(), stage.predictor.infer

    async def slow(*asked: Any, **said: Any) -> Any:
        began.set()
        await let.wait()
        return await infer(*asked, **said)

    monkeypatch.setattr(stage.predictor, "infer", slow)
    door = GrpcDoor(stage.inference(), stage.probes, version="1.2", trusts_known_at=False)
    port = await door.open("127.0.0.1", 0)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = asyncio.ensure_future(Line(channel).call("ModelInfer", **question()))
        await began.wait()
        closing = asyncio.ensure_future(door.close())
        await asyncio.sleep(0)
        let.set()
        assert (await call).outputs[0].contents.fp32_contents == [0.125]
        await closing


@st.composite
def tensors(draw: st.DrawFn) -> dict[str, Any]:
    """Nearly tensors: good names and datatypes with any shape and contents."""
    field, values = draw(
        st.sampled_from(
            [
                ("fp32_contents", st.floats(width=32)),
                ("int_contents", st.integers(-(2**31), 2**31 - 1)),
                ("bytes_contents", st.binary(max_size=6)),
                ("bool_contents", st.booleans()),
            ]
        )
    )
    return {
        "name": draw(st.sampled_from(["distance", "carrier", MEAN, "features", "flight_id", ""])),
        "datatype": draw(st.sampled_from(["FP32", "BYTES", "INT8", "BOOL", "FP16", "INT64", "?"])),
        "shape": draw(st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(0, 3), max_size=4)),
        "contents": {field: draw(st.lists(values, max_size=4))},
    }


REQUESTS = st.fixed_dictionaries(
    {"model_name": st.sampled_from(["flight-delay", "x"]), "inputs": st.lists(tensors(), max_size=5)},
    optional={
        "id": st.text(st.characters(exclude_categories=["Cs"]), max_size=9),
        "model_version": st.sampled_from(["", "3", "9"]),
        "outputs": st.lists(st.sampled_from([{"name": "probability"}, {"name": "?"}]), max_size=3),
        "raw_input_contents": st.lists(st.binary(max_size=12), max_size=5),
        "parameters": st.dictionaries(st.just("entity"), st.just({"double_param": 1.5}), max_size=1),
    },
)
GOOD = message("ModelInferRequest")(**question()).SerializeToString()


@st.composite
def torn(draw: st.DrawFn) -> bytes:
    """A good request with some bytes exchanged, and cut."""
    raw = bytearray(GOOD)
    for place in draw(st.lists(st.integers(0, len(raw) - 1), max_size=8)):
        raw[place] = draw(st.integers(0, 255))
    return bytes(raw[: draw(st.integers(0, len(raw)))])


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    method=st.sampled_from(METHODS),
    raw=st.binary(max_size=64)
    | torn()
    | REQUESTS.map(lambda fields: message("ModelInferRequest")(**fields).SerializeToString()),
)
async def test_no_bytes_make_it_fail(stage: Stage, line: Line, method: str, raw: bytes) -> None:
    if not stage.roster.standing("flight-delay").revision:
        await stage.obey(stage.package("3", by_mean))
    code, said = grpc.StatusCode.OK, ""
    try:
        await line.send(method, raw)
    except grpc.aio.AioRpcError as error:
        code, said = error.code(), str(error.details())
    assert code in (grpc.StatusCode.OK, INVALID, NOT_FOUND), said
