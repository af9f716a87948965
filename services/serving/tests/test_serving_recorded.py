"""What KServe's and MLServer's own clients send, as they sent it: they pin too much to be installed beside the services.

Recorded between kserve 0.21.0 (InferenceRESTClient, InferenceGRPCClient), mlserver 1.7.1 (`mlserver infer`) and this service,
which answered them. The host's name and the ids were made shorter.
"""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest

from millstream.testing.sockets import said, served, status_of
from millstream_serving.adapters.inference_messages import message

from .conftest import Stage
from .test_serving_grpc import Line, line  # noqa: F401  (the fixture)
from .test_serving_inference import by_mean

_KSERVE = (
    b"Host: h\r\nAccept: */*\r\nAccept-Encoding: gzip, deflate, br\r\nConnection: keep-alive\r\n"
    b"User-Agent: python-httpx/0.28.1\r\n"
)
_MLSERVER = (
    b"Host: h\r\ncontent-type: application/json\r\nseldon-puid: 7\r\nx-request-id: 7\r\n%bAccept: */*\r\n"
    b"Accept-Encoding: gzip, deflate, br\r\nUser-Agent: Python/3.11 aiohttp/3.14.5\r\n"
)
_INFER = b"POST /v2/models/flight-delay/infer HTTP/1.1\r\n"
_DATA = (
    b'"inputs":[{"name":"distance","shape":[2,1],"datatype":"FP32","data":[2475.0,100.0]},'
    b'{"name":"carrier","shape":[2,1],"datatype":"BYTES","data":["B6","UA"]},'
    b'{"name":"origin_delays__mean","shape":[2,1],"datatype":"FP32","data":[12.5,50.0]}]'
)
_SIZES = (
    b'"inputs":[{"name":"distance","shape":[2,1],"datatype":"FP32","parameters":{"binary_data_size":8}},'
    b'{"name":"carrier","shape":[2,1],"datatype":"BYTES","parameters":{"binary_data_size":12}},'
    b'{"name":"origin_delays__mean","shape":[2,1],"datatype":"FP32","parameters":{"binary_data_size":8}}]'
)
_BYTES = b"\x00\xb0\x1aE\x00\x00\xc8B" + b"\x02\x00\x00\x00B6\x02\x00\x00\x00UA" + b"\x00\x00HA\x00\x00HB"

GRPC = (
    b"\n\x0cflight-delay\x1a\x017"
    b'*,\n\x08distance\x12\x04FP32\x1a\x02\x02\x01"\x16\n\x10binary_data_size\x12\x02\x10\x08'
    b'*,\n\x07carrier\x12\x05BYTES\x1a\x02\x02\x01"\x16\n\x10binary_data_size\x12\x02\x10\x0c'
    b'*7\n\x13origin_delays__mean\x12\x04FP32\x1a\x02\x02\x01"\x16\n\x10binary_data_size\x12\x02\x10\x08'
    b":\x08\x00\xb0\x1aE\x00\x00\xc8B:\x0c\x02\x00\x00\x00B6\x02\x00\x00\x00UA:\x08\x00\x00HA\x00\x00HB"
)
"""ModelInferRequest of KServe's client; MLServer's has no gRPC yet."""


def of_kserve(*, binary: bool) -> bytes:
    if not binary:
        body = b'{"id":"7","model_name":"flight-delay",' + _DATA + b"}"
        return _INFER + _KSERVE + b"content-type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    head = b'{"id":"7","model_name":"flight-delay",' + _SIZES + b"}"
    lengths = (
        b"inference-header-content-length: %d\r\ncontent-type: application/octet-stream\r\nContent-Length: %d\r\n\r\n"
        % (len(head), len(head) + len(_BYTES))
    )
    return _INFER + _KSERVE + lengths + head + _BYTES


def of_mlserver(*, binary: bool) -> bytes:
    head = b'{"id":"7",' + (_SIZES if binary else _DATA) + b',"parameters":{"binary_data_output":true}}'
    body = head + _BYTES if binary else head
    length = b"Inference-Header-Content-Length: %d\r\n" % len(head) if binary else b""
    return _INFER + _MLSERVER % length + b"Content-Length: %d\r\n\r\n" % len(body) + body


async def asked(stage: Stage, raw: bytes, *, hot: bool) -> bytes:
    await stage.obey(stage.package("3", by_mean))
    async with served(stage.app(hot=hot)) as address:
        return await said(address, raw)


def parts(answer: bytes) -> tuple[dict[str, str], dict[str, Any], bytes]:
    """Headers, JSON, and the bytes behind it."""
    top, _, body = answer.partition(b"\r\n\r\n")
    fields = [field.split(": ", 1) for field in top.decode().split("\r\n")[1:]]
    headers = {name.lower(): value for name, value in fields}
    end = int(headers.get("inference-header-content-length", len(body)))
    found: dict[str, Any] = json.loads(body[:end])
    return headers, found, body[end:]


@pytest.mark.parametrize("hot", [False, True], ids=["routes", "hot doors"])
@pytest.mark.parametrize("binary", [False, True], ids=["json", "binary"])
async def test_kserves_client_gets_what_it_asks_for(stage: Stage, binary: bool, hot: bool) -> None:
    answer = await asked(stage, of_kserve(binary=binary), hot=hot)
    assert status_of(answer) == 200, answer
    _, found, _ = parts(answer)
    assert (found["model_name"], found["id"]) == ("flight-delay", "7")
    assert found["outputs"][0]["data"] == [0.125, 0.5], "it asked for no bytes"
    assert len(stage.publisher.sent) == 2


@pytest.mark.parametrize("hot", [False, True], ids=["routes", "hot doors"])
@pytest.mark.parametrize("binary", [False, True], ids=["json", "binary"])
async def test_mlservers_client_gets_what_it_asks_for(stage: Stage, binary: bool, hot: bool) -> None:
    answer = await asked(stage, of_mlserver(binary=binary), hot=hot)
    assert status_of(answer) == 200, answer
    _, found, rest = parts(answer)
    (output,) = found["outputs"]
    assert output["parameters"]["binary_data_size"] == 8
    assert struct.unpack("<2f", rest) == (0.125, 0.5)
    assert len(stage.publisher.sent) == 2


@pytest.mark.parametrize("path", [b"/v2/health/live", b"/v2/health/ready", b"/v2/models/flight-delay/ready"])
async def test_kserves_client_hears_that_it_is_ready(stage: Stage, path: bytes) -> None:
    stage.health.met("kafka")
    await stage.keeper.known.wait()
    assert status_of(await asked(stage, b"GET " + path + b" HTTP/1.1\r\n" + _KSERVE + b"\r\n", hot=True)) == 200


async def test_kserves_client_is_answered_over_grpc(stage: Stage, line: Line) -> None:  # noqa: F811
    await stage.obey(stage.package("3", by_mean))
    found = message("ModelInferResponse").FromString(await line.send("ModelInfer", GRPC))
    assert (found.model_name, found.id) == ("flight-delay", "7")
    assert struct.unpack("<2f", found.raw_output_contents[0]) == (0.125, 0.5)
