"""What features does with a batch, told with memory adapters."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import pytest
from prometheus_client import CollectorRegistry

from millstream.codecs.codec import JSON
from millstream.project import Stream
from millstream.runtime.delivery import Batch, Hold, Rejected, Rewind
from millstream_features.adapters.memory import MemoryHistory, MemoryTiles
from millstream_features.errors import LakeUnavailable, StoreUnavailable
from millstream_features.handlers import ApplyToTiles, KeepInLake, LookBack, TidyLake, parts_of
from millstream_features.handlers import tiles as handlers
from millstream_features.metrics import FeatureMetrics
from millstream_features.ports import Applied, Slice

from .features_story import DEPARTED, HOUR, MINUTE, NAMES, NOON, STREAMS, FakeRecord, Outbox, batch, departure, metrics


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


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


def keeping(
    history: MemoryHistory,
    clock: Clock,
    *,
    rows: int = 100,
    buffer_rows: int = 1000,
    streams: Mapping[str, Stream] = STREAMS,
) -> KeepInLake:
    return KeepInLake(
        streams=streams,
        names=dict.fromkeys(streams, NAMES[DEPARTED.name]),
        history=history,
        metrics=metrics(),
        codecs=dict.fromkeys(streams, JSON),
        rows=rows,
        age=10.0,
        quiet=0.25,
        buffer_rows=buffer_rows,
        clock=clock,
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


async def test_rows_wait_until_the_input_goes_quiet() -> None:
    history, clock = MemoryHistory(), Clock()
    keep = keeping(history, clock)
    await keep(batch(departure(0)))
    assert not keep.due()
    clock.now += 0.3
    assert keep.due()
    await keep.flush()
    assert [e.event["flight_id"] for e in history.rows[DEPARTED.name]] == ["F0"]
    assert not keep.due()


async def test_a_busy_stream_is_appended_by_age_and_by_size() -> None:
    history, clock = MemoryHistory(), Clock()
    keep = keeping(history, clock, rows=3)
    await keep(batch(departure(0)))
    for offset in range(1, 51):
        clock.now += 0.2
        if offset > 2:
            break
        await keep(batch(departure(offset)))
    assert keep.due()
    await keep.flush()
    await keep(batch(departure(3)))
    for _ in range(60):
        clock.now += 0.2
        keep._newest = clock.now  # something else keeps arriving
    assert keep.due()


async def test_many_ticks_become_one_commit() -> None:
    history, clock = MemoryHistory(), Clock()
    keep = keeping(history, clock)
    for offset in range(20):
        await keep(batch(departure(offset)))
    await keep.flush()
    assert history.commits == 1
    assert len(history.rows[DEPARTED.name]) == 20


async def test_a_lake_that_is_away_keeps_the_rows_in_hand_and_then_stops_the_reading() -> None:
    history, clock = MemoryHistory(), Clock()
    keep = keeping(history, clock, buffer_rows=2)
    await keep(batch(departure(0), departure(1)))
    history.away = True
    with pytest.raises(LakeUnavailable):
        await keep(batch(departure(2)))
    history.away = False
    await keep(batch(departure(2)))
    await keep.flush()
    assert [e.record.offset for e in history.rows[DEPARTED.name]] == [0, 1, 2]


async def test_a_new_owner_starts_behind_what_the_lake_has() -> None:
    history, clock = MemoryHistory(), Clock()
    first = keeping(history, clock)
    await first(batch(departure(0), departure(1)))
    await first.flush()
    await first(batch(departure(2)))  # in hand when its process dies
    second = keeping(history, clock)
    assert await second.assigned([(DEPARTED.name, 0), (DEPARTED.name, 1)]) == {
        (DEPARTED.name, 0): 2,
        (DEPARTED.name, 1): 0,
    }


async def test_a_zombie_that_flushes_late_adds_nothing() -> None:
    history, clock = MemoryHistory(), Clock()
    zombie, owner = keeping(history, clock), keeping(history, clock)
    await zombie(batch(departure(0)))
    await owner(batch(departure(0), departure(1)))
    await owner.flush()
    await zombie.flush()
    assert [e.record.offset for e in history.rows[DEPARTED.name]] == [0, 1]


async def test_an_event_known_before_it_happened_is_known_when_it_happened() -> None:
    tiles = MemoryTiles()
    await applying(tiles)(batch(departure(0, known=NOON - 3 * MINUTE)))
    assert tiles.events[0].known_at == NOON


async def test_a_stream_that_does_not_fit_its_table_is_held_back_alone() -> None:
    """Known at the assignment for one, at the append for the other: a newer replica was first with its column."""
    history, clock, other = MemoryHistory(), Clock(), "flights-landed"
    history.refuses[DEPARTED.name] = "'dep_delay' is text in the lake"
    keep = keeping(history, clock, streams=STREAMS | {other: DEPARTED, "gates": DEPARTED})
    await keep.assigned([(name, 0) for name in (DEPARTED.name, other, "gates")])
    with pytest.raises(Hold, match="'dep_delay' is text in the lake"):
        await keep(batch(departure(0)))
    history.refuses["gates"] = "'gate' is a number in the lake"
    await keep(batch(replace(departure(0), topic="gates")))
    await keep(batch(replace(departure(0), topic=other)))
    await keep.flush()
    with pytest.raises(Hold, match="'gate' is a number"):
        await keep(batch(replace(departure(1), topic="gates")))
    assert list(history.rows) == [other]
    assert not keep.due(), "what is held back is Kafka's to keep, not ours"
    history.refuses.clear()
    starts = await keep.assigned([(DEPARTED.name, 0), ("gates", 0)])
    assert starts == {(DEPARTED.name, 0): 0, ("gates", 0): 0}, "nothing of them was kept, so all of it is read again"
    await keep(batch(replace(departure(0), topic="gates")))


async def test_a_table_that_cannot_be_written_does_not_keep_the_next_one_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    history, clock, other = MemoryHistory(), Clock(), "flights-landed"
    append = history.append

    async def one_away(slices: Sequence[Slice]) -> None:
        if slices[0].stream == DEPARTED.name:
            raise LakeUnavailable("away")
        await append(slices)

    monkeypatch.setattr(history, "append", one_away)
    keep = keeping(history, clock, streams=STREAMS | {other: DEPARTED})
    await keep(batch(departure(0)))
    await keep(batch(replace(departure(0), topic=other)))
    with pytest.raises(LakeUnavailable):
        await keep.flush()
    assert list(history.rows) == [other]
    monkeypatch.undo()
    await keep.flush()
    assert set(history.rows) == {other, DEPARTED.name}
    assert history.commits == 2, "what was kept is not appended again"


async def test_a_table_is_tidied_by_who_has_its_first_partition_and_a_failure_is_for_the_next_time() -> None:
    history, seen = MemoryHistory(), metrics()
    keep = keeping(history, Clock(), streams=STREAMS)
    await keep.assigned([(DEPARTED.name, 1), (DEPARTED.name, 2)])
    assert keep.leads() == []
    await keep.assigned([(DEPARTED.name, 0), (DEPARTED.name, 1)])
    tidy = TidyLake(history=history, metrics=seen, streams=keep.leads, every=3600.0)
    history.away = True
    await tidy.tidy()
    assert seen.lake_untidied.labels(DEPARTED.name)._value.get() == 1
    history.away = False
    await tidy.tidy()
    assert seen.lake_untidied.labels(DEPARTED.name)._value.get() == 1


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
