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

from .proof_mill import MUTANT, Mill


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


GUARDS = [
    "the fence",
    "apply before commit",
    "known-at",
    "the left edge online",
    "the left edge offline",
    # Half a minute each until the right flights meet.
    pytest.param("the ids", marks=[pytest.mark.prove, pytest.mark.timeout(900)]),
    pytest.param("the lateness", marks=[pytest.mark.prove, pytest.mark.timeout(900)]),
]


@pytest.mark.parametrize("guard", GUARDS)
def test_without_a_guard_the_proof_fails(guard: str) -> None:
    with without(guard) as broken, pytest.raises(AssertionError):
        run_state_machine_as_test(broken, settings=MUTANT)
