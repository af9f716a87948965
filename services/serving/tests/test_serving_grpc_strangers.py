"""Strangers at serving's gRPC port: those who open calls and say nothing, or half of it, keep nobody out."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub

from millstream.runtime import grpc_places
from millstream_serving.adapters import grpc_door
from millstream_serving.adapters.grpc_door import GrpcDoor
from millstream_serving.adapters.inference_messages import SERVICE

from .conftest import Stage
from .test_serving_grpc import GOOD, Line, question
from .test_serving_inference import by_mean

PLACES = 2
INFER, CHECK, WATCH = f"/{SERVICE}/ModelInfer", "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"
DATA, HEADERS, SETTINGS, PING = 0, 1, 4, 6
END_STREAM, END_HEADERS, ACK = 1, 4, 1


@dataclass
class Stranger:
    """A connection that speaks HTTP/2 frame by frame (RFC 9113), as no client of gRPC would."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    next: int = 1
    ended: set[int] = field(default_factory=set)
    """Calls that the server has ended."""

    def send(self, kind: int, flags: int, stream: int, body: bytes = b"") -> None:
        self.writer.write(struct.pack(">I", len(body))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + body)

    def begin(self, path: str, said: bytes = b"") -> None:
        """Headers, perhaps a message or the first bytes of one, and no more."""

        def text(value: str) -> bytes:
            return bytes([len(value)]) + value.encode()

        # Literals of HPACK (RFC 7541, 6.2.2); POST, http, :path, :authority, content-type by their places in its table.
        head = b"\x83\x86\x04" + text(path) + b"\x01" + text("h") + b"\x0f\x10" + text("application/grpc")
        stream, self.next = self.next, self.next + 2
        self.send(HEADERS, END_HEADERS, stream, head + b"\x00" + text("te") + text("trailers"))
        if said:
            self.send(DATA, 0, stream, said)

    async def heard(self, calls: int) -> None:
        """Read on until the server has ended so many calls of this connection."""
        async with asyncio.timeout(30):
            while len(self.ended) < calls:
                head = await self.reader.readexactly(9)
                body = await self.reader.readexactly(int.from_bytes(head[:3]))
                kind, flags, stream = head[3], head[4], int.from_bytes(head[5:])
                if kind in (SETTINGS, PING) and not flags & ACK:
                    self.send(kind, ACK, 0, body if kind == PING else b"")
                if kind == HEADERS and flags & END_STREAM:
                    self.ended.add(stream)


@asynccontextmanager
async def stranger(port: int, settings: bytes = b"") -> AsyncIterator[Stranger]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    one = Stranger(reader, writer)
    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    one.send(SETTINGS, 0, 0, settings)
    try:
        yield one
    finally:
        writer.close()


@asynccontextmanager
async def listening(stage: Stage, *, patience: float = 30.0) -> AsyncIterator[tuple[int, Line]]:
    await stage.keeper.known.wait()
    await stage.obey(stage.package("3", by_mean))
    stage.health.met("kafka")
    door = GrpcDoor(stage.inference(), stage.probes, version="1.2", trusts_known_at=False, patience=patience)
    port = await door.open("127.0.0.1", 0)
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield port, Line(channel)
    finally:
        await door.close()


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Places."""
    monkeypatch.setattr(grpc_door, "MOST_AT_ONCE", PLACES)


async def answered(line: Line) -> float:
    (output,) = (await line.call("ModelInfer", **question())).outputs
    return float(output.contents.fp32_contents[0])


WHOLE = b"\x00" + struct.pack(">I", len(GOOD)) + GOOD
"""A message in its frame."""
HALF = WHOLE[:-3]
READS_NOTHING = struct.pack(">HI", 4, 0)
"""SETTINGS_INITIAL_WINDOW_SIZE: 0 (RFC 9113, 6.5.2)."""


@pytest.mark.parametrize("said", [b"", HALF], ids=["silent", "half"])
@pytest.mark.parametrize("path", [INFER, CHECK])
async def test_a_crowd_that_says_nothing_keeps_nobody_out(stage: Stage, path: str, said: bytes) -> None:
    """Ten times as many calls as there are places, none of which goes on; the good one is asked in the middle of them."""
    async with listening(stage) as (port, line), stranger(port) as crowd:
        for _ in range(10 * PLACES):
            crowd.begin(path, said)
        await crowd.heard(9 * PLACES)  # as many as there are places are still waited for
        assert await answered(line) == 0.125
        assert len(stage.publisher.sent) == 1, "what was not said is no question"


async def test_who_says_nothing_is_not_waited_for_without_end(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc_places, "PATIENCE", 0.2)
    monkeypatch.setattr(grpc_places, "LOOK", 0.05)
    async with listening(stage) as (port, _), stranger(port) as one:
        one.begin(INFER)
        one.begin(WATCH, HALF)
        await one.heard(2)


async def test_a_call_beyond_those_that_are_answered_is_told_so(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, let, infer = 0, asyncio.Event(), stage.predictor.infer

    async def slow(*asked: Any, **said: Any) -> Any:
        nonlocal begun
        begun += 1
        await let.wait()
        return await infer(*asked, **said)

    async with listening(stage) as (_, line):
        monkeypatch.setattr(stage.predictor, "infer", slow)
        calls = [asyncio.ensure_future(answered(line)) for _ in range(PLACES)]
        async with asyncio.timeout(30):
            while begun < PLACES:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        with pytest.raises(grpc.aio.AioRpcError, match="ask again, or another replica") as beyond:
            await answered(line)
        assert beyond.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        let.set()
        assert await asyncio.gather(*calls) == [0.125] * PLACES
        assert await answered(line) == 0.125, "their places are free again"


async def test_a_call_without_a_deadline_is_answered_within_our_own(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(*asked: Any, **said: Any) -> Any:
        await asyncio.Event().wait()

    async with listening(stage, patience=0.1) as (_, line):
        monkeypatch.setattr(stage.predictor, "infer", never)
        for _ in range(PLACES + 1):
            with pytest.raises(grpc.aio.AioRpcError, match="no answer within") as late:
                await line.channel.unary_unary(INFER)(GOOD)
            assert late.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED, "none of them holds its place"


async def test_who_does_not_read_its_answers_keeps_nobody_out(stage: Stage) -> None:
    async with listening(stage) as (port, line), stranger(port, READS_NOTHING) as one:
        for number in range(1, 10 * PLACES + 1):
            one.begin(INFER, WHOLE)
            async with asyncio.timeout(30):
                while len(stage.publisher.sent) < number:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        assert await answered(line) == 0.125


async def test_who_watches_the_health_takes_no_place_of_who_asks(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc_places, "WATCHERS", PLACES + 1)
    async with listening(stage) as (_, line):
        watching = [HealthStub(line.channel).Watch(HealthCheckRequest(), timeout=60) for _ in range(PLACES + 1)]
        for watch in watching:
            await watch.read()
        assert await answered(line) == 0.125
        with pytest.raises(grpc.aio.AioRpcError) as beyond:
            await HealthStub(line.channel).Watch(HealthCheckRequest(), timeout=60).read()
        assert beyond.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_call_that_ends_without_a_message_is_refused(stage: Stage) -> None:
    async with listening(stage) as (_, line):
        for path in (INFER, CHECK):
            with pytest.raises(grpc.aio.AioRpcError, match="send one message") as empty:
                await line.channel.stream_unary(path)(iter(()), timeout=60)
            assert empty.value.code() == grpc.StatusCode.INVALID_ARGUMENT
