"""What is under way at once is bounded: a flood is told to come back, and slow clients hold no place for ever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from millstream.errors import Refusal
from millstream_ingest.api.gate import Gate, Load

from .conftest import Airport, departure, lines
from .test_ingest_retries import HeldLog
from .test_ingest_streams import Wire


async def test_a_request_beyond_the_limit_is_told_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    airport, slow = Airport(max_requests=1), HeldLog()
    monkeypatch.setattr(airport.log, "append", slow.append)
    async with airport.http:
        first = asyncio.create_task(airport.send(departure()))
        await slow.asked.wait()

        refused = await airport.send(departure())
        assert (refused.status_code, refused.json()["error"]) == (503, "busy")
        assert (refused.json()["outcome"], refused.headers["retry-after"]) == ("not_accepted", "1")
        assert airport.counted("millstream_ingest_requests_in_flight") == 1

        slow.confirm.set()
        assert (await first).status_code == 202
        assert (await airport.send(departure())).status_code == 202
        assert airport.counted("millstream_ingest_requests_in_flight") == 0


async def test_a_client_that_never_finishes_its_body_is_let_go() -> None:
    airport = Airport(body_timeout=0.01)
    never = asyncio.Event()

    async def stuck() -> AsyncIterator[bytes]:
        yield b'{"flight_id": '
        await never.wait()

    async with airport.http:
        answer = await airport.post("flights-departed/events", stuck())

        assert (answer.status_code, answer.json()["error"]) == (408, "body_timeout")
        assert airport.counted("millstream_ingest_requests_in_flight") == 0


def test_the_gate_counts_bytes_and_gives_them_back() -> None:
    gate = Gate(requests=10, bytes=100)

    with Load(gate) as first, Load(gate) as second:
        first.add(60)
        second.add(40)
        with pytest.raises(Refusal, match="100 bytes of requests are under way"):
            second.add(1)

    assert (gate.requests, gate.room.held) == (0, 0)


def test_a_request_that_fails_leaves_its_place() -> None:
    gate = Gate(requests=1, bytes=100)

    def fails() -> None:
        with Load(gate) as load:
            load.add(50)
            load.begins()
            raise ZeroDivisionError

    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            fails()

    assert (gate.requests, gate.room.held) == (0, 0)


async def test_names_that_strangers_make_up_are_no_labels(airport: Airport) -> None:
    """A thousand streams that there are not, ids and keys: the number of time series stays."""
    await airport.send(departure())
    await airport.send({}, stream="flights-departed")
    await airport.send({}, stream="nowhere")
    before = len((await airport.http.get("/metrics")).text.splitlines())

    for number in range(100):
        await airport.send(departure(flight_id=f"{number}", tailnum=f"N{number}"), idempotency_key=f"k{number}")
        await airport.send({}, stream=f"stream-{number}")
        await airport.post(f"flights-departed/events?x={number}", b"{}", **{f"x-{number}": "1"})

    assert len((await airport.http.get("/metrics")).text.splitlines()) == before


async def test_quiet_streams_hold_no_bytes_and_leave_half_of_the_places() -> None:
    """Each used to hold 3 MiB of the 64 for as long as it was open: 21 of them shut everybody out."""
    airport = Airport(max_requests=64, max_bytes=1024 * 1024)
    async with airport.http:
        quiet = [Wire(airport) for _ in range(40)]
        for number, wire in enumerate(quiet):
            wire.say(lines(departure(flight_id=str(number))))
        open_ones = [wire for wire in quiet if (await wire.told.get())["status"] == 200]
        assert len(open_ones) == 32
        for wire in open_ones:
            assert [line["status"] for line in await wire.hears()] == ["accepted"]

        assert airport.counted("millstream_ingest_requests_in_flight") == 32
        assert (await airport.send(departure(flight_id="one"))).status_code == 202
        assert (await airport.batch(lines(departure(flight_id="x" * 900)) * 900)).status_code == 202
        refused = await airport.post("flights-departed/events", lines(departure()), content_type="application/x-ndjson")
        assert (refused.status_code, refused.json()["error"]) == (503, "busy")
        assert "32 streams of lines are open" in refused.json()["message"]

        for wire in quiet:
            wire.say(None)
            await wire.request
        assert airport.counted("millstream_ingest_requests_in_flight") == 0


async def test_what_streams_have_under_way_is_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """While Kafka takes nothing, ten streams that send all they have hold the half that is theirs, and are not read on."""
    airport, slow = Airport(max_bytes=512 * 1024), HeldLog()
    monkeypatch.setattr(airport.log, "append", slow.append)
    wires = [Wire(airport) for _ in range(10)]
    for number, wire in enumerate(wires):
        for piece in range(10):
            wire.say(lines(*(departure(flight_id=f"{number}-{piece}-{n}") for n in range(100))))
        wire.say(None)
    size = len(lines(*(departure(flight_id=f"0-0-{n}") for n in range(100))))

    async with asyncio.timeout(25):
        while sum(wire.taken for wire in wires) * size < 200 * 1024:  # noqa: ASYNC110 - other tasks' state
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    assert sum(wire.taken for wire in wires) * size <= 256 * 1024 + len(wires) * size, "and a piece in each hand"

    slow.confirm.set()
    async with asyncio.timeout(30):
        for wire in wires:
            await wire.request
    assert len(slow.entries) == 10 * 10 * 100


def test_what_a_stream_is_done_with_is_given_back() -> None:
    gate = Gate(requests=4, bytes=100)
    with Load(gate) as one:
        one.stays()
        one.add(45)
        one.give_back(15)
        assert (gate.room.held, gate.stream_bytes) == (30, 30)
    assert (gate.requests, gate.streams, gate.room.held, gate.stream_bytes) == (0, 0, 0, 0)


def test_streams_fill_half_of_the_room_at_most() -> None:
    """Lines that never end and results that nobody reads would leave nothing to who sends one event."""
    gate = Gate(requests=8, bytes=100)
    with Load(gate) as first, Load(gate) as second, Load(gate) as event:
        for stream in (first, second):
            stream.stays()
            stream.add(25)
        with pytest.raises(Refusal, match="50 bytes of streams are under way"):
            first.add(1)
        event.add(50)
