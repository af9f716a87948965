"""Strangers at serving's socket: those who trickle, stop half-way, or close their side; and what headers and names may do."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator

import pytest

from millstream.contracts.envelope import envelope_of
from millstream.contracts.events import PredictionServed, decode_event
from millstream.runtime import connection, room
from millstream.testing.sockets import crowd, said, served, status_of
from millstream_serving.api import Gate, inference, loops

from .conftest import Stage, flight
from .test_serving_inference import by_mean, question

DOORS = {
    "predict": (b"/v1/loops/flight-delay/predict", json.dumps({"event": flight()}).encode()),
    "infer": (b"/v2/models/flight-delay/infer", json.dumps(question()).encode()),
}
TWICE = [
    (b"/v1/loops/flight-delay/predict", DOORS["predict"][1].replace(b'"distance"', b'"distance": 7, "distance"')),
    (b"/v1/loops/flight-delay/predict", DOORS["predict"][1].replace(b'{"event"', b'{"event": {}, "event"')),
    (b"/v2/models/flight-delay/infer", DOORS["infer"][1].replace(b'"data": [2475]', b'"data": [7], "data": [2475]')),
    (b"/v2/models/flight-delay/infer", DOORS["infer"][1].replace(b'{"inputs"', b'{"inputs": [], "inputs"')),
]
TRACE = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
PLACES = 2
FULL = 1024 * 1024
Address = tuple[str, int]


@pytest.fixture(params=[False, True], ids=["routes", "hot doors"])
async def address(
    stage: Stage, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Address]:
    """Behind a gate for two, with little patience for heads and bodies."""
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.5)
    monkeypatch.setattr(loops, "BODY_SECONDS", 0.5)
    monkeypatch.setattr(inference, "REQUEST_SECONDS", 0.5)
    stage.room = room.Room(FULL)
    app = stage.app(hot=request.param)
    app.gate = Gate(stage.metrics, patience=30.0, most=PLACES)
    await stage.keeper.known.wait()
    await stage.obey(stage.package("3", by_mean))
    async with served(app) as place:
        yield place


def head(path: bytes, length: int, *lines: bytes) -> bytes:
    start = b"POST " + path + b" HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\n"
    return start + b"".join(line + b"\r\n" for line in lines) + b"content-length: %d\r\n\r\n" % length


@pytest.mark.parametrize("door", DOORS)
async def test_a_crowd_that_trickles_keeps_nobody_out(stage: Stage, address: Address, door: str) -> None:
    """Heads that never end and bodies that never end, many more than there are places."""
    path, body = DOORS[door]
    heads = [asyncio.create_task(said(address, b"POST /v1/lo")) for _ in range(20)]
    bodies = [asyncio.create_task(said(address, head(path, len(body)) + body[:-3])) for _ in range(10)]
    await asyncio.sleep(0)
    assert status_of(await said(address, head(path, len(body)) + body)) == 200, "in the middle of it"
    answers = await asyncio.gather(*heads, *bodies)
    assert {status_of(one) for one in answers[:20]} <= {0, 408}
    assert {status_of(one) for one in answers[20:]} == {408}
    assert stage.metric("millstream_questions_shed_total", reason="overloaded") == 0
    assert len(stage.publisher.sent) == 1, "what was not said is no question"


@pytest.mark.parametrize("door", DOORS)
async def test_large_bodies_that_stop_short_of_their_end_keep_nobody_out(
    stage: Stage, address: Address, door: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They fill all the room that there is for bodies, and one of them gives its own to a question."""
    monkeypatch.setattr(room, "UNDISTURBED", 0.0)
    monkeypatch.setattr(loops, "BODY_SECONDS", 60.0)
    monkeypatch.setattr(inference, "REQUEST_SECONDS", 60.0)
    path, body = DOORS[door]
    filler = head(path, 500_000) + b"[" * (FULL // 4)
    async with crowd(address, filler, 4, lambda: stage.room.held == FULL) as answers:
        assert status_of(await said(address, head(path, len(body)) + body)) == 200
        pushed, others = await asyncio.wait(answers, return_when=asyncio.FIRST_COMPLETED)
        assert [status_of(one.result()) for one in pushed] == [503]
        assert b"came slowly" in next(iter(pushed)).result()
        assert len(others) == 3


@pytest.mark.parametrize("door", DOORS)
async def test_a_client_that_has_said_all_and_closed_its_side_is_answered(address: Address, door: str) -> None:
    path, body = DOORS[door]
    assert status_of(await said(address, head(path, len(body)) + body, half=True)) == 200


@pytest.mark.parametrize("door", DOORS)
async def test_a_question_that_stops_half_way_is_none(stage: Stage, address: Address, door: str) -> None:
    path, body = DOORS[door]
    answers = [await said(address, head(path, len(body)) + body[:-5], half=True) for _ in range(PLACES + 1)]
    assert not {status_of(one) for one in answers} & {200, 500, 503}
    assert status_of(await said(address, head(path, len(body)) + body)) == 200, "nobody holds a place"
    assert len(stage.publisher.sent) == 1


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("name", [b"traceparent", b"tracestate", b"ce-id", b"ce-source", b"ce-x", b"x-request-id"])
async def test_no_header_of_a_question_writes_headers_of_its_record(
    stage: Stage, address: Address, door: str, name: bytes
) -> None:
    path, body = DOORS[door]
    strange = [b"\xff\xfe", b"a\tb", b"%0d%0ace_knownat: 1", b"%00", b"\xc3\xa9", b'"', TRACE + b"\xa0x"]
    for line in (*(name + b": " + value for value in strange), b"traceparent: " + TRACE):
        assert status_of(await said(address, head(path, len(body), line) + body)) == 200
    *records, traced = [dict(one.headers) for one in stage.publisher.sent]
    assert traced["traceparent"] == TRACE
    for headers in records:
        assert headers.keys() == traced.keys() - {"traceparent"}, "a good one is carried on, and nothing else"
        assert all(re.fullmatch(rb"[\x20-\x7e]*", found) for found in headers.values()), headers


@pytest.mark.parametrize(("door", "twice"), TWICE)
async def test_a_name_that_comes_twice_means_one_thing(
    stage: Stage, address: Address, door: bytes, twice: bytes
) -> None:
    """What is answered is what is on record: the last one."""
    answer = await said(address, head(door, len(twice)) + twice)
    assert status_of(answer) == 200, answer
    [record] = stage.publisher.sent
    found = decode_event(envelope_of(record.headers).type, record.value)
    assert isinstance(found, PredictionServed)
    assert (found.inputs["distance"], record.value.count(b'"distance"')) == (2475, 1)
