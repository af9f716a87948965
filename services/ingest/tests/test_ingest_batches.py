"""Many events in one request: each gets its own answer, and none its neighbour's."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import httpx
import pytest

from millstream.runtime.publisher import Outgoing
from millstream_ingest.handlers import Admission, Admitted
from millstream_ingest.handlers.accept import BREATH

from .conftest import Airport, departure, lines

ARRAY = "application/json"


def outcomes(answer: httpx.Response) -> list[tuple[int, str, str | None]]:
    results = answer.json()["results"]
    return [(r["index"], r["status"], r["id"] if "id" in r else r["error"]["code"]) for r in results]


async def test_good_events_are_taken_although_their_neighbours_are_not(airport: Airport) -> None:
    body = lines(departure(flight_id="a"), departure(flight_id="b", dep_delay="two"), departure(flight_id="c"))

    answer = await airport.batch(body + b'\n {"flight_id": \r\n' + lines(departure(flight_id="d")))

    assert answer.status_code == 207
    assert outcomes(answer) == [
        (0, "accepted", "a"),
        (1, "rejected", "schema"),
        (2, "accepted", "c"),
        (3, "rejected", "bad_json"),
        (4, "accepted", "d"),
    ]
    assert (answer.json()["accepted"], answer.json()["rejected"]) == (3, 2)
    assert [json.loads(entry.value)["flight_id"] for entry in airport.log.entries] == ["a", "c", "d"]
    assert airport.counted("millstream_events_accepted_total", stream="flights-departed") == 3


async def test_an_array_is_answered_like_lines(airport: Airport) -> None:
    events = [departure(flight_id="a"), "no event", departure(flight_id="b"), departure(tailnum=None)]
    other = Airport()

    by_array = await airport.batch(json.dumps(events).encode(), ARRAY)
    async with other.http:
        by_lines = await other.batch(lines(*events))

    assert by_array.json() == by_lines.json()
    assert outcomes(by_array)[1] == (1, "rejected", "not_an_object")
    assert airport.log.entries == other.log.entries


async def test_all_accepted_is_202_and_all_rejected_422(airport: Airport) -> None:
    assert (await airport.batch(lines(departure(), departure()))).status_code == 202
    assert (await airport.batch(lines({}, 5))).status_code == 422


async def test_one_event_that_is_no_utf8_does_not_spoil_an_array(airport: Airport) -> None:
    body = b"[" + json.dumps(departure()).encode() + b', {"flight_id": "\xff"}]'

    assert outcomes(await airport.batch(body, ARRAY))[1] == (1, "rejected", "invalid_utf8")


@pytest.mark.parametrize(
    ("body", "kind", "status", "code"),
    [
        (b"", "application/x-ndjson", 400, "empty_batch"),
        (b"\n \n\r\n", "application/x-ndjson", 400, "empty_batch"),
        (b"[]", ARRAY, 400, "empty_batch"),
        (b"", ARRAY, 400, "bad_json"),
        (b'[{"flight_id": 1}, {', ARRAY, 400, "bad_json"),
        (b'{"flight_id": 1}', ARRAY, 400, "bad_json"),
        (b"[" * 50_000, ARRAY, 422, "too_deep"),
        (b"{}\n" * 10_001, "application/x-ndjson", 413, "too_many_events"),
        (b"\n" * 10_001, "application/x-ndjson", 413, "too_many_events"),
        (b"[" + b"1," * 10_000 + b"1]", ARRAY, 413, "too_many_events"),
        (b"[" + b"[]," * 500_000 + b"[]]", ARRAY, 413, "too_many_values"),
        (b" " * (16 * 1024 * 1024 + 1), ARRAY, 413, "body_too_large"),
    ],
    ids=lambda value: value[:12].decode() if isinstance(value, bytes) else str(value),
)
async def test_a_body_that_is_no_batch_is_refused_whole(
    airport: Airport, body: bytes, kind: str, status: int, code: str
) -> None:
    answer = await airport.batch(body, kind)

    assert (answer.status_code, answer.json()["error"]) == (status, code)
    assert airport.log.entries == []


async def test_ten_thousand_events_are_one_batch(airport: Airport) -> None:
    answer = await airport.batch(lines(*(departure(flight_id=str(number)) for number in range(10_000))))

    assert (answer.status_code, answer.json()["accepted"]) == (202, 10_000)
    assert len(airport.log.entries) == 10_000


async def test_a_silent_kafka_makes_the_whole_batch_unknown(airport: Airport) -> None:
    airport.log.silent = True

    answer = await airport.batch(lines(departure(), {}))

    assert (answer.status_code, answer.json()["outcome"]) == (503, "unknown")


async def test_known_at_of_a_replay_is_on_every_event_of_the_batch(replayed_airport: Airport) -> None:
    await replayed_airport.batch(lines(departure(), departure(flight_id="b")), ce_knownat="2013-01-01T11:00:00Z")

    assert len(replayed_airport.log.entries) == 2
    for entry in replayed_airport.log.entries:
        assert ("ce_knownat", b"2013-01-01T11:00:00Z") in entry.headers


async def test_large_batches_go_one_after_another_and_small_ones_between_them() -> None:
    airport, written = Airport(), []

    async def append(entries: Sequence[Outgoing]) -> None:
        written.append((json.loads(entries[0].value)["flight_id"], len(entries), admitted["UA"]))

    airport.log.append = append  # type: ignore[method-assign]
    admitted = Counter()
    admit = Admission.admit

    def counted(self: Admission, raw: bytes, *rest: Any) -> Admitted:
        found = admit(self, raw, *rest)
        admitted[found.id[:2]] += 1
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Admission, "admit", counted)
        named = [("B6", 2 * BREATH), ("UA", 2 * BREATH), ("WN", 3)]
        bodies = [lines(*(departure(flight_id=f"{name}-{n}") for n in range(count))) for name, count in named]
        async with airport.http:
            answers = await asyncio.gather(*(airport.batch(body) for body in bodies))

    assert [answer.status_code for answer in answers] == [202, 202, 202]
    assert [(id, size) for id, size, _ in written] == [("WN-0", 3), ("B6-0", 2 * BREATH), ("UA-0", 2 * BREATH)]
    assert written[1][2] == 0, (
        "the first is on its way to Kafka before the second is looked at: the core never waits for both"
    )
