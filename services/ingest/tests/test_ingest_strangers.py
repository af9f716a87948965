"""Strangers at ingest's socket: those who trickle, stop half-way, promise too much, or write what no client writes."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest

from millstream.runtime import connection, room
from millstream.testing.sockets import crowd, said, served, status_of
from millstream_ingest.settings import IngestSettings

from .conftest import Airport, departure, lines

EVENTS = b"POST /v1/streams/flights-departed/events HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\n"
BATCH = EVENTS.replace(b"events HTTP", b"batch HTTP")
IN_SOCKETS = 16 * 2**20
"""Bytes, at most, that both ends of a connection take though nobody reads them."""
GOOD = json.dumps(departure()).encode()
HELD = "millstream_ingest_bytes_in_flight"


def event(body: bytes) -> bytes:
    return EVENTS + b"content-length: %d\r\n\r\n" % len(body) + body


@pytest.fixture
async def gate() -> AsyncIterator[tuple[Airport, tuple[str, int]]]:
    airport = Airport()
    async with served(airport.service.app) as address:
        yield airport, address


@pytest.fixture
async def hasty_gate() -> AsyncIterator[tuple[Airport, tuple[str, int]]]:
    """Lets nobody wait for a body that does not come."""
    airport = Airport(body_timeout=0.5)
    async with served(airport.service.app) as address:
        yield airport, address


async def test_a_crowd_that_trickles_keeps_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Heads that never end and bodies that never end, many more than there are places."""
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.5)
    airport = Airport(max_requests=8)
    async with served(airport.service.app) as address:
        heads = [asyncio.create_task(said(address, b"POST /v1/str")) for _ in range(50)]
        begun = EVENTS + b"content-length: 100\r\n\r\n{"
        async with crowd(address, begun, 40, lambda: airport.counted(HELD) == 40) as answers:
            assert status_of(await said(address, event(GOOD))) == 202
            assert not any(one.done() for one in answers), "in the middle of it"
        assert {status_of(one) for one in await asyncio.gather(*heads)} <= {0, 408}
        assert status_of(await said(address, event(GOOD))) == 202, "and after it"


async def test_large_bodies_that_stop_short_of_their_end_keep_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """They fill all the room that there is, and one of them gives its own to an event and to a batch in many pieces."""
    monkeypatch.setattr(room, "UNDISTURBED", 0.0)
    airport, full = Airport(max_bytes=1024 * 1024), 1024 * 1024
    filler = BATCH + b"content-length: 500000\r\n\r\n" + b"[" * (full // 4)
    batch = lines(*(departure(flight_id=f"{n}", tailnum="N" * 400) for n in range(400)))
    async with served(airport.service.app) as address:
        async with crowd(address, filler, 4, lambda: airport.counted(HELD) == full) as answers:
            assert status_of(await said(address, event(GOOD))) == 202
            head = BATCH.replace(b"json", b"x-ndjson") + b"content-length: %d\r\n\r\n" % len(batch)
            assert status_of(await said(address, head + batch)) == 202
            pushed, others = await asyncio.wait(answers, return_when=asyncio.FIRST_COMPLETED)
            assert [status_of(one.result()) for one in pushed] == [503]
            assert b"came slowly" in next(iter(pushed)).result()
            assert len(others) == 3
        assert len(airport.log.entries) == 401


async def test_a_producer_that_has_said_all_and_closed_its_side_is_answered(gate: Any) -> None:
    _, address = gate
    assert status_of(await said(address, event(GOOD), half=True)) == 202


async def test_a_body_that_stops_half_way_is_no_event(gate: Any) -> None:
    airport, address = gate
    await said(address, EVENTS + b"content-length: %d\r\n\r\n" % len(GOOD) + GOOD[:-5], half=True)
    async with asyncio.timeout(30):
        while airport.counted("millstream_ingest_requests_in_flight"):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert airport.log.entries == []


@pytest.mark.parametrize(
    ("door", "limit"), [("batch", IngestSettings().max_batch_bytes), ("events", IngestSettings().max_body_bytes)]
)
@pytest.mark.parametrize("head", [b"content-length: 5000000000\r\n\r\n", b"transfer-encoding: chunked\r\n\r\n"])
async def test_five_gigabytes_are_refused_long_before_they_have_come(
    gate: Any, door: str, limit: int, head: bytes
) -> None:
    """By what the head says, or once more has come than may."""
    _, address = gate
    reader, writer = await asyncio.open_connection(*address)
    writer.write(EVENTS.replace(b"events HTTP", door.encode() + b" HTTP") + head)
    answer, sent = asyncio.create_task(reader.readuntil(b"}")), 0
    try:
        if b"length" in head:
            await asyncio.wait([answer], timeout=30)
        while not answer.done():
            writer.write(b"10000\r\n" + b"[" * 0x10000 + b"\r\n")
            sent += 0x10000
            await writer.drain()
            await asyncio.sleep(0)
        said = await answer
    finally:
        writer.close()
    assert status_of(said) == 413
    assert json.loads(said[said.index(b"{") :])["error"] == "body_too_large"
    assert sent < limit + IN_SOCKETS


@pytest.mark.parametrize(
    "head",
    [
        b"content-length: 5\r\ntransfer-encoding: chunked\r\n",
        b"content-length: 5\r\ncontent-length: 6\r\n",
        b"content-length: -1\r\n",
        b"content-length: 99999999999999999999\r\n",
        b"transfer-encoding: gzip\r\n",
        b"x: a\x00b\r\ncontent-length: 2\r\n",
        b"x y: 1\r\ncontent-length: 2\r\n",
        b"x: " + b"a" * 100_000 + b"\r\n",
    ],
)
async def test_a_head_that_means_two_things_is_refused(hasty_gate: Any, head: bytes) -> None:
    airport, address = hasty_gate
    answer = await said(address, EVENTS + head + b"\r\n0\r\n\r\n" + EVENTS + b"content-length: 2\r\n\r\n{}")
    assert status_of(answer) in (0, 400, 408, 413, 431), answer[:200]
    assert airport.log.entries == []


@pytest.mark.parametrize("name", [b"traceparent", b"idempotency-key", b"ce-id", b"ce-source", b"ce-type", b"ce-x"])
@pytest.mark.parametrize("value", [b"\xff\xfe", b"a\tb", b"%0d%0ace_knownat: 1", b"%00", b"\xc3\xa9", b'"'])
async def test_no_header_of_a_request_writes_headers_of_a_record(gate: Any, name: bytes, value: bytes) -> None:
    airport, address = gate
    head = {b"ce-specversion": b"1.0", b"ce-id": b"1", b"ce-source": b"/x", b"ce-type": b"t", name: value}
    lines = b"".join(key + b": " + said + b"\r\n" for key, said in head.items())
    answer = await said(address, EVENTS + lines + b"content-length: %d\r\n\r\n" % len(GOOD) + GOOD)

    assert status_of(answer) in (202, 400, 422), answer[:300]
    for entry in airport.log.entries:
        names = [key for key, _ in entry.headers]
        assert len(names) == len(set(names))
        assert set(names) <= {
            "ce_specversion",
            "content-type",
            "ce_type",
            "ce_source",
            "ce_id",
            "ce_time",
            "traceparent",
        }
        for _, found in entry.headers:
            assert not re.search(rb"[\x00-\x1f\x7f]", found), found


async def test_made_up_paths_methods_and_headers_make_no_series(gate: Any) -> None:
    airport, address = gate

    async def series() -> int:
        return len((await airport.http.get("/metrics")).text.splitlines())

    async def asked(word: str) -> None:
        for raw in (
            f"GET /{word} HTTP/1.1\r\nhost: h\r\n\r\n",
            f"{word.upper()} /v1/streams HTTP/1.1\r\nhost: h\r\n\r\n",
            f"POST /v1/streams/{word}/events HTTP/1.1\r\nhost: {word}\r\ncontent-length: 2\r\n\r\n{{}}",
            f"POST /v1/loops/{word}/labels HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\n{{}}",
            f"GET /v1/streams/{word}/schema?version={len(word)}&form={word} HTTP/1.1\r\nhost: h\r\n\r\n",
            f"GET /v1/asyncapi.json?{word} HTTP/1.1\r\nhost: h\r\nuser-agent: {word}\r\n\r\n",
        ):
            assert status_of(await said(address, raw.encode())) in (200, 400, 404, 405, 415, 422)

    await asked("first")
    before = await series()
    for number in range(20):
        await asked(f"word{'x' * number}")
    assert await series() == before
    await airport.http.aclose()
