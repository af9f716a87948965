"""What becomes of events in the tiles: in parts, once each, in order, and again where the store was away or lost them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial

import pytest
from prometheus_client import CollectorRegistry

from millstream.codecs.codec import JSON
from millstream.runtime.delivery import Batch, Rejected, Rewind
from millstream_features.adapters.memory import MemoryTiles
from millstream_features.errors import StoreUnavailable
from millstream_features.handlers import ApplyToTiles, LookBack, parts_of
from millstream_features.handlers import tiles as handlers
from millstream_features.metrics import FeatureMetrics
from millstream_features.ports import Applied, Slice

from .features_story import DEPARTED, HOUR, MINUTE, NAMES, NOON, STREAMS, FakeRecord, Outbox, batch, departure, metrics


class Waiting:
    """A handler, and the end of what is on its way."""

    def __init__(self, handler: ApplyToTiles) -> None:
        self.handler = handler

    async def __call__(self, batch: Batch) -> Sequence[Rejected]:
        confirming = await self.handler(batch)
        await confirming.sent
        return confirming.rejected


def applying(tiles: MemoryTiles, outbox: Outbox | None = None, measured: FeatureMetrics | None = None) -> Waiting:
    return Waiting(
        ApplyToTiles(
            streams=STREAMS,
            names=NAMES,
            views={DEPARTED.name: ["by_aircraft"]},
            tiles=tiles,
            publisher=outbox or Outbox(),  # type: ignore[arg-type]
            metrics=measured or metrics(),
            codecs=dict.fromkeys(STREAMS, JSON),
        )
    )


async def test_a_departure_is_applied_once_however_often_it_is_delivered() -> None:
    tiles = MemoryTiles()
    handle = applying(tiles)
    for _ in range(3):
        assert not await handle(batch(departure(0), departure(1)))
    assert [e.event["flight_id"] for e in tiles.events] == ["F0", "F1"]


async def test_a_large_batch_is_applied_in_parts_that_leave_no_offset_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handlers, "PART", 2)
    tiles = MemoryTiles()
    with_gaps = Batch(DEPARTED.name, 0, 0, 12, [departure(n) for n in (1, 2, 5, 8, 9)])
    assert [(part.start, part.end) for part in parts_of(with_gaps, 2)] == [(0, 2), (3, 8), (9, 12)]
    assert not await applying(tiles)(with_gaps)
    assert [event.event["flight_id"] for event in tiles.events] == ["F1", "F2", "F5", "F8", "F9"]
    assert tiles.fences[DEPARTED.name, 0] == 12


async def test_a_view_says_how_fresh_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = CollectorRegistry()
    handle = applying(MemoryTiles(), measured=FeatureMetrics(registry))
    now = NOON / 1e6 + 90
    clocked = partial(FeatureMetrics.applied_now, clock=lambda: now)
    monkeypatch.setattr(FeatureMetrics, "applied_now", lambda self, view, **said: clocked(self, view, **said))

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(name, {"view": "by_aircraft", **labels})

    assert value("millstream_view_behind_seconds") is None
    slow, fresh = departure(0), departure(1, known=NOON + MINUTE + 20_000_000)
    slow.timestamp, fresh.timestamp = NOON // 1000 + 30_000, NOON // 1000 + 89_000
    await handle(batch(slow, fresh))
    assert value("millstream_view_behind_seconds") == 10.0
    assert value("millstream_event_readable_seconds_sum") == 60.0, "of the slower one"
    now += 3600
    assert value("millstream_view_behind_seconds") == 3610.0, "grows by itself"
    await handle(batch(departure(0), departure(1)))
    assert value("millstream_event_readable_seconds_count") == 1.0, "a repeated batch made nothing readable"
    await handle(batch(departure(2, left=NOON - HOUR)))
    assert value("millstream_view_behind_seconds") == 3610.0, "an older event takes nothing back"


async def test_a_store_that_fails_between_two_parts_is_told_the_rest_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handlers, "PART", 2)
    tiles = MemoryTiles()
    apply, calls = tiles.apply, 0

    async def sometimes(part: Slice, after: asyncio.Future[None] | None) -> Applied:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise StoreUnavailable("Valkey is away")
        return await apply(part, after)

    monkeypatch.setattr(tiles, "apply", sometimes)
    flights = batch(*(departure(n) for n in range(6)))
    with pytest.raises(StoreUnavailable):
        await applying(tiles)(flights)
    assert [event.event["flight_id"] for event in tiles.events] == ["F0", "F1"], (
        "no part is begun after one that failed"
    )
    await applying(tiles)(flights)
    assert [event.event["flight_id"] for event in tiles.events] == [f"F{n}" for n in range(6)]


async def test_a_part_is_made_while_the_store_has_the_one_before_and_no_more_than_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(handlers, "PART", 2)
    monkeypatch.setattr(handlers, "PIECE", 1)
    tiles, store_answers = MemoryTiles(), asyncio.Event()
    apply, made = tiles.apply, list[int]()

    async def slow(part: Slice, after: asyncio.Future[None] | None) -> Applied:
        made.append(part.start)
        if after is not None:
            await after
        await store_answers.wait()
        return await apply(part)

    monkeypatch.setattr(tiles, "apply", slow)
    handling = asyncio.create_task(applying(tiles)(batch(*(departure(n) for n in range(8)))))
    for _ in range(50):
        await asyncio.sleep(0)
    assert (made, tiles.fences) == ([0, 2], {}), "one is with the store, one is ready for it"
    store_answers.set()
    assert not await handling
    assert [event.event["flight_id"] for event in tiles.events] == [f"F{n}" for n in range(8)]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"\xff\xfe", "bad_json"),
        (b'{"flight_id": "\xff"}', "invalid_utf8"),
        (b'{"flight_id": "F1"', "bad_json"),
        (b"[" * 100_000, "too_deep"),
        (None, "bad_json"),
        (b'{"flight_id": 7, "departed_at": "2013-06-01T12:00:00Z", "tailnum": "N1"}', "schema"),
        (b'{"flight_id": "F1", "departed_at": "yesterday", "tailnum": "N1"}', "schema"),
        (b'{"flight_id": "F1", "departed_at": "2013-06-01T13:00:00Z", "tailnum": "N1"}', "too_early"),
    ],
)
async def test_what_a_stranger_wrote_is_dead_lettered_and_its_neighbours_are_applied(
    value: bytes | None, reason: str
) -> None:
    tiles = MemoryTiles()
    rejected = await applying(tiles)(batch(departure(0), FakeRecord(value, 1), departure(2)))
    assert [(r.record.offset, r.error.reason) for r in rejected] == [(1, reason)]
    assert [e.record.offset for e in tiles.events] == [0, 2]


@pytest.mark.parametrize("depth", [100, 1_000, 5_000, 100_000])
async def test_however_deep_a_stranger_nests_it_is_a_dead_letter(depth: int) -> None:
    """Also where the rest of the event is good. Ingest refuses it by the same bound."""
    tiles = MemoryTiles()
    good = departure(1).value or b""
    deep = FakeRecord(good[:-1] + b', "extra": ' + b"[" * depth + b"]" * depth + b"}", 1)
    (rejected,) = await applying(tiles)(batch(departure(0), deep, departure(2)))
    assert rejected.error.reason == "too_deep"
    assert [e.record.offset for e in tiles.events] == [0, 2]


@pytest.mark.parametrize("value", [b"\xff", b"noon", b"2013-06-01T12:00:00"])
async def test_a_known_at_that_is_no_time_is_dead_lettered(value: bytes) -> None:
    strange = FakeRecord(departure(0).value, 0, headers=[("ce_knownat", value)])
    rejected = await applying(MemoryTiles())(batch(strange))
    assert [r.error.reason for r in rejected] == ["bad_headers"]


async def test_a_departure_known_two_hours_later_is_reported_late_as_it_came() -> None:
    outbox = Outbox()
    late = departure(0, known=NOON + 2 * HOUR)
    await applying(MemoryTiles(), outbox)(batch(late, departure(1, known=NOON + HOUR)))
    assert [(o.topic, o.value) for o in outbox.sent] == [("flights-departed-late", late.value)]


class Flapping(MemoryTiles):
    """Says of each step whether it gets there; of every call it remembers which."""

    def __init__(self) -> None:
        super().__init__()
        self.away = False
        self.asked: list[int] = []
        self.answers = asyncio.Event()

    async def apply(self, batch: Slice, after: asyncio.Future[None] | None = None) -> Applied:
        if after is not None:
            await after
        self.asked.append(batch.start)
        await self.answers.wait()
        if self.away:
            raise StoreUnavailable("Valkey is away")
        return await super().apply(batch)


async def test_who_comes_behind_a_step_that_failed_never_asks_the_store_without_it() -> None:
    """It would hear that offsets are missing, and hearing so twice means that Kafka has lost them."""
    tiles = Flapping()
    handle = applying(tiles).handler
    for _ in range(3):
        tiles.away = True
        tiles.answers.clear()
        first = await handle(batch(departure(0), departure(1)))
        behind = asyncio.create_task(handle(batch(departure(2))))
        await asyncio.sleep(0.01)
        tiles.answers.set()
        with pytest.raises(StoreUnavailable):
            await first.sent
        with pytest.raises(Rewind) as back:
            await behind
        assert back.value.offset == 0
    assert tiles.asked == [0, 0, 0]
    tiles.away = False
    await (await handle(batch(departure(0), departure(1)))).sent
    await (await handle(batch(departure(2)))).sent
    assert (tiles.asked[3:], tiles.fences) == ([0, 2], {(DEPARTED.name, 0): 2})


async def test_a_step_that_failed_long_ago_keeps_nobody_out() -> None:
    tiles = Flapping()
    tiles.away = True
    tiles.answers.set()
    handle = applying(tiles).handler
    with pytest.raises(StoreUnavailable):
        await (await handle(batch(departure(0)))).sent
    tiles.away = False
    with pytest.raises(Rewind):
        await handle(batch(departure(1)))
    for flights in (batch(departure(0)), batch(departure(1))):
        await (await handle(flights)).sent
    assert tiles.fences == {(DEPARTED.name, 0): 1}


async def test_a_store_that_lost_its_data_is_fed_again_from_its_own_position() -> None:
    tiles = MemoryTiles()
    handle = applying(tiles)
    await handle(batch(departure(0), departure(1)))
    tiles.fences.clear()
    with pytest.raises(Rewind) as back:
        await handle(batch(departure(2)))
    assert back.value.offset == 0


async def test_an_event_known_before_it_happened_is_known_when_it_happened() -> None:
    tiles = MemoryTiles()
    await applying(tiles)(batch(departure(0, known=NOON - 3 * MINUTE)))
    assert tiles.events[0].known_at == NOON


class Heard:
    """A subscription that has handled three records of one partition."""

    def __init__(self) -> None:
        self.next = {(DEPARTED.name, 0): 3}
        self.rewound: dict[tuple[str, int], int] = {}

    def handled(self) -> dict[tuple[str, int], int]:
        return dict(self.next)

    def rewind(self, starts: Mapping[tuple[str, int], int]) -> None:
        self.rewound |= starts


async def test_a_store_that_lost_what_it_had_is_filled_again_though_nothing_comes() -> None:
    tiles, heard = MemoryTiles(), Heard()
    apply = applying(tiles)
    look = LookBack(tiles, [heard])
    await apply(batch(departure(0), departure(1), departure(2)))
    await look.look()
    assert heard.rewound == {}, "it has all of it"
    tiles.fences[DEPARTED.name, 0] = 0
    await look.look()
    assert heard.rewound == {(DEPARTED.name, 0): 1}, "a replica was promoted that had seen the first record alone"
    tiles.fences.clear()
    await look.look()
    assert heard.rewound == {(DEPARTED.name, 0): 0}


async def test_a_worker_starts_behind_what_the_windows_have_whatever_kafka_was_told() -> None:
    tiles = MemoryTiles()
    apply = applying(tiles)
    await apply(batch(departure(0), departure(1)))
    assert await apply.handler.assigned([(DEPARTED.name, 0), (DEPARTED.name, 1)]) == {
        (DEPARTED.name, 0): 2,
        (DEPARTED.name, 1): 0,
    }
