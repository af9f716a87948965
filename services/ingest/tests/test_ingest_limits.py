"""What is under way at once is bounded: a flood is told to come back, and slow clients hold no place for ever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from millstream.errors import Refusal
from millstream_ingest.domain.gate import Gate

from .conftest import Airport, departure
from .test_ingest_retries import HeldLog


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

    with gate.enter() as first, gate.enter() as second:
        first.add(60)
        second.add(40)
        with pytest.raises(Refusal, match="100 bytes of requests are under way"):
            second.add(1)

    assert (gate.requests, gate.bytes) == (0, 0)


def test_a_request_that_fails_leaves_its_place() -> None:
    gate = Gate(requests=1, bytes=100)

    def fails() -> None:
        with gate.enter() as load:
            load.add(50)
            raise ZeroDivisionError

    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            fails()

    assert (gate.requests, gate.bytes) == (0, 0)


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
