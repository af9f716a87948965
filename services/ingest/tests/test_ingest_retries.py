"""A retry is answered as its first try was, and is not written again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

import pytest

from millstream.runtime.publisher import Outgoing
from millstream_ingest.adapters.memory import MemoryLog
from millstream_ingest.domain.replies import Replies, Reply
from millstream_ingest.domain.seen import Seen
from millstream_ingest.handlers.once import WAITING

from .conftest import Airport, departure, lines
from .test_ingest_keys import ADA, BOB, guarded, state

READING = b'{"gauge": 7, "at": "2013-01-01T10:00:00Z"}'


class HeldLog(MemoryLog):
    """Confirms, or fails, when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = asyncio.Event()
        self.confirm = asyncio.Event()

    async def append(self, entries: Sequence[Outgoing]) -> None:
        self.asked.set()
        await self.confirm.wait()
        await super().append(entries)


async def test_the_same_event_again_is_answered_and_not_written(airport: Airport) -> None:
    first = await airport.send(departure())
    again = await airport.send(departure())

    assert (again.status_code, again.content) == (first.status_code, first.content)
    assert ("idempotent-replayed" in first.headers, again.headers["idempotent-replayed"]) == (False, "true")
    assert len(airport.log.entries) == 1


async def test_an_event_of_the_same_id_that_says_something_else_is_another_record(airport: Airport) -> None:
    await airport.send(departure())
    await airport.send(departure(dep_delay=99))

    assert len(airport.log.entries) == 2, "readers decide: for them the first of an id counts"


async def test_a_batch_that_was_half_written_writes_the_other_half(airport: Airport) -> None:
    await airport.batch(lines(departure(flight_id="a")))

    answer = await airport.batch(lines(departure(flight_id="a"), departure(flight_id="b"), departure(flight_id="b")))

    assert (answer.status_code, answer.json()["accepted"]) == (202, 3)
    assert len(airport.log.entries) == 2


async def test_an_unknown_outcome_is_not_remembered(airport: Airport) -> None:
    airport.log.silent = True
    assert (await airport.send(departure(), idempotency_key="k")).status_code == 503

    airport.log.silent = False
    again = await airport.send(departure(), idempotency_key="k")

    assert (again.status_code, "idempotent-replayed" in again.headers) == (202, False)
    assert len(airport.log.entries) == 2


@pytest.mark.parametrize("key", [{}, {"idempotency_key": "one"}], ids=["by id", "by key"])
async def test_two_at_once_wait_for_the_first(monkeypatch: pytest.MonkeyPatch, key: dict[str, str]) -> None:
    airport, held = Airport(), HeldLog()
    monkeypatch.setattr(airport.log, "append", held.append)
    async with airport.http:
        tries = [asyncio.create_task(airport.send(departure(), **key)) for _ in range(3)]
        await held.asked.wait()
        held.confirm.set()
        answers = await asyncio.gather(*tries)

    assert [answer.status_code for answer in answers] == [202] * 3
    assert sum("idempotent-replayed" in answer.headers for answer in answers) == 2
    assert len(held.entries) == 1


async def test_a_first_try_that_fails_fails_those_who_waited_and_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    airport, held = Airport(), HeldLog()
    held.silent = True
    monkeypatch.setattr(airport.log, "append", held.append)
    async with airport.http:
        tries = [asyncio.create_task(airport.send(departure())) for _ in range(2)]
        await held.asked.wait()
        held.confirm.set()
        assert [answer.status_code for answer in await asyncio.gather(*tries)] == [503, 503]

        held.silent = False
        assert "idempotent-replayed" not in (await airport.send(departure())).headers


async def test_a_key_is_answered_with_the_first_answer_even_a_rejection(airport: Airport) -> None:
    body = lines(departure(flight_id="a"), {"flight_id": 7})

    first = await airport.batch(body, idempotency_key="batch-1")
    again = await airport.batch(body, idempotency_key="batch-1")

    assert (first.status_code, again.status_code) == (207, 207)
    assert again.content == first.content
    assert again.headers["idempotent-replayed"] == "true"
    assert len(airport.log.entries) == 1


async def test_a_key_with_another_body_is_refused(airport: Airport) -> None:
    await airport.send(departure(), idempotency_key="one")

    answer = await airport.send(departure(flight_id="other"), idempotency_key="one")

    assert (answer.status_code, answer.json()["error"]) == (422, "idempotency_mismatch")
    assert len(airport.log.entries) == 1


@pytest.mark.parametrize("key", ["", "x" * 256, "two words"])
async def test_a_key_that_is_none_is_refused(airport: Airport, key: str) -> None:
    answer = await airport.send(departure(), idempotency_key=key)

    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_idempotency_key")


async def test_a_stream_takes_no_key(airport: Airport) -> None:
    answer = await airport.post(
        "flights-departed/events", lines(departure()), content_type="application/x-ndjson", idempotency_key="one"
    )

    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_idempotency_key")
    assert airport.log.entries == []


@pytest.mark.parametrize("same", [True, False], ids=["and of the same body", "and of another body"])
async def test_a_key_is_its_producer_s_own(same: bool) -> None:
    """Two producers that count their requests from one: neither sees, or spoils, what the other was answered."""
    airport = guarded(state(ADA, "*"), state(BOB, "*"))
    events = [departure(), departure() if same else departure(flight_id="b")]
    async with airport.http:
        answers = [
            await airport.send(events[number], idempotency_key="1", x_api_key=key)
            for number, key in enumerate((ADA, BOB))
        ]
        retries = [
            await airport.send(events[number], idempotency_key="1", x_api_key=key)
            for number, key in enumerate((ADA, BOB))
        ]

    assert [answer.status_code for answer in answers + retries] == [202] * 4
    assert ["idempotent-replayed" in answer.headers for answer in answers + retries] == [False, False, True, True]
    assert [answer.content for answer in retries] == [answer.content for answer in answers]
    assert len(airport.log.entries) == 2


async def test_an_event_is_its_producer_s_own_until_readers_see_its_id() -> None:
    airport = guarded(state(ADA, "*"), state(BOB, "*"))
    async with airport.http:
        answers = [await airport.send(departure(), x_api_key=key) for key in (ADA, BOB, ADA)]
        streamed = await airport.post(
            "flights-departed/events", lines(departure()), content_type="application/x-ndjson", x_api_key=BOB
        )

    assert ["idempotent-replayed" in answer.headers for answer in answers] == [False, False, True]
    assert streamed.status_code == 200
    ids = [dict(entry.headers)["ce_id"] for entry in airport.log.entries]
    assert len(ids) == 2, "BOB's stream of lines says again what BOB said"
    assert len(set(ids)) == 1, "for readers it is one event"


def test_fingerprints_are_forgotten_by_time_and_by_number() -> None:
    seen = Seen(window=100, most=4)
    seen.forget(0)
    seen.add([1])
    seen.forget(99)
    assert 1 in seen
    seen.forget(100)
    assert 1 in seen, "at least one window, at most two"
    seen.forget(200)
    assert 1 not in seen

    for number in range(2, 100):
        seen.add([number])
    assert 99 in seen
    assert len(seen) <= 4


def test_replies_are_bounded_by_number_bytes_and_time() -> None:
    replies = Replies(window=100, most=2, most_bytes=10)
    replies.keep("a", Reply(b"", 202, b"12345"), 0)
    replies.keep("b", Reply(b"", 202, b"12345"), 1)
    assert replies.find("a", 2) is not None

    replies.keep("c", Reply(b"", 202, b"1"), 2)
    assert replies.find("a", 2) is None
    replies.keep("huge", Reply(b"", 202, b"x" * 11), 3)
    assert replies.find("huge", 3) is None
    assert replies.find("b", 101) is None
    assert len(replies) == 1


async def test_a_key_is_of_all_that_was_said_not_of_the_body_alone(airport: Airport) -> None:
    body = json.dumps(departure()).encode()
    await airport.post("flights-departed/batch", b"[" + body + b"]", idempotency_key="one")

    for path, kind in (
        ("flights-departed/batch", "application/cloudevents-batch+json"),
        ("flights-departed/batch?dry=1", "application/json"),
    ):
        answer = await airport.post(path, b"[" + body + b"]", content_type=kind, idempotency_key="one")
        assert (answer.status_code, answer.json()["error"]) == (422, "idempotency_mismatch")
    other = await airport.post("flights-departed/events", body, idempotency_key="one")
    assert "idempotent-replayed" in other.headers, "another path is another key; the event itself was there"
    said = {"ce-specversion": "1.0", "ce-source": "/gates", "ce-type": "t", "idempotency-key": "two"}
    await airport.post("sensor-readings/events", READING, **said, **{"ce-id": "1"})
    answer = await airport.post("sensor-readings/events", READING, **said, **{"ce-id": "2"})
    assert answer.json()["error"] == "idempotency_mismatch"


async def test_a_crowd_that_waits_for_one_key_is_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would hold every place that other producers need."""
    airport, held = Airport(max_requests=20), HeldLog()
    monkeypatch.setattr(airport.log, "append", held.append)
    async with airport.http:
        tries = [asyncio.create_task(airport.send(departure(), idempotency_key="one")) for _ in range(15)]
        await held.asked.wait()
        async with asyncio.timeout(30):
            while len([one for one in tries if one.done()]) < 15 - 1 - WAITING:  # noqa: ASYNC110
                await asyncio.sleep(0)
        held.confirm.set()
        answers = await asyncio.gather(*tries)

    assert sorted(answer.status_code for answer in answers) == [202] * (1 + WAITING) + [503] * (14 - WAITING)
    assert {answer.json()["error"] for answer in answers if answer.status_code == 503} == {"busy"}
    assert len(held.entries) == 1


async def test_a_cloudevent_is_known_by_its_source_and_its_id(airport: Airport) -> None:
    """Two gauges count their readings from one each; the stream has no id of its own."""
    said = {"ce-specversion": "1.0", "ce-type": "reading", "ce-id": "1"}
    for source in ("/gauges/7", "/gauges/8", "/gauges/7"):
        answer = await airport.post("sensor-readings/events", READING, **said, **{"ce-source": source})
        assert (answer.status_code, answer.json()["id"]) == (202, "1")

    assert [dict(entry.headers)["ce_source"] for entry in airport.log.entries] == [b"/gauges/7", b"/gauges/8"]
