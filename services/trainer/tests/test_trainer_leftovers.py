"""A run that is killed between its package and its word leaves a package that nobody asks for: it is swept, and no other is."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from millstream.contracts.events import Outcome, RolloutMoved, TrainingFinished
from millstream.runtime.packages import PackageStore
from millstream_trainer.domain.package import is_unclaimed, name_of
from millstream_trainer.domain.run import RunResult, RunSpec
from millstream_trainer.handlers.leftovers import sweep_leftovers

from .trainer_kit import Office, loses, passes

Until = Callable[[Callable[[], bool]], Any]
LONG_AGO = 7200.0


class Yard:
    """Packages on a disk, and runs that leave theirs there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = PackageStore(str(folder))

    def leaves(self, spec: RunSpec) -> None:
        uri, _ = self.store.save(f"{spec.loop}/{name_of(spec)}", {"manifest.json": b"{}"})
        os.utime(uri.removeprefix("file://"), (time.time() - LONG_AGO,) * 2)

    def killed(self, spec: RunSpec) -> str:
        self.leaves(spec)
        return "the training process ended with signal 9"

    def rejected(self, spec: RunSpec) -> RunResult:
        self.leaves(spec)
        return loses(spec)

    def promoted(self, spec: RunSpec) -> RunResult:
        self.leaves(spec)
        return passes(spec)

    @property
    def names(self) -> list[str]:
        return sorted(path.name for path in self.folder.glob("tides/*"))

    def sweep(self, office: Office, older_than: float = LONG_AGO / 2) -> int:
        return self.store.sweep(older_than, lambda loop, name: is_unclaimed(office.trainer.states[loop], name))


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    return Yard(tmp_path / "packages")


async def ran(office: Office, tides: Any, until: Until) -> TrainingFinished:
    async with office.at_work():
        await office.trainer.hear(tides.matured(10))
        await until(office.ended())
    [finished] = office.announcer.of(TrainingFinished)
    return finished


async def test_the_package_of_a_run_that_failed_is_swept_once_no_zombie_still_writes(
    yard: Yard, tides: Any, until: Until
) -> None:
    office = Office(tides.rules, yard.killed)
    finished = await ran(office, tides, until)
    assert finished.outcome is Outcome.FAILED
    assert len(yard.names) == 1
    assert yard.sweep(office, older_than=2 * LONG_AGO) == 0
    assert yard.sweep(office) == 1
    assert yard.names == []


@pytest.mark.parametrize("ends", ["rejected", "promoted"])
async def test_the_package_of_a_run_that_came_to_its_end_stays(yard: Yard, tides: Any, until: Until, ends: str) -> None:
    office = Office(tides.rules, getattr(yard, ends))
    await ran(office, tides, until)
    assert (ends == "promoted") is bool(office.announcer.of(RolloutMoved))
    assert yard.sweep(office) == 0
    assert len(yard.names) == 1


async def test_what_an_earlier_attempt_left_is_swept_and_the_last_ones_package_is_not(
    yard: Yard, tides: Any, until: Until
) -> None:
    """The first attempt's trainer is killed with it; nothing is swept while the second may still be under way."""
    started: list[RunSpec] = []

    def hangs(spec: RunSpec) -> RunResult:
        yard.leaves(spec)
        started.append(spec)
        raise asyncio.CancelledError

    first = Office(tides.rules, hangs)
    async with first.at_work():
        await first.trainer.hear(tides.matured(10))
        await until(lambda: bool(started))
    assert yard.sweep(first) == 0, "the run may still say that it ended"
    second = first.restarted(yard.rejected)
    await second.trainer.resume()
    async with second.at_work():
        await until(second.ended())
    assert [name[-2:] for name in yard.names] == ["-1", "-2"]
    assert yard.sweep(second) == 1
    assert [name[-2:] for name in yard.names] == ["-2"]


async def test_packages_that_the_journal_does_not_know_are_left_alone(yard: Yard, tides: Any, until: Until) -> None:
    office = Office(tides.rules, yard.killed)
    await ran(office, tides, until)
    kept = ["7-0123456789ab-1", "by-hand", "1-zzz"]
    for name in kept:
        yard.store.save(f"tides/{name}", {"manifest.json": b"{}"})
        os.utime(yard.folder / "tides" / name, (time.time() - LONG_AGO,) * 2)
    assert yard.sweep(office) == 1
    assert yard.names == sorted(kept)


async def test_the_trainer_sweeps_by_itself(yard: Yard, tides: Any, until: Until) -> None:
    office = Office(tides.rules, yard.killed)
    await ran(office, tides, until)
    sweeping = asyncio.create_task(sweep_leftovers(yard.store, LONG_AGO / 2, lambda: office.trainer.states))
    await until(lambda: yard.names == [])
    sweeping.cancel()
    await asyncio.gather(sweeping, return_exceptions=True)
