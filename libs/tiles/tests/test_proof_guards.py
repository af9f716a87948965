"""Each guard is taken away in turn, and the proof must fail: one that cannot fail proves nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import polars as pl
import pytest
from hypothesis.stateful import run_state_machine_as_test

import millstream_tiles.join as join
import millstream_tiles.join_events as join_events
import millstream_tiles.windows as windows
from millstream_tiles import MemoryTileStore, View
from millstream_tiles.partials import TileBatch

from .proof_mill import HOUR, MINUTE, MUTANT, Mill


class Forgetful(MemoryTileStore):
    """Takes every batch as new."""

    def check_fence(self, batch: TileBatch, fence: object) -> None:
        return None


class Unknowing(MemoryTileStore):
    """Remembers no id."""

    async def apply(self, batch: TileBatch, *, group: str) -> Any:
        return await super().apply(replace(batch, ids={}), group=group)


@contextmanager
def without(guard: str) -> Iterator[type[Mill]]:
    """The mill with one guard taken away."""
    with pytest.MonkeyPatch.context() as patch:
        kind: dict[str, Any] = {}
        if guard == "the fence":
            kind["memory"] = Forgetful
        elif guard == "the ids":
            kind["memory"] = Unknowing
        elif guard == "apply before commit":
            kind["commits_first"] = True
        elif guard == "known-at":
            real = join_events.on_time_once

            def at_event_time(events: pl.DataFrame, **how: Any) -> pl.DataFrame:
                return real(events, **how).with_columns(_known_at=pl.col("_event_time"))

            patch.setattr("millstream_tiles.history.on_time_once", at_event_time)
        elif guard == "the left edge online":
            patch.setattr(windows._Expanded, "between", _from_one_before(windows._Expanded.between))
        elif guard == "the left edge offline":
            patch.setattr(join._Sorted, "position", _one_late(join._Sorted.position))
        elif guard == "the lateness":
            patch.setattr(View, "is_late", lambda self, event_time, known_at: False)
        yield type("Broken", (Mill,), kind)


def _from_one_before(real: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self, first, last: real(self, first - 1, last)


def _one_late(real: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self, codes, at: real(self, codes, at + 1)


STORIES: dict[str, Callable[[Mill], None]] = {}
"""Guard -> the shortest story in which it is missed."""


def missed_when(guard: str) -> Callable[[Callable[[Mill], None]], Callable[[Mill], None]]:
    def keep(story: Callable[[Mill], None]) -> Callable[[Mill], None]:
        STORIES[guard] = story
        return story

    return keep


def departs(mill: Mill, flight: int | None = None, *, partition: int = 0, pause: int = 0, age: int = 0) -> None:
    mill.depart(flight=flight, origin="JFK", delay=5.0, partition=partition, pause=pause, age=age)


@missed_when("the fence")
def two_workers_apply_one_record(mill: Mill) -> None:
    departs(mill)
    mill.apply(0, 0, 1, None)
    mill.apply(1, 0, 1, None)


@missed_when("the ids")
def one_flight_is_told_in_two_partitions(mill: Mill) -> None:
    for partition in (0, 1):
        departs(mill, 1, partition=partition)
        mill.apply(0, partition, 1, None)


@missed_when("apply before commit")
def a_worker_dies_before_it_applies(mill: Mill) -> None:
    departs(mill)
    mill.apply(0, 0, 1, "before")
    departs(mill)
    mill.apply(0, 0, 2, None)


@missed_when("known-at")
def a_record_comes_nine_minutes_late(mill: Mill) -> None:
    departs(mill, age=9 * MINUTE)
    mill.all_is_told(0)


@missed_when("the left edge online")
@missed_when("the left edge offline")
def a_flight_left_an_hour_ago(mill: Mill) -> None:
    departs(mill)
    departs(mill, pause=HOUR)
    mill.all_is_told(0)


@missed_when("the lateness")
def a_record_comes_too_late(mill: Mill) -> None:
    departs(mill, age=31 * MINUTE)
    mill.all_is_told(0)


def played(kind: type[Mill], story: Callable[[Mill], None]) -> None:
    mill = kind()
    try:
        mill.open()
        story(mill)
        mill.tiles_say_what_a_recount_of_what_was_applied_says()
    finally:
        mill.teardown()


@pytest.mark.parametrize("guard", STORIES)
def test_without_a_guard_its_story_ends_badly(guard: str) -> None:
    played(Mill, STORIES[guard])
    with without(guard) as broken, pytest.raises(AssertionError):
        played(broken, STORIES[guard])


@pytest.mark.prove
@pytest.mark.timeout(900)
@pytest.mark.parametrize("guard", STORIES)
def test_without_a_guard_the_proof_finds_such_a_story_by_itself(guard: str) -> None:
    with without(guard) as broken, pytest.raises(AssertionError):
        run_state_machine_as_test(broken, settings=MUTANT)
