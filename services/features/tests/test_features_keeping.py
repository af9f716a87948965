"""What becomes of events in the lake: appended by size, age and quiet, held back where they do not fit. Memory adapters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from millstream.codecs.codec import JSON
from millstream.project import Stream
from millstream.runtime.delivery import Hold
from millstream_features.adapters.memory import MemoryHistory
from millstream_features.errors import LakeUnavailable
from millstream_features.handlers import KeepInLake, TidyLake
from millstream_features.ports import Slice

from .features_story import DEPARTED, NAMES, STREAMS, batch, departure, metrics


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


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
