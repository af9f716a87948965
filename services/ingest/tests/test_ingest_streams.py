"""A stream of lines through one request: results while it goes on, back-pressure both ways, and an end that says what holds."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from millstream.errors import DeliveryUnknown
from millstream.runtime.publisher import Outgoing
from millstream_ingest.api.lines import AHEAD
from millstream_ingest.errors import LogAway

from .conftest import Airport, departure, lines

PATH = "/v1/streams/flights-departed/events"


class Wire:
    """A client's end of one request: what it sends is taken when asked for, what it is told can be awaited."""

    def __init__(self, airport: Airport, query: bytes = b"") -> None:
        self._sent: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.told: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.taken = 0
        self.deaf: asyncio.Event | None = None
        """Set one and the client reads nothing until it is set."""
        scope = {
            "type": "http",
            "method": "POST",
            "path": PATH,
            "query_string": query,
            "headers": [(b"content-type", b"application/x-ndjson")],
        }
        self.request = asyncio.create_task(airport.service.app(scope, self._receive, self._send))

    def say(self, body: bytes | None) -> None:
        """None ends the body."""
        self._sent.put_nowait(body)

    async def _receive(self) -> dict[str, Any]:
        body = await self._sent.get()
        self.taken += 1
        return {"type": "http.request", "body": body or b"", "more_body": body is not None}

    async def _send(self, message: dict[str, Any]) -> None:
        if self.deaf is not None:
            await self.deaf.wait()
        self.told.put_nowait(message)

    async def hears(self) -> list[dict[str, Any]]:
        """The lines of the next message."""
        message = await asyncio.wait_for(self.told.get(), 30)
        if message["type"] == "http.response.start":
            return await self.hears()
        return [json.loads(line) for line in message["body"].splitlines()]


async def all_lines(airport: Airport, body: Any, query: str = "", **headers: str) -> list[dict[str, Any]]:
    answer = await airport.post(f"flights-departed/events{query}", body, content_type="application/x-ndjson", **headers)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/x-ndjson")
    return [json.loads(line) for line in answer.text.splitlines()]


def flights(count: int, first: int = 0) -> bytes:
    return lines(*(departure(flight_id=str(number)) for number in range(first, first + count)))


async def test_every_line_has_its_result_and_the_last_one_has_the_counts(airport: Airport) -> None:
    body = flights(2) + b'\n\r\n{"flight_id": \n' + lines(departure(dep_delay="two")) + flights(1, 2)[:-1]

    *results, last = await all_lines(airport, body)

    assert [r.get("id") or r["error"]["code"] for r in results] == ["0", "1", "bad_json", "schema", "2"]
    assert [r["index"] for r in results] == [0, 1, 2, 3, 4]
    assert last == {"accepted": 3, "rejected": 2, "not_accepted": 0, "unknown": 0}
    assert airport.counted("millstream_events_accepted_total", stream="flights-departed") == 3
    assert airport.counted("millstream_events_rejected_total", stream="flights-departed", reason="schema") == 1


async def test_results_come_while_the_body_goes_on(airport: Airport) -> None:
    wire = Wire(airport)
    for number in range(3):
        wire.say(flights(1, number))
        assert [line["id"] for line in await wire.hears()] == [str(number)]
    wire.say(None)
    assert (await wire.hears())[0]["accepted"] == 3
    await wire.request


async def test_a_line_may_come_in_pieces_and_be_cut_anywhere(airport: Airport) -> None:
    body = flights(50)

    async def crumbs() -> AsyncIterator[bytes]:
        for at in range(0, len(body), 7):
            yield body[at : at + 7]

    *_, last = await all_lines(airport, crumbs())

    assert last["accepted"] == 50
    assert [json.loads(entry.value)["flight_id"] for entry in airport.log.entries] == [str(n) for n in range(50)]


async def test_more_events_than_any_batch_may_have(airport: Airport) -> None:
    *results, last = await all_lines(airport, flights(30_000))

    assert (len(results), last["accepted"]) == (30_000, 30_000)


async def test_a_client_may_ask_for_the_rejected_only(airport: Airport) -> None:
    *results, last = await all_lines(airport, flights(100) + b"{}\n", "?results=rejected")

    assert [result["index"] for result in results] == [100]
    assert (last["accepted"], last["rejected"]) == (100, 1)


async def test_a_line_without_end_is_one_rejected_line(airport: Airport) -> None:
    endless = b'{"flight_id": "' + b"x" * 5_000_000 + b'"}\n'

    async def body() -> AsyncIterator[bytes]:
        yield flights(1)
        for at in range(0, len(endless), 100_000):
            yield endless[at : at + 100_000]
        yield flights(1, 1)

    *results, last = await all_lines(airport, body())

    assert [r.get("id") or r["error"]["code"] for r in results] == ["0", "too_large", "1"]
    assert last["accepted"] == 2


async def test_an_empty_body_is_no_mistake(airport: Airport) -> None:
    assert await all_lines(airport, b"") == [{"accepted": 0, "rejected": 0, "not_accepted": 0, "unknown": 0}]


@pytest.mark.parametrize(
    ("error", "status"), [(LogAway("Kafka is gone"), "not_accepted"), (DeliveryUnknown("no word"), "unknown")]
)
async def test_when_kafka_goes_away_in_the_middle_each_line_says_what_holds(
    airport: Airport, monkeypatch: pytest.MonkeyPatch, error: Exception, status: str
) -> None:
    wire = Wire(airport)
    wire.say(flights(2))
    assert [line["status"] for line in await wire.hears()] == ["accepted", "accepted"]

    async def fails(entries: Sequence[Outgoing]) -> None:
        raise error

    monkeypatch.setattr(airport.log, "append", fails)
    wire.say(flights(2, 2) + b"{}\n")

    assert [line["status"] for line in await wire.hears()] == [status, status, "rejected"]
    last = (await wire.hears())[0]
    assert (last["accepted"], last["rejected"], last[status]) == (2, 1, 2)
    assert last["error"] in ("unavailable", "unknown")
    await wire.request
    assert airport.counted("millstream_ingest_requests_in_flight") == 0


async def test_without_kafka_from_the_start_nothing_is_called_accepted(airport: Airport) -> None:
    airport.log.away = True

    *results, last = await all_lines(airport, flights(3))

    assert {result["status"] for result in results} == {"not_accepted"}
    assert (last["not_accepted"], last["error"]) == (3, "unavailable")


async def test_who_does_not_read_is_not_read_and_let_go() -> None:
    """A client that sends a gigabyte and reads no result: some groups are taken, then nothing, and then the line is cut."""
    airport = Airport(body_timeout=0.2)
    wire = Wire(airport)
    wire.deaf = asyncio.Event()
    for number in range(100):
        wire.say(flights(1, number))

    await asyncio.wait_for(wire.request, 30)
    assert wire.taken <= AHEAD + 4
    assert airport.counted("millstream_ingest_requests_in_flight") == 0


async def test_who_says_nothing_more_is_told_so_and_let_go() -> None:
    airport = Airport(body_timeout=0.05)
    wire = Wire(airport)
    wire.say(flights(1))

    assert (await wire.hears())[0]["status"] == "accepted"
    last = (await wire.hears())[0]
    assert (last["accepted"], last["error"]) == (1, "body_timeout")
    await wire.request


async def test_what_is_wrong_with_the_request_is_said_before_the_stream_begins(airport: Airport) -> None:
    other = await airport.post("nowhere/events", flights(1), content_type="application/x-ndjson")
    assert (other.status_code, other.json()["error"]) == (404, "unknown_stream")

    full = Airport(max_bytes=1024, body_timeout=0.05)
    async with full.http:
        busy = await full.post("flights-departed/events", flights(20), content_type="application/x-ndjson")
    assert (busy.status_code, busy.json()["error"]) == (503, "busy")


async def test_lines_of_a_stream_that_came_before_are_not_written_again(airport: Airport) -> None:
    await all_lines(airport, flights(10))

    *_, last = await all_lines(airport, flights(12))

    assert last["accepted"] == 12
    assert len(airport.log.entries) == 12
